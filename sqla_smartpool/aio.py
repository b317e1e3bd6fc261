"""How the pool waits and works beside its callers, on an event loop.

SQLAlchemy runs code that looks synchronous in a greenlet and awaits for it,
so the pool is one source for threads and for loops: only what is here
differs from :mod:`.runtime`.
"""

from __future__ import annotations

import asyncio
from contextvars import Context
import random
import threading
import time
from typing import Any
from typing import Callable
from typing import Optional

from . import exc
from ._sqlalchemy import await_
from ._sqlalchemy import greenlet_spawn
from .runtime import Alarm
from .runtime import log


class LoopSignal:
    """A future that is resolved once: True when set, False when too late."""

    __slots__ = ("_runtime", "_future")

    def __init__(self, runtime: LoopRuntime) -> None:
        self._runtime = runtime
        self._future: asyncio.Future[bool] = runtime.loop.create_future()

    def set(self) -> None:
        self._runtime.on_books(lambda: self._resolve(True))

    def _resolve(self, outcome: bool) -> None:
        if not self._future.done():
            self._future.set_result(outcome)

    def wait(self, timeout: Optional[float] = None) -> bool:
        if self._future.done() and not self._future.cancelled():
            return self._future.result()
        alarm: Optional[asyncio.TimerHandle] = None
        if timeout is not None:
            # not asyncio.wait_for: in Python 3.11 it can lose a cancellation
            # that comes together with the result
            alarm = self._runtime.loop.call_later(
                max(timeout, 0.0), self._resolve, False
            )
        try:
            return await_(self._future)
        finally:
            if alarm is not None:
                alarm.cancel()


class LoopRuntime:
    """The runtime of :class:`.AsyncSmartPool`, for one event loop."""

    clock = staticmethod(time.monotonic)
    chance = staticmethod(random.random)

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        # the loop itself keeps weak references to its tasks only
        self._tasks: set[asyncio.Task[Any]] = set()

    def signal(self) -> LoopSignal:
        return LoopSignal(self)

    def spawn(
        self, job: Callable[[], object], context: Optional[Context] = None
    ) -> None:
        def start() -> asyncio.Task[Any]:
            return self.loop.create_task(greenlet_spawn(job))

        # create_task(context=…) is new in Python 3.11
        task = (context or Context()).run(start)
        # a loop that is closed without ending its tasks has no one to tell
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a pool's task failed", exc_info=task.exception())

    def call_later(self, delay: float, call: Callable[[], object]) -> Alarm:
        return self.loop.call_later(delay, call)

    def on_books(self, call: Callable[[], object]) -> None:
        if threading.get_ident() == self._thread:
            call()
        elif not self.loop.is_closed():
            self.loop.call_soon_threadsafe(call)

    def current(self) -> None:
        """Raise unless this is the loop's own thread.

        :raises PoolLoopError: names both loops and the remedy.
        """
        running = asyncio._get_running_loop()
        if running is not None and running is not self.loop:
            raise exc.PoolLoopError(
                f"this pool serves event loop {self.loop!r}, which is still "
                f"running, and was now used from {running!r}; an async "
                "engine's connections cannot leave their loop: create one "
                "engine per loop, or await engine.dispose() before moving "
                "to another"
            )
