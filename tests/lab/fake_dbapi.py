"""A database that is not there, of which a test holds every step.

A :class:`FakeDatabase` can have each step of its connections (``connect``,
``ping``, ``execute``, ``commit``, ``rollback``, ``close``) fail with any
exception, hang until it is released, or be looked at.  It keeps books: a
connection that two use at once, or that is used after its close, is a
mistake, and what is still open at the end is a leak::

    database = FakeDatabase()
    engine = database.engine(max_size=2)
    database.once("connect", OSError("down"))
    gate = database.always("ping", Gate())
    ...
    database.check(open=0)

It is reached through SQLAlchemy: by the dialect ``fake://``, whose
connections block, or ``fake+aio://``, whose connections are awaited through
SQLAlchemy's bridge as those of any async driver.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections import deque
from contextlib import contextmanager
import inspect
from types import SimpleNamespace
from typing import Any
from typing import Callable
from typing import Iterator
from typing import Optional
from typing import TypeVar
from typing import Union
import weakref

from sqlalchemy import create_engine
from sqlalchemy import event
from sqlalchemy.dialects import registry
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.ext.asyncio import create_async_engine

from sqla_smartpool import AsyncSmartPool
from sqla_smartpool import SmartPool
from sqla_smartpool._sqlalchemy import await_
from tests.lab.fake_connections import Adapted
from tests.lab.fake_connections import Disconnected
from tests.lab.fake_connections import Error
from tests.lab.fake_connections import Fake
from tests.lab.fake_connections import FakeAsync
from tests.lab.fake_connections import who

registry.register("fake", __name__, "FakeDialect")
registry.register("fake.aio", __name__, "FakeAsyncDialect")

#: what a step does: raise, or be called with the connection (None while there
#: is none yet); what it returns is awaited if it can be
Action = Union[
    BaseException, type[BaseException], Callable[[Optional[Fake]], Any]
]
A = TypeVar("A", bound=Action)


class FakeDialect(DefaultDialect):
    name = "fake"
    driver = "fake"
    supports_statement_cache = True

    @classmethod
    def import_dbapi(cls) -> Any:
        return SimpleNamespace(
            Error=Error,
            paramstyle="qmark",
            connect=lambda database: database.connect(),
        )

    def initialize(self, connection: Any) -> None:
        """Ask nothing of the first connection."""

    def do_ping(self, dbapi_connection: Any) -> bool:
        driver_connection(dbapi_connection).expect_owner("ping")
        dbapi_connection.ping()
        return True

    def do_close(self, dbapi_connection: Any) -> None:
        driver_connection(dbapi_connection).expect_owner("close")
        dbapi_connection.close()

    def is_disconnect(self, e: Any, connection: Any, cursor: Any) -> bool:
        return isinstance(e, Disconnected)


class FakeAsyncDialect(FakeDialect):
    driver = "aio"
    supports_statement_cache = True
    is_async = True
    has_terminate = True

    def do_terminate(self, dbapi_connection: Any) -> None:
        driver_connection(dbapi_connection).expect_owner("terminate")
        dbapi_connection.terminate()

    def get_driver_connection(self, connection: Any) -> Any:
        return connection.driver_connection


def driver_connection(connection: Any) -> Fake:
    found: Fake = getattr(connection, "driver_connection", connection)
    return found


class FakeDatabase:
    """What all connections have in common: their faults and their books.

    :param asynchronous: connections are awaited.
    :param kind: of the connections, if not the plain one.
    """

    def __init__(
        self, asynchronous: bool = False, kind: Optional[type[Fake]] = None
    ) -> None:
        self.asynchronous = asynchronous
        self.kind = kind or (FakeAsync if asynchronous else Fake)
        self.dialect = FakeAsyncDialect() if asynchronous else FakeDialect()
        self.dialect.dbapi = self.dialect.import_dbapi()
        self.pool_class = AsyncSmartPool if asynchronous else SmartPool
        #: every connection there ever was, in the order of their connects
        self.connections: list[Fake] = []
        #: the connects under way
        self.connecting = 0
        #: every step so far, with the connection's number; 0 for a connect
        self.calls: list[tuple[str, int]] = []
        #: what must not happen, and did
        self.mistakes: list[str] = []
        self._next: dict[str, deque[Action]] = defaultdict(deque)
        self._always: dict[str, Action] = {}

    # -- faults ------------------------------------------------------------

    def once(self, name: str, *actions: Action) -> None:
        """Have the next step of this name do the first, and so on."""
        self._next[name].extend(actions)

    def always(self, name: str, action: A) -> A:
        """Have every step of this name do that; returns it."""
        self._always[name] = action
        return action

    def heal(self) -> None:
        """End all faults."""
        self._next.clear()
        self._always.clear()

    def act(self, name: str, connection: Optional[Fake]) -> Any:
        """Do what a step is told to; what it returns may be awaitable."""
        due = self._next[name]
        action = due.popleft() if due else self._always.get(name)
        if action is None:
            return None
        if isinstance(action, (type, BaseException)):
            raise action
        return action(connection)

    # -- books -------------------------------------------------------------

    @property
    def open(self) -> list[Fake]:
        """The connections that are open."""
        return [each for each in self.connections if each.is_open]

    def count(self, name: str) -> int:
        """How often a step of this name was begun."""
        return sum(step == name for step, _ in self.calls)

    def check(self, open: Optional[int] = None) -> None:
        """Fail if there was a mistake, or not as many are open."""
        assert not self.mistakes, "\n".join(self.mistakes)
        if open is not None:
            assert len(self.open) == open, f"open: {self.open}"

    def watch(self, target: Any) -> None:
        """Note who has what, of an engine or a pool."""
        event.listen(target, "checkout", self._checked_out)
        event.listen(target, "checkin", self._checked_in)

    def _checked_out(self, connection: Any, *args: Any) -> None:
        fake = driver_connection(connection)
        if fake.owner is not None:
            fake.mistake(f"to {who()!r}, but {fake.owner()!r} has it")
        if not fake.is_open or fake.torn or fake.in_transaction:
            fake.mistake(f"handed out unfit: {vars(fake)}")
        fake.owner = weakref.ref(who())

    def _checked_in(self, connection: Any, *args: Any) -> None:
        if connection is not None:  # or it was invalidated, and so closed
            driver_connection(connection).owner = None

    # -- ways in -----------------------------------------------------------

    def connect(self) -> Any:
        """Open a connection; a creator, too."""
        if self.asynchronous:
            return Adapted(self.dialect.dbapi, await_(self._connect_async()))
        with self._connecting():
            self.act("connect", None)
            return self._connected()

    async def _connect_async(self) -> Any:
        with self._connecting():
            await asyncio.sleep(0)
            acted = self.act("connect", None)
            if inspect.isawaitable(acted):
                await acted
            return self._connected()

    @contextmanager
    def _connecting(self) -> Iterator[None]:
        self.calls.append(("connect", 0))
        self.connecting += 1
        try:
            yield
        finally:
            self.connecting -= 1

    def _connected(self) -> Fake:
        self.connections.append(self.kind(self, len(self.connections) + 1))
        return self.connections[-1]

    @property
    def url(self) -> str:
        return "fake+aio://" if self.asynchronous else "fake://"

    @property
    def connect_args(self) -> dict[str, Any]:
        return {"database": self}

    def engine(self, **options: Any) -> Any:
        """Make a watched engine, or asynchronous engine, with our pool."""
        options.setdefault("poolclass", self.pool_class)
        options.setdefault("connect_args", self.connect_args)
        options.setdefault("_initialize", False)  # there is nothing to ask
        if not self.asynchronous:
            engine: Any = create_engine(self.url, **options)
            self.watch(engine)
            return engine
        engine = create_async_engine(self.url, **options)
        self.watch(engine.sync_engine)
        return engine

    def pool(self, creator: Any = None, **arguments: Any) -> Any:
        """Make a watched pool with an engine's dialect but no engine."""
        pool = self.pool_class(
            creator or self.connect, dialect=self.dialect, **arguments
        )
        self.watch(pool)
        return pool
