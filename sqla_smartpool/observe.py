"""The same eyes on a pool of SQLAlchemy's own: who holds its connections,
and why nobody gets one."""

from __future__ import annotations

import asyncio
from asyncio import _get_running_loop
from collections import deque
from itertools import count
import logging
import threading
import time
from typing import Any
from typing import Optional
from typing import Protocol
from typing import Union
import weakref

from sqlalchemy import event
from sqlalchemy import exc as sa_exc
from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import QueuePool

from .diagnosis import Diagnosis
from .exc import without_traceback
from .histogram import bucket_of
from .histogram import Histogram
from .histogram import summed
from .holders import Checkout
from .holders import ConnectionInfo
from .holders import Holder
from .lookout import Lookout
from .pool import SmartPool
from .runtime import call_weakly
from .runtime import ThreadRuntime
from .stats import PoolStats
from .watched import Wait
from .whereabouts import current_task
from .whereabouts import frames_of_task
from .whereabouts import frames_of_thread
from .whereabouts import here
from .whereabouts import Who

log = logging.getLogger("sqla_smartpool.observe")

#: how often an exhausted pool is looked at, seconds
_INTERVAL = 0.2

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
    sync_engine = (
        engine.sync_engine if isinstance(engine, AsyncEngine) else engine
    )
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
    found.leak_after = leak_after
    found.traces = trace_checkouts or leak_after is not None
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

    def stats(self) -> PoolStats:
        return self._pool.stats()

    def holders(self) -> list[Holder]:
        return self._pool.holders()

    def connections(self) -> list[ConnectionInfo]:
        return self._pool.connections()

    def diagnosis(self) -> Diagnosis:
        return self._pool.diagnosis()


class _Seen:
    """A connection of a stock pool: what its events have told."""

    def __init__(self, number: int, now: float) -> None:
        self.number = number
        self.born = self.idle_since = self.taken_at = now
        self.who: Who = None
        self.taken: tuple[str, ...] = ()
        self.uses = 0
        self.in_use = False


class StockObserver:
    """Watches the stock pool of one engine, for :func:`observe`."""

    clock = staticmethod(time.monotonic)
    paused = False

    def __init__(self, engine: Engine) -> None:
        self._engine = weakref.ref(engine)
        self._asynchronous = bool(engine.dialect.is_async)
        self._runtime = ThreadRuntime()
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._numbers = count(1)
        self._seen: dict[Any, _Seen] = {}
        #: since when somebody has been seen to wait
        self._waiting: dict[Who, float] = {}
        self._connecting: dict[Who, float] = {}
        # appended to by anyone, read in one place: no lock is needed
        self._used: deque[float] = deque()
        self._connected: deque[float] = deque()
        self._uses, self._connects = summed([]), summed([])
        self._usage = self._connect_time = 0.0
        self._failures = 0
        self.leak_after: Optional[float] = None
        self.traces = False
        self.error: Optional[BaseException] = None
        self._lookout = Lookout(self, explains=True)
        for name in ("checkout", "checkin", "connect", "close", "detach"):
            event.listen(engine, name, getattr(self, f"_on_{name}"))
        event.listen(engine, "do_connect", self._on_do_connect)
        event.listen(engine, "handle_error", self._on_error)
        self._look_later()

    # -- what SQLAlchemy tells ---------------------------------------------

    def _caller(self) -> Who:
        if not self._asynchronous:
            return threading.get_ident()
        self._loop = _get_running_loop()
        return None if self._loop is None else current_task()

    def _on_do_connect(self, *_: Any) -> None:
        self._connecting[self._caller()] = self.clock()

    def _on_connect(self, connection: Any, record: Any) -> None:
        now = self.clock()
        begun = self._connecting.pop(self._caller(), now)
        self._connected.append(now - begun)
        self.error = None
        self._seen[record] = _Seen(next(self._numbers), now)

    def _on_error(self, context: Any) -> None:
        if context.connection is None:  # a connect has failed
            self._connecting.pop(self._caller(), None)
            self._failures += 1
            self.error = without_traceback(context.original_exception)

    def _on_checkout(self, connection: Any, record: Any, _: Any) -> None:
        now = self.clock()
        seen = self._seen.get(record)
        if seen is None:  # was open before we came
            seen = self._seen[record] = _Seen(next(self._numbers), now)
        seen.taken_at, seen.who, seen.in_use = now, self._caller(), True
        seen.uses += 1
        if self.traces:
            seen.taken = here()

    def _on_checkin(self, connection: Any, record: Any) -> None:
        seen = self._seen.get(record)
        if seen is None or not seen.in_use:
            return
        seen.idle_since, seen.in_use = self.clock(), False
        self._used.append(seen.idle_since - seen.taken_at)
        if connection is None:  # invalidated
            self._seen.pop(record, None)

    def _on_close(self, connection: Any, record: Any) -> None:
        seen = self._seen.get(record)
        if seen is not None and not seen.in_use:
            del self._seen[record]

    def _on_detach(self, connection: Any, record: Any) -> None:
        self._seen.pop(record, None)

    # -- what a lookout asks -----------------------------------------------

    @property
    def _pool(self) -> Any:
        engine = self._engine()
        assert engine is not None
        return engine.pool

    @property
    def label(self) -> str:
        pool = self._pool
        return pool._orig_logging_name or f"pool-{id(pool) & 0xFFFFFF:06x}"

    @property
    def limit(self) -> Optional[int]:
        pool = self._pool
        if pool._max_overflow < 0 or pool.size() == 0:
            return None
        return int(pool.size() + pool._max_overflow)

    @property
    def full(self) -> bool:
        limit = self.limit
        return limit is not None and self._pool.checkedout() >= limit

    def in_use(self) -> list[Checkout]:
        return [each for each in self._seen.copy().values() if each.in_use]

    def waits(self) -> list[Wait]:
        """Those whose stacks stand in the pool's queue; a wait that has just
        begun counts from when it was first seen."""
        now = self.clock()
        waiting = self._found_waiting() if self.full else []
        self._waiting = {who: self._waiting.get(who, now) for who in waiting}
        return sorted(
            (Wait(who, since) for who, since in self._waiting.items()),
            key=lambda wait: wait.since,
        )

    def _found_waiting(self) -> list[Who]:
        found: list[Who] = []
        if self._asynchronous:
            if self._loop is not None and not self._loop.is_closed():
                found += (
                    weakref.ref(task)
                    for task in asyncio.all_tasks(self._loop)
                    if self._waits_in(frames_of_task(task))
                )
        else:
            mine = threading.get_ident()
            found += (
                thread.ident
                for thread in threading.enumerate()
                if thread.ident != mine
                and self._waits_in(frames_of_thread(thread.ident or 0))
            )
        return found

    def _waits_in(self, frames: Any) -> bool:
        pool, code = self._pool, QueuePool._do_get.__code__
        return any(
            frame.f_code is code and frame.f_locals.get("self") is pool
            for frame in frames
        )

    def connects(self) -> list[float]:
        return list(self._connecting.copy().values())

    def usual(self) -> Optional[float]:
        return self.stats().use_time.quantile(0.95)

    def fire_leak(self, holder: Holder) -> None:
        """A stock pool has no such event; the log tells."""

    # -- looking, by itself ------------------------------------------------

    def _look_later(self) -> None:
        look = call_weakly(weakref.WeakMethod(self._look))
        self._runtime.call_later(_INTERVAL, look)

    def _look(self) -> None:
        if self._engine() is None:
            return
        self._look_later()
        loop = self._loop
        if loop is None:
            self._look_now()
        elif not loop.is_closed():
            try:
                loop.call_soon_threadsafe(self._look_now)
            except RuntimeError:
                pass  # has just been closed: there is nobody to look at

    def _look_now(self) -> None:
        self._lookout.look_for_leaks()
        self._lookout.look_at_waits()

    # -- what users ask ----------------------------------------------------

    def holders(self) -> list[Holder]:
        return self._lookout.holders()

    def diagnosis(self) -> Diagnosis:
        return self._lookout.diagnosis(self._caller())

    def connections(self) -> list[ConnectionInfo]:
        now = self.clock()
        return [
            ConnectionInfo(
                each.number,
                "in use" if each.in_use else "idle",
                age=now - each.born,
                idle=0.0 if each.in_use else now - each.idle_since,
                uses=each.uses,
                proven=now - max(each.idle_since, each.born),
            )
            for each in self._seen.copy().values()
        ]

    def stats(self) -> PoolStats:
        """What can be known from outside; the rest stays 0."""
        self._add_up()
        pool = self._pool
        open_now = pool.checkedin() + pool.checkedout()
        return PoolStats(
            pool_min=0,
            pool_max=self.limit or 0,
            pool_size=max(open_now, 0),
            pool_available=max(pool.checkedin(), 0),
            pool_in_use=max(pool.checkedout(), 0),
            pool_connecting=len(self._connecting),
            requests_waiting=len(self.waits()),
            requests_num=sum(self._uses) + len(self.in_use()),
            usage_ms=round(1000 * self._usage),
            connections_num=sum(self._connects) + self._failures,
            connections_ms=round(1000 * self._connect_time),
            connections_errors=self._failures,
            use_time=Histogram(tuple(self._uses), self._usage),
            connect_time=Histogram(tuple(self._connects), self._connect_time),
        )

    def _add_up(self) -> None:
        for seconds in _drained(self._used):
            self._uses[bucket_of(seconds)] += 1
            self._usage += seconds
        for seconds in _drained(self._connected):
            self._connects[bucket_of(seconds)] += 1
            self._connect_time += seconds


def _drained(queue: deque[float]) -> list[float]:
    return [queue.popleft() for _ in range(len(queue))]
