"""A pool's clock in the hands of a test."""

from __future__ import annotations

import asyncio
import bisect
from contextlib import contextmanager
from contextvars import Context
from contextvars import ContextVar
from functools import partial
import math
import threading
import time
from typing import Any
from typing import Callable
from typing import Iterator
from typing import Optional
from typing import overload
from typing import TYPE_CHECKING
from typing import Union
import weakref

from sqlalchemy.engine import Engine

from .alarms import Alarms
from .alarms import TimedCall
from .pools import AnyEngine
from .pools import pool_of
from ..aiopool import AsyncSmartPool
from ..pool import SmartPool
from ..runtime import Alarm
from ..runtime import Signal

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

#: what the pool does in real time, such as a ping, has so long until the time
#: that is advanced goes on without it, seconds
_PATIENCE = 5.0
#: how often a loop is asked whether its tasks are done, seconds
_PAUSE = 0.001


@overload
def control_clock(engine: Engine) -> Clock: ...


@overload
def control_clock(engine: AsyncEngine) -> AsyncClock: ...


def control_clock(engine: AnyEngine) -> Union[Clock, AsyncClock]:
    """Take the clock of an engine's pool in hand.

    Best before the pool is used: who waits already waits by the real clock.
    The pool keeps this clock, also through ``dispose()``, and a second call
    returns the same one.

    :param engine: with a :class:`.SmartPool` or :class:`.AsyncSmartPool`.
    :raises sqlalchemy.exc.InvalidRequestError: the engine has another pool.

    .. versionadded:: 0.1
    """
    pool = pool_of(engine)
    clock = getattr(pool.runtime.clock, "__self__", None)
    if isinstance(clock, (Clock, AsyncClock)):
        return clock
    if isinstance(pool, AsyncSmartPool):
        return AsyncClock(pool)
    return Clock(pool)


class _Job:
    """What the pool does beside its callers.

    Weakly referred to: it may be lost with its event loop.
    """

    __slots__ = ("hand", "done", "__weakref__")

    def __init__(self, hand: _Hand) -> None:
        self.hand = hand
        self.done = False


#: the job that this code is part of
_job: ContextVar[Optional[_Job]] = ContextVar("_job", default=None)


class _Alarm(TimedCall):
    """One that also rings by itself, when its time has really come."""

    __slots__ = ("real",)

    real: Alarm

    def cancel(self) -> None:
        super().cancel()
        self.real.cancel()


class _Signal:
    """The runtime's own, with a timeout by the clock in hand."""

    def __init__(self, hand: _Hand, own: Signal) -> None:
        self._hand = hand
        self._own = own
        self._is_set = self._is_over = False
        #: whose wait it is
        self._waiting: Optional[_Job] = None

    def set(self) -> None:
        self._is_set = True
        self._end()

    def _end(self) -> None:
        self._is_over = True
        self._hand.goes_on(self._waiting)
        self._own.set()

    def wait(self, timeout: Optional[float] = None) -> bool:
        if self._is_set:
            return True
        job = self._waiting = self._hand.current_job
        alarm: Optional[Alarm] = None
        if timeout is not None:
            alarm = self._hand.call_later(max(timeout, 0.0), self._end)
        try:
            with self._hand.waiting(job, lambda: self._is_over):
                self._own.wait()
        finally:
            self._waiting = None
            if alarm is not None:
                alarm.cancel()
        return self._is_set


class _Hand:
    """Real time and what it was put forward by, for one pool's runtime."""

    def __init__(self, pool: SmartPool) -> None:
        runtime: Any = pool.runtime
        self._ahead = 0.0
        #: since when it was how far ahead
        self._aheads = [(-math.inf, 0.0)]
        self._alarms = Alarms()
        self._real_clock: Callable[[], float] = runtime.clock
        self._real_later: Callable[..., Alarm] = runtime.call_later
        self._real_signal, self._real_spawn = runtime.signal, runtime.spawn
        # re-entrant: a garbage collection in here may return a connection
        self._changed = threading.Condition(threading.RLock())
        #: the jobs that do not wait for another, or for the time
        self._at_work: weakref.WeakSet[_Job] = weakref.WeakSet()
        vars(runtime).update(
            clock=self.now,
            ago=self._ago,
            call_later=self.call_later,
            signal=lambda: _Signal(self, self._real_signal()),
            spawn=self._spawn,
        )
        # dispose() keeps it
        pool._given_runtime = runtime
        pool._clock = self.now
        if pool.upkeep.active:
            # by this clock, whether or not one by the other is due already
            pool.upkeep.look_in(0.0)

    def now(self) -> float:
        """The time of the pool, in seconds."""
        return self._real_clock() + self._ahead

    # -- what the pool uses ------------------------------------------------

    def _ago(self, now: float, seconds: float) -> float:
        moment = self._real_clock() - seconds
        then = bisect.bisect_right(self._aheads, (moment, math.inf)) - 1
        # what came before the clock was put forward is older by that much
        return min(now - seconds, moment + self._aheads[then][1])

    def call_later(self, delay: float, call: Callable[[], object]) -> Alarm:
        alarm = _Alarm(call)
        alarm.real = self._real_later(delay, partial(self._ring, alarm))
        with self._changed:
            self._alarms.add(self.now() + delay, alarm)
        return alarm

    def _ring(self, alarm: TimedCall) -> None:
        """The time of one has really come; what it does then is work."""
        me = _Job(self)
        self.goes_on(me)
        try:
            alarm.ring()
        finally:
            self._ends(me)

    def _spawn(
        self, job: Callable[[], object], context: Optional[Context] = None
    ) -> None:
        me = _Job(self)

        def work() -> None:
            _job.set(me)
            try:
                job()
            finally:
                self._ends(me)

        self.goes_on(me)
        try:
            self._real_spawn(work, context)
        except BaseException:
            self._stops(me)
            raise

    @property
    def current_job(self) -> Optional[_Job]:
        """The job of this pool that the caller is part of, if of one."""
        job = _job.get()
        return job if job is not None and job.hand is self else None

    def goes_on(self, job: Optional[_Job]) -> None:
        """A job has something to do."""
        with self._changed:
            if job is not None and not job.done:
                self._at_work.add(job)

    def _ends(self, job: _Job) -> None:
        job.done = True
        self._stops(job)

    def _stops(self, job: Optional[_Job]) -> None:
        with self._changed:
            if job is not None:
                self._at_work.discard(job)
                self._changed.notify_all()

    @contextmanager
    def waiting(
        self, job: Optional[_Job], over: Callable[[], bool]
    ) -> Iterator[None]:
        """A job waits for another, or for the time."""
        self._stops(job)
        if over():  # before it was noted that it waits
            self.goes_on(job)
        try:
            yield
        finally:
            self.goes_on(job)

    # -- what tests use ----------------------------------------------------

    def _put_forward(self, until: float) -> None:
        if until > self.now():
            real = self._real_clock()
            self._ahead = until - real
            self._aheads.append((real, self._ahead))

    def _next(self, until: float) -> Optional[TimedCall]:
        """Put the clock forward to what comes next, if that is until then."""
        with self._changed:
            due = self._alarms.take_due(until)
        if due is None:
            self._put_forward(until)
            return None
        when, alarm = due
        self._put_forward(when)
        return alarm


class Clock(_Hand):
    """The clock of a :class:`.SmartPool`, by :func:`.control_clock`.

    It goes on as ever, and can be put forward.
    """

    def advance(self, seconds: float) -> None:
        """Let time pass, with all that the pool does in it.

        Each look of upkeep, timeout and retry comes in its order, and is done
        when this returns.

        :param seconds: how much.
        """
        until = self.now() + seconds
        self._settle()
        while (alarm := self._next(until)) is not None:
            alarm.ring()
            self._settle()

    def stop_for(self, seconds: float) -> None:
        """Be as if the whole process had been stopped for a while, such as a
        cloud function between two requests: time has passed, and nothing was
        done in it.

        :param seconds: how much time.
        """
        self._put_forward(self.now() + seconds)
        self.advance(0.0)

    def _settle(self) -> None:
        """Wait until the pool does nothing but wait."""
        with self._changed:
            self._changed.wait_for(lambda: not self._at_work, _PATIENCE)


class AsyncClock(_Hand):
    """The clock of an :class:`.AsyncSmartPool`, by :func:`.control_clock`.

    As :class:`.Clock`; what blocks there is a coroutine here.
    """

    async def advance(self, seconds: float) -> None:
        """As :meth:`.Clock.advance`."""
        until = self.now() + seconds
        await self._settle()
        while (alarm := self._next(until)) is not None:
            alarm.ring()
            await self._settle()

    async def stop_for(self, seconds: float) -> None:
        """As :meth:`.Clock.stop_for`."""
        self._put_forward(self.now() + seconds)
        await self.advance(0.0)

    async def _settle(self) -> None:
        ends = time.monotonic() + _PATIENCE
        await asyncio.sleep(0)  # whose time it was may go on
        while self._at_work and time.monotonic() < ends:
            await asyncio.sleep(_PAUSE)
