"""What nobody holds any more: connections, engines, checkouts cut short."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
from typing import Any
from typing import Callable
from typing import Iterator
import warnings
import weakref

import pytest
from sqlalchemy import create_engine
from sqlalchemy import text
from sqlalchemy.exc import SAWarning
from sqlalchemy.ext.asyncio import create_async_engine

from sqla_smartpool import AsyncSmartPool
from sqla_smartpool import lost
from sqla_smartpool import SmartPool
from sqla_smartpool._sqlalchemy import greenlet_spawn
from sqla_smartpool.testing import control_clock
from sqla_smartpool.whereabouts import in_hand
from tests.lab import matrix
from tests.lab.fake_connections import Gate
from tests.lab.fake_dbapi import FakeDatabase
from tests.lab.matrix import Client
from tests.lab.matrix import ONE
from tests.lab.matrix import QUIET
from tests.lab.scripts import run_script
from tests.lab.stage import doomed
from tests.lab.waiting import eventually

side = matrix.side

SYNC = [case for case in matrix.TCP if not case.asynchronous]
ASYNC = [case for case in matrix.TCP if case.asynchronous]
ASYNCPG = [case for case in ASYNC if "asyncpg" in case.drivername]


@pytest.fixture(autouse=True)
def _collected_only_where_asked() -> Iterator[None]:
    """Or any thread might, such as the test's own, and have to wait in there
    for what the test does next."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def sqlite_engine(tmp_path: Any, **arguments: Any) -> Any:
    return create_engine(
        f"sqlite:///{tmp_path}/garbage.db",
        poolclass=SmartPool,
        check_interval=0.05,
        **arguments,
    )


def drop(held: list[Any]) -> None:
    held.clear()
    gc.collect()


# A connection


@matrix.on(SYNC)
def test_a_connection_that_is_dropped_is_reset_and_back_in_the_pool(
    side: Client,
) -> None:
    engine = side.started(min_size=1, max_size=1, **QUIET)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE dropped (a int)"))
    try:
        connection = engine.connect()
        before = side.session(connection)
        connection.execute(text("INSERT INTO dropped VALUES (1)"))
        held = [doomed(connection)]
        del connection
        drop(held)
        assert engine.pool.stats().pool_available == 1
        with engine.connect() as again:
            assert side.session(again) == before
            assert again.scalar(text("SELECT count(*) FROM dropped")) == 0
        assert engine.pool.stats().connections_num == 1
    finally:
        side.wait(engine.pool.stop())
        side.server.execute("DROP TABLE dropped")


@matrix.on(ASYNC)
@pytest.mark.parametrize("elsewhere", [False, True])
def test_an_async_one_is_ended_with_a_warning_and_its_room_is_given_on(
    side: Client, elsewhere: bool
) -> None:
    engine = side.started(min_size=1, max_size=1, pool_timeout=30, **QUIET)
    connection = engine.connect()
    before = side.session(connection)
    held = [doomed(connection)]
    del connection

    def wait_for_it() -> int:
        with engine.connect() as connection:
            return side.session(connection)

    served = side.begin(wait_for_it)
    side.waiting(engine)
    with pytest.warns(SAWarning, match="The garbage collector is trying"):
        if elsewhere:
            side.wait(asyncio.to_thread(drop, held))
        else:
            drop(held)
    after = served()
    assert after != before
    side.eventually(lambda: side.sessions() == {after}, "the other has ended")
    stats = engine.pool.stats()
    assert (stats.connections_num, stats.pool_size) == (2, 1)
    assert (stats.requests_errors, stats.reclaimed) == (0, 0)


def test_one_dropped_on_another_thread_serves_who_waits(tmp_path: Any) -> None:
    engine = sqlite_engine(tmp_path, max_size=1, pool_timeout=30)
    held = [doomed(engine.raw_connection())]
    waiting = threading.Thread(target=lambda: engine.connect().close())
    waiting.start()
    eventually(lambda: engine.pool.stats().requests_waiting == 1)
    threading.Thread(target=drop, args=(held,)).start()
    waiting.join(30)
    assert not waiting.is_alive()


@pytest.fixture
def slow_to_end(side: Client) -> Iterator[Callable[[Any], list[Any]]]:
    """Makes a connection one that is not ended as quickly as a new one is
    opened, and one that is about to be dropped."""
    stopped: list[int] = []

    def stop(connection: Any) -> list[Any]:
        stopped.append(side.session(connection))
        os.kill(stopped[0], signal.SIGSTOP)
        return [doomed(connection)]

    yield stop
    for session in stopped:
        os.kill(session, signal.SIGCONT)


@matrix.on(ASYNCPG)
@pytest.mark.filterwarnings("ignore:The garbage collector:Warning")
def test_one_that_is_ended_slowly_does_not_give_back_its_successor(
    side: Client, slow_to_end: Callable[[Any], list[Any]]
) -> None:
    engine = side.smart(max_size=1, pool_timeout=30, **QUIET)
    connection = engine.connect()
    connection.connection.record_info["kept"] = 1  # type: ignore[index]
    held = slow_to_end(connection)
    del connection
    dropped = side.gate()

    def hold_its_successor() -> tuple[int, Any]:
        with engine.connect() as connection:
            dropped.wait()
            info = connection.connection.record_info
            return engine.pool.stats().pool_in_use, info

    served = side.begin(hold_its_successor)
    side.waiting(engine)
    drop(held)
    assert engine.pool.stats().connections_num == 2
    dropped.open()
    assert served() == (1, {"kept": 1})
    assert engine.pool.stats().pool_in_use == 0


@matrix.on(ASYNCPG)
@pytest.mark.filterwarnings("ignore:The garbage collector:Warning")
def test_one_that_is_ended_slowly_at_the_books_holds_up_nobody(
    side: Client, slow_to_end: Callable[[Any], list[Any]]
) -> None:
    engine = side.smart(max_size=1, pool_timeout=30, **QUIET)
    pool: Any = engine.pool
    held = slow_to_end(engine.connect())
    served = side.begin(lambda: engine.connect().close())
    side.waiting(engine)
    happened: list[str] = []
    loop = asyncio.get_running_loop()
    loop.call_soon(happened.append, "others went on")
    pool.inventory.post(drop, held)
    happened.append("the change was made")
    side.eventually(lambda: len(happened) == 2)
    # or they would have come upon books that nobody can change for long
    assert happened == ["the change was made", "others went on"]
    served()


@matrix.on(ASYNCPG)
@pytest.mark.filterwarnings("ignore:The garbage collector:Warning")
def test_one_that_is_collected_at_any_place_holds_up_nobody(
    side: Client, slow_to_end: Callable[[Any], list[Any]]
) -> None:
    engine = side.smart(max_size=1, pool_timeout=30, **QUIET)
    held = slow_to_end(engine.connect())
    happened: list[str] = []
    loop = asyncio.get_running_loop()
    loop.call_soon(happened.append, "others went on")
    drop(held)
    happened.append("the collection was over")
    side.eventually(lambda: len(happened) == 2)
    # else whoever was cancelled in the meantime would not have heard of it
    assert happened == ["the collection was over", "others went on"]
    engine.connect().close()


@matrix.on(ASYNC)
@pytest.mark.filterwarnings("ignore:The garbage collector:Warning")
def test_one_that_is_collected_on_another_loop_is_ended_on_its_own(
    side: Client, caplog: pytest.LogCaptureFixture
) -> None:
    engine = side.started(min_size=1, max_size=1, pool_timeout=30, **QUIET)
    connection = engine.connect()
    before = side.session(connection)
    held = [doomed(connection)]
    del connection

    def elsewhere() -> None:
        asyncio.run(greenlet_spawn(drop, held))

    side.wait(asyncio.to_thread(elsewhere))
    with engine.connect() as connection:
        after = side.session(connection)
    side.eventually(lambda: side.sessions() == {after}, "the other has ended")
    assert after != before
    complaints = [record.getMessage()[:40] for record in caplog.records]
    assert all("garbage collector" in text for text in complaints), complaints


# A checkout


def test_a_checkout_lost_to_an_asynchronous_exception_is_reclaimed(
    tmp_path: Any,
) -> None:
    engine = sqlite_engine(tmp_path, max_size=1, pool_timeout=60)
    engine.connect().close()
    # as when an exception comes between taking a connection and handing it on
    engine.pool._do_get()
    assert engine.pool.checkedout() == 1
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
    assert engine.pool.stats().reclaimed == 1


def test_one_reclaimed_before_it_was_collected_is_not_returned_as_well() -> (
    None
):
    database = FakeDatabase()
    engine = database.engine(min_size=2, max_size=2, check_interval=0.05)
    pool: Any = engine.pool
    held = [doomed(engine.connect()), doomed(engine.connect())]
    gate = Gate()
    # a collection finds both, and the reset of one keeps it from the other
    database.once("rollback", gate)
    collecting = threading.Thread(target=drop, args=(held,))
    collecting.start()
    eventually(lambda: pool.stats().reclaimed == 1)
    eventually(
        lambda: pool.stats().pool_available == 1, message="its successor"
    )
    gate.open()
    collecting.join()
    assert pool.stats().pool_available == pool.stats().pool_size == 2
    with engine.connect() as one, engine.connect() as other:
        mine = one.connection.dbapi_connection
        assert mine is not other.connection.dbapi_connection
    engine.dispose()


def test_what_is_on_its_way_home_for_an_hour_is_not_looked_for_all_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    database = FakeDatabase()
    engine = database.engine(max_size=2, check_interval=30.0)
    clock, gate, searches = control_clock(engine), Gate(), 0

    def counted(module: str) -> set[int]:
        nonlocal searches
        searches += 1
        return in_hand(module)

    monkeypatch.setattr(lost, "in_hand", counted)
    held = [[engine.connect()], [engine.connect()]]
    database.always("rollback", gate)
    dropping = [threading.Thread(target=one.clear) for one in held]
    for come, thread in enumerate(dropping, 1):
        thread.start()
        eventually(lambda come=come: gate.visits == come)
        engine.pool.upkeep.wake()
        clock.advance(0.5)  # so that a look for one is not for the other
    clock.advance(3600)
    assert 2 < searches <= 2 * (2 + 3600 / 30)
    gate.open()
    for thread in dropping:
        thread.join()
    assert engine.pool.stats().reclaimed == 0
    engine.dispose()


def test_what_is_in_use_is_never_reclaimed(tmp_path: Any) -> None:
    engine = sqlite_engine(tmp_path, max_size=2)
    with engine.connect() as connection:
        record = connection.connection._connection_record
        looks = 0
        look = engine.pool.upkeep._reclaim

        def counted(now: float) -> None:
            nonlocal looks
            looks += 1
            look(now)

        engine.pool.upkeep._reclaim = counted
        eventually(lambda: looks > 50, message="fifty passes")
        assert record.doubted == -1
        assert connection.scalar(text("SELECT 1")) == 1
    assert engine.pool.stats().reclaimed == 0


def test_a_doubt_about_a_connection_does_not_outlive_it(tmp_path: Any) -> None:
    engine = create_engine(
        f"sqlite:///{tmp_path}/doubt.db",
        poolclass=SmartPool,
        max_size=1,
        **QUIET,  # type: ignore[arg-type]
    )
    pool: Any = engine.pool
    record = pool._do_get()
    # as a look does that comes just before somebody holds it
    record.doubted = record.uses
    # as SQLAlchemy does for a listener of "checkout"
    record.invalidate()
    record.get_connection()
    pool.upkeep._reclaim(0.0)  # the first look at this one
    assert pool.stats().reclaimed == 0


# An engine


@pytest.mark.pain("never collected")
def test_an_engine_dropped_without_dispose_is_collected(tmp_path: Any) -> None:
    engine = sqlite_engine(tmp_path, min_size=2)
    engine.pool.start()
    with engine.connect():
        pass
    pool = weakref.ref(engine.pool)
    del engine

    def is_gone() -> bool:
        gc.collect()
        return pool() is None

    eventually(is_gone, message="the pool is collected")


def test_the_last_pool_takes_the_thread_with_it(tmp_path: Any) -> None:
    script = """
    import gc, os, threading
    from sqlalchemy import create_engine
    from sqla_smartpool import SmartPool
    from tests.lab.waiting import eventually

    def running():
        return "sqla_smartpool" in {t.name for t in threading.enumerate()}

    engine = create_engine(os.environ["URL"], poolclass=SmartPool)
    engine.connect().close()
    assert running()
    del engine
    gc.collect()
    eventually(lambda: not running(), message="upkeep's thread has ended")
    engine = create_engine(os.environ["URL"], poolclass=SmartPool)
    engine.connect().close()
    assert running()
    """
    ended = run_script(script, URL=f"sqlite:///{tmp_path}/garbage.db")
    assert ended.status == 0, ended.stderr


def test_an_async_engine_dropped_without_dispose_leaves_no_timer_behind(
    tmp_path: Any,
) -> None:
    async def program() -> None:
        engine = create_async_engine(
            f"sqlite+aiosqlite:///{tmp_path}/garbage.db",
            poolclass=AsyncSmartPool,
            min_size=2,
            check_interval=0.05,
        )
        pool: Any = engine.pool
        await pool.start()
        async with engine.connect() as connection:
            await connection.execute(ONE)
        gone = weakref.ref(pool)
        del pool, engine, connection
        loop: Any = asyncio.get_running_loop()

        async def until(condition: Callable[[], bool]) -> None:
            while not condition():
                await asyncio.sleep(0.01)
                gc.collect()

        await until(lambda: gone() is None)
        # of what is left, one is our own sleep
        await until(lambda: len(loop._scheduled) == 0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # aiosqlite's own
        asyncio.run(program())
