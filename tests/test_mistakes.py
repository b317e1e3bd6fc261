"""Others' mistakes: what listeners, drivers and the end of a process do to
the pool must not cost it a connection."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy import event
from sqlalchemy import text
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.exc import MissingGreenlet
from sqlalchemy.ext.asyncio import create_async_engine

from sqla_smartpool import AsyncSmartPool
from sqla_smartpool import SmartPool
from sqla_smartpool._sqlalchemy import greenlet_spawn
from sqla_smartpool.runtime import side_by_side
from sqla_smartpool.runtime import ThreadRuntime
from sqla_smartpool.runtime import Timekeeper
from tests.lab.fake_dbapi import FakeDatabase
from tests.lab.waiting import eventually


class NoThreads(ThreadRuntime):
    """As at the end of the interpreter."""

    def spawn(self, job: Any, context: Any = None) -> None:
        raise RuntimeError("can't start new thread")


class Server:
    """PostgreSQL, with eyes for the sessions of one test only."""

    def __init__(self, server: Any, name: str) -> None:
        self._server, self._name = server, name

    def url(self, drivername: str) -> Any:
        return self._server.url(drivername, application_name=self._name)

    def asyncpg(self) -> Any:
        return self._server.url("postgresql+asyncpg")

    def sessions(self) -> list[int]:
        found: list[int] = self._server.sessions(self._name)
        return found


@pytest.fixture
def server(postgresql: Any, request: pytest.FixtureRequest) -> Server:
    return Server(postgresql, f"mistake {abs(hash(request.node.name))}")


def engine_on(server: Server, **arguments: Any) -> Any:
    return create_engine(
        server.url("postgresql+psycopg"), poolclass=SmartPool, **arguments
    )


def test_a_retire_listener_that_raises_does_not_keep_the_connection_open(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    engine = engine_on(server, min_size=2)

    @event.listens_for(engine, "retire")
    def fail(*arguments: Any) -> None:
        raise ZeroDivisionError("the listener's")

    engine.pool.start()
    engine.pool.stop()
    eventually(lambda: not server.sessions())
    assert engine.pool.stats().pool_size == 0
    assert "event 'retire' failed" in caplog.text


@pytest.mark.parametrize("dead", [True, False])
def test_a_close_listener_that_raises_does_not_keep_the_connection_open(
    server: Server, caplog: pytest.LogCaptureFixture, dead: bool
) -> None:
    engine = engine_on(server, max_size=1)
    engine.connect().close()
    (record,) = engine.pool.inventory.idle

    @event.listens_for(engine, "close")
    def fail(*arguments: Any) -> None:
        raise ZeroDivisionError("the listener's")

    record.going = "unhealthy" if dead else "drain"
    record.judge()
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
        eventually(lambda: len(server.sessions()) == 1)
    assert "closing a connection failed" in caplog.text


def test_a_connect_failed_listener_that_raises_does_not_end_upkeep(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    engine = engine_on(server, min_size=1, check_interval=0.05)
    refused: list[object] = []

    @event.listens_for(engine, "do_connect")
    def refuse(*arguments: Any) -> None:
        if len(refused) < 2:
            refused.append(arguments)
            raise OSError("not yet")

    @event.listens_for(engine, "connect_failed")
    def fail(*arguments: Any) -> None:
        raise ZeroDivisionError("the listener's")

    engine.pool.start(timeout=30)
    assert len(server.sessions()) == 1
    assert "event 'connect_failed' failed" in caplog.text
    engine.dispose()


def test_a_pass_that_raises_is_logged_and_the_next_one_comes(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    engine = engine_on(
        server, min_size=2, ping_after=0.01, check_interval=0.05
    )
    upkeep, chores = engine.pool.upkeep, engine.pool.chores
    raised: list[object] = []
    carry_out, ping = upkeep._carry_out, chores.ping

    def fail_once(todo: Any) -> None:
        upkeep._carry_out = carry_out
        raised.append(todo)
        raise ZeroDivisionError("a mistake of ours")

    def fail_to_ping(record: Any) -> Any:
        chores.ping = ping
        raised.append(record)
        raise ZeroDivisionError("a mistake of ours")

    engine.pool.start()
    upkeep._carry_out, chores.ping = fail_once, fail_to_ping
    pings = engine.pool.stats().checks_num
    eventually(lambda: engine.pool.stats().checks_num > pings + 4)
    assert len(raised) >= 2
    assert caplog.text.count("a mistake of ours") >= 2
    engine.dispose()


def test_invalidating_the_pool_replaces_every_connection(
    server: Server,
) -> None:
    engine = engine_on(server, max_size=5)
    held = [engine.connect() for _ in range(4)]
    out = held.pop()
    for connection in held:
        connection.close()
    before = set(server.sessions())
    refused: list[object] = []

    @event.listens_for(engine, "checkout")
    def refuse(connection: Any, record: Any, proxy: Any) -> None:
        if not refused:
            refused.append(connection)
            raise InvalidatePoolError()

    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
    out.close()
    eventually(lambda: not before & set(server.sessions()))
    assert engine.pool.stats().pool_in_use == 0
    engine.dispose()


def test_without_an_engine_a_disconnect_replaces_what_is_older() -> None:
    database = FakeDatabase()
    pool = SmartPool(database.connect)
    one, two = pool.connect(), pool.connect()
    older = two.dbapi_connection
    two.close()
    pool._invalidate(one)
    one.close()
    again = pool.connect()
    assert again.dbapi_connection is not older
    again.close()
    database.check(open=1)


def test_where_no_thread_can_be_started_callers_do_it_themselves(
    server: Server,
) -> None:
    engine = engine_on(server, min_size=1, max_size=3, ping_after=0)
    pool = engine.pool
    pool._given_runtime = NoThreads()
    pool.begin_anew()
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
    pool.check()
    pool.drain()
    engine.connect().close()
    done: list[int] = []
    side_by_side(NoThreads(), [lambda: done.append(1)] * 5, 3)
    assert len(done) == 5
    pool.stop()
    eventually(lambda: not server.sessions())


def test_a_timed_call_that_raises_does_not_stop_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    called = threading.Event()
    timekeeper = Timekeeper()

    def fail() -> None:
        raise SystemExit("a pool's")

    timekeeper.call_later(0.0, fail)
    timekeeper.call_later(0.01, called.set)
    assert called.wait(10)
    assert "timed call failed" in caplog.text


def test_a_cancelled_call_is_not_made() -> None:
    timekeeper = Timekeeper()
    called: list[int] = []
    later = threading.Event()
    timekeeper.call_later(0.01, lambda: called.append(1)).cancel()
    timekeeper.call_later(0.02, later.set)
    assert later.wait(10)
    assert not called


def test_an_async_pool_outside_of_a_loop_says_what_to_do(
    tmp_path: Any,
) -> None:
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{tmp_path}/x.db", poolclass=AsyncSmartPool
    )
    with pytest.raises(MissingGreenlet, match="await engine.connect"):
        engine.sync_engine.connect()
    with pytest.raises(TypeError, match="async with"):
        with engine.pool:  # type: ignore[attr-defined]
            pass


def test_nothing_is_lost_when_a_loops_end_is_overlooked(tmp_path: Any) -> None:
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{tmp_path}/x.db", poolclass=AsyncSmartPool
    )

    async def use() -> None:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))

    asyncio.run(use())
    with pytest.raises(MissingGreenlet, match="await engine.connect"):
        engine.sync_engine.connect()
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]

    async def use_and_dispose() -> None:
        await use()
        await engine.dispose()

    asyncio.run(use_and_dispose())


@pytest.mark.pain("swallowed hand-off")
def test_a_caller_that_is_cancelled_as_it_is_served_passes_it_on(
    server: Server,
) -> None:
    async def program() -> None:
        engine = create_async_engine(
            server.asyncpg(),
            poolclass=AsyncSmartPool,
            max_size=1,
            pool_timeout=30,
        )
        held = await engine.raw_connection()

        async def ask() -> Any:
            async with engine.connect() as connection:
                return await connection.scalar(text("SELECT 1"))

        first, second = asyncio.create_task(ask()), asyncio.create_task(ask())
        pool: Any = engine.pool
        while pool.stats().requests_waiting < 2:
            await asyncio.sleep(0)
        # served and cancelled before it runs again
        await greenlet_spawn(held.close)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert await asyncio.wait_for(second, 30) == 1
        assert pool.stats().pool_in_use == 0
        await engine.dispose()

    asyncio.run(program())
