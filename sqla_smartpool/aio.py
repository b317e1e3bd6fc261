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
    """The runtime of :class:`.AsyncSmartPool`, for one event loop at a time.

    The loop is not known before the first checkout.
    """

    clock = staticmethod(time.monotonic)
    chance = staticmethod(random.random)

    loop: asyncio.AbstractEventLoop

    def __init__(self) -> None:
        self.loop = None  # type: ignore[assignment]
        self._thread: Optional[int] = None
        # the loop itself keeps weak references to its tasks only
        self._tasks: set[asyncio.Task[Any]] = set()

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Serve this loop, which is the running one, from now on."""
        self.loop = loop
        self._thread = threading.get_ident()
        self._tasks = set()

    def may_move(self, loop: asyncio.AbstractEventLoop, in_use: bool) -> bool:
        """Tell whether another loop can be served from now on.

        :param in_use: there are connections, which belong to the old loop.
        :raises PoolLoopError: names both loops and the remedy.
        """
        if self.loop is None or self.loop.is_closed() or not in_use:
            return True
        raise exc.PoolLoopError(
            f"this pool serves {self.loop!r}, which has not been closed, and "
            f"was now used from {loop!r}; an async engine's connections "
            "cannot leave their event loop: create one engine per loop, or "
            "await engine.dispose() before moving on to another"
        )

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
        if self._thread in (None, threading.get_ident()):
            call()
            return
        try:
            self.loop.call_soon_threadsafe(call)
        except RuntimeError:
            pass  # the loop has been closed, and its books with it
