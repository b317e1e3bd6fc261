"""A pool's clock in the hands of a program's tests."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path
import threading
import time
from typing import Any
import weakref

import pytest
from sqlalchemy import create_engine
from sqlalchemy import Engine
from sqlalchemy import event
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from sqla_smartpool import AsyncSmartPool
from sqla_smartpool import PoolTimeoutError
from sqla_smartpool import SmartPool
from sqla_smartpool.testing import AsyncClock
from sqla_smartpool.testing import Clock
from sqla_smartpool.testing import control_clock
from sqla_smartpool.testing import kill_idle
from sqla_smartpool.testing import simulate_outage
from sqla_smartpool.testing import slow_connects
from tests.conftest import Database
from tests.conftest import Side
from tests.lab.waiting import eventually

#: far longer than any test here may take, seconds
HOUR = 3600.0


def use(engine: Engine) -> None:
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1


def test_surplus_connections_go_after_keep_alive(
    database: Database, side: Side
) -> None:
    engine = side.engine(database, keep_alive=900, max_lifetime=None)
    pool: Any = engine.pool
    clock = control_clock(engine)
    connections = [engine.connect() for _ in range(4)]
    for connection in connections:
        connection.close()
    assert pool.stats().pool_size == 4
    side.wait(clock.advance(600))
    assert pool.stats().pool_size == 4
    side.wait(clock.advance(310))
    assert pool.stats().pool_size == 0
    assert pool.stats().closed_idle == 4


def test_the_floor_is_pinged_and_replaced_by_age_without_a_reconnect_too_many(
    postgresql_database: Database, side: Side
) -> None:
    engine = side.engine(
        postgresql_database, min_size=2, max_size=4, max_lifetime=HOUR
    )
    clock = control_clock(engine)
    pool: Any = side.start(engine)
    side.wait(clock.advance(0.85 * HOUR))
    stats = pool.stats()
    assert (stats.connections_num, stats.pool_size) == (2, 2)
    # twice in each minute, as nobody uses them
    assert stats.checks_num >= 2 * 0.85 * HOUR / 40
    assert all(each.age >= 0.85 * HOUR for each in pool.connections())
    side.wait(clock.advance(0.15 * HOUR))
    stats = pool.stats()
    assert (stats.connections_num, stats.closed_lifetime) == (4, 2)
    assert stats.closed_unhealthy == stats.checks_failed == 0
    use(engine)


def test_upkeep_backs_off_during_an_outage(
    postgresql_database: Database, side: Side
) -> None:
    engine = side.engine(postgresql_database, min_size=1)
    clock = control_clock(engine)
    pool: Any = side.start(engine)
    pauses: list[float] = []
    event.listen(
        engine,
        "connect_failed",
        lambda p, e, attempt, pause: pauses.append(pause),
    )
    with simulate_outage(engine):
        side.wait(clock.advance(300))
        assert pool.stats().pool_size == 0
    # 2.5 s each on average, so that there are about 120
    assert 40 <= len(pauses) <= 400
    assert max(pauses) <= 5.0
    side.wait(clock.advance(6))
    assert pool.stats().pool_size == 1


def test_a_caller_who_waits_for_a_connection_gets_his_timeout(
    postgresql_database: Database, side: Side
) -> None:
    engine = side.engine(postgresql_database, max_size=1, pool_timeout=HOUR)
    pool: Any = engine.pool
    clock = control_clock(engine)

    def wait() -> None:
        with pytest.raises(PoolTimeoutError, match="timeout 3600.00"):
            engine.connect()

    def go_on() -> None:
        side.eventually(lambda: pool.stats().requests_waiting, "waits")
        side.wait(clock.advance(HOUR - 60))
        assert pool.stats().requests_waiting == 1
        side.wait(clock.advance(61))

    with engine.connect():
        side.together(wait, go_on)
    assert pool.stats().requests_wait_ms >= 1000 * HOUR
    assert pool.stats().requests_timeouts == 1


def test_a_clock_taken_as_a_look_is_due_has_that_look_made(
    tmp_path: Path,
) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/it.db", poolclass=SmartPool)
    pool: Any = engine.pool
    held_up, goes_on = threading.Event(), threading.Event()

    def hold_up() -> None:
        held_up.set()
        goes_on.wait()

    pool.runtime.call_later(0.0, hold_up)
    assert held_up.wait(60)
    try:
        use(engine)
        control_clock(engine).advance(8 * HOUR)
        assert pool.stats().pool_size == 0
    finally:
        goes_on.set()
        engine.dispose()


def test_a_slow_connect_takes_its_time_by_the_same_clock(
    postgresql_database: Database, side: Side
) -> None:
    engine = side.engine(postgresql_database, max_size=1, pool_timeout=HOUR)
    pool: Any = engine.pool
    clock = control_clock(engine)

    def go_on() -> None:
        side.eventually(lambda: pool.stats().pool_connecting, "it begins")
        side.wait(clock.advance(300))
        assert pool.stats().pool_connecting == 1
        side.wait(clock.advance(301))

    began = time.monotonic()
    with slow_connects(engine, 600.0):
        side.together(lambda: use(engine), go_on)
    assert time.monotonic() - began < 300.0
    assert pool.stats().connections_ms >= 600_000


def test_a_process_that_was_stopped_asks_before_it_hands_out(
    postgresql_database: Database, side: Side
) -> None:
    engine = side.engine(
        postgresql_database,
        min_size=2,
        max_size=2,
        ping_after=HOUR,
        keep_alive=None,
    )
    clock = control_clock(engine)
    pool: Any = side.start(engine)
    before = pool.stats().checks_num
    side.wait(clock.advance(60))
    assert pool.stats().checks_num == before
    side.wait(clock.stop_for(60))
    use(engine)
    assert pool.stats().checks_num > before


def test_a_pool_that_follows_keeps_the_clock(
    sqlite_database: Database, side: Side
) -> None:
    engine = side.engine(sqlite_database, keep_alive=900)
    clock = control_clock(engine)
    use(engine)
    side.wait(clock.advance(100))
    engine.dispose()
    use(engine)
    side.wait(clock.advance(950))
    assert engine.pool.stats().closed_idle == 1  # type: ignore[attr-defined]
    assert control_clock(engine) is clock


def test_another_engines_clock_goes_on_as_ever(
    sqlite_database: Database, side: Side
) -> None:
    here, there = side.engine(sqlite_database), side.engine(sqlite_database)
    use(here)
    use(there)
    side.wait(control_clock(here).advance(HOUR))
    pool: Any = there.pool
    assert control_clock(there) is not control_clock(here)
    assert pool.connections()[0].age < HOUR / 5


def test_time_goes_on_by_itself_too(
    sqlite_database: Database, side: Side
) -> None:
    engine = side.engine(sqlite_database, keep_alive=0.05, check_interval=0.05)
    control_clock(engine)
    pool: Any = engine.pool
    use(engine)
    side.eventually(lambda: pool.stats().closed_idle == 1, "it is idle")
    with engine.connect():
        engine.pool._timeout = 0.05  # type: ignore[attr-defined]
        (
            pool.resize(max_size=1)
            if not side.asynchronous
            else side.wait(pool.resize(max_size=1))
        )
        with pytest.raises(PoolTimeoutError):
            engine.connect()


def test_a_ping_that_hangs_is_overtaken_by_its_bound(
    postgresql_database: Database, side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sqla_smartpool.testing.clock._PATIENCE", 0.05)
    engine = side.engine(postgresql_database, min_size=1, max_size=1)
    clock = control_clock(engine)
    pool: Any = side.start(engine)
    postgresql_database.server.freeze()
    side.wait(clock.advance(60))
    postgresql_database.server.thaw()
    side.eventually(lambda: pool.stats().checks_failed, "it was cut")


def test_a_clock_stays_with_its_engine_from_loop_to_loop(
    sqlite_database: Database,
) -> None:
    engine = create_async_engine(
        sqlite_database.url(asynchronous=True),
        poolclass=AsyncSmartPool,
        keep_alive=900,
    )
    clock = control_clock(engine)

    async def grow_old() -> None:
        async with engine.connect() as connection:
            await connection.execute(text("SELECT 1"))
        await clock.advance(1000)
        assert engine.pool.stats().pool_size == 0  # type: ignore[attr-defined]

    asyncio.run(grow_old())
    asyncio.run(grow_old())


def test_an_engine_for_threads_and_one_for_a_loop_have_each_their_kind() -> (
    None
):
    engine = create_engine("sqlite:///one.db", poolclass=SmartPool)
    assert isinstance(control_clock(engine), Clock)
    async_engine = create_async_engine(
        "sqlite+aiosqlite:///one.db", poolclass=AsyncSmartPool
    )
    assert isinstance(control_clock(async_engine), AsyncClock)
    assert control_clock(async_engine) is control_clock(
        async_engine.sync_engine  # type: ignore[comparison-overlap]
    )
    kill_idle(engine)


def test_a_pool_whose_clock_was_taken_is_collected() -> None:
    engine = create_engine(
        "sqlite:///one.db", poolclass=SmartPool, check_interval=0.05
    )
    control_clock(engine)
    pool = weakref.ref(engine.pool)
    del engine
    eventually(lambda: gc.collect() >= 0 and pool() is None, message="gone")


def test_what_has_really_come_is_done_when_the_clock_is_put_forward() -> None:
    engine = create_engine("sqlite:///one.db", poolclass=SmartPool)
    clock: Any = control_clock(engine)
    came, go_on = threading.Event(), threading.Event()
    order: list[str] = []

    def come() -> None:
        came.set()
        go_on.wait()
        order.append("come")

    def advance() -> None:
        clock.advance(HOUR)
        order.append("advanced")

    clock.call_later(0.0, come)
    came.wait()
    advancing = threading.Thread(target=advance)
    advancing.start()
    advancing.join(0.2)  # it would be over by now
    go_on.set()
    advancing.join()
    assert order == ["come", "advanced"]
