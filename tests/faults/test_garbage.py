"""What nobody holds any more: connections, engines, checkouts cut short."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any
import warnings
import weakref

import pytest
from sqlalchemy import create_engine
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from sqla_smartpool import AsyncSmartPool
from sqla_smartpool import SmartPool
from tests.lab.scripts import run_script
from tests.lab.waiting import eventually


def sqlite_engine(tmp_path: Any, **arguments: Any) -> Any:
    return create_engine(
        f"sqlite:///{tmp_path}/garbage.db",
        poolclass=SmartPool,
        check_interval=0.05,
        **arguments,
    )


def test_a_connection_that_is_dropped_comes_back(tmp_path: Any) -> None:
    engine = sqlite_engine(tmp_path, max_size=1, pool_timeout=10)
    connection = engine.connect()
    connection.execute(text("CREATE TABLE t (a int)"))
    connection.execute(text("INSERT INTO t VALUES (1)"))
    del connection
    gc.collect()
    assert engine.pool.checkedout() == 0
    with engine.connect() as again:
        # it was reset on its way
        assert again.scalar(text("SELECT count(*) FROM sqlite_master")) in (
            0,
            1,
        )


def test_one_dropped_on_another_thread_serves_who_waits(tmp_path: Any) -> None:
    engine = sqlite_engine(tmp_path, max_size=1, pool_timeout=30)
    held = [engine.raw_connection()]
    waiting = threading.Thread(target=lambda: engine.connect().close())
    waiting.start()
    eventually(lambda: engine.pool.stats().requests_waiting == 1)

    def drop() -> None:
        held.clear()
        gc.collect()

    threading.Thread(target=drop).start()
    waiting.join(30)
    assert not waiting.is_alive()


@pytest.mark.parametrize("elsewhere", [False, True])
def test_an_async_one_is_ended_with_a_warning_and_its_room_is_given_on(
    postgresql: Any, elsewhere: bool
) -> None:
    async def program() -> None:
        engine = create_async_engine(
            postgresql.url("postgresql+asyncpg"),
            poolclass=AsyncSmartPool,
            max_size=1,
            pool_timeout=30,
        )
        held = [await engine.raw_connection()]

        async def wait_for_one() -> Any:
            async with engine.connect() as connection:
                return await connection.scalar(text("SELECT 1"))

        waiting = asyncio.create_task(wait_for_one())
        while not engine.pool.stats().requests_waiting:  # type: ignore
            await asyncio.sleep(0)

        def drop() -> None:
            held.clear()
            gc.collect()

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if elsewhere:
                await asyncio.to_thread(drop)
            else:
                drop()
        assert await asyncio.wait_for(waiting, 30) == 1
        await engine.dispose()

    asyncio.run(program())


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
