"""What most tests need: a database, and either threads or an event loop.

A test that takes the fixture ``side`` is run twice: as it stands, and in a
task of an event loop of its own, through the same bridge by which SQLAlchemy
lets code that looks synchronous run there.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
import inspect
from pathlib import Path
import time
from typing import Any
from typing import Callable
from typing import Generator
from typing import Iterator
from typing import Optional

import pytest
from sqlalchemy import create_engine
from sqlalchemy import Engine
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import create_async_engine

from sqla_smartpool import AsyncSmartPool
from sqla_smartpool import SmartPool
from sqla_smartpool._sqlalchemy import await_
from sqla_smartpool._sqlalchemy import greenlet_spawn
from tests.lab.waiting import eventually

pytest_plugins = ["tests.lab.fixtures", "tests.lab.explored"]

#: by database: the driver for threads, the one for an event loop
DRIVERS = {
    "sqlite": ("sqlite", "sqlite+aiosqlite"),
    "postgresql": ("postgresql+psycopg", "postgresql+asyncpg"),
    "mariadb": ("mysql+pymysql", "mysql+aiomysql"),
}
#: pings are due all the time
PINGING = {"ping_after": 0.05, "check_interval": 0.05}


class Database:
    """A database to connect to; empty, and nobody is connected.

    :param server: of :mod:`tests.lab.servers`; None for an SQLite file.
    """

    def __init__(self, name: str, server: Any, file: Path) -> None:
        self.name = name
        self.server = server
        self._file = file

    def __repr__(self) -> str:
        return self.name

    def url(self, asynchronous: bool = False) -> URL:
        driver = DRIVERS[self.name][asynchronous]
        if self.server is None:
            return URL.create(driver, database=str(self._file))
        url: URL = self.server.url(driver)
        return url

    def url_text(self, asynchronous: bool = False) -> str:
        return self.url(asynchronous).render_as_string(hide_password=False)

    def connect_args(self, asynchronous: bool = False) -> dict[str, Any]:
        if self.server is None:
            return {"timeout": 30}  # one writer at a time
        driver = DRIVERS[self.name][asynchronous]
        args: dict[str, Any] = self.server.connect_args(driver)
        return args

    def sessions(self) -> Optional[int]:
        """How many are connected; None: there is no server to ask."""
        return None if self.server is None else len(self.server.sessions())


class Side:
    """Threads, or an event loop."""

    def __init__(self, asynchronous: bool) -> None:
        self.asynchronous = asynchronous
        self.pool_class = AsyncSmartPool if asynchronous else SmartPool
        self._engines: list[Engine] = []

    def create_engine(self, url: Any, **options: Any) -> Engine:
        """Make an engine, for an event loop the inner one of it."""
        engine = (
            create_async_engine(url, **options).sync_engine
            if self.asynchronous
            else create_engine(url, **options)
        )
        self._engines.append(engine)
        return engine

    def engine(self, database: Database, **options: Any) -> Engine:
        """Make an engine with a smart pool."""
        options.setdefault("poolclass", self.pool_class)
        options.setdefault(
            "connect_args", database.connect_args(self.asynchronous)
        )
        url = options.pop("url", database.url(self.asynchronous))
        return self.create_engine(url, **options)

    def pinging_engine(self, database: Database, **options: Any) -> Engine:
        """Make one whose idle connections are pinged all the time."""
        defaults = {"min_size": 2, "max_size": 4, **PINGING}
        return self.engine(database, **{**defaults, **options})

    def start(self, engine: Engine) -> Any:
        """Start the pool of an engine, and return it."""
        pool: Any = engine.pool
        self.wait(pool.start())
        return pool

    def wait(self, result: Any) -> Any:
        """What a method of the pool returns, or its coroutine."""
        return await_(result) if inspect.isawaitable(result) else result

    def eventually(
        self,
        condition: Callable[[], Any],
        about: str = "",
        timeout: float = 30.0,
    ) -> Any:
        if not self.asynchronous:
            return eventually(condition, timeout, about)
        deadline = time.monotonic() + timeout
        while not (answer := condition()):
            if time.monotonic() > deadline:
                return eventually(condition, 0.0, f"{about} in {timeout} s")
            await_(asyncio.sleep(0.01))
        return answer

    def pinged(self, engine: Engine) -> None:
        """Wait until upkeep has pinged every idle connection (again)."""
        pool: Any = engine.pool
        before = pool.stats()
        pings = before.checks_num + max(1, before.pool_available)
        self.eventually(
            lambda: pool.stats().checks_num >= pings, "pings between uses"
        )
        assert pool.stats().checks_failed == before.checks_failed

    def together(self, *jobs: Callable[[], Any]) -> list[Any]:
        """Do jobs at the same time, and return their results in order."""
        if not self.asynchronous:
            with ThreadPoolExecutor(len(jobs)) as threads:
                futures = [threads.submit(job) for job in jobs]
                return [future.result() for future in futures]

        async def gather() -> list[Any]:
            return await asyncio.gather(*map(greenlet_spawn, jobs))

        return list(await_(gather()))

    def dispose(self) -> None:
        for engine in self._engines:
            engine.dispose()


@pytest.fixture(params=["threads", "loop"])
def side(request: pytest.FixtureRequest) -> Iterator[Side]:
    yield Side(request.param == "loop")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Optional[bool]:
    side = pyfuncitem.funcargs.get("side")
    if not isinstance(side, Side):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    args = {name: pyfuncitem.funcargs[name] for name in names}

    def test() -> None:
        try:
            pyfuncitem.obj(**args)
        finally:
            side.dispose()

    if side.asynchronous:
        asyncio.run(greenlet_spawn(test))
    else:
        test()
    return True


def _database(
    request: pytest.FixtureRequest, name: str
) -> Generator[Database, None, None]:
    server = None if name == "sqlite" else request.getfixturevalue(name)
    file = request.getfixturevalue("tmp_path") / "test.db"
    if server is not None:
        server.terminate()
    yield Database(name, server, file)
    if server is not None:
        server.terminate()


@pytest.fixture(params=list(DRIVERS))
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """Each of them; ``indirect`` in ``parametrize`` chooses some."""
    yield from _database(request, request.param)


@pytest.fixture
def postgresql_database(request: pytest.FixtureRequest) -> Iterator[Database]:
    yield from _database(request, "postgresql")


@pytest.fixture
def sqlite_database(request: pytest.FixtureRequest) -> Iterator[Database]:
    yield from _database(request, "sqlite")
