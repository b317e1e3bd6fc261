"""An async pool serves one event loop after the other, and says so when it
is asked to serve two."""

from __future__ import annotations

import asyncio
import gc
from typing import Any
import warnings

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.ext.asyncio import create_async_engine

from sqla_smartpool import AsyncSmartPool
from sqla_smartpool import PoolLoopError
from tests.lab.waiting import eventually

CASES = [
    ("postgresql", "asyncpg"),
    ("postgresql", "psycopg"),
    ("mariadb", "aiomysql"),
    ("mariadb", "asyncmy"),
    ("sqlite", "aiosqlite"),
]


#: what a driver or asyncio would complain of; the rest is of other tests
OURS = ("transport", "Async", "asyncpg", "aiomysql", "asyncmy", "aiosqlite")
OURS += ("never awaited", "was destroyed")


@pytest.fixture(params=CASES, ids=lambda case: case[1])
def engine(request: pytest.FixtureRequest, tmp_path: Any) -> AsyncEngine:
    database, driver = request.param
    if database == "sqlite":
        url = f"sqlite+aiosqlite:///{tmp_path}/loops.db"
    else:
        server = request.getfixturevalue(database)
        name = {"mariadb": "mysql"}.get(database, database)
        url = server.url(f"{name}+{driver}")
    return create_async_engine(
        url,
        poolclass=AsyncSmartPool,
        min_size=2,
        max_size=3,
        check_interval=0.05,
    )


async def under_contention(engine: AsyncEngine) -> None:
    async def job() -> int:
        async with engine.connect() as connection:
            return (await connection.execute(text("SELECT 1"))).scalar_one()

    assert await asyncio.gather(*[job() for _ in range(20)]) == [1] * 20


def test_three_loops_in_a_row_and_a_fourth_that_is_not_run_to_its_end(
    engine: AsyncEngine, caplog: pytest.LogCaptureFixture
) -> None:
    gc.collect()  # what other tests have left
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            asyncio.run(under_contention(engine))
            gc.collect()
        loop = asyncio.new_event_loop()
        loop.run_until_complete(under_contention(engine))
        loop.close()
        gc.collect()
        asyncio.run(under_contention(engine))

        async def end() -> None:
            await engine.dispose()

        asyncio.run(end())
        gc.collect()
    ours = [
        str(each.message)
        for each in caught
        if issubclass(each.category, (ResourceWarning, RuntimeWarning))
        and any(word in str(each.message) for word in OURS)
    ]
    assert ours == []
    assert not [r for r in caplog.records if r.levelname != "DEBUG"]


def test_no_session_of_a_closed_loop_is_left_on_the_server(
    postgresql: Any,
) -> None:
    engine = create_async_engine(
        postgresql.url("postgresql+asyncpg"),
        poolclass=AsyncSmartPool,
        min_size=2,
        max_size=3,
    )
    for _ in range(3):
        asyncio.run(under_contention(engine))
    asyncio.run(engine.dispose())
    eventually(lambda: not postgresql.sessions(), message="no sessions left")


def test_a_second_live_loop_is_told_of_both_and_of_the_remedy(
    postgresql: Any,
) -> None:
    engine = create_async_engine(
        postgresql.url("postgresql+asyncpg"), poolclass=AsyncSmartPool
    )
    one = asyncio.new_event_loop()
    one.run_until_complete(under_contention(engine))
    two = asyncio.new_event_loop()
    for call in (
        under_contention(engine),
        engine.pool.start(),  # type: ignore[attr-defined]
        engine.pool.check(),  # type: ignore[attr-defined]
    ):
        with pytest.raises(PoolLoopError) as refused:
            two.run_until_complete(call)
        for words in (repr(one)[:30], repr(two)[:30], "dispose"):
            assert words in str(refused.value)
    # the remedy works
    one.run_until_complete(engine.dispose())
    two.run_until_complete(under_contention(engine))
    two.run_until_complete(engine.dispose())
    one.close()
    two.close()


def test_an_engine_disposed_without_a_loop_ends_its_sessions(
    postgresql: Any,
) -> None:
    engine = create_async_engine(
        postgresql.url("postgresql+asyncpg"), poolclass=AsyncSmartPool
    )
    asyncio.run(under_contention(engine))
    engine.sync_engine.dispose()
    eventually(lambda: not postgresql.sessions(), message="no sessions left")
