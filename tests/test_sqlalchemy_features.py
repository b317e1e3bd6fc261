"""What SQLAlchemy's programs do with connections goes on working while
upkeep pings in between."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import Column
from sqlalchemy import Engine
from sqlalchemy import exc as sa_exc
from sqlalchemy import insert
from sqlalchemy import Integer
from sqlalchemy import MetaData
from sqlalchemy import select
from sqlalchemy import String
from sqlalchemy import Table
from sqlalchemy.ext.asyncio import create_async_engine

from sqla_smartpool import AsyncSmartPool
from tests.conftest import Database
from tests.conftest import PINGING
from tests.conftest import Side

metadata = MetaData()
notes = Table(
    "notes",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(20)),
)


def pinging_engine(side: Side, database: Database, **options: Any) -> Engine:
    """An engine whose idle connections are pinged all the time, with an
    empty table ``notes``, and the floor of two open."""
    engine = side.pinging_engine(database, **options)
    metadata.drop_all(engine)
    metadata.create_all(engine)
    side.start(engine)
    return engine


def names(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.scalars(select(notes.c.name).order_by("id")))


def test_savepoints_survive_pings_of_the_others(
    database: Database, side: Side
) -> None:
    engine = pinging_engine(side, database)
    for name in ("a", "b"):
        with engine.begin() as connection:
            connection.execute(insert(notes), {"name": name})
            undone = connection.begin_nested()
            connection.execute(insert(notes), {"name": "undone"})
            side.pinged(engine)
            undone.rollback()
            with connection.begin_nested():
                connection.execute(insert(notes), {"name": name * 2})
                side.pinged(engine)
        side.pinged(engine)
    assert names(engine) == ["a", "aa", "b", "bb"]


def test_what_was_not_committed_is_undone_on_return_and_never_seen(
    database: Database, side: Side
) -> None:
    engine = pinging_engine(side, database)
    with engine.connect() as connection:
        connection.execute(insert(notes), {"name": "lost"})
        side.pinged(engine)
    side.pinged(engine)
    assert names(engine) == []


@pytest.mark.parametrize("database", ["postgresql", "mariadb"], indirect=True)
def test_two_phase_transactions_survive_pings_between_their_phases(
    database: Database, side: Side
) -> None:
    engine = pinging_engine(side, database)
    with engine.connect() as connection:
        kept = connection.begin_twophase()
        connection.execute(insert(notes), {"name": "kept"})
        kept.prepare()
        side.pinged(engine)
        kept.commit()
    with engine.connect() as connection:
        undone = connection.begin_twophase()
        connection.execute(insert(notes), {"name": "undone"})
        undone.prepare()
        side.pinged(engine)
        undone.rollback()
    side.pinged(engine)
    assert names(engine) == ["kept"]


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_prepared_transaction_is_ended_by_another_connection(
    database: Database, side: Side
) -> None:
    engine = pinging_engine(side, database)
    with engine.connect() as connection:
        transaction = connection.begin_twophase(xid="by-another")
        connection.execute(insert(notes), {"name": "recovered"})
        transaction.prepare()
        connection.invalidate()
    side.pinged(engine)
    with engine.connect() as connection:
        assert "by-another" in connection.recover_twophase()
        connection.commit_prepared("by-another", recover=True)
    assert names(engine) == ["recovered"]


def test_autocommit_of_one_connection_ends_with_its_checkout(
    database: Database, side: Side
) -> None:
    engine = pinging_engine(side, database)
    for _ in range(3):
        with engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.execute(insert(notes), {"name": "kept"})
            side.pinged(engine)
        side.pinged(engine)
        with engine.connect() as connection:
            connection.execute(insert(notes), {"name": "undone"})
        side.pinged(engine)
    assert names(engine) == ["kept"] * 3


def test_an_isolation_level_of_one_connection_ends_with_its_checkout(
    database: Database, side: Side
) -> None:
    engine = pinging_engine(side, database)
    other = {"sqlite": "READ UNCOMMITTED"}.get(database.name, "SERIALIZABLE")
    with engine.connect() as connection:
        usual = connection.get_isolation_level()
    assert usual != other
    for _ in range(3):
        with engine.connect() as connection:
            connection.execution_options(isolation_level=other)
            side.pinged(engine)
            assert connection.get_isolation_level() == other
        side.pinged(engine)
        with engine.connect() as one, engine.connect() as two:
            assert one.get_isolation_level() == usual
            assert two.get_isolation_level() == usual


def test_an_isolation_level_of_the_engine_outlives_pings(
    database: Database, side: Side
) -> None:
    engine = pinging_engine(side, database, isolation_level="SERIALIZABLE")
    for _ in range(3):
        side.pinged(engine)
        with engine.connect() as one, engine.connect() as two:
            assert one.get_isolation_level() == "SERIALIZABLE"
            assert two.get_isolation_level() == "SERIALIZABLE"


def test_an_engine_with_other_execution_options_shares_the_pool(
    database: Database, side: Side
) -> None:
    engine = pinging_engine(side, database)
    committing = engine.execution_options(
        isolation_level="AUTOCOMMIT", logging_token="other"
    )
    assert committing.pool is engine.pool
    with committing.connect() as connection:
        connection.execute(insert(notes), {"name": "kept"})
        assert connection.get_execution_options()["logging_token"] == "other"
    side.pinged(engine)
    with engine.connect() as connection:
        assert "logging_token" not in connection.get_execution_options()
        connection.execute(insert(notes), {"name": "undone"})
    side.pinged(engine)
    assert names(committing) == ["kept"]
    pool: Any = engine.pool
    assert pool.stats().connections_num == pool.stats().pool_size


def test_an_invalidated_connection_is_replaced_where_it_is_used(
    database: Database, side: Side
) -> None:
    engine = pinging_engine(side, database)
    pool: Any = engine.pool
    with engine.connect() as connection:
        first = connection.connection.dbapi_connection
        connection.execute(insert(notes), {"name": "lost"})
        connection.invalidate()
        assert connection.invalidated
        with pytest.raises(sa_exc.PendingRollbackError):
            connection.execute(insert(notes), {"name": "lost, too"})
        connection.rollback()
        side.pinged(engine)
        connection.execute(insert(notes), {"name": "kept"})
        connection.commit()
        assert connection.connection.dbapi_connection is not first
    assert names(engine) == ["kept"]
    assert pool.stats().returns_bad == 1
    side.eventually(lambda: pool.stats().pool_available == 2, "the floor")


def test_a_result_is_streamed_while_others_are_pinged(
    database: Database, side: Side
) -> None:
    engine = pinging_engine(side, database)
    with engine.begin() as connection:
        rows = [{"id": number} for number in range(1, 501)]
        connection.execute(insert(notes), rows)
    with engine.connect() as connection:
        result = connection.execution_options(
            stream_results=True, max_row_buffer=10
        ).execute(select(notes.c.id).order_by("id"))
        read = [row.id for row in result.fetchmany(20)]
        side.pinged(engine)
        for chunk in result.partitions(100):
            read += [row.id for row in chunk]
        assert read == list(range(1, 501))
    side.pinged(engine)
    with engine.connect() as connection:  # left in the middle
        result = connection.execution_options(yield_per=10).execute(
            select(notes.c.id)
        )
        assert result.first() is not None
    side.pinged(engine)
    assert len(names(engine)) == 500


def test_an_asynchronous_stream_goes_on_while_others_are_pinged(
    database: Database,
) -> None:
    async def program() -> None:
        engine = create_async_engine(
            database.url(asynchronous=True),
            connect_args=database.connect_args(asynchronous=True),
            poolclass=AsyncSmartPool,
            min_size=2,
            max_size=4,
            **PINGING,
        )
        pool: Any = engine.pool
        async with engine.begin() as connection:
            await connection.run_sync(metadata.drop_all)
            await connection.run_sync(metadata.create_all)
            rows = [{"id": number} for number in range(1, 101)]
            await connection.execute(insert(notes), rows)
        await pool.wait()
        async with engine.connect() as connection:
            read = []
            async with connection.stream(
                select(notes.c.id).order_by("id")
            ) as result:
                async for row in result:
                    read.append(row.id)
                    while row.id == 50 and not pool.stats().checks_num:
                        await asyncio.sleep(0.01)
            assert read == list(range(1, 101))
        assert pool.stats().checks_num > 0
        assert pool.stats().checks_failed == 0
        await engine.dispose()

    asyncio.run(asyncio.wait_for(program(), 60))
