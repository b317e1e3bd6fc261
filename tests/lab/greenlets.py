"""A :class:`.World` of greenlets in place of threads."""

from __future__ import annotations

from contextvars import Context
import heapq
import itertools
from typing import Any
from typing import Callable
from typing import Optional

from greenlet import getcurrent
from greenlet import greenlet

from sqla_smartpool import SmartPool
from tests.lab.fake_connections import FakeWithSocket
from tests.lab.world import Actor
from tests.lab.world import Job
from tests.lab.world import keep_for_good
from tests.lab.world import World


class Interrupted(BaseException):
    """What interrupts a thread from outside."""


class _Alarm:
    def __init__(self, call: Job) -> None:
        self.call: Optional[Job] = call

    def cancel(self) -> None:
        self.call = None


class GreenSignal:
    """A signal that is owned by the greenlet that made it."""

    def __init__(self, world: Greenlets) -> None:
        self._world = world
        self.owner = getcurrent()
        self.is_set = False

    def set(self) -> None:
        if not self.is_set:
            self.is_set = True
            self._world.on_set(self)

    def wait(self, timeout: Optional[float] = None) -> bool:
        self._world.on_wait(self)
        if timeout is not None:
            # makes it look, as a thread's wait would
            ends = self._world.now + timeout
            self._world.call_later(timeout, lambda: None)
            self._world.wait(lambda: self.is_set or self._world.now >= ends)
        else:
            self._world.wait(lambda: self.is_set)
        return self.is_set


class GreenGate:
    """Holds up whoever comes, until it is opened."""

    def __init__(self, world: Greenlets) -> None:
        self._world = world
        self._is_open = False

    def open(self) -> None:
        self._is_open = True

    def __call__(self, connection: Any) -> None:
        line = connection if isinstance(connection, FakeWithSocket) else None
        self._world.wait(
            lambda: self._is_open or line is not None and line.was_cut
        )
        if line is not None:
            line.feel()


class Greenlets(World):
    """Greenlets in place of threads; a runtime of the pool as well."""

    asynchronous = False
    pool_class = SmartPool

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._hub = getcurrent()
        self._ready: list[greenlet] = []
        self._waiting: dict[greenlet, Callable[[], bool]] = {}
        #: who is to be interrupted, and in how many steps
        self._doomed: dict[Actor, int] = {}
        self._alarms: list[tuple[float, int, _Alarm]] = []
        self._order = itertools.count()

    # -- as a runtime ------------------------------------------------------

    def signal(self) -> GreenSignal:
        return GreenSignal(self)

    def spawn(self, job: Job, context: Optional[Context] = None) -> None:
        def guarded() -> None:
            try:
                job()
            except BaseException as error:
                self.failures.append(error)

        self._start(Actor(guarded), context or Context())

    def call_later(self, delay: float, call: Job) -> _Alarm:
        alarm = _Alarm(call)
        entry = (self.now + delay, next(self._order), alarm)
        heapq.heappush(self._alarms, entry)
        return alarm

    def on_books(self, call: Job) -> None:
        call()

    def who(self) -> int:
        return id(getcurrent())

    # -- for the test ------------------------------------------------------

    def start(self, job: Job, outside: bool = False) -> Actor:
        actor = Actor(job)
        self._start(actor, Context())
        return actor

    def _start(self, actor: Actor, context: Context) -> None:
        actor.thread = greenlet(actor, self._hub)
        actor.thread.gr_context = context
        self._ready.append(actor.thread)

    def wait(self, condition: Callable[[], bool]) -> None:
        """Have the greenlet that calls this wait."""
        assert getcurrent() is not self._hub, "the test itself must not wait"
        if not condition():
            self._waiting[getcurrent()] = condition
            self._hub.switch()

    def settle(self) -> None:
        """Let everybody run, in any order, until all wait."""
        while True:
            for thread, condition in list(self._waiting.items()):
                if condition():
                    del self._waiting[thread]
                    self._ready.append(thread)
            if self._ready:
                number = self.random.randrange(len(self._ready))
                self._ready.pop(number).switch()
            elif not self._doomed:
                return
            self._interrupt_the_doomed(all_of_them=not self._ready)

    def interrupt_in(self, steps: int, actor: Actor) -> None:
        self._doomed[actor] = steps

    def _interrupt_the_doomed(self, all_of_them: bool) -> None:
        for actor, steps in list(self._doomed.items()):
            self._doomed[actor] = steps - 1
            if steps <= 0 or all_of_them:
                self._interrupt(actor)

    def _interrupt(self, actor: Actor) -> None:
        if actor.done:
            del self._doomed[actor]
        elif actor.thread.gr_frame is not None:  # or it has not begun yet
            del self._doomed[actor]
            # it may just have been woken
            if self._waiting.pop(actor.thread, None) is None:
                self._ready.remove(actor.thread)
            actor.interrupted = True
            actor.thread.throw(Interrupted())

    def advance(self, seconds: float) -> None:
        """Let time pass, with all that happens in it."""
        ends = self.now + seconds
        self.settle()
        while self._alarms and self._alarms[0][0] <= ends:
            when, _, alarm = heapq.heappop(self._alarms)
            self.now = max(self.now, when)
            if alarm.call is not None:
                self._ring(alarm.call)
                self.settle()
        self.now = max(self.now, ends)
        self.settle()

    def _ring(self, call: Job) -> None:
        try:
            call()
        except BaseException as error:
            self.failures.append(error)

    def gate(self) -> GreenGate:
        return GreenGate(self)

    def fork(self) -> None:
        """Go on as the child of a fork, to which no thread came along."""
        for thread in [*self._ready, *self._waiting]:
            keep_for_good(thread)
        self._ready.clear()
        self._waiting.clear()
        self._doomed.clear()
        self._alarms.clear()

    def close(self) -> None:
        assert not self._ready and not self._waiting
