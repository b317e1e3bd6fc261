"""Faults that a program's tests can have a pool suffer."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy import Engine
from sqlalchemy import event
from sqlalchemy import text
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import InterfaceError
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.exc import OperationalError

from sqla_smartpool._sqlalchemy import greenlet_spawn
from sqla_smartpool.testing import kill_idle
from sqla_smartpool.testing import simulate_outage
from sqla_smartpool.testing import slow_connects
from tests.conftest import Database
from tests.conftest import Side
from tests.lab.fake_dbapi import FakeDatabase
from tests.lab.fixtures import missing


def use(engine: Engine) -> None:
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1


def full(side: Side, database: Database, **options: Any) -> Engine:
    """An engine with three connections, all idle."""
    options.setdefault("max_size", 3)
    engine = side.engine(database, min_size=3, **options)
    pool: Any = side.start(engine)
    assert pool.stats().pool_available == 3
    return engine


def fails_to_connect(engine: Engine) -> Exception:
    # asyncpg's are the operating system's
    with pytest.raises((DBAPIError, OSError)) as failed:
        use(engine)
    return failed.value


def test_an_outage_ends_every_connection_and_refuses_new_ones(
    database: Database, side: Side
) -> None:
    engine = full(side, database)
    stats = engine.pool.stats  # type: ignore[attr-defined]
    in_use = engine.connect()
    in_use.execute(text("SELECT 1"))
    in_use.rollback()
    with simulate_outage(engine):
        with pytest.raises(DBAPIError) as failed:
            in_use.execute(text("SELECT 1"))
        assert failed.value.connection_invalidated
        in_use.close()
        for _ in range(3):
            fails_to_connect(engine)
        side.eventually(lambda: stats().pool_size == 0, "none is left")
    use(engine)
    if database.server is not None:  # a file's is not filled behind callers
        side.eventually(lambda: stats().pool_size == 3, "the floor")


def aiosqlites_threads() -> set[threading.Thread]:
    return {
        thread
        for thread in threading.enumerate()
        if "_connection_worker_thread" in thread.name
    }


ASYNCHRONOUS = {
    "mysql+aiomysql",
    "mysql+asyncmy",
    "oracle+oracledb_async",
    "postgresql+asyncpg",
    "postgresql+psycopg_async",
    "sqlite+aiosqlite",
}


@pytest.mark.parametrize(
    "drivername, said",
    [
        ("duckdb", "cannot open"),
        ("mysql+aiomysql", "can't connect"),
        ("mysql+asyncmy", "can't connect"),
        ("mysql+pymysql", "can't connect"),
        ("oracle+oracledb", "cannot connect"),
        ("oracle+oracledb_async", "cannot connect"),
        ("postgresql+asyncpg", "connect call failed"),
        ("postgresql+pg8000", "can't create a connection"),
        ("postgresql+psycopg", "connection refused"),
        ("postgresql+psycopg2", "connection refused"),
        ("postgresql+psycopg_async", "connection refused"),
        ("sqlite+aiosqlite", "unable to open"),
        ("sqlite+pysqlite", "unable to open"),
    ],
)
def test_the_error_is_the_drivers_own(drivername: str, said: str) -> None:
    url = URL.create(drivername, "user", "password", "localhost", None, "db")
    if drivername.startswith(("duckdb", "sqlite")):
        url = URL.create(drivername, database="it.db")
    try:
        side = Side(drivername in ASYNCHRONOUS)
        engine = side.create_engine(url, poolclass=side.pool_class)
    except ImportError as error:
        missing(str(error))

    # a test before may have left an engine that is yet to be collected
    before = aiosqlites_threads()

    def fail() -> None:
        with simulate_outage(engine):
            error = fails_to_connect(engine)
        assert said in str(error).lower()
        # SQLAlchemy tells its users of a driver's errors by such a class
        assert isinstance(error, (OperationalError, InterfaceError, OSError))
        # aiosqlite's thread has a last word for the loop
        side.eventually(lambda: aiosqlites_threads() <= before, "it ends")

    if side.asynchronous:
        asyncio.run(greenlet_spawn(fail))
    else:
        fail()


def test_a_connection_out_of_reach_is_ended_in_its_driver_on_a_loop() -> None:
    database = FakeDatabase(asynchronous=True)

    async def kill() -> None:
        engine = database.engine(min_size=2)
        await engine.pool.start()
        assert kill_idle(engine) == 2
        assert not database.open and database.count("abort") == 2

    asyncio.run(kill())


def test_an_outage_may_fail_otherwise(
    postgresql_database: Database, side: Side
) -> None:
    class Full(Exception):
        """The server has too many clients."""

    engine = full(side, postgresql_database)
    with simulate_outage(engine, error=Full):
        with pytest.raises(Full):
            use(engine)
    use(engine)


def test_an_outage_ends_with_its_block_whatever_happens_there(
    postgresql_database: Database, side: Side
) -> None:
    engine = full(side, postgresql_database)
    pool: Any = engine.pool
    creator = pool._creator
    with pytest.raises(ZeroDivisionError):
        with simulate_outage(engine):
            raise ZeroDivisionError
    assert pool._creator is creator
    use(engine)


def test_an_outage_goes_on_through_dispose_and_ends_there_too(
    sqlite_database: Database, side: Side
) -> None:
    engine = side.engine(sqlite_database)
    creator = engine.pool._creator
    with simulate_outage(engine):
        engine.dispose()
        fails_to_connect(engine)
    use(engine)
    assert engine.pool._creator is creator


def test_another_engine_of_the_same_database_notices_nothing(
    database: Database, side: Side
) -> None:
    here, there = full(side, database), full(side, database)
    pool: Any = there.pool
    before = pool.stats()
    with simulate_outage(here):
        kill_idle(here)
        with there.connect(), there.connect(), there.connect() as last:
            assert last.scalar(text("SELECT 1")) == 1
    after = pool.stats()
    assert after.connections_num == before.connections_num
    assert after.closed_unhealthy == 0


def test_a_connect_that_was_under_way_is_of_no_use_in_an_outage(
    postgresql_database: Database, side: Side
) -> None:
    engine = side.engine(postgresql_database, min_size=1, keep_alive=None)
    pool: Any = engine.pool
    with slow_connects(engine, 60.0):
        side.wait(pool.start(wait=False))
        side.eventually(lambda: pool.stats().pool_connecting, "it begins")
        outage = simulate_outage(engine)
        outage.__enter__()
    side.eventually(lambda: not pool.stats().pool_connecting, "it ends")
    fails_to_connect(engine)
    side.eventually(lambda: not pool.stats().pool_size, "it is closed")
    outage.__exit__(None, None, None)
    use(engine)


def test_faults_may_overlap(sqlite_database: Database, side: Side) -> None:
    engine = side.engine(sqlite_database)
    first, second = simulate_outage(engine), simulate_outage(engine)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    fails_to_connect(engine)
    second.__exit__(None, None, None)
    use(engine)


def test_idle_connections_that_are_killed_are_not_handed_out(
    database: Database, side: Side
) -> None:
    engine = full(side, database)
    pool: Any = engine.pool
    with engine.connect() as in_use:
        in_use.execute(text("SELECT 1"))
        assert kill_idle(engine) == 2
        use(engine)
        assert in_use.scalar(text("SELECT 1")) == 1
    use(engine)
    stats = pool.stats()
    assert stats.requests_errors == stats.returns_bad == 0
    assert pool.stats().closed_unhealthy >= 1


def test_connects_take_longer_until_the_block_ends(
    database: Database, side: Side
) -> None:
    engine = side.engine(database)
    began = time.monotonic()
    with slow_connects(engine, 0.2):
        use(engine)
    assert time.monotonic() - began >= 0.2


def test_who_is_held_up_goes_on_when_the_block_ends(
    postgresql_database: Database, side: Side
) -> None:
    engine = side.engine(postgresql_database, pool_timeout=50)
    pool: Any = engine.pool

    def end_it() -> None:
        side.eventually(lambda: pool.stats().pool_connecting, "it begins")
        slow.__exit__(None, None, None)

    slow = slow_connects(engine, 3600.0)
    slow.__enter__()
    began = time.monotonic()
    side.together(lambda: use(engine), end_it)
    assert time.monotonic() - began < 30.0


def test_a_creator_of_the_programs_own_is_not_asked_in_an_outage(
    postgresql_database: Database,
) -> None:
    from psycopg import connect

    server = postgresql_database.server
    asked: list[None] = []

    def creator() -> Any:
        asked.append(None)
        url = server.url("postgresql").render_as_string(hide_password=False)
        return connect(url)

    side = Side(asynchronous=False)
    engine = side.engine(postgresql_database, creator=creator, connect_args={})
    with simulate_outage(engine):
        error = fails_to_connect(engine)
    assert "refused" in str(error) and not asked
    use(engine)
    assert len(asked) == 1
    side.dispose()


def test_a_driver_that_goes_its_own_way_is_refused_all_the_same(
    sqlite_database: Database, side: Side
) -> None:
    engine = side.engine(sqlite_database)
    closed: list[object] = []
    event.listen(engine, "close", lambda *args: closed.append(args))
    args, options = engine.dialect.create_connect_args(engine.url)
    dialect: Any = engine.dialect
    dialect.create_connect_args = lambda url: (args, options)
    with simulate_outage(engine):
        assert "simulated" in str(fails_to_connect(engine))
    use(engine)


def test_another_kind_of_pool_is_refused_with_what_to_do() -> None:
    engine = create_engine("sqlite:///of-another.db")
    for call in (kill_idle, lambda e: simulate_outage(e).__enter__()):
        with pytest.raises(InvalidRequestError, match="is a QueuePool"):
            call(engine)
