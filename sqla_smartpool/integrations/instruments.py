"""OpenTelemetry's instruments for connection pools, and who is asked when
they are collected."""

from __future__ import annotations

from functools import partial
from typing import Callable
from typing import Iterable
from typing import Iterator
from typing import Optional
from typing import Protocol
import weakref

from opentelemetry import metrics
from sqlalchemy.engine import Engine

from ..histogram import BOUNDS
from ..stats import PoolStats

_SCHEMA = "https://opentelemetry.io/schemas/1.44.0"
_STATE = "db.client.connection.state"


class Reported(Protocol):
    """A pool, as it is reported."""

    @property
    def name(self) -> str: ...

    @property
    def attributes(self) -> dict[str, str]: ...

    @property
    def engine(self) -> Optional[Engine]:
        """None: it is gone, and so is the pool."""

    @property
    def most_idle(self) -> int:
        """How many connections may be idle; 0: any number."""

    def stats(self) -> PoolStats: ...

    def record_uses(self) -> None:
        """Record the uses that have ended."""


#: values, and the attributes that each has on top of the pool's
_Values = Iterable[tuple[int, dict[str, str]]]


def _count(pool: Reported) -> _Values:
    pool.record_uses()
    stats = pool.stats()
    # what upkeep has in hand is nobody's
    yield max(stats.pool_size - stats.pool_in_use, 0), {_STATE: "idle"}
    yield stats.pool_in_use, {_STATE: "used"}


def _idle_max(pool: Reported) -> _Values:
    if pool.most_idle:
        yield pool.most_idle, {}


def _idle_min(pool: Reported) -> _Values:
    yield pool.stats().pool_min, {}


def _max(pool: Reported) -> _Values:
    most = pool.stats().pool_max
    if most:
        yield most, {}


def _pending_requests(pool: Reported) -> _Values:
    yield pool.stats().requests_waiting, {}


_OBSERVED = (
    ("count", "{connection}", "Connections, by their state", _count),
    ("idle.max", "{connection}", "Most idle connections allowed", _idle_max),
    ("idle.min", "{connection}", "Idle connections kept open", _idle_min),
    ("max", "{connection}", "Most open connections allowed", _max),
    (
        *("pending_requests", "{request}", "Callers that wait"),
        _pending_requests,
    ),
)


class Reporter:
    """The instruments of one meter provider, for any number of pools.

    An SDK keeps the callbacks of the first who asks for an instrument, and
    for good: so there is one set of instruments, and pools come and go.
    """

    def __init__(self, provider: Optional[metrics.MeterProvider]) -> None:
        self._given = provider
        #: replaced when a pool comes or goes
        self._pools: tuple[weakref.ref[Reported], ...] = ()
        meter = metrics.get_meter(
            "sqla_smartpool", meter_provider=provider, schema_url=_SCHEMA
        )
        for name, unit, description, values in _OBSERVED:
            meter.create_observable_up_down_counter(
                f"db.client.connection.{name}",
                [partial(self._observe, values)],
                unit,
                description,
            )
        self.timeouts = meter.create_counter(
            "db.client.connection.timeouts",
            "{timeout}",
            "Checkouts that timed out",
        )
        self.create_time, self.wait_time, self.use_time = (
            meter.create_histogram(
                f"db.client.connection.{name}",
                "s",
                description,
                explicit_bucket_boundaries_advisory=BOUNDS,
            )
            for name, description in (
                ("create_time", "How long it took to open a connection"),
                ("wait_time", "How long a checkout took"),
                ("use_time", "How long a connection was in use"),
            )
        )

    @property
    def provider(self) -> metrics.MeterProvider:
        # the global one may have been set meanwhile
        return self._given or metrics.get_meter_provider()

    @property
    def pools(self) -> list[Reported]:
        found = (reference() for reference in self._pools)
        return [pool for pool in found if pool is not None and pool.engine]

    def add(self, pool: Reported) -> None:
        self._pools = (*map(weakref.ref, self.pools), weakref.ref(pool))

    def remove(self, pool: Reported) -> None:
        self._pools = tuple(
            weakref.ref(each) for each in self.pools if each is not pool
        )

    def _observe(
        self,
        values: Callable[[Reported], _Values],
        options: metrics.CallbackOptions,
    ) -> Iterator[metrics.Observation]:
        for pool in self.pools:
            for value, more in values(pool):
                yield metrics.Observation(value, {**pool.attributes, **more})


_reporters: list[Reporter] = []


def reporter_to(provider: Optional[metrics.MeterProvider]) -> Reporter:
    wanted = provider or metrics.get_meter_provider()
    for reporter in _reporters:
        if reporter.provider is wanted:
            return reporter
    _reporters.append(Reporter(provider))
    return _reporters[-1]
