"""The same eyes on a pool of SQLAlchemy's own: who holds its connections,
and why nobody gets one."""

from __future__ import annotations

from typing import Any
from typing import Optional
from typing import Protocol
from typing import TYPE_CHECKING
from typing import Union
import weakref

from sqlalchemy import exc as sa_exc
from sqlalchemy.engine import Engine
from sqlalchemy.pool import QueuePool

from .diagnosis import Diagnosis
from .holders import ConnectionInfo
from .holders import Holder
from .lookout import Lookout
from .pool import SmartPool
from .sizing import Advice
from .stats import PoolStats
from .stock import StockObserver

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

_observers: weakref.WeakKeyDictionary[Engine, StockObserver]
_observers = weakref.WeakKeyDictionary()


class Observer(Protocol):
    """What can be asked of a pool, whichever it is.

    .. versionadded:: 0.1
    """

    def stats(self) -> PoolStats:
        """The state of the pool, and what it has done so far."""

    def holders(self) -> list[Holder]:
        """Who has connections, and where they stand; longest first."""

    def connections(self) -> list[ConnectionInfo]:
        """Every connection, the oldest first."""

    def diagnosis(self) -> Diagnosis:
        """What keeps callers waiting, if any are; up to a second old."""

    def advise(self) -> Advice:
        """Which sizes would have served, by what was measured so far."""


def observe(
    engine: Union[Engine, AsyncEngine],
    *,
    leak_after: Optional[float] = None,
    trace_checkouts: bool = False,
) -> Observer:
    """Watch the pool of an engine, and tell why it is exhausted.

    For SQLAlchemy's QueuePool and AsyncAdaptedQueuePool, which stay as they
    are: all is learnt from SQLAlchemy's events and from the stacks of those
    who wait.  Logged under ``sqla_smartpool`` are waits of more than two
    seconds with their cause, callers who wait for connections that they hold
    themselves, and, with ``leak_after``, connections that do not come back.

    Of a :class:`.SmartPool`, which does so by itself, it returns the same
    view.

    :param engine: may have connections in use already; who has these is not
        known.
    :param leak_after: seconds in use after which a connection is reported.
    :param trace_checkouts: keep the place of every checkout.
    :raises sqlalchemy.exc.InvalidRequestError: the engine's pool does not
        queue, such as NullPool and StaticPool.

    .. versionadded:: 0.1
    """
    observer = observer_of(sync_engine_of(engine))
    if isinstance(observer, StockObserver):
        observer.leak_after = leak_after
        observer.traces = trace_checkouts or leak_after is not None
    return observer


def sync_engine_of(engine: Union[Engine, AsyncEngine]) -> Engine:
    """Return the engine that has the pool and its events.

    Without an import of AsyncEngine, which brings the ORM along.

    :raises sqlalchemy.exc.ArgumentError: it is a pool, or something else.
    """
    found: Any = engine
    found = getattr(found, "sync_engine", found)
    if not isinstance(found, Engine):
        raise sa_exc.ArgumentError(
            f"an Engine or AsyncEngine is needed, not a {type(found).__name__}"
        )
    return found


def observer_of(sync_engine: Engine) -> Union[OwnObserver, StockObserver]:
    """Return who watches the pool of an engine, as it was told to.

    :raises sqlalchemy.exc.InvalidRequestError: as :func:`observe`.
    """
    if isinstance(sync_engine.pool, SmartPool):
        return OwnObserver(sync_engine)
    if not isinstance(sync_engine.pool, QueuePool):
        raise sa_exc.InvalidRequestError(
            f"the pool of this engine is a {type(sync_engine.pool).__name__}, "
            "in which nobody waits; observe() is for QueuePool and "
            "AsyncAdaptedQueuePool"
        )
    found = _observers.get(sync_engine)
    if found is None:
        found = _observers[sync_engine] = StockObserver(sync_engine)
    return found


class OwnObserver:
    """The view of an engine's SmartPool, also after ``dispose()``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def _pool(self) -> SmartPool:
        pool = self._engine.pool
        assert isinstance(pool, SmartPool)
        return pool

    @property
    def lookout(self) -> Lookout:
        return self._pool.lookout

    def stats(self) -> PoolStats:
        return self._pool.stats()

    def holders(self) -> list[Holder]:
        return self._pool.holders()

    def connections(self) -> list[ConnectionInfo]:
        return self._pool.connections()

    def diagnosis(self) -> Diagnosis:
        return self._pool.diagnosis()

    def advise(self) -> Advice:
        return self._pool.advise()
