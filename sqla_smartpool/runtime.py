"""How the pool waits and works beside its callers, with threads.

One daemon thread per process keeps the time for all pools; what takes long
is done by daemon threads that live as long as their job.  :mod:`.aio` is the
same for an event loop.
"""

from __future__ import annotations

from collections import deque
from contextvars import Context
from contextvars import copy_context
import heapq
import itertools
import logging
import random
import threading
import time
from typing import Any
from typing import Callable
from typing import Optional
from typing import Protocol

from .whereabouts import Who

log = logging.getLogger("sqla_smartpool.upkeep")

#: how long the timekeeper lingers when there is nothing to wait for, seconds
_LINGER = 1.0


class Signal(Protocol):
    """What one caller waits on, once."""

    def set(self) -> None: ...

    def wait(self, timeout: Optional[float] = None) -> bool: ...


class Alarm(Protocol):
    """A call that is yet to come."""

    def cancel(self) -> object: ...


class Runtime(Protocol):
    """What the pool needs of the world around it.

    Tests hold clock and chance in their hands by passing a runtime of their
    own.
    """

    clock: Callable[[], float]
    chance: Callable[[], float]

    def ago(self, now: float, seconds: float) -> float:
        """Return what the clock said so many seconds of the kernel's ago.

        :param now: what it said just before the kernel was asked: read
            later, it would make what is told younger than it is.
        """

    def who(self) -> Who:
        """Return the identity of the caller; quick."""

    def signal(self) -> Signal:
        """Return something that a caller can wait on."""

    def spawn(
        self, job: Callable[[], object], context: Optional[Context] = None
    ) -> None:
        """Do a job beside the caller.

        :raises RuntimeError: when nothing can be started any more.
        """

    def call_later(self, delay: float, call: Callable[[], object]) -> Alarm:
        """Make a quick call in ``delay`` seconds."""

    def on_books(self, call: Callable[[], object]) -> None:
        """Make a quick call where the pool's books are kept."""


class ThreadSignal:
    """A lock that is released once."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        try:
            self._lock.release()
        except RuntimeError:
            pass  # has been set already

    def wait(self, timeout: Optional[float] = None) -> bool:
        if timeout is None:
            return self._lock.acquire()
        return self._lock.acquire(
            timeout=min(max(timeout, 0.0), threading.TIMEOUT_MAX)
        )


class _Call:
    """An entry of the timekeeper's heap; cancelled when ``call`` is None."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], object]) -> None:
        self.call: Optional[Callable[[], object]] = call

    def cancel(self) -> None:
        self.call = None


class Timekeeper:
    """One thread that makes quick calls at their times.

    It starts with the first call and ends when none is left.  Entries go
    through a deque, so that a garbage collection in the middle of anything
    here may add another: no lock is held while they do.
    """

    def __init__(self) -> None:
        self._inbox: deque[tuple[float, int, _Call]] = deque()
        self._heap: list[tuple[float, int, _Call]] = []  # its thread's own
        self._order = itertools.count()
        self._wake = threading.Lock()  # held while there is nothing to do
        self._wake.acquire()
        self._wakes_at = -float("inf")
        # re-entrant: a collection while starting may want it started
        self._starting = threading.RLock()
        self._thread: Optional[threading.Thread] = None

    def call_later(self, delay: float, call: Callable[[], object]) -> _Call:
        when = time.monotonic() + delay
        entry = _Call(call)
        self._inbox.append((when, next(self._order), entry))
        # it looks into the inbox whenever it wakes; most calls are for later
        # than that, and need no switch of threads now
        if when < self._wakes_at:
            self._rouse()
        # not is_alive(): gevent's switches to others, in the middle of
        # whatever the caller is doing
        if self._thread is None:
            self._start()
        return entry

    def _rouse(self) -> None:
        try:
            self._wake.release()
        except RuntimeError:
            pass  # is awake

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                thread = threading.Thread(
                    target=self._run, name="sqla_smartpool", daemon=True
                )
                thread.start()
                # not earlier: who is interrupted in between starts another
                self._thread = thread

    def _run(self) -> None:
        with self._starting:
            if threading.current_thread() is not self._thread:
                return  # whoever started it was interrupted, and another came
        try:
            self._keep_time()
        finally:
            # also when it is killed, as greenlets are
            if threading.current_thread() is self._thread:
                self._thread = None

    def _keep_time(self) -> None:
        while True:
            self._make_due_calls()
            now = time.monotonic()
            idle = not self._heap
            self._wakes_at = float("inf") if idle else self._heap[0][0]
            if self._inbox:
                continue  # came before the line above could tell it to rouse
            pause = _LINGER if idle else max(self._wakes_at - now, 0.0)
            roused = self._wake.acquire(
                timeout=min(pause, threading.TIMEOUT_MAX)
            )
            if idle and not roused and self._may_end():
                return

    def _may_end(self) -> bool:
        with self._starting:
            mine, self._thread = self._thread, None
            # whoever adds an entry from here on sees that there is no thread
            if not self._inbox:
                return True
            self._thread = mine
            return False

    def _make_due_calls(self) -> None:
        while True:
            while self._inbox:
                heapq.heappush(self._heap, self._inbox.popleft())
            if not self._heap or self._heap[0][0] > time.monotonic():
                return
            call = heapq.heappop(self._heap)[2].call
            if call is not None:
                try:
                    call()
                except BaseException:  # one pool must not stop all others
                    log.exception("a pool's timed call failed")
            del call  # or it would keep a pool alive until the next one


#: made with its first use: its locks are to be those that gevent has put in
#: the place of the others, which may be after this was imported
_timekeeper: Optional[Timekeeper] = None


def forget_threads() -> None:
    """Start anew in a forked child, to which no thread came along."""
    global _timekeeper
    _timekeeper = None


def _the_timekeeper() -> Timekeeper:
    # two that come at the same time may each get one of their own, which
    # does no harm
    global _timekeeper
    timekeeper = _timekeeper
    if timekeeper is None:
        timekeeper = _timekeeper = Timekeeper()
    return timekeeper


class ThreadRuntime:
    """The runtime of :class:`.SmartPool`."""

    clock = staticmethod(time.monotonic)
    chance = staticmethod(random.random)
    who = staticmethod(threading.get_ident)
    signal = ThreadSignal

    def ago(self, now: float, seconds: float) -> float:
        return now - seconds

    def spawn(
        self, job: Callable[[], object], context: Optional[Context] = None
    ) -> None:
        context = context or Context()
        threading.Thread(
            target=context.run,
            args=(job,),
            name="sqla_smartpool-worker",
            daemon=True,
        ).start()

    def call_later(self, delay: float, call: Callable[[], object]) -> Alarm:
        return _the_timekeeper().call_later(delay, call)

    def on_books(self, call: Callable[[], object]) -> None:
        call()


def side_by_side(
    runtime: Runtime, jobs: list[Callable[[], object]], width: int
) -> None:
    """Do jobs, up to ``width`` at a time, and return when all are done.

    The caller does its share.  Jobs are taken up one by one, and must not
    raise an ``Exception``.
    """
    waiting = deque(jobs)
    finished: deque[None] = deque()
    all_done = runtime.signal()
    workers = max(1, min(width, len(jobs)))

    def work() -> None:
        try:
            while True:
                try:
                    job = waiting.popleft()
                except IndexError:
                    break
                job()
        finally:
            finished.append(None)
            if len(finished) == workers:
                all_done.set()

    for _ in range(workers - 1):
        try:
            runtime.spawn(work, copy_context())
        except RuntimeError:  # no threads at interpreter exit: do it alone
            finished.append(None)
    work()
    all_done.wait()


def call_weakly(reference: Callable[[], Any]) -> Callable[[], None]:
    """Wrap a :class:`weakref.WeakMethod` so that a timer keeps nothing alive.

    :param reference: returns the method, or None once its object is gone.
    """

    def call() -> None:
        method = reference()
        if method is not None:
            method()

    return call
