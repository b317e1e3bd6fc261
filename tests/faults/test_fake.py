"""The fake database finds the mistakes that it is there to find."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from sqla_smartpool._sqlalchemy import greenlet_spawn
from tests.conftest import Side
from tests.lab.fake_connections import Disconnected
from tests.lab.fake_connections import Fake
from tests.lab.fake_connections import FakeAsyncWithHealth
from tests.lab.fake_connections import FakeWithHealth
from tests.lab.fake_connections import FakeWithSocket
from tests.lab.fake_connections import Gate
from tests.lab.fake_dbapi import FakeDatabase
from tests.lab.waiting import eventually

ONE = text("SELECT 1")


def fake_engine(side: Side, database: FakeDatabase, **options: Any) -> Any:
    """An engine which is disposed of at the end of the test."""
    options = {"connect_args": database.connect_args, **options}
    options.setdefault("poolclass", side.pool_class)
    engine = side.create_engine(database.url, **options)
    database.watch(engine)
    return engine


def test_an_engine_works_and_leaves_nothing_open(side: Side) -> None:
    database = FakeDatabase(side.asynchronous)
    engine = fake_engine(side, database, max_size=2)
    for _ in range(3):
        with engine.begin() as connection:
            assert connection.scalar(ONE) == 1
    database.check(open=1)
    side.wait(engine.pool.check())
    assert database.count("ping") == 1
    engine.dispose()
    database.check(open=0)
    assert database.count("connect") == database.count("close") == 1
    assert database.count("commit") == 3


def test_an_engine_of_its_own_works() -> None:
    database = FakeDatabase(kind=FakeWithHealth)
    with database.engine().connect() as connection:
        assert connection.scalar(ONE) == 1
    database.check(open=1)

    async def program() -> None:
        database = FakeDatabase(True, FakeAsyncWithHealth)
        engine = database.engine()
        async with engine.connect() as connection:
            assert await connection.scalar(ONE) == 1
        await engine.dispose()
        database.check(open=0)

    asyncio.run(program())


def test_each_step_fails_as_it_is_told(side: Side) -> None:
    database = FakeDatabase(side.asynchronous)
    engine = fake_engine(side, database)
    database.once("connect", OSError("down"))
    with pytest.raises(OSError, match="down"):
        engine.connect()
    with engine.connect() as connection:
        database.once("execute", Disconnected("gone"))
        with pytest.raises(DBAPIError) as caught:
            connection.execute(ONE)
        assert caught.value.connection_invalidated
    database.check(open=0)
    with pytest.raises(SystemExit):
        with engine.connect() as connection:
            database.always("rollback", SystemExit)
            connection.execute(ONE)
    database.heal()
    engine.dispose()
    database.check(open=0)


def test_a_step_hangs_until_it_is_released(side: Side) -> None:
    database = FakeDatabase(side.asynchronous)
    engine = fake_engine(side, database)
    gate = Gate(asyncio.Event() if side.asynchronous else None)
    database.once("execute", gate)
    connection = engine.connect()

    def release() -> None:
        side.eventually(lambda: gate.visits == 1)
        gate.open()

    side.together(lambda: connection.execute(ONE), release)
    connection.close()
    database.check(open=1)


def test_a_thread_that_hangs_is_woken_when_its_socket_is_shut() -> None:
    database = FakeDatabase(kind=FakeWithSocket)
    engine = database.engine(max_size=1, ping_after=0, ping_timeout=0.1)
    engine.connect().close()
    gate = database.always("ping", Gate())
    database.once("connect", lambda _: database.heal())
    engine.pool.check()
    engine.connect().close()
    assert gate.visits == 1
    database.check(open=1)
    engine.dispose()
    database.check(open=0)


def test_a_dead_connection_is_known_to_its_driver_and_to_its_host() -> None:
    for kind in (FakeWithHealth, FakeWithSocket):
        database = FakeDatabase(kind=kind)
        engine = database.engine()
        engine.connect().close()
        database.connections[0].kill()
        with engine.connect() as connection:
            connection.execute(ONE)
        assert database.open == [database.connections[1]]
        engine.dispose()
        database.check(open=0)


def found(database: FakeDatabase, text: str) -> None:
    (mistake,) = database.mistakes
    assert text in mistake
    with pytest.raises(AssertionError):
        database.check()


def test_use_by_two_at_once_is_found() -> None:
    database = FakeDatabase()
    connection = database.connect()
    gate = Gate()
    database.once("execute", gate)
    thread = threading.Thread(target=connection.execute)
    thread.start()
    eventually(lambda: gate.visits)
    connection.rollback()
    gate.open()
    thread.join()
    found(database, "during execute by")


def test_use_by_two_tasks_at_once_is_found() -> None:
    async def program() -> None:
        database = FakeDatabase(asynchronous=True)
        adapted = await greenlet_spawn(database.connect)
        fake = adapted.driver_connection
        await asyncio.gather(fake.execute(), fake.ping())
        found(database, "during execute by")

    asyncio.run(program())


def test_use_after_the_close_is_found() -> None:
    database = FakeDatabase()
    connection = database.connect()
    connection.close()
    connection.rollback()
    found(database, "rollback by")


def test_use_after_an_interruption_is_found() -> None:
    database = FakeDatabase()
    connection = database.connect()
    database.once("ping", KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        connection.ping()
    connection.rollback()
    found(database, "interrupted")


def test_a_second_owner_and_an_unfit_connection_are_found() -> None:
    database = FakeDatabase()
    pool = database.pool()
    held = pool.connect()
    fake: Fake = held.dbapi_connection
    pool.inventory.idle.append(held._connection_record)
    again = pool.connect()
    found(database, "has it")
    database.mistakes.clear()
    again.close()
    fake.in_transaction = True
    kept = pool.connect()
    found(database, "unfit")
    del kept, held


def test_a_close_while_another_has_it_is_found() -> None:
    database = FakeDatabase()
    pool = database.pool()
    held = pool.connect()
    (record,) = pool.inventory.members
    thread = threading.Thread(target=record.close)
    thread.start()
    thread.join()
    found(database, "close by")
    held.close()


def test_a_leak_is_found() -> None:
    database = FakeDatabase()
    database.connect()
    with pytest.raises(AssertionError, match="open: .<fake connection 1>"):
        database.check(open=0)
