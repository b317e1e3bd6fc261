"""What SQLAlchemy's events and the stacks of callers tell of a pool of its
own."""

from __future__ import annotations

import asyncio
from asyncio import _get_running_loop
from collections import deque
from itertools import count
import sys
import threading
import time
from typing import Any
from typing import Optional
import weakref

from sqlalchemy import event
from sqlalchemy import exc
from sqlalchemy.engine import Engine
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
from .runtime import call_weakly
from .runtime import ThreadRuntime
from .sizing import Advice
from .sizing import Meter
from .stats import PoolStats
from .watched import Wait
from .whereabouts import current_task
from .whereabouts import frames_of_task
from .whereabouts import frames_of_thread
from .whereabouts import here
from .whereabouts import steps_of_thread
from .whereabouts import Who

#: how often a pool is looked at, seconds
_INTERVAL = 0.2
#: who left the queue at a look is served by then, or not at all, seconds
_TAKEN_UP = 0.1
#: where the callers of a stock pool wait
_WAITS = QueuePool._do_get.__code__
#: and what is called by it
_CONNECTS = QueuePool._create_connection.__code__


class _Seen:
    """A connection of a stock pool: what its events have told."""

    def __init__(self, number: int, now: float) -> None:
        self.number = number
        self.born = self.idle_since = self.held_since = now
        self.who: Who = None
        self.taken: tuple[str, ...] = ()
        self.uses = 0
        self.in_use = False
        #: how long its last checkout was seen to wait; None: it was not
        self.waited: Optional[float] = None


class StockObserver:
    """Watches the stock pool of one engine, for :func:`observe`."""

    clock = staticmethod(time.monotonic)
    paused = closed = False

    def __init__(self, engine: Engine) -> None:
        self._engine = weakref.ref(engine)
        pool: Any = engine.pool
        #: what its log lines call it, also after a dispose()
        self.label: str = (
            pool._orig_logging_name or f"pool-{id(pool) & 0xFFFFFF:06x}"
        )
        self._asynchronous = bool(engine.dialect.is_async)
        self._runtime = ThreadRuntime()
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._numbers = count(1)
        self._seen: dict[Any, _Seen] = {}
        #: since when somebody has been seen to wait
        self._waiting: dict[Who, float] = {}
        #: who no longer did at the last look: since when, and that look's time
        self._left: dict[Who, tuple[float, float]] = {}
        self._connecting: dict[Who, float] = {}
        #: held by who counts what stands in these: users ask from threads of
        #: their own
        self._counting = threading.Lock()
        # appended to by anyone, without it
        self._used: deque[float] = deque()
        self._waited: deque[float] = deque()
        self._connected: deque[float] = deque()
        self._uses, self._connects = summed([]), summed([])
        self._waits = summed([])
        self._usage = self._connect_time = self._wait_time = 0.0
        self._failures = 0
        self.leak_after: Optional[float] = None
        self.traces = False
        self.error: Optional[BaseException] = None
        self.lookout = Lookout(self, explains=True)
        self._meter = Meter(self, self.stats)
        for name in ("checkout", "checkin", "connect", "close", "detach"):
            event.listen(engine, name, getattr(self, f"_on_{name}"))
        event.listen(engine, "do_connect", self._on_do_connect)
        event.listen(engine, "handle_error", self._on_error)
        self._look_later()

    # -- what SQLAlchemy tells ---------------------------------------------

    def _caller(self) -> Who:
        if not self._asynchronous:
            return threading.get_ident()
        loop = _get_running_loop()
        if loop is None:  # some thread asks, which is no caller
            return None
        self._loop = loop
        return current_task()

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
        who = self._caller()
        seen.held_since, seen.who, seen.in_use = now, who, True
        seen.uses += 1
        since = self._waiting.pop(who, None)
        if since is not None:
            self._waited.append(now - since)
        elif (left := self._left.pop(who, None)) and now < left[1] + _TAKEN_UP:
            since = left[0]
        seen.waited = None if since is None else now - since
        if self.traces:
            seen.taken = here()

    def _on_checkin(self, connection: Any, record: Any) -> None:
        seen = self._seen.get(record)
        if seen is None or not seen.in_use:
            return
        seen.idle_since, seen.in_use = self.clock(), False
        self._used.append(seen.idle_since - seen.held_since)
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
    def loop(self) -> Optional[asyncio.AbstractEventLoop]:
        """Where its callers were last seen; None: nowhere, or in threads."""
        return self._loop

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
        seen = self._seen.copy().values()
        served = {each.who for each in seen if each.held_since >= now}
        before = self._waiting
        found = self._waiting = {
            who: before.get(who, now) for who in waiting if who not in served
        }
        self._left = {}
        for who in list(before):
            # unless it has just been served
            if who not in found and (since := before.pop(who, None)):
                self._left[who] = since, now
                self._waited.append(now - since)
        waits = [Wait(who, since) for who, since in found.copy().items()]
        return sorted(waits, key=lambda wait: wait.since)

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
                and self._has_thread_waiting(thread.ident or 0)
            )
        return found

    def _has_thread_waiting(self, ident: int) -> bool:
        return any(
            step.code is _WAITS for step in steps_of_thread(ident)
        ) and self._waits_in(frames_of_thread(ident))

    def _waits_in(self, frames: Any) -> bool:
        for frame in frames:
            if frame.f_code in (_WAITS, _CONNECTS):
                if frame.f_locals.get("self") is self._pool:
                    return frame.f_code is _WAITS
        return False

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
        self.lookout.look_for_leaks()
        self.lookout.look_at_waits()
        self._meter.look()

    # -- what users ask ----------------------------------------------------

    def holders(self) -> list[Holder]:
        return self.lookout.holders()

    def waited(self, record: Any) -> Optional[float]:
        """How long the checkout of a connection was seen to wait, in seconds;
        None: it was not seen, so it may have waited for a fifth of one."""
        seen = self._seen.get(record)
        return None if seen is None else seen.waited

    def diagnosis(self) -> Diagnosis:
        # who asks is one of those who wait only if that is what failed
        failed = isinstance(sys.exc_info()[1], exc.TimeoutError)
        return self.lookout.diagnosis(self._caller() if failed else None)

    def advise(self) -> Advice:
        return self._meter.advise()

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
        """What can be known from outside; the rest stays 0.

        Waits are those that were seen, to a fifth of a second.
        """
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
            requests_queued=sum(self._waits),
            requests_wait_ms=round(1000 * self._wait_time),
            usage_ms=round(1000 * self._usage),
            connections_num=sum(self._connects) + self._failures,
            connections_ms=round(1000 * self._connect_time),
            connections_errors=self._failures,
            wait_time=Histogram(tuple(self._waits), self._wait_time),
            use_time=Histogram(tuple(self._uses), self._usage),
            connect_time=Histogram(tuple(self._connects), self._connect_time),
        )

    def _add_up(self) -> None:
        with self._counting:
            self._usage += _moved(self._used, self._uses)
            self._wait_time += _moved(self._waited, self._waits)
            self._connect_time += _moved(self._connected, self._connects)


def _moved(queue: deque[float], tally: list[int]) -> float:
    """Count durations by their length, and return their sum."""
    durations = [queue.popleft() for _ in range(len(queue))]
    for seconds in durations:
        tally[bucket_of(seconds)] += 1
    return sum(durations)
