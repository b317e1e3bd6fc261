"""Worlds in which a test decides who runs, and when time passes.

In :class:`Greenlets` the pool's threads are greenlets, which switch only
where they wait; in :class:`Tasks` they are tasks of an event loop without a
clock of its own.  Both offer the same: a test begins actors, settles (lets
everybody run until all wait), and lets time pass.
"""

from __future__ import annotations

import asyncio
from contextvars import Context
import ctypes
import heapq
import inspect
import itertools
import random
from typing import Any
from typing import Callable
from typing import Optional

from greenlet import getcurrent
from greenlet import greenlet

from sqla_smartpool import AsyncSmartPool
from sqla_smartpool import SmartPool
from sqla_smartpool._sqlalchemy import await_
from sqla_smartpool._sqlalchemy import greenlet_spawn
from sqla_smartpool.aio import LoopRuntime
from sqla_smartpool.aio import LoopSignal
from tests.lab.fake_connections import FakeWithSocket

Job = Callable[[], Any]


class Interrupted(BaseException):
    """What interrupts a thread from outside."""


class Actor:
    """Somebody who does something, and what came of it."""

    def __init__(self, job: Job) -> None:
        self._job = job
        #: its greenlet or task
        self.thread: Any = None
        self.done = False
        self.error: Optional[BaseException] = None

    def __call__(self) -> None:
        try:
            self._job()
        except BaseException as error:
            # frames would keep connections alive
            error.__traceback__ = error.__context__ = None
            self.error = error
        finally:
            self.done = True


class _Alarm:
    def __init__(self, call: Job) -> None:
        self.call: Optional[Job] = call

    def cancel(self) -> None:
        self.call = None


class World:
    """What both have in common.

    :param seed: of all chance.
    """

    #: called with a signal that somebody waits for, and when it is set
    on_wait: Callable[[Any], object] = staticmethod(lambda signal: None)
    on_set: Callable[[Any], object] = staticmethod(lambda signal: None)
    #: errors that nobody has caught
    failures: list[Any]

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.chance = self.random.random
        self.now = 1000.0
        self.failures = []

    def clock(self) -> float:
        return self.now

    @staticmethod
    def wait_for(result: Any) -> Any:
        """What a method of the pool returns, or its coroutine."""
        return await_(result) if inspect.isawaitable(result) else result


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

    def begin(self, job: Job, outside: bool = False) -> Actor:
        """Have something done; returns when everybody waits."""
        actor = Actor(job)
        self._start(actor, Context())
        self.settle()
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
            if not self._ready:
                return
            number = self.random.randrange(len(self._ready))
            self._ready.pop(number).switch()

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

    def interrupt(self, actor: Actor) -> None:
        """Raise something in a thread that waits."""
        del self._waiting[actor.thread]
        actor.thread.throw(Interrupted())
        self.settle()

    def gate(self) -> GreenGate:
        return GreenGate(self)

    def fork(self) -> None:
        """Go on as the child of a fork, to which no thread came along."""
        for thread in [*self._ready, *self._waiting]:
            _keep_for_good(thread)
        self._ready.clear()
        self._waiting.clear()
        self._alarms.clear()

    def close(self) -> None:
        assert not self._ready and not self._waiting


def _keep_for_good(thing: object) -> None:
    """A greenlet, or task, that is collected would run on."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


class _NoSelector:
    def select(self, timeout: Optional[float]) -> list[Any]:
        return []

    def close(self) -> None:
        pass


class Loop(asyncio.BaseEventLoop):
    """An event loop without files, whose time the test lets pass."""

    def __init__(self, world: Tasks) -> None:
        super().__init__()
        self._world = world
        self._selector = _NoSelector()
        self.set_exception_handler(
            lambda _, context: world.failures.append(context)
        )

    def time(self) -> float:
        return self._world.now

    def _process_events(self, events: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    @property
    def next_alarm(self) -> float:
        """When the next call is due."""
        scheduled: list[Any] = self._scheduled  # type: ignore[attr-defined]
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False
            self._timer_cancelled_count -= 1
        return scheduled[0]._when if scheduled else float("inf")

    def settle(self) -> None:
        while True:
            self.run_until_complete(asyncio.sleep(0))
            if not self._ready:  # type: ignore[attr-defined]
                return


class _TaskSignal(LoopSignal):
    __slots__ = ("owner", "queued")

    def __init__(self, runtime: TaskRuntime) -> None:
        super().__init__(runtime)
        self.owner = asyncio.current_task()

    def set(self) -> None:
        if not self._future.done():
            self._runtime.world.on_set(self)  # type: ignore[attr-defined]
        super().set()

    def wait(self, timeout: Optional[float] = None) -> bool:
        self._runtime.world.on_wait(self)  # type: ignore[attr-defined]
        return super().wait(timeout)


class TaskRuntime(LoopRuntime):
    """The pool's own, but for its clock."""

    def __init__(self, world: Tasks) -> None:
        super().__init__()
        self.world = world
        self.chance = world.chance  # type: ignore[assignment]
        self.clock = world.clock  # type: ignore[assignment]

    def signal(self) -> _TaskSignal:
        self._need_loop()
        return _TaskSignal(self)


class TaskPool(AsyncSmartPool):
    """A pool of the world that was made last."""

    world: Tasks

    def _new_runtime(self) -> TaskRuntime:
        return TaskRuntime(self.world)


class TaskGate:
    """Holds up whoever comes, until it is opened."""

    def __init__(self) -> None:
        self._open = asyncio.Event()

    def open(self) -> None:
        self._open.set()

    def __call__(self, connection: Any) -> Any:
        return self._open.wait()


class Tasks(World):
    """Tasks of an event loop."""

    asynchronous = True
    pool_class = TaskPool

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        TaskPool.world = self
        self.loop = Loop(self)

    def begin(self, job: Job, outside: bool = False) -> Actor:
        """Have something done; returns when everybody waits.

        :param outside: of SQLAlchemy's bridge.
        """
        actor = Actor(job)

        async def run() -> None:
            actor()

        work = run() if outside else greenlet_spawn(actor)
        actor.thread = self.loop.create_task(work)
        self.settle()
        return actor

    def settle(self) -> None:
        """Let everybody run until all wait."""
        self.loop.settle()

    def advance(self, seconds: float) -> None:
        """Let time pass, with all that happens in it."""
        ends = self.now + seconds
        self.settle()
        while (when := self.loop.next_alarm) <= ends:
            self.now = max(self.now, when)
            self.settle()
        self.now = max(self.now, ends)
        self.settle()

    def interrupt(self, actor: Actor) -> None:
        """Cancel a task."""
        actor.thread.cancel()
        self.settle()

    def gate(self) -> TaskGate:
        return TaskGate()

    def fork(self) -> None:
        """Go on as the child of a fork, on a loop of its own."""
        for task in asyncio.all_tasks(self.loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            _keep_for_good(task)
        _keep_for_good(self.loop)
        self.loop = Loop(self)

    def close(self) -> None:
        assert not asyncio.all_tasks(self.loop)
        self.loop.close()
