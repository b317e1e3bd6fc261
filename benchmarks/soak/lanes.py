"""One driver under load, with an engine, workers and, for an async one, an
event loop of its own."""

from __future__ import annotations

from array import array
import asyncio
from collections import Counter
from collections.abc import Mapping
import random
import threading
import time
from types import MappingProxyType
from typing import Any
from typing import Callable
from typing import NamedTuple
from typing import Optional

from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from sqla_smartpool import AsyncSmartPool
from sqla_smartpool import SmartPool
from tests.lab.drivers import import_error
from .invariants import Books
from .invariants import Judge
from .invariants import Owners

#: times so short that everything comes due during a run, seconds
SIZES = {"min_size": 2, "max_size": 4}
#: the most that a pool is ever resized to
LARGEST = 6
TIMEOUT = 10.0
_OPTIONS: dict[str, Any] = {
    **SIZES,
    "pool_timeout": TIMEOUT,
    "check_interval": 0.5,
    "ping_after": 1.0,
    "ping_timeout": 1.0,
    "keep_alive": 2.0,
    "max_lifetime": 8.0,
}
#: what SQLAlchemy calls the farewell to a connection that is to go
_GRACEFUL = "_terminate_graceful_close"
#: longer than any outage of the plan, seconds
_PATIENCE = {"reconnect_timeout": 9.0}


class Kind(NamedTuple):
    """A driver, and in what its pool differs from the others'."""

    drivername: str
    server: str
    asynchronous: bool = False
    #: by way of a proxy, which can do worse than the server itself
    proxied: bool = False
    options: Mapping[str, Any] = MappingProxyType({})


KINDS = {
    "psycopg": Kind("postgresql+psycopg", "PostgreSQL"),
    "psycopg2": Kind(
        "postgresql+psycopg2", "PostgreSQL", proxied=True, options=_PATIENCE
    ),
    "pg8000": Kind(
        "postgresql+pg8000", "PostgreSQL", options={"pool_use_lifo": False}
    ),
    "asyncpg": Kind(
        "postgresql+asyncpg", "PostgreSQL", asynchronous=True, proxied=True
    ),
    "psycopg_async": Kind(
        "postgresql+psycopg_async",
        "PostgreSQL",
        asynchronous=True,
        options=_PATIENCE,
    ),
    "pymysql": Kind("mysql+pymysql", "MariaDB", proxied=True),
    "mysqldb": Kind("mysql+mysqldb", "MariaDB", options={"max_connecting": 1}),
    "aiomysql": Kind(
        "mysql+aiomysql",
        "MariaDB",
        asynchronous=True,
        proxied=True,
        options=_PATIENCE,
    ),
    "asyncmy": Kind(
        "mysql+asyncmy",
        "MariaDB",
        asynchronous=True,
        options={"pool_pre_ping": True},
    ),
}


def installed() -> list[str]:
    """The names of those kinds whose drivers are there; not all come with
    the tests, as some have to be compiled."""
    return [
        name
        for name, kind in KINDS.items()
        if import_error(kind.drivername) is None
    ]


class Samples:
    """Durations: their number, their maximum, and a fair choice of them."""

    _KEPT = 20_000

    def __init__(self) -> None:
        self._kept = array("d")
        self._random = random.Random(0)
        self.number = 0
        self.longest = 0.0

    def add(self, seconds: float) -> None:
        self.number += 1
        self.longest = max(self.longest, seconds)
        if len(self._kept) < self._KEPT:
            self._kept.append(seconds)
        elif (place := self._random.randrange(self.number)) < self._KEPT:
            self._kept[place] = seconds

    def quantile(self, part: float) -> float:
        """The value below which this part of them lies; 0 for none."""
        ordered = sorted(self._kept)
        return ordered[int(part * (len(ordered) - 1))] if ordered else 0.0


class Lane:
    """One driver under load.

    :param server: of :mod:`tests.lab.servers`.
    :param port: at which the server is reached.
    """

    def __init__(
        self, name: str, server: Any, port: int, judge: Judge
    ) -> None:
        self.name = name
        self.kind = KINDS[name]
        self.asynchronous = self.kind.asynchronous
        self.server = server
        self.judge = judge
        self.owners = Owners()
        self.books = Books()
        self.waits = Samples()
        self.errors: Counter[str] = Counter()
        #: the largest ``max_size`` that the pool has had
        self.ceiling = SIZES["max_size"]
        #: visits that were cancelled, and when one was last
        self.cancelled = 0
        self.cancelled_at = 0.0
        #: asynchronous connections left to the garbage collector, and found
        self.dropped = self.collected = 0
        #: connections left to it, of threads as well, and when one was last
        self.left = 0
        self.dropped_at = 0.0
        #: when the last visit began that ended well
        self.served_since = 0.0
        self.leaving = False
        #: of :mod:`.load`, and their threads or tasks
        self.workers: list[Any] = []
        self._jobs: list[Any] = []
        #: every visit under way
        self.visits: set[Any] = set()
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._lock = threading.Lock()
        self.reconnect_timeout = self.kind.options.get("reconnect_timeout", 0)
        self.engine = self._create_engine(port)
        self.sync_engine = getattr(self.engine, "sync_engine", self.engine)
        self.books.listen(self.sync_engine)
        self._watch_pings()
        #: every pool that the engine has had
        self.pools = [self.pool]

    def _create_engine(self, port: int) -> Any:
        kind = self.kind
        url = self.server.url(kind.drivername).set(port=port)
        args = self.server.connect_args(kind.drivername)
        if kind.server == "MariaDB":
            url = url.set(database=self.application)
        elif self.name == "asyncpg":
            args["server_settings"] = {"application_name": self.application}
        else:
            args["application_name"] = self.application
        create: Callable[..., Any] = create_engine
        pool_class: Any = SmartPool
        if kind.asynchronous:
            create, pool_class = create_async_engine, AsyncSmartPool
        return create(
            url,
            connect_args=args,
            poolclass=pool_class,
            pool_logging_name=self.name,
            **{**_OPTIONS, **kind.options},
        )

    def _watch_pings(self) -> None:
        """Nobody's connection is pinged while somebody uses it."""
        dialect = self.sync_engine.dialect
        ping = dialect.do_ping

        def do_ping(connection: Any) -> bool:
            driver_connection = dialect.get_driver_connection(connection)
            before = self.owners.of(driver_connection)
            try:
                return ping(connection)
            finally:
                owner = before or self.owners.of(driver_connection)
                self.judge.check(
                    "a connection has one owner",
                    owner is None,
                    "what {} holds was pinged",
                    owner,
                )

        dialect.do_ping = do_ping

    @property
    def application(self) -> str:
        """What the server calls the sessions of this lane."""
        return f"test_{self.name}"

    @property
    def pool(self) -> Any:
        return self.engine.pool

    def sessions(self) -> int:
        """How many there are, by the server's word."""
        return len(self.server.sessions(self.application))

    # -- from outside -----------------------------------------------------

    def start(self) -> None:
        if self.asynchronous:
            self._loop = loop = asyncio.new_event_loop()
            loop.set_exception_handler(self._loop_failed)
            threading.Thread(
                target=loop.run_forever, name=f"soak-{self.name}", daemon=True
            ).start()
        self.do(self.pool.start)
        for worker in self.workers:
            self._jobs.append(self._employ(worker))

    def _employ(self, worker: Any) -> Any:
        if self._loop is not None:
            return asyncio.run_coroutine_threadsafe(worker.work(), self._loop)
        thread = threading.Thread(
            target=lambda: _run_plainly(worker.work()), name=worker.name
        )
        thread.start()
        return thread

    def do(self, function: Callable[..., Any], *args: Any, **kw: Any) -> Any:
        """Call a method of the engine or the pool, from another thread."""
        if self._loop is None:
            return function(*args, **kw)

        async def call() -> Any:
            return await function(*args, **kw)

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(60)

    def dispose(self) -> None:
        self.do(self.engine.dispose)
        self.pools.append(self.pool)

    def is_at_work(self) -> bool:
        """Tell whether somebody has not left yet."""
        return any(
            # a task's error is raised here, a thread's in its excepthook
            (
                job.is_alive()
                if isinstance(job, threading.Thread)
                else not job.done() or job.result() is not None
            )
            for job in self._jobs
        )

    def close_loop(self) -> list[Any]:
        """End the event loop; returns the tasks that were left in it."""
        loop = self._loop
        if loop is None:
            return []

        async def left() -> list[Any]:
            return [*asyncio.all_tasks() - {asyncio.current_task()}]

        tasks = self.do(left)
        loop.call_soon_threadsafe(loop.stop)
        while loop.is_running():
            time.sleep(0.01)
        loop.close()
        self._loop = None
        return tasks

    def _loop_failed(self, loop: Any, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if _GRACEFUL in repr(context.get("future")):
            # SQLAlchemy leaves a farewell to itself when its task is
            # cancelled, and nobody hears that the server was gone
            self.judge.check("logs", isinstance(error, OSError), "{!r}", error)
            return
        self.judge.check(
            "logs",
            False,
            "{}'s event loop: {} {!r}",
            self.name,
            context["message"],
            error,
        )

    # -- for workers --------------------------------------------------------

    def waited(self, seconds: float) -> None:
        """A checkout has succeeded."""
        with self._lock:
            self.waits.add(seconds)

    def failed(self, error: str) -> None:
        with self._lock:
            self.errors[error] += 1

    async def ask(
        self, function: Callable[..., Any], *args: Any, **kw: Any
    ) -> Any:
        """Call what is awaited for on an event loop and blocks elsewhere."""
        answer = function(*args, **kw)
        return await answer if self.asynchronous else answer

    async def sleep(self, seconds: float) -> None:
        await self.ask(
            asyncio.sleep if self.asynchronous else time.sleep, seconds
        )


def _run_plainly(coroutine: Any) -> None:
    """Run a coroutine that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError(f"{coroutine!r} waits, in a thread")
