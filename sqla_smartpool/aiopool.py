"""The pool for ``create_async_engine``."""

from __future__ import annotations

from asyncio import _get_running_loop
import atexit
import functools
import sys
from types import TracebackType
from typing import Any
from typing import Callable
from typing import Coroutine
from typing import Optional
from typing import ParamSpec
from typing import TYPE_CHECKING
from typing import TypeVar

from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.pool import ConnectionPoolEntry

from ._sqlalchemy import greenlet_spawn
from ._sqlalchemy import was_collected
from .aio import apart
from .aio import closes_in_any_case
from .aio import end
from .aio import let_go
from .aio import LoopRuntime
from .aio import no_loop
from .liveness import closing_the_dead
from .pool import all_pools
from .pool import SmartPool
from .runtime import Runtime

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection

    from .stats import CheckResult

_P = ParamSpec("_P")
_T = TypeVar("_T")


def _awaited(
    method: Callable[_P, _T],
) -> Callable[_P, Coroutine[Any, Any, _T]]:
    """Make a coroutine of a method of :class:`.SmartPool`."""

    @functools.wraps(method)
    async def run(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        pool: Any = args[0]
        pool.enter_loop()
        return await greenlet_spawn(functools.partial(method, *args, **kwargs))

    return run


class AsyncSmartPool(SmartPool, AsyncAdaptedQueuePool):
    """:class:`.SmartPool` for ``create_async_engine``::

        engine = create_async_engine(
            url, poolclass=AsyncSmartPool, min_size=5, max_size=30
        )

    Arguments and behaviour are the same; what blocks there is a coroutine
    here.  A pool serves one event loop at a time: when that has been closed,
    it starts anew on the next one.

    .. versionadded:: 0.1
    """

    _is_asyncio = True
    _dialect = AsyncAdaptedQueuePool._dialect
    _sqla_logger_namespace = "sqlalchemy.pool.smart.AsyncSmartPool"

    runtime: Any

    def _new_runtime(self) -> Runtime:
        return LoopRuntime()

    def _do_get(self) -> ConnectionPoolEntry:
        if _get_running_loop() is not self.runtime.loop:
            self.enter_loop()
        return SmartPool._do_get(self)

    def enter_loop(self) -> None:
        """Serve the running event loop from now on.

        :raises PoolLoopError: the pool serves another one, that is not
            closed.
        :raises sqlalchemy.exc.MissingGreenlet: none is running.
        """
        loop = _get_running_loop()
        if self.runtime.loop is loop:
            return
        if loop is None:
            raise no_loop()
        with LoopRuntime.moving:
            books = self.inventory
            in_use = bool(books.members or books.opening or books.waiters)
            if self.runtime.may_move(loop, in_use, books.closed):
                self.abandon()
                self.runtime.bind(loop)

    def abandon(self) -> None:
        """Let go of the connections of a loop that is gone."""
        for record in self.inventory.members:
            let_go(record, self._dialect)
            record.forget()
        self.runtime.forget_tasks()
        self.begin_anew()

    def _close_connection(
        self, connection: DBAPIConnection, *, terminate: bool = False
    ) -> None:
        close = functools.partial(
            super()._close_connection,
            connection,
            # which says farewell as well, but closes in any case
            terminate=terminate or self._dialect.has_terminate,
        )
        collected = was_collected(sys._getframe(1))
        if self.runtime.closed and (collected or _get_running_loop() is None):
            # dropped after its loop's end
            apart(functools.partial(end, self._dialect, connection))
        elif collected:
            # anywhere, so that nothing may be awaited there: whoever it is
            # could be cancelled meanwhile, or be about to change the books
            self.runtime.on_books(functools.partial(apart, close))
        elif closes_in_any_case(self._dialect):
            super()._close_connection(connection)
        elif closing_the_dead.get(False) and self._dialect.has_terminate:
            # nobody hears a farewell, and asyncio may tell of its failure
            apart(close)
        else:
            close()

    def dispose(self) -> None:
        """As :meth:`.SmartPool.dispose`; without a running event loop, no
        connection can be closed politely."""
        if _get_running_loop() is None:
            self.abandon()
        else:
            self.enter_loop()
            super().dispose()

    if TYPE_CHECKING:
        # pyright takes what is assigned for what SmartPool declares
        async def start(  # type: ignore[override]
            self, wait: bool = True, timeout: float = 30.0
        ) -> None: ...

        async def wait(  # type: ignore[override]
            self, timeout: float = 30.0
        ) -> None: ...

        async def stop(  # type: ignore[override]
            self, timeout: float = 10.0
        ) -> None: ...

        async def check(self) -> CheckResult: ...  # type: ignore[override]

        async def resize(  # type: ignore[override]
            self,
            min_size: Optional[int] = None,
            max_size: Optional[int] = None,
        ) -> None: ...

        async def drain(self) -> None: ...  # type: ignore[override]

        async def pause(self) -> None: ...  # type: ignore[override]

        async def resume(self) -> None: ...  # type: ignore[override]

    else:
        start = _awaited(SmartPool.start)
        wait = _awaited(SmartPool.wait)
        stop = _awaited(SmartPool.stop)
        check = _awaited(SmartPool.check)
        resize = _awaited(SmartPool.resize)
        drain = _awaited(SmartPool.drain)
        pause = _awaited(SmartPool.pause)
        resume = _awaited(SmartPool.resume)

    def __enter__(self) -> Any:
        raise TypeError("use 'async with' with an AsyncSmartPool")

    async def __aenter__(self) -> AsyncSmartPool:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: Optional[type[BaseException]],
        exc_value: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        await self.stop()


def _abandon_what_is_left() -> None:
    """At exit, when a loop was closed without a dispose: drivers complain of
    connections that are collected then."""
    for pool in list(all_pools):
        if isinstance(pool, AsyncSmartPool) and pool.runtime.closed:
            pool.abandon()


atexit.register(_abandon_what_is_left)
