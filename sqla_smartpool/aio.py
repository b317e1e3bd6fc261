"""How the pool waits and works beside its callers, on an event loop.

SQLAlchemy runs code that looks synchronous in a greenlet and awaits for it,
so the pool is one source for threads and for loops: only what is here
differs from :mod:`.runtime`.
"""

from __future__ import annotations

import asyncio
from asyncio import _get_running_loop
from contextvars import Context
from contextvars import copy_context
from functools import partial
import inspect
import math
import random
import threading
import time
from typing import Any
from typing import Callable
from typing import Optional

from greenlet import greenlet
from sqlalchemy.exc import MissingGreenlet

from . import exc
from ._sqlalchemy import await_
from ._sqlalchemy import greenlet_spawn
from .record import Record
from .runtime import Alarm
from .runtime import log
from .sockets import transport_of
from .whereabouts import current_task

#: waits that end within so many seconds may end together
_SLACK = 0.005
#: loops call so many seconds too early
_ROUNDING = 1e-6


class LoopSignal:
    """A future that is resolved once: True when set, False when too late."""

    __slots__ = ("_runtime", "_future")

    def __init__(self, runtime: LoopRuntime) -> None:
        self._runtime = runtime
        self._future: asyncio.Future[bool] = runtime.loop.create_future()

    def set(self) -> None:
        if self._runtime.thread == threading.get_ident():
            self.resolve()
        else:
            self._runtime.on_books(self.resolve)

    def resolve(self, outcome: bool = True) -> None:
        if not self._future.done():
            try:
                self._future.set_result(outcome)
            except RuntimeError:
                pass  # its loop is closed: nobody is left who waits

    def wait(self, timeout: Optional[float] = None) -> bool:
        if self._future.done() and not self._future.cancelled():
            return self._future.result()
        if timeout is not None:
            # not asyncio.wait_for: in Python 3.11 it can lose a cancellation
            # that comes together with the result
            self._runtime.ends.add(self, timeout)
        try:
            return await_(self._future)
        finally:
            self._runtime.ends.discard(self)


class Ends:
    """When the waits on an event loop end, if nothing comes of them.

    One alarm serves all: to set and cancel one for each takes asyncio longer
    than anything else in a wait.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._times: dict[LoopSignal, float] = {}
        self._alarm: Optional[asyncio.TimerHandle] = None
        self._alarm_at = math.inf

    def add(self, signal: LoopSignal, seconds: float) -> None:
        self._times[signal] = when = self._loop.time() + seconds
        if when < self._alarm_at:
            self._look_at(when)

    def discard(self, signal: LoopSignal) -> None:
        self._times.pop(signal, None)

    def _look_at(self, when: float) -> None:
        before = self._alarm
        self._alarm = self._loop.call_at(when, self._look)
        self._alarm_at = when
        if before is not None:
            before.cancel()

    def _look(self) -> None:
        self._alarm_at = math.inf
        now = self._loop.time()
        for signal, when in list(self._times.items()):
            if when <= now + _ROUNDING:
                self.discard(signal)
                signal.resolve(False)
        if self._times:
            # not at each of thousands of times that lie close together
            self._look_at(max(min(self._times.values()), now + _SLACK))


class Never:
    """The alarm of a loop that has been closed."""

    def cancel(self) -> None:
        pass


class LoopRuntime:
    """The runtime of :class:`.AsyncSmartPool`, for one event loop at a time.

    The loop is not known before the first checkout.
    """

    clock = staticmethod(time.monotonic)
    chance = staticmethod(random.random)
    who = staticmethod(current_task)

    #: held while a pool moves to another loop; one for all, as that is rare
    moving = threading.Lock()

    loop: asyncio.AbstractEventLoop
    ends: Ends

    def __init__(self) -> None:
        self.loop = None  # type: ignore[assignment]
        #: the loop's
        self.thread: Optional[int] = None
        # the loop itself keeps weak references to its tasks only
        self._tasks: set[asyncio.Task[Any]] = set()

    def bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Serve this loop, which is the running one, from now on."""
        self.loop = loop
        self.ends = Ends(loop)
        self.thread = threading.get_ident()
        self._tasks = set()

    @property
    def closed(self) -> bool:
        """Whether the loop is gone; none at all is not."""
        return self.loop is not None and self.loop.is_closed()

    def may_move(
        self, loop: asyncio.AbstractEventLoop, in_use: bool, stopped: bool
    ) -> bool:
        """Tell whether another loop can be served from now on.

        :param in_use: there are connections or callers, which belong to the
            old loop.
        :param stopped: else an empty pool does not leave a loop that runs
            either: whether it is empty is a matter of chance.
        :raises PoolLoopError: names both loops and the remedy.
        """
        if self.loop is None or self.loop.is_closed():
            return True
        if not in_use and (stopped or not self.loop.is_running()):
            return True
        raise exc.PoolLoopError(
            f"this pool serves {self.loop!r}, which has not been closed, and "
            f"was now used from {loop!r}; an async engine's connections "
            "cannot leave their event loop: create one engine per loop, or "
            "await engine.dispose() before moving on to another"
        )

    def ago(self, now: float, seconds: float) -> float:
        return now - seconds

    def signal(self) -> LoopSignal:
        self._need_loop()
        return LoopSignal(self)

    def _need_loop(self) -> None:
        if self.loop is None:
            raise no_loop()

    def spawn(
        self, job: Callable[[], object], context: Optional[Context] = None
    ) -> None:
        if self.loop.is_closed():
            raise RuntimeError("the event loop has been closed")

        def start() -> asyncio.Task[Any]:
            return self.loop.create_task(greenlet_spawn(job))

        # create_task(context=…) is new in Python 3.11
        task = (context or Context()).run(start)
        # a loop that is closed without ending its tasks has no one to tell
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def forget_tasks(self) -> None:
        """Have tasks that never began, as their loop was closed, go
        unmentioned."""
        for task in list(self._tasks):
            coroutine: Any = task.get_coro()
            if inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
                coroutine.close()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a pool's task failed", exc_info=task.exception())

    def call_later(self, delay: float, call: Callable[[], object]) -> Alarm:
        self._need_loop()
        if self.loop.is_closed():  # such as when its last user is collected
            return Never()
        return self.loop.call_later(delay, call)

    def on_books(self, call: Callable[[], object]) -> None:
        if self.thread in (None, threading.get_ident()):
            call()
            return
        try:
            self.loop.call_soon_threadsafe(call)
        except RuntimeError:
            pass  # the loop has been closed, and its books with it


def no_loop() -> MissingGreenlet:
    """The error of who uses an async pool where no loop runs."""
    return MissingGreenlet(
        "an async pool was used outside of an event loop; use "
        "'await engine.connect()', or an engine with a sync driver"
    )


def apart(call: Callable[[], object]) -> None:
    """Make a call outside of SQLAlchemy's greenlets: there drivers end a
    connection at once, and do not try to await."""
    # a greenlet begins with an empty context
    greenlet(partial(copy_context().run, call)).switch()


def closes_in_any_case(dialect: Any) -> bool:
    """Tell whether a driver's close() does what terminate() is for: it ends
    the connection also when it is cancelled.

    Where a loop ends in the middle of it, SQLAlchemy's terminate() stops
    aiosqlite's thread twice, and may wait for ever for the second time.
    """
    return getattr(dialect, "driver", None) == "aiosqlite"


def let_go(record: Record, dialect: Any) -> None:
    """End a connection whose event loop is gone: nothing can be awaited."""
    connection = record.dbapi_connection
    if connection is None:
        return
    if _get_running_loop() is None:
        end(dialect, connection)
    else:
        # away from the running loop and SQLAlchemy's greenlet, drivers do
        # not try to await
        elsewhere = threading.Thread(target=end, args=(dialect, connection))
        elsewhere.start()
        elsewhere.join()
    if record.line is not None:
        record.line.sever()


def end(dialect: Any, connection: Any) -> None:
    """End a connection whose event loop is gone, outside of any loop.

    The transport goes first, as every driver would try to end it through its
    loop; what the driver itself has to end goes after it.
    """
    try:
        driver_connection = dialect.get_driver_connection(connection)
        _end_transport(transport_of(driver_connection))
        _end_driver(dialect, connection, driver_connection)
    except Exception as error:  # the socket is closed in any case
        log.debug("a connection of a closed loop: %s", error)


def _end_transport(transport: Any) -> None:
    if transport is None:
        return
    try:
        transport.abort()
    except RuntimeError:
        pass  # its loop is closed, and does not close the socket any more
    # TLS is a transport upon a transport
    while hasattr(transport, "_ssl_protocol"):
        transport = transport._ssl_protocol._transport
    own_socket = getattr(transport, "_sock", None)
    if own_socket is not None:
        own_socket.close()
        transport._sock = None


def _end_driver(dialect: Any, connection: Any, driver_connection: Any) -> None:
    if getattr(dialect, "has_terminate", False):
        dialect.do_terminate(connection)
    elif hasattr(driver_connection, "pgconn"):  # psycopg
        driver_connection.pgconn.finish()
    elif hasattr(driver_connection, "stop"):  # aiosqlite
        driver_connection.stop()
