"""Every driver, over every way to its server; one test body for all.

A module says ``side = matrix.side`` and marks its tests ``@matrix.on(CASES)``.
A test takes ``side``, a :class:`Client`, and is run as ``tests.conftest`` runs
all that take a side: as it stands for a sync driver, in a task for an async
one.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
import threading
import time
from typing import Any
from typing import Callable
from typing import Iterator
from typing import NamedTuple
from typing import Optional

import pytest
from sqlalchemy import Connection
from sqlalchemy import Engine
from sqlalchemy import event
from sqlalchemy import text
from sqlalchemy import URL
from sqlalchemy.pool import NullPool

from sqla_smartpool import upkeep
from sqla_smartpool._sqlalchemy import await_
from sqla_smartpool._sqlalchemy import greenlet_spawn
from tests.conftest import Side
from tests.lab import drivers
from tests.lab.fixtures import missing
from tests.lab.waiting import at_rest

#: upkeep does nothing but what it is woken for
QUIET = {"check_interval": 60.0}
#: upkeep looks, and finds pings due, all the time
BUSY = {"check_interval": 0.02, "ping_after": 0.02}
#: longer than anything takes here, on a slow machine too; seconds
LONG = 30.0

#: the least that one can ask
ONE = text("SELECT 1")

_ASYNC = {"aiosqlite", "psycopg_async", "asyncpg", "aiomysql", "asyncmy"}
#: compiled on installation, so not to be had everywhere
_COMPILED = {"mysqldb", "mariadbconnector"}
_SESSION = {
    "postgresql": "SELECT pg_backend_pid()",
    "mariadb": "SELECT connection_id()",
}


class Case(NamedTuple):
    """A driver, and the way it takes to its server."""

    drivername: str
    #: the fixture; None: the database is in this process
    server: Optional[str] = None
    way: str = "tcp"

    def __str__(self) -> str:
        driver = self.drivername.rpartition("+")[2]
        return driver if self.server is None else f"{driver}-{self.way}"

    @property
    def asynchronous(self) -> bool:
        return self.drivername.rpartition("+")[2] in _ASYNC


IN_PROCESS = [Case("sqlite"), Case("sqlite+aiosqlite"), Case("duckdb")]
TCP = [
    *(
        Case(f"postgresql+{driver}", "postgresql")
        for driver in (
            "psycopg",
            "psycopg_async",
            "psycopg2",
            "asyncpg",
            "pg8000",
        )
    ),
    Case("mysql+pymysql", "mariadb"),
    Case("mysql+mysqldb", "mariadb"),
    Case("mariadb+mariadbconnector", "mariadb"),
    Case("mysql+aiomysql", "mariadb"),
    Case("mysql+asyncmy", "mariadb"),
]
TLS = [case._replace(way="tls") for case in TCP]
UNIX = [case._replace(way="unix") for case in TCP]
NETWORKED = [*TCP, *TLS, *UNIX]
EVERY = [*IN_PROCESS, *NETWORKED]
#: one sync and one async driver, where it is the pool that is tested
BOTH = [
    Case("postgresql+psycopg", "postgresql"),
    Case("postgresql+asyncpg", "postgresql"),
]


def on(cases: list[Case]) -> pytest.MarkDecorator:
    """Run a test on each of these."""
    return pytest.mark.parametrize("side", cases, indirect=True, ids=str)


class Gate:
    """Holds up whoever comes, until it is opened for good."""

    def __init__(self, asynchronous: bool) -> None:
        self._open: Any = (
            asyncio.Event() if asynchronous else threading.Event()
        )
        self._asynchronous = asynchronous

    def open(self) -> None:
        self._open.set()

    def wait(self) -> None:
        if self._asynchronous:
            await_(self._open.wait())
        else:
            assert self._open.wait(LONG)


class Client(Side):
    """A driver's side of the tests: engines with a smart pool."""

    def __init__(self, case: Case, server: Any, folder: Path) -> None:
        super().__init__(case.asynchronous)
        self.case = case
        self.server = server
        #: what to connect to in place of the server, such as a proxy
        self.door: Any = None
        self._folder = folder
        #: what SQLAlchemy's events tell to be open
        self._open: set[int] = set()
        self._cleanup = ExitStack()

    def url(self, **query: str) -> URL:
        name, way = self.case.drivername, self.case.way
        url: URL
        if self.server is None:
            return URL.create(name, database=str(self._folder / "test.db"))
        if way == "unix":
            url = self.server.unix_url(name)
        else:
            url = (self.door or self.server).url(name, way == "tls")
        return url.update_query_dict(query)

    def connect_args(self) -> dict[str, Any]:
        """What the driver needs besides :meth:`url`."""
        if self.server is None or self.case.way == "unix":
            return {}
        tls = self.case.way == "tls"
        args: dict[str, Any]
        args = self.server.connect_args(self.case.drivername, tls)
        return args

    def connect_takes(self) -> float:
        """How long the driver alone takes to connect, in seconds."""
        engine = self.create_engine(
            self.url(), connect_args=self.connect_args(), poolclass=NullPool
        )
        engine.connect().close()  # the first one looks around
        began = time.monotonic()
        for _ in range(3):
            engine.raw_connection().close()
        return (time.monotonic() - began) / 3

    def smart(self, url: Optional[URL] = None, **options: Any) -> Engine:
        """Make an engine with a smart pool, which nobody has used yet."""
        options.setdefault("connect_args", self.connect_args())
        engine = self.create_engine(
            url or self.url(),
            poolclass=self.pool_class,
            **options,
        )

        @event.listens_for(engine, "connect")
        def opened(connection: Any, record: Any) -> None:
            self._open.add(id(connection))

        @event.listens_for(engine, "close")
        def closed(connection: Any, record: Any) -> None:
            self._open.discard(id(connection))

        return engine

    def started(self, url: Optional[URL] = None, **options: Any) -> Engine:
        """Make an engine whose pool has been started, and is warm.

        A ``QUIET`` one is at rest, too: its upkeep does nothing by itself.
        """
        engine = self.smart(url, **options)
        pool: Any = engine.pool
        self.wait(pool.start())
        if options.items() >= QUIET.items():
            self.eventually(at_rest(pool), "upkeep has nothing to do")
        return engine

    def sessions(self) -> set[int]:
        """What is open, as the server sees it, where there is one."""
        if self.server is None:
            return self._open.copy()
        return set(self.server.sessions())

    def session(self, connection: Connection) -> int:
        """Ask the server which of its sessions this is."""
        sql = _SESSION[self.server.name.lower()]
        number: int = connection.scalar(text(sql))
        connection.rollback()
        return number

    def has(self, number: int) -> Callable[[], bool]:
        """A condition: so many sessions, no more and no less."""
        return lambda: len(self.sessions()) == number

    def hold(self, engine: Engine, number: int) -> list[Connection]:
        """Take so many connections, and use each."""
        held = [engine.connect() for _ in range(number)]
        for connection in held:
            assert connection.scalar(ONE) == 1
        return held

    def use(self, engine: Engine, number: int) -> None:
        """Use so many connections at a time; none fails."""
        for connection in self.hold(engine, number):
            connection.close()

    def gate(self) -> Gate:
        gate = Gate(self.asynchronous)
        self._cleanup.callback(gate.open)  # leave nobody behind it
        return gate

    def begin(self, job: Callable[[], Any]) -> Callable[[], Any]:
        """Begin a job beside the test.

        :return: waits for it, and returns its result or raises its error.
        """
        if self.asynchronous:
            task = asyncio.ensure_future(greenlet_spawn(job))
            return lambda: await_(asyncio.wait_for(task, LONG))
        threads = ThreadPoolExecutor(1)
        self._cleanup.callback(threads.shutdown, wait=False)
        future = threads.submit(job)
        return lambda: future.result(LONG)

    def waiting(self, engine: Engine, number: int = 1) -> None:
        """Wait until so many callers wait."""
        pool: Any = engine.pool
        self.eventually(
            lambda: pool.stats().requests_waiting == number, "they wait"
        )

    def dispose(self) -> None:
        self._cleanup.close()
        super().dispose()


class Diary:
    """What happened to an engine's connections, in order."""

    def __init__(self, engine: Any) -> None:
        self.entries: list[str] = []

        @event.listens_for(engine, "connect")
        def connect(connection: Any, record: Any) -> None:
            self.entries.append("opened")

        @event.listens_for(engine, "retire")
        def retire(connection: Any, record: Any, reason: str) -> None:
            self.entries.append(reason)

        @event.listens_for(engine, "close")
        def close(connection: Any, record: Any) -> None:
            self.entries.append("closed")


class Passes:
    """How often upkeep has looked and decided, in all pools."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.number = 0
        plan = upkeep.plan

        def counted(*args: Any) -> Any:
            self.number += 1
            return plan(*args)

        monkeypatch.setattr(upkeep, "plan", counted)

    def let(self, side: Side, number: int) -> None:
        """Let upkeep look so many times more."""
        ends = self.number + number
        side.eventually(lambda: self.number >= ends, f"{number} passes")


@pytest.fixture
def side(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Client]:
    """The :class:`Client` for a :class:`Case` that :func:`on` has chosen."""
    case: Case = request.param
    import_driver(case)
    server = None
    if case.server is not None:
        server = request.getfixturevalue(case.server)
        if case.way == "tls" and not server.tls:
            missing("this build of PostgreSQL has no TLS")
        server.terminate()
    yield Client(case, server, tmp_path)
    if server is not None:
        server.recover()
        server.terminate()


def installed(cases: list[Case]) -> list[Case]:
    """Leave out drivers that have to be compiled, where they are not."""
    return [case for case in cases if not _needs_compiler(case)]


def import_driver(case: Case) -> None:
    """Skip the test, or fail it in CI, where the driver is missing."""
    if why := _needs_compiler(case):
        pytest.skip(why)


def _needs_compiler(case: Case) -> str:
    """Tell why a driver cannot be there; one that should be is asked for."""
    error = drivers.import_error(case.drivername)
    if error is None:
        return ""
    if case.drivername.rpartition("+")[2] in _COMPILED:
        return f"has to be compiled: {error}"
    missing(f"the driver of {case.drivername}: {error}")
