"""Sessions of the ORM, in threads, tasks and endpoints."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
import importlib
import sys
from typing import Any
from typing import Iterator

import fastapi
import httpx
import pytest
from sqlalchemy import create_engine
from sqlalchemy import text
from sqlalchemy.orm import Session

from sqla_smartpool import SmartPool
from tests.conftest import Database
from tests.frameworks.serving import Census
from tests.frameworks.serving import EXAMPLES
from tests.frameworks.serving import serving
from tests.lab.waiting import eventually

#: of all examples
MAX_SIZE = 5
MODULES = ["orm_threads", "orm_tasks"]


@pytest.fixture
def examples(
    postgresql: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[Any]]:
    """Both programs, imported, and an empty table."""
    postgresql.terminate()
    postgresql.execute("DROP TABLE IF EXISTS orders")
    for name, driver in (("", "psycopg"), ("ASYNC_", "asyncpg")):
        url = postgresql.url(f"postgresql+{driver}")
        monkeypatch.setenv(
            f"{name}DATABASE_URL", url.render_as_string(hide_password=False)
        )
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield [importlib.import_module(name) for name in MODULES]
    for name in MODULES:
        del sys.modules[name]


def assert_pool_was_shared(pool: Any, census: Census) -> None:
    stats = pool.stats()
    assert stats.connections_num <= MAX_SIZE
    assert stats.requests_errors == stats.pool_in_use == stats.reclaimed == 0
    assert census.most <= MAX_SIZE


@pytest.mark.slow
def test_sessions_share_the_pool_and_every_order_is_there(
    examples: list[Any], postgresql: Any
) -> None:
    threads, tasks = examples

    def in_threads() -> None:
        with ThreadPoolExecutor(20) as executor:
            for place in (threads.place, threads.place_scoped):
                list(executor.map(place, ["threads"] * 100))

    async def in_tasks() -> None:
        pool: Any = tasks.engine.pool
        async with pool:
            for place in (tasks.place, tasks.place_scoped):
                await asyncio.gather(*[place("tasks") for _ in range(100)])
            assert await tasks.count("tasks") == 200

    with threads.engine.pool:
        threads.Base.metadata.create_all(threads.engine)
        with Census(postgresql) as census:
            in_threads()
        assert threads.count("threads") == 200
    assert_pool_was_shared(threads.engine.pool, census)
    eventually(lambda: not postgresql.sessions(), message="none is left")
    with Census(postgresql) as census:
        asyncio.run(in_tasks())
    assert_pool_was_shared(tasks.engine.pool, census)
    eventually(lambda: not postgresql.sessions(), message="none is left")


@pytest.mark.slow
def test_endpoints_in_threads_share_the_pool_of_sqlmodel(
    postgresql: Any,
) -> None:
    postgresql.execute('DROP TABLE IF EXISTS "order"')
    command = ["-m", "uvicorn", "--port=0", "sqlmodel_app:app"]
    with serving(command, postgresql, "postgresql+psycopg") as site:
        # more at once than there are threads for endpoints
        assert site.doubles(at_once=100) <= MAX_SIZE

        async def place(client: httpx.AsyncClient) -> list[Any]:
            order = {"customer": "sqlmodel"}
            answers = await asyncio.gather(
                *[client.post("/orders", json=order) for _ in range(100)]
            )
            return [answer.json()["id"] for answer in answers]

        ids = site.browse(place)
        assert len(set(ids)) == 100
        assert postgresql.execute('SELECT count(*) FROM "order"') == [(100,)]
        stats = site.pool()
        assert stats["connections_num"] <= MAX_SIZE
        assert stats["pool_in_use"] == stats["requests_errors"] == 0
        site.stop()


def test_a_def_endpoint_wants_a_session_of_its_own_not_a_dependency(
    sqlite_database: Database,
) -> None:
    """As its answer is checked by a thread of those that endpoints run in,
    when all of them may be waiting for the connection that it has."""
    engine = create_engine(
        sqlite_database.url(), poolclass=SmartPool, max_size=2
    )
    pool: Any = engine.pool
    one = text("SELECT 1")
    app = fastapi.FastAPI()

    def get_session() -> Iterator[Session]:
        with Session(engine) as session:
            yield session

    def dependent(session: Session = fastapi.Depends(get_session)) -> int:
        return session.scalars(one).one()

    def own() -> int:
        with Session(engine) as session:
            return session.scalars(one).one()

    app.get("/dependent")(dependent)
    app.get("/own")(own)

    async def statuses(path: str) -> set[int]:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://app"
        ) as client:
            asked = [client.get(path) for _ in range(100)]
            answers = await asyncio.gather(*asked)
            return {answer.status_code for answer in answers}

    with pool:
        assert asyncio.run(statuses("/own")) == {200}
        pool._timeout = 1
        assert 500 in asyncio.run(statuses("/dependent"))
