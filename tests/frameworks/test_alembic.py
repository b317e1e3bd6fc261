"""Migrations beside an application that runs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from sqla_smartpool import AsyncSmartPool
from tests.frameworks.serving import environment
from tests.frameworks.serving import EXAMPLES
from tests.lab.scripts import Program
from tests.lab.waiting import eventually

pytestmark = pytest.mark.slow

READ = text("SELECT * FROM orders")


def migrate(server: Any) -> None:
    config = EXAMPLES / "migrations" / "alembic.ini"
    command = ["-m", "alembic", "-c", str(config), "upgrade", "head"]
    # the application's URL, which changes nothing here
    query = {"plugin": "smartpool", "min_size": "2", "max_size": "5"}
    env = environment(server, "postgresql+psycopg", **query)
    ended = Program(command, **env).end()
    assert ended.status == 0, ended.stderr


async def read(engine: Any) -> None:
    """With two connections, each of which keeps the statement's plan."""
    async with engine.connect() as one, engine.connect() as two:
        for connection in (one, two):
            await connection.execute(READ)


def test_after_a_migration_a_drained_pool_has_no_plans_of_before(
    postgresql: Any,
) -> None:
    for table in ("orders", "alembic_version"):
        postgresql.execute(f"DROP TABLE IF EXISTS {table}")
    postgresql.execute("CREATE TABLE orders (id int)")
    postgresql.execute("ALTER TABLE orders OWNER TO smart")
    postgresql.terminate()
    drained, left_alone = (
        create_async_engine(
            postgresql.url("postgresql+asyncpg"),
            poolclass=AsyncSmartPool,
            min_size=2,
            max_size=2,
        )
        for _ in range(2)
    )
    pools: list[Any] = [drained.pool, left_alone.pool]

    async def application() -> None:
        async with pools[0], pools[1]:
            for engine in (drained, left_alone):
                await read(engine)
            migrate(postgresql)
            eventually(
                lambda: len(postgresql.sessions()) == 4,
                message="only the application's",
            )
            await pools[0].drain()
            await read(drained)
            with pytest.raises(DBAPIError, match="cached statement plan"):
                await read(left_alone)

    asyncio.run(application())
    eventually(lambda: not postgresql.sessions(), message="none is left")
