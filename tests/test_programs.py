"""The programs of the pools that this one replaces, in SQLAlchemy's
spelling: they run as they did, on threads and on an event loop."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
import os
import random
import threading
import time
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy import event
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from sqla_smartpool import AsyncSmartPool
from sqla_smartpool import PoolTimeoutError
from sqla_smartpool import SmartPool
from tests.conftest import Database
from tests.conftest import Side

pytestmark = pytest.mark.parametrize(
    "database", ["sqlite", "postgresql"], indirect=True
)

#: min_size, max_size, workers, jobs, seconds that a job holds its connection
SIZES = [
    pytest.param((2, 6, 20, 200, (0.005, 0.02)), id="small"),
    pytest.param(
        (5, 30, 50, 1000, (0.1, 0.5)), id="full", marks=pytest.mark.slow
    ),
]
CREATE = "CREATE TABLE programs (id INTEGER PRIMARY KEY, name VARCHAR(20))"
INSERT = "INSERT INTO programs (id, name) VALUES (:id, :name)"
READ = "SELECT id, name FROM programs ORDER BY id"
NAMES = [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}, {"id": 3, "name": ""}]


class Watch:
    """Knows the most connections open at a time, by the pool's events and
    by the server's word.

    :param engine: the sync one.
    """

    def __init__(self, database: Database, engine: Any) -> None:
        self._database = database
        self.open = self.most = self.opened = 0
        self.most_sessions = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask_the_server)
        event.listen(engine, "connect", lambda *_: self._count(1))
        event.listen(engine, "close", lambda *_: self._count(-1))
        event.listen(engine, "close_detached", lambda *_: self._count(-1))

    def _count(self, change: int) -> None:
        with self._lock:
            self.open += change
            self.opened += change > 0
            self.most = max(self.most, self.open)

    def _ask_the_server(self) -> None:
        while not self._stop.wait(0.02):
            sessions = self._database.sessions()
            self.most_sessions = max(self.most_sessions, sessions or 0)

    def __enter__(self) -> Watch:
        if self._database.server is not None:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()


def assert_kept_within(
    watch: Watch, database: Database, least: int, most: int, side: Side
) -> None:
    assert least <= watch.most <= most
    assert watch.most_sessions <= most
    side.eventually(lambda: not database.sessions(), "no session is left")
    assert watch.open == 0


@pytest.mark.parametrize("size", SIZES)
def test_a_thousand_jobs_by_fifty_threads_stay_within_the_limits(
    database: Database, size: Any
) -> None:
    least, most, workers, jobs, hold = size
    engine = create_engine(
        database.url(),
        connect_args=database.connect_args(),
        poolclass=SmartPool,
        min_size=least,
        max_size=most,
        pool_timeout=60,
        check_interval=0.5,
    )
    pool: Any = engine.pool
    seconds = random.Random(3)

    def job(seconds: float) -> int:
        with engine.connect() as connection:
            row = connection.execute(text("SELECT 1 AS a")).one()
            time.sleep(seconds)  # the query of a real program
            return int(row.a)

    with Watch(database, engine) as watch:
        pool.start()
        assert pool.stats().pool_size >= least
        with ThreadPoolExecutor(workers) as threads:
            holds = [seconds.uniform(*hold) for _ in range(jobs)]
            assert list(threads.map(job, holds)) == [1] * jobs
        pool.stop()
    stats = pool.stats()
    assert (stats.requests_num, stats.requests_errors) == (jobs, 0)
    assert stats.pool_size == stats.requests_waiting == 0
    assert_kept_within(watch, database, least, most, Side(False))


@pytest.mark.parametrize("size", SIZES)
def test_a_thousand_jobs_by_fifty_tasks_stay_within_the_limits(
    database: Database, size: Any
) -> None:
    least, most, workers, jobs, hold = size
    engine = create_async_engine(
        database.url(asynchronous=True),
        connect_args=database.connect_args(asynchronous=True),
        poolclass=AsyncSmartPool,
        min_size=least,
        max_size=most,
        pool_timeout=60,
        check_interval=0.5,
    )
    pool: Any = engine.pool
    seconds = random.Random(3)
    holds = [seconds.uniform(*hold) for _ in range(jobs)]
    answers: list[int] = []

    async def worker() -> None:
        while holds:
            seconds = holds.pop()
            async with engine.connect() as connection:
                result = await connection.execute(text("SELECT 1 AS a"))
                answers.append(result.one().a)
                await asyncio.sleep(seconds)

    async def program() -> None:
        await pool.start()
        assert pool.stats().pool_size >= least
        await asyncio.gather(*[worker() for _ in range(workers)])
        await pool.stop()

    with Watch(database, engine.sync_engine) as watch:
        asyncio.run(program())
    stats = pool.stats()
    assert answers == [1] * jobs
    assert (stats.requests_num, stats.requests_errors) == (jobs, 0)
    assert stats.pool_size == stats.requests_waiting == 0
    assert_kept_within(watch, database, least, most, Side(False))


def test_three_connections_are_used_at_once_and_a_fourth_fails_at_once(
    database: Database,
) -> None:
    async def program() -> None:
        engine = create_async_engine(
            database.url(asynchronous=True),
            connect_args=database.connect_args(asynchronous=True),
            poolclass=AsyncSmartPool,
            min_size=1,
            max_size=3,
            pool_timeout=0,
            isolation_level="AUTOCOMMIT",  # or SQLite locks the others out
        )
        async with engine.connect() as one:
            await one.execute(text("DROP TABLE IF EXISTS programs"))
            await one.execute(text(CREATE))
        async with (
            engine.connect() as one,
            engine.connect() as two,
            engine.connect() as three,
        ):
            began = time.monotonic()
            with pytest.raises(PoolTimeoutError):
                await engine.connect()
            assert time.monotonic() - began < 0.5
            results = await asyncio.gather(
                *[
                    connection.execute(text(INSERT), row)
                    for connection, row in zip((one, two, three), NAMES)
                ]
            )
            assert [result.rowcount for result in results] == [1, 1, 1]
            read = await two.execute(text(READ))
            assert [row._asdict() for row in read] == NAMES
        await engine.dispose()

    asyncio.run(program())


def test_three_threads_insert_at_once_and_a_fourth_fails_at_once(
    database: Database,
) -> None:
    engine = create_engine(
        database.url(),
        connect_args=database.connect_args(),
        poolclass=SmartPool,
        max_size=3,
        pool_timeout=0,
        isolation_level="AUTOCOMMIT",
    )
    with engine.connect() as connection:
        connection.execute(text("DROP TABLE IF EXISTS programs"))
        connection.execute(text(CREATE))
    all_hold_one = threading.Barrier(4)
    refused = threading.Event()

    def insert(row: dict[str, Any]) -> int:
        with engine.connect() as connection:
            all_hold_one.wait(10)
            assert refused.wait(10)
            return connection.execute(text(INSERT), row).rowcount

    with ThreadPoolExecutor(3) as threads:
        jobs = [threads.submit(insert, row) for row in NAMES]
        all_hold_one.wait(10)
        began = time.monotonic()
        with pytest.raises(PoolTimeoutError):
            engine.connect()
        assert time.monotonic() - began < 0.5
        refused.set()
        assert [job.result() for job in jobs] == [1, 1, 1]
    with engine.connect() as connection:
        read = connection.execute(text(READ)).mappings().all()
    assert read == NAMES
    engine.dispose()


def test_size_idle_and_lifetime_limits_hold_for_a_url_of_the_environment(
    database: Database, side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database.url_text(side.asynchronous))
    engine = side.engine(
        database,
        url=os.environ["DATABASE_URL"],
        min_size=2,
        max_size=4,
        keep_alive=0.2,
        max_lifetime=2.0,
        check_interval=0.05,
        pool_timeout=0,
    )
    pool: Any = engine.pool
    reasons: list[str] = []
    event.listen(engine, "retire", lambda c, r, reason: reasons.append(reason))
    with Watch(database, engine) as watch:
        side.wait(pool.start())
        taken = side.together(*[engine.connect] * 4)
        with pytest.raises(PoolTimeoutError):
            engine.connect()
        for connection in taken:
            connection.close()
        assert pool.size() == 4
        side.eventually(
            lambda: pool.stats().pool_size == 2 and reasons.count("idle") >= 2,
            "the surplus is closed",
        )
        side.eventually(lambda: watch.opened >= 8, "two generations more")
        assert reasons.count("lifetime") >= 2
        side.wait(pool.stop())
    assert reasons.count("idle") == pool.stats().closed_idle
    assert reasons.count("lifetime") == pool.stats().closed_lifetime
    assert_kept_within(watch, database, 4, 4, side)


@pytest.mark.pain("change unnoticed")
def test_resizing_under_load_serves_those_who_wait_and_keeps_the_new_floor(
    database: Database, side: Side
) -> None:
    engine = side.engine(
        database, max_size=5, keep_alive=0.2, check_interval=0.05
    )
    pool: Any = engine.pool
    with Watch(database, engine) as watch:
        here: list[object] = []

        def job() -> int:
            with engine.connect() as connection:
                here.append(connection)
                side.eventually(lambda: len(here) >= 50, "all have one")
                return int(connection.scalar(text("SELECT 1")))

        def resize() -> None:
            side.eventually(
                lambda: pool.stats().requests_waiting == 45 and len(here) == 5,
                "a full queue",
            )
            side.wait(pool.resize(min_size=10, max_size=50))

        answers = side.together(resize, *[job] * 50)
        assert answers == [None] + [1] * 50
        side.eventually(lambda: pool.stats().pool_size == 10, "the new floor")
        assert pool.stats().closed_idle == 40
        assert pool.stats().pool_max == pool.size() == 50
        side.wait(pool.stop())
    assert_kept_within(watch, database, 50, 50, side)
