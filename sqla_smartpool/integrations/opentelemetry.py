"""A pool's metrics through OpenTelemetry; needs ``opentelemetry-api``.

::

    from sqla_smartpool.integrations.opentelemetry import instrument

    instrument(engine)

The instruments are those of OpenTelemetry's semantic conventions for database
client metrics, version 1.44.0, where they are still in development.
"""

from __future__ import annotations

from collections import deque
import math
import threading
import time
from typing import Any
from typing import Callable
from typing import Optional
from typing import Union
import warnings
import weakref

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import AsyncEngine

from .naming import name_of
from ..exc import PoolOverloadedError
from ..exc import PoolTimeoutError
from ..observe import observer_of
from ..observe import sync_engine_of
from ..pool import SmartPool
from ..stats import PoolStats
from ..stock import StockObserver

try:
    from opentelemetry import trace
    from opentelemetry.context import Context
    from opentelemetry.metrics import MeterProvider

    from .instruments import Reporter
    from .instruments import reporter_to
except ImportError as error:
    raise ImportError(
        "OpenTelemetry's API is missing: "
        "pip install 'sqla_smartpool[opentelemetry]'"
    ) from error

_POOL = "db.client.connection.pool.name"
#: where SQLAlchemy's name of a database is not that of the conventions
_SYSTEMS = {"oracle": "oracle.db", "mssql": "microsoft.sql_server"}
#: whoever records a use is not who had the connection
_NOBODY = Context()
#: held by who instruments a pool, or stops that
_changing = threading.Lock()


def instrument(
    engine: Union[Engine, AsyncEngine],
    *,
    pool_name: Optional[str] = None,
    long_wait: Optional[float] = 1.0,
    meter_provider: Optional[MeterProvider] = None,
) -> Instrumentation:
    """Report the pool of an engine, until ``uninstrument()`` is called.

    Numbers of connections and callers are read from ``stats()`` when they
    are collected.  Wait, use and create times are recorded as they happen, by
    listeners to the pool's ``checkout``, ``checkin``, ``detach`` and
    ``connect``: that makes a checkout and its return slower, mostly by what
    the SDK does; a pool that is not instrumented pays nothing.  When the
    current span is recorded, it gets an event for a checkout that waited long
    or timed out.

    All of it goes on after ``engine.dispose()`` and in a forked process.

    A pool of SQLAlchemy's own is watched as by :func:`.observe`, and reports
    neither timeouts nor the waits that were too short to be seen.

    :param pool_name: the attribute ``db.client.connection.pool.name``; by
        default the pool's ``logging_name``, or else ``host:port/database``.
    :param long_wait: seconds; a longer wait becomes an event
        ``db.client.connection.wait`` of the span.  None: none does.
    :param meter_provider: the global one by default, which may be set later.
    :raises sqlalchemy.exc.ArgumentError: another pool has that name already.
    :raises sqlalchemy.exc.InvalidRequestError: the engine's pool does not
        queue, such as NullPool and StaticPool.

    .. versionadded:: 0.1
    """
    sync_engine = sync_engine_of(engine)
    with _changing:
        found = _instrumented.get(id(sync_engine))
        if found is not None and found.engine is sync_engine:
            warnings.warn(
                f"the pool {found.name!r} is instrumented already; "
                "uninstrument() it first to change how it is reported",
                stacklevel=2,
            )
            return found
        for module in _other_listeners(sync_engine):
            warnings.warn(
                f"{module} reports the connections of this pool as well, so "
                "that they are counted twice; a View with "
                "aggregation=DropAggregation() can drop its "
                "db.client.connections.usage",
                stacklevel=2,
            )
        reporter = reporter_to(meter_provider)
        taken = {pool.name for pool in reporter.pools}
        name = name_of(sync_engine, pool_name, taken)
        made = Instrumentation(sync_engine, name, long_wait, reporter)
        _instrumented[id(sync_engine)] = made
        return made


def _other_listeners(engine: Engine) -> set[str]:
    """The instrumentations that follow the pool's checkouts."""
    modules = (
        str(getattr(listener, "__module__", ""))
        for listener in engine.pool.dispatch.checkout
    )
    prefix = "opentelemetry.instrumentation."
    return {module for module in modules if module.startswith(prefix)}


class Instrumentation:
    """The pool of one engine, as it is reported.

    .. versionadded:: 0.1
    """

    clock = staticmethod(time.monotonic)

    def __init__(
        self,
        engine: Engine,
        name: str,
        long_wait: Optional[float],
        reporter: Reporter,
    ) -> None:
        self._engine = weakref.ref(engine)
        self._observer = observer_of(engine)
        self._long_wait = math.inf if long_wait is None else long_wait
        self._reporter = reporter
        # A connection may be returned by the garbage collector, in the middle
        # of the SDK while it holds a lock: uses are recorded a bit later.
        self._uses: deque[float] = deque()
        #: the pool's name
        self.name = name
        system = engine.dialect.name
        self.attributes = {
            _POOL: name,
            "db.system.name": _SYSTEMS.get(system, system),
        }
        self._listeners: list[tuple[str, Callable[..., None]]] = [
            ("checkout", self._on_checkout),
            ("checkin", self._on_return),
            ("detach", self._on_return),
            ("connect", self._on_connect),
        ]
        if not isinstance(self._observer, StockObserver):
            self._listeners.append(("checkout_timeout", self._on_timeout))
            reporter.timeouts.add(0, self.attributes)  # or it begins with one
        for event_name, listener in self._listeners:
            event.listen(engine, event_name, listener)
        reporter.add(self)

    @property
    def engine(self) -> Optional[Engine]:
        """The engine, as long as it is there."""
        return self._engine()

    def uninstrument(self) -> None:
        """Stop reporting this pool; what was recorded stays.

        Harmless when it has been called before.
        """
        engine = self.engine
        with _changing:
            listeners, self._listeners = self._listeners, []
            self._reporter.remove(self)
            if _instrumented.get(id(engine)) is self:
                del _instrumented[id(engine)]
        for event_name, listener in listeners:
            if engine is not None:
                event.remove(engine, event_name, listener)
        self.record_uses()

    # -- what happens ------------------------------------------------------

    def _on_checkout(self, connection: Any, record: Any, _: Any) -> None:
        record.record_info[self] = self.clock()
        self.record_uses()
        if isinstance(self._observer, StockObserver):
            waited = self._observer.waited(record)
        else:
            waited = record.waited
        if waited is None:
            return
        self._reporter.wait_time.record(waited, self.attributes)
        if waited >= self._long_wait:
            self._add_event("wait", wait_time=waited)

    def _on_return(self, connection: Any, record: Any) -> None:
        taken_at = record.record_info.pop(self, None)
        if taken_at is not None:  # else it was taken before we came
            self._uses.append(self.clock() - taken_at)

    def _on_connect(self, connection: Any, record: Any) -> None:
        # by the clock of the wall, as SQLAlchemy has noted it
        took = time.time() - record.last_connect_time
        self._reporter.create_time.record(max(took, 0.0), self.attributes)

    def _on_timeout(self, pool: SmartPool, error: PoolTimeoutError) -> None:
        if isinstance(error, PoolOverloadedError):
            return
        self._reporter.timeouts.add(1, self.attributes)
        cause = error.diagnosis.cause.value if error.diagnosis else "unknown"
        self._add_event("timeout", cause=cause)

    def _add_event(self, name: str, **attributes: Union[str, float]) -> None:
        span = trace.get_current_span()
        if span.is_recording():
            prefix = "db.client.connection."
            named = {prefix + key: value for key, value in attributes.items()}
            span.add_event(prefix + name, {**self.attributes, **named})

    def record_uses(self) -> None:
        """Record the uses that have ended."""
        for _ in range(len(self._uses)):
            try:
                seconds = self._uses.popleft()
            except IndexError:
                return  # somebody else records them
            self._reporter.use_time.record(seconds, self.attributes, _NOBODY)

    # -- what is asked -----------------------------------------------------

    def stats(self) -> PoolStats:
        return self._observer.stats()

    @property
    def most_idle(self) -> int:
        """How many may be idle; 0: any number."""
        if isinstance(self._observer, StockObserver):
            engine: Any = self.engine
            return int(engine.pool.size())
        return self.stats().pool_max


#: by the id of their engines, which keep them alive
_instrumented: weakref.WeakValueDictionary[int, Instrumentation]
_instrumented = weakref.WeakValueDictionary()
