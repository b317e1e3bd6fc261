"""The connections of a driver that is not there: see :mod:`.fake_dbapi`."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
import inspect
import socket
import threading
from typing import Any
from typing import Callable
from typing import Iterator
from typing import Optional
from typing import TYPE_CHECKING

from greenlet import getcurrent
from sqlalchemy.connectors.asyncio import AsyncAdapt_dbapi_connection
from sqlalchemy.connectors.asyncio import AsyncAdapt_terminate

from sqla_smartpool._sqlalchemy import await_

if TYPE_CHECKING:
    from tests.lab.fake_dbapi import FakeDatabase

#: longer than any test waits, seconds
_LONG = 60.0


def who() -> Any:
    """Who is at work: a task, or a thread (or greenlet)."""
    try:
        return asyncio.current_task() or getcurrent()
    except RuntimeError:
        return getcurrent()


class Error(Exception):
    """The driver's base class."""


class Disconnected(Error):
    """The other end is gone."""


class Gate:
    """Holds up whoever comes, until it is opened for good.

    A thread that waits here is woken when its connection's socket is shut,
    if it has one.

    :param open_event: a ``threading.Event``, an ``asyncio.Event``, or what
        can wait likewise in the world of the test.
    """

    def __init__(self, open_event: Any = None) -> None:
        self._open = open_event or threading.Event()
        #: how many have come
        self.visits = 0

    def open(self) -> None:
        self._open.set()

    def __call__(self, connection: Optional[Fake]) -> Any:
        self.visits += 1
        if not isinstance(self._open, threading.Event):
            return self._open.wait()
        for _ in range(int(_LONG / 0.01)):
            if self._open.wait(0.01):
                return None
            if isinstance(connection, FakeWithSocket):
                connection.feel()
        raise AssertionError("nobody has opened the gate")


class Fake:
    """A connection of the driver, and what the books say of it."""

    def __init__(self, database: FakeDatabase, number: int) -> None:
        self.database = database
        self.number = number
        self.alive = True
        self.is_open = True
        self.in_transaction = False
        #: a step was interrupted half way: the stream is out of step
        self.torn = False
        #: who has checked it out; None: nobody has
        self.owner: Optional[Callable[[], Any]] = None
        self._under_way: dict[int, tuple[str, Any]] = {}

    def __repr__(self) -> str:
        return f"<fake connection {self.number}>"

    @property
    def under_way(self) -> str:
        """The step that is being done; "": none is."""
        step = self._under_way.get(0)
        return step[0] if step else ""

    def kill(self) -> None:
        """Let it die at the other end."""
        self.alive = False

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        """Enter a step into the books."""
        me, closes = (name, who()), name in ("close", "abort")
        self.database.calls.append((name, self.number))
        other = self._under_way.setdefault(0, me)
        if other is not me and name != "abort":
            self.mistake("%s by %r during %s by %r" % (*me, *other))
        if not self.is_open:
            self.mistake("%s by %r after its close" % me)
        if self.torn and not closes:
            self.mistake("%s by %r after an interrupted step" % me)
        try:
            yield
            if not closes and not self.alive:
                raise Disconnected(f"{self!r} is dead")
            if name in ("execute", "commit", "rollback"):
                self.in_transaction = name == "execute"
        except Exception:
            raise
        except BaseException:
            self.torn = True
            raise
        finally:
            if other is me:
                self._under_way.clear()
            # drivers drop the socket, however badly a farewell ends
            if closes:
                self._closed()

    def expect_owner(self, name: str) -> None:
        """See that nobody does this to a connection that another has."""
        owner = self.owner and self.owner()
        # one that is gone may have passed it on
        if owner is not None and owner is not who():
            self.mistake(f"{name} by {who()!r}: {owner!r} has it")

    def mistake(self, text: str) -> None:
        """Enter something that must not happen into the books."""
        self.database.mistakes.append(f"{self!r}: {text}")

    def _closed(self) -> None:
        self.is_open = False
        self.owner = None

    def put_away(self) -> None:
        """Give back what a connection keeps that nobody closes."""

    def _do(self, name: str) -> Any:
        with self._step(name):
            self.database.act(name, self)

    def cursor(self) -> FakeCursor:
        return FakeCursor(self)

    def ping(self) -> Any:
        return self._do("ping")

    def execute(self) -> Any:
        return self._do("execute")

    def commit(self) -> Any:
        return self._do("commit")

    def rollback(self) -> Any:
        return self._do("rollback")

    def close(self) -> Any:
        return self._do("close")


class FakeWithHealth(Fake):
    """Passes for a driver that knows whether its connection is alive."""

    __module__ = "oracledb.fake"

    def is_healthy(self) -> bool:
        return self.alive and self.is_open


class FakeWithSocket(Fake):
    """Passes for a driver whose socket can be reached; threads only."""

    __module__ = "pg8000.fake"

    def __init__(self, database: FakeDatabase, number: int) -> None:
        super().__init__(database, number)
        self._usock, self._peer = socket.socketpair()

    def kill(self) -> None:
        super().kill()
        self._peer.close()

    @property
    def was_cut(self) -> bool:
        """The socket was shut down."""
        try:
            return not self._usock.recv(
                1, socket.MSG_PEEK | socket.MSG_DONTWAIT
            )
        except BlockingIOError:
            return False

    def feel(self) -> None:
        """Notice that the socket was shut down."""
        if self.was_cut:
            self.alive = False
            raise Disconnected(f"{self!r} was cut")

    def _closed(self) -> None:
        super()._closed()
        self.put_away()

    def put_away(self) -> None:
        self._usock.close()
        self._peer.close()


class FakeAsync(Fake):
    """One whose steps are coroutines, each with an await at least."""

    #: called when it is aborted, by what holds up one of its steps
    on_abort: Callable[[], object] = staticmethod(lambda: None)

    async def _do(self, name: str) -> None:
        with self._step(name):
            await asyncio.sleep(0)
            acted = self.database.act(name, self)
            if inspect.isawaitable(acted):
                await acted

    def cursor(self) -> FakeAsyncCursor:
        return FakeAsyncCursor(self)

    def abort(self) -> None:
        """Close it at once, without a farewell."""
        if self.is_open:
            with self._step("abort"):
                pass
            self.on_abort()


class FakeAsyncWithHealth(FakeAsync, FakeWithHealth):
    """Both."""


class FakeCursor:
    """Whatever it is asked, the answer is one row with a 1."""

    description = [("1", None, None, None, None, None, None)]
    rowcount = 1

    def __init__(self, connection: Fake) -> None:
        self._connection = connection
        self._rows: list[tuple[int]] = []

    def execute(self, statement: str, parameters: Any = ()) -> Any:
        self._rows = [(1,)]
        return self._connection.execute()

    def fetchone(self) -> Optional[tuple[int]]:
        return self._rows.pop() if self._rows else None

    def close(self) -> None:
        pass


class FakeAsyncCursor(FakeCursor):
    async def __aenter__(self) -> FakeAsyncCursor:
        return self

    async def fetchall(self) -> list[tuple[int]]:
        return self._rows

    async def close(self) -> None:  # type: ignore[override]
        pass


class Adapted(AsyncAdapt_terminate, AsyncAdapt_dbapi_connection):
    """What SQLAlchemy sees of a :class:`FakeAsync`."""

    __slots__ = ()

    def ping(self) -> None:
        await_(self._connection.ping())

    async def _terminate_graceful_close(self) -> None:
        try:
            # bounded, as asyncpg's is
            await asyncio.wait_for(self._close_if_open(), 2.0)
        except (Error, asyncio.TimeoutError):
            # one that was aborted meanwhile is of no interest any more
            if self._connection.is_open:
                raise

    async def _close_if_open(self) -> None:
        if self._connection.is_open:
            await self._connection.close()

    def _terminate_force_close(self) -> None:
        self._connection.abort()
