"""A pool's metrics for Prometheus; needs ``prometheus_client``.

::

    from prometheus_client import REGISTRY, start_http_server
    from sqla_smartpool.integrations.prometheus import PoolCollector

    REGISTRY.register(PoolCollector(engine))
    start_http_server(9000)

Nothing is counted twice: a scrape reads what the pool knows of itself, and
between scrapes there is nothing to pay.
"""

from __future__ import annotations

import dataclasses
from itertools import accumulate
import threading
from typing import Any
from typing import Iterable
from typing import Iterator
from typing import Optional
from typing import Union
import weakref

from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import AsyncEngine

from .naming import name_of
from ..diagnosis import Cause
from ..histogram import BOUNDS
from ..histogram import Histogram
from ..observe import observer_of
from ..observe import sync_engine_of
from ..pool import SmartPool
from ..stats import PoolStats

try:
    from prometheus_client import Metric
    from prometheus_client.core import CounterMetricFamily
    from prometheus_client.core import GaugeMetricFamily
    from prometheus_client.core import HistogramMetricFamily
    from prometheus_client.registry import Collector
    from prometheus_client.utils import floatToGoString
except ImportError as error:
    raise ImportError(
        "prometheus_client is missing: "
        "pip install 'sqla_smartpool[prometheus]'"
    ) from error

_PREFIX = "sqlalchemy_pool_"

#: the name of a metric, its labels beside the pool's, and what it means
_GAUGES: tuple[tuple[str, list[str], str], ...] = (
    ("connections", ["state"], "Connections: used, idle and being opened"),
    ("size_min", [], "The number of connections kept open"),
    ("size_max", [], "The most connections that there may be"),
    ("requests_waiting", [], "Callers that wait for a connection"),
    ("starved", ["cause"], "Callers wait, and this is the likely cause"),
    ("longest_use_seconds", [], "Age of the oldest checkout still in use"),
)
#: the name of a metric, the counter of PoolStats, and what it means
_COUNTERS = (
    ("requests", "requests_num", "Checkouts asked for, served or not"),
    ("requests_queued", "requests_queued", "Checkouts that had to wait"),
    ("request_errors", "requests_errors", "Checkouts that failed"),
    ("request_timeouts", "requests_timeouts", "Checkouts that timed out"),
    ("connects", "connections_num", "Connects begun"),
    ("connect_errors", "connections_errors", "Connects that failed"),
    (
        "connections_lost",
        "connections_lost",
        "Connections found dead while idle",
    ),
    ("returns_bad", "returns_bad", "Connections that came back broken"),
    ("checks", "checks_num", "Pings sent"),
    ("check_failures", "checks_failed", "Pings that failed"),
    (
        "reclaimed",
        "reclaimed",
        "Connections that an interrupted caller had lost",
    ),
)
#: of these, the ones that are known of a pool of SQLAlchemy's own
_KNOWN_OF_STOCK = {
    "requests",
    "requests_queued",
    "connects",
    "connect_errors",
}
_REASONS = ("idle", "lifetime", "unhealthy", "other")
_HISTOGRAMS = (
    ("wait_seconds", "wait_time", "How long checkouts waited"),
    ("use_seconds", "use_time", "How long connections were in use"),
    ("connect_seconds", "connect_time", "How long it took to connect"),
)


class PoolCollector(Collector):
    """Collects the metrics of any number of pools, for one registry.

    ::

        REGISTRY.register(PoolCollector(engine, reports=other_engine))

    For a :class:`.SmartPool`, an :class:`.AsyncSmartPool`, and SQLAlchemy's
    own QueuePool and AsyncAdaptedQueuePool, which are watched as by
    :func:`.observe`; of these only what can be seen is reported.  A registry
    takes one collector: :meth:`add` is for what comes later.

    It may be scraped in any thread.  Each process has pools of its own and
    must be scraped by itself: prometheus_client's multiprocess mode leaves
    collectors out.

    :param engines: their pools are labelled with the pool's
        ``logging_name``, or else with ``host:port/database``.
    :param named: engines whose pools get the argument's name.
    :raises sqlalchemy.exc.InvalidRequestError: an engine's pool does not
        queue, such as NullPool and StaticPool.

    .. versionadded:: 0.1
    """

    def __init__(
        self,
        *engines: Union[Engine, AsyncEngine],
        **named: Union[Engine, AsyncEngine],
    ) -> None:
        self._lock = threading.Lock()
        self._pools: dict[str, _Source] = {}
        for name, engine in named.items():
            self.add(engine, name)
        for engine in engines:
            self.add(engine)

    def add(
        self, engine: Union[Engine, AsyncEngine], name: Optional[str] = None
    ) -> None:
        """Collect the metrics of one more pool, while its engine is there.

        :param name: the value of the label ``pool``.
        :raises sqlalchemy.exc.ArgumentError: another pool has that name.
        """
        source = _Source(sync_engine_of(engine))
        with self._lock:
            taken = [name for name, each in self._pools.items() if each.engine]
            name = name_of(sync_engine_of(engine), name, taken)
            self._pools[name] = source

    def remove(self, engine: Union[Engine, AsyncEngine]) -> None:
        """Collect nothing more of a pool."""
        with self._lock:
            for name, source in list(self._pools.items()):
                if source.engine is sync_engine_of(engine):
                    del self._pools[name]

    def describe(self) -> Iterable[Metric]:
        return _families().values()

    def collect(self) -> Iterable[Metric]:
        families = _families()
        with self._lock:
            for name, source in self._pools.items():
                engine = source.engine
                if engine is not None:
                    _report(families, name, engine, source.stats(engine))
        return families.values()


class _Source:
    """An engine's pool, whose counters never fall.

    They are summed up while others count, and may be off by a few for a
    moment.  What is less than before, Prometheus takes for a restart, and all
    of it for new.
    """

    def __init__(self, engine: Engine) -> None:
        observer_of(engine)  # begins to watch, or refuses
        self._engine = weakref.ref(engine)
        self._books: Any = None
        self._before = PoolStats()

    @property
    def engine(self) -> Optional[Engine]:
        return self._engine()

    def stats(self, engine: Engine) -> PoolStats:
        pool = engine.pool
        books = pool.inventory if isinstance(pool, SmartPool) else pool
        if self._books is None or self._books() is not books:
            # after a dispose, or in a forked child
            self._books, self._before = weakref.ref(books), PoolStats()
        self._before = _steady(self._before, observer_of(engine).stats())
        return self._before


def _steady(before: PoolStats, now: PoolStats) -> PoolStats:
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(PoolStats):
        name = field.name
        if name.startswith("pool_") or name == "requests_waiting":
            continue  # a gauge
        was, value = getattr(before, name), getattr(now, name)
        if isinstance(value, Histogram):
            counts = tuple(map(max, was.counts, value.counts))
            changes[name] = Histogram(counts, max(was.sum, value.sum))
        else:
            changes[name] = max(was, value)
    return dataclasses.replace(now, **changes)


def _families() -> dict[str, Any]:
    """The metrics, by their names without the prefix; empty yet."""
    found: dict[str, Any] = {}
    for name, labels, meaning in _GAUGES:
        found[name] = GaugeMetricFamily(
            _PREFIX + name, meaning, labels=["pool", *labels]
        )
    for name, _, meaning in _COUNTERS:
        found[name] = CounterMetricFamily(
            _PREFIX + name, meaning, labels=["pool"]
        )
    found["closed"] = CounterMetricFamily(
        _PREFIX + "connections_closed",
        "Connections closed by the pool",
        labels=["pool", "reason"],
    )
    for name, _, meaning in _HISTOGRAMS:
        found[name] = HistogramMetricFamily(
            _PREFIX + name, meaning, labels=["pool"]
        )
    return found


def _report(
    families: dict[str, Any], pool: str, engine: Engine, stats: PoolStats
) -> None:
    smart = isinstance(engine.pool, SmartPool)
    for name, labels, value in _gauges(engine, stats):
        families[name].add_metric([pool, *labels], value)
    for name, field, _ in _COUNTERS:
        if smart or name in _KNOWN_OF_STOCK:
            families[name].add_metric([pool], getattr(stats, field))
    for reason in _REASONS if smart else ():
        closed = getattr(stats, f"closed_{reason}")
        families["closed"].add_metric([pool, reason], closed)
    for name, field, _ in _HISTOGRAMS:
        histogram = getattr(stats, field)
        bounds = [*map(floatToGoString, BOUNDS), "+Inf"]
        families[name].add_metric(
            [pool],
            list(zip(bounds, accumulate(histogram.counts))),
            histogram.sum,
        )


def _gauges(
    engine: Engine, stats: PoolStats
) -> Iterator[tuple[str, list[str], float]]:
    lookout = observer_of(engine).lookout
    # what upkeep has in hand is nobody's
    idle = max(stats.pool_size - stats.pool_in_use, 0)
    yield "connections", ["used"], stats.pool_in_use
    yield "connections", ["idle"], idle
    yield "connections", ["opening"], stats.pool_connecting
    yield "size_min", [], stats.pool_min
    if stats.pool_max:
        yield "size_max", [], stats.pool_max
    yield "requests_waiting", [], stats.requests_waiting
    uses = [holder.seconds for holder in lookout.holders()]
    yield "longest_use_seconds", [], max(uses, default=0.0)
    # whoever asks here is not taken for a caller who waits
    starved = lookout.diagnosis().cause if stats.requests_waiting else None
    for cause in Cause:
        yield "starved", [cause.value], cause is starved
