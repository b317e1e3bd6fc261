"""A :class:`.World` of tasks on an event loop."""

from __future__ import annotations

import asyncio
import heapq
from typing import Any
from typing import Optional

from sqla_smartpool import AsyncSmartPool
from sqla_smartpool._sqlalchemy import greenlet_spawn
from sqla_smartpool.aio import LoopRuntime
from sqla_smartpool.aio import LoopSignal
from tests.lab.fake_connections import FakeAsync
from tests.lab.world import Actor
from tests.lab.world import Job
from tests.lab.world import keep_for_good
from tests.lab.world import World


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
    """Holds up whoever comes, until it is opened.

    Whose connection is aborted need not wait any longer.
    """

    def __init__(self) -> None:
        self._is_open = False
        self._held: list[asyncio.Future[None]] = []

    def open(self) -> None:
        self._is_open = True
        for future in self._held:
            _resolve(future)

    async def __call__(self, connection: Optional[FakeAsync]) -> None:
        if self._is_open:
            return
        future = asyncio.get_running_loop().create_future()
        if connection is not None:
            connection.on_abort = lambda: _resolve(future)
        self._held.append(future)
        await future


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Tasks(World):
    """Tasks of an event loop."""

    asynchronous = True
    pool_class = TaskPool

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        TaskPool.world = self
        self.loop = Loop(self)

    def start(self, job: Job, outside: bool = False) -> Actor:
        actor = Actor(job)

        async def run() -> None:
            actor()

        work = run() if outside else greenlet_spawn(actor)
        actor.thread = task = self.loop.create_task(work)
        task.add_done_callback(
            lambda _: actor.never_began(asyncio.CancelledError())
        )
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

    def interrupt_in(self, steps: int, actor: Actor) -> None:
        if steps:
            self.loop.call_soon(self.interrupt_in, steps - 1, actor)
        elif actor.thread.cancel():
            actor.interrupted = True

    def gate(self) -> TaskGate:
        return TaskGate()

    def fork(self) -> None:
        """Go on as the child of a fork, on a loop of its own."""
        for task in asyncio.all_tasks(self.loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            keep_for_good(task)
        keep_for_good(self.loop)
        self.loop = Loop(self)

    def close(self) -> None:
        assert not asyncio.all_tasks(self.loop)
        self.loop.close()
