"""A pool alone, hundreds of engines, and what stays of one that was
disposed."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy import Engine
from sqlalchemy import event
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from sqla_smartpool import AsyncSmartPool
from sqla_smartpool import PoolTimeoutError
from sqla_smartpool import SmartPool
from tests.conftest import Database
from tests.conftest import PINGING
from tests.conftest import Side
from tests.lab.waiting import eventually


def use(engine: Engine) -> None:
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1


# A pool alone


def test_a_pool_stands_alone_with_a_creator_of_its_own(
    sqlite_database: Database,
) -> None:
    file = sqlite_database.url().database
    opened: list[sqlite3.Connection] = []

    def creator() -> sqlite3.Connection:
        opened.append(sqlite3.connect(str(file), check_same_thread=False))
        return opened[-1]

    pool = SmartPool(
        creator, min_size=2, max_size=3, timeout=0, check_interval=0.05
    )
    with pool:
        assert pool.stats().pool_size == len(opened) == 2
        taken = [pool.connect() for _ in range(3)]
        assert {id(one.dbapi_connection) for one in taken} == {
            id(connection) for connection in opened
        }
        with pytest.raises(PoolTimeoutError):
            pool.connect()
        for one in taken:
            cursor = one.cursor()
            cursor.execute("SELECT 1")
            assert cursor.fetchone() == (1,)
            cursor.close()
            one.close()
    assert pool.stats().pool_size == 0
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        opened[0].execute("SELECT 1")


def test_a_pool_alone_checks_with_an_event_for_want_of_a_dialect(
    sqlite_database: Database,
) -> None:
    file = str(sqlite_database.url().database)
    pool = SmartPool(
        lambda: sqlite3.connect(file, check_same_thread=False),
        min_size=1,
        max_size=2,
        **PINGING,
    )
    checked = threading.Event()
    event.listen(pool, "health_check", lambda *_: checked.set())
    with pool:
        assert checked.wait(10)
        assert pool.stats().pool_size == 1


def test_an_engine_takes_a_pool_that_was_made_before(
    database: Database,
) -> None:
    other = create_engine(database.url(), connect_args=database.connect_args())
    pool = SmartPool(other.pool._creator, min_size=2, max_size=3, **PINGING)
    engine = create_engine(database.url(), pool=pool)
    assert engine.pool is pool
    with pool:
        use(engine)
        eventually(lambda: pool.stats().checks_num >= 2)
        assert pool.stats().checks_failed == 0
        use(engine)


# Many


@pytest.mark.parametrize(
    ("database", "number"),
    [("sqlite", 400), ("postgresql", 100)],
    indirect=["database"],
)
def test_hundreds_of_engines_share_one_thread_while_they_are_idle(
    database: Database, number: int
) -> None:
    before = threading.active_count()
    engines = [
        create_engine(
            database.url(),
            connect_args=database.connect_args(),
            poolclass=SmartPool,
            min_size=1,
            # or one would get a second while its first takes over a second
            max_size=1,
        )
        for _ in range(number)
    ]
    try:
        for engine in engines:
            use(engine)
        eventually(
            lambda: threading.active_count() <= before + 1,
            message="no more than one thread",
        )
        assert database.sessions() in (None, number)
        for engine in engines:
            use(engine)
        pools: list[Any] = [engine.pool for engine in engines]
        assert all(pool.stats().requests_num == 2 for pool in pools)
        assert all(pool.stats().pool_size == 1 for pool in pools)
    finally:
        for engine in engines:
            engine.dispose()
    eventually(lambda: not database.sessions(), message="no session is left")


def test_hundreds_of_asynchronous_engines_need_no_thread_and_no_task(
    postgresql_database: Database,
) -> None:
    async def program() -> None:
        before = threading.active_count()
        tasks = asyncio.all_tasks()
        engines = [
            create_async_engine(
                postgresql_database.url(asynchronous=True),
                poolclass=AsyncSmartPool,
                min_size=int(number % 4 == 0),
                max_size=2,
                keep_alive=0.5,
                check_interval=1.0,
            )
            for number in range(200)
        ]
        pools: list[Any] = [engine.pool for engine in engines]

        def open_now() -> int:
            return sum(pool.stats().pool_size for pool in pools)

        for engine in engines:
            async with engine.connect() as connection:
                assert await connection.scalar(text("SELECT 1")) == 1
            while open_now() > 80:  # the server has room for so many
                await asyncio.sleep(0.01)
        while open_now() > 50 or asyncio.all_tasks() != tasks:
            await asyncio.sleep(0.01)
        assert open_now() == 50
        # another test's may have ended in the meantime
        assert threading.active_count() <= before
        for engine in engines:
            await engine.dispose()

    # 200 engines, each of which learns its dialect anew
    asyncio.run(asyncio.wait_for(program(), 200))


# Disposed


def test_disposing_any_number_of_times_keeps_options_and_listeners(
    database: Database, side: Side
) -> None:
    engine = side.engine(
        database,
        min_size=1,
        max_size=3,
        pool_timeout=7,
        pool_recycle=1234,
        pool_pre_ping=True,
        pool_use_lifo=False,
        pool_logging_name="mine",
        pool_reset_on_return="commit",
        keep_alive=77.5,
        **PINGING,
    )
    heard: list[str] = []
    for name in ("connect", "checkout", "retire", "health_check"):
        event.listen(engine, name, lambda *_, name=name: heard.append(name))
    pool: Any = engine.pool
    side.wait(pool.resize(min_size=2, max_size=4))
    settings = pool.settings
    for _ in range(5):
        pool = engine.pool
        assert type(pool) is side.pool_class
        assert pool.settings == settings
        assert (pool.size(), pool.timeout(), pool._recycle) == (4, 7, 1234)
        assert pool._pre_ping is True
        assert pool.logging_name == "mine"
        assert pool._reset_on_return.name == "reset_commit"
        side.wait(pool.start())
        use(engine)
        side.eventually(lambda: "health_check" in heard, "a check")
        assert heard.count("connect") == 2
        assert heard.count("checkout") == 1
        engine.dispose()
        engine.dispose()
        # one that was just being pinged goes after that
        side.eventually(lambda: pool.stats().pool_size == 0, "all closed")
        assert heard.count("retire") == 2
        del heard[:]
    side.eventually(lambda: not database.sessions(), "no session is left")


def test_disposing_without_closing_keeps_options_listeners_and_connections(
    database: Database, side: Side
) -> None:
    engine = side.engine(
        database, min_size=1, max_size=2, pool_timeout=0, **PINGING
    )
    old: Any = engine.pool
    heard: list[str] = []
    for name in ("connect", "checkout", "close", "retire"):
        event.listen(engine, name, lambda *_, name=name: heard.append(name))
    with engine.connect() as connection:
        assert heard == ["connect", "checkout"]
        engine.dispose(close=False)
        new: Any = engine.pool
        assert new is not old
        assert new.settings == old.settings
        assert new.stats().pool_size == 0
        assert connection.scalar(text("SELECT 1")) == 1
        use(engine)
        assert heard == ["connect", "checkout"] * 2
        assert connection.scalar(text("SELECT 1")) == 1
    side.wait(old.stop())
    side.wait(new.stop())
    if database.server is not None:
        side.eventually(lambda: not database.sessions(), "no session is left")


@pytest.mark.pain("return after the end")
def test_connections_out_at_dispose_are_closed_when_they_come_back(
    database: Database, side: Side
) -> None:
    engine = side.engine(database, min_size=2, max_size=4, **PINGING)
    closed: list[object] = []
    event.listen(engine, "close", lambda dbapi, record: closed.append(dbapi))
    old: Any = engine.pool
    side.wait(old.start())
    connections = side.together(engine.connect, engine.connect)
    out = [one.connection.dbapi_connection for one in connections]
    engine.dispose()
    use(engine)
    assert not [connection for connection in out if connection in closed]
    for connection in connections:
        assert connection.scalar(text("SELECT 1")) == 1
        connection.close()
    side.eventually(
        lambda: all(connection in closed for connection in out),
        "they are closed",
    )
    side.eventually(lambda: old.stats().pool_size == 0, "the books know")
    side.pinged(engine)
    assert engine.pool is not old


@pytest.mark.pain("return after the end")
def test_a_checkout_while_the_engine_is_disposed_leaves_nothing_open(
    database: Database, side: Side
) -> None:
    engine = side.engine(database, min_size=2, max_size=4, **PINGING)
    old: Any = engine.pool
    side.wait(old.start())
    late: list[Any] = []

    def check_out(dbapi: object, record: object) -> None:
        # the engine has the old pool until all of this is closed
        if not late:
            late.append(None)
            late[0] = engine.connect()

    event.listen(engine, "close", check_out)
    engine.dispose()
    assert engine.pool is not old
    with late[0] as connection:
        assert connection.scalar(text("SELECT 1")) == 1
    side.eventually(lambda: old.stats().pool_size == 0, "nothing is kept")
    if database.server is not None:
        side.eventually(lambda: not database.sessions(), "no session is left")
    # whoever still knows it is served, and may have it back as it was
    for _ in range(2):
        old.connect().close()
        side.eventually(lambda: old.stats().pool_size == 0, "nothing is kept")
    side.wait(old.start())
    old.connect().close()
    side.eventually(lambda: old.stats().pool_available == 2, "it is kept")
    side.wait(old.stop())


def test_a_disposed_pool_that_is_used_again_starts_anew(
    database: Database, side: Side
) -> None:
    engine = side.engine(database, min_size=2, max_size=4, **PINGING)
    pool: Any = engine.pool
    side.wait(pool.start())
    for _ in range(3):
        pool.dispose()
        use(engine)
        assert engine.pool is pool
        side.eventually(lambda: pool.stats().pool_available == 2, "the floor")
        side.pinged(engine)
