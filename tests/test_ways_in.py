"""The pool chosen by a configuration of strings, a plugin or the URL."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine
from sqlalchemy import engine_from_config
from sqlalchemy import text
from sqlalchemy.ext.asyncio import async_engine_from_config
from sqlalchemy.pool import NullPool

from sqla_smartpool import AsyncSmartPool
from sqla_smartpool import SmartPool
from tests.conftest import Database
from tests.conftest import PINGING
from tests.conftest import Side


def use(engine: Engine) -> None:
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1


CONFIG = {
    "sqlalchemy.min_size": "2",
    "sqlalchemy.max_size": "7",
    "sqlalchemy.pool_timeout": "12",  # SQLAlchemy allows no fraction here
    "sqlalchemy.pool_recycle": "600",
    "sqlalchemy.pool_pre_ping": "true",
    "sqlalchemy.pool_use_lifo": "false",
    "sqlalchemy.keep_alive": "none",
    "sqlalchemy.ping_after": "0.05",
    "sqlalchemy.check_interval": "0.05",
}


def test_a_configuration_of_strings_makes_an_engine(
    database: Database, side: Side
) -> None:
    config = {
        **CONFIG,
        "sqlalchemy.url": database.url_text(side.asynchronous),
    }
    engine = (
        async_engine_from_config(config, poolclass=AsyncSmartPool).sync_engine
        if side.asynchronous
        else engine_from_config(config, poolclass=SmartPool)
    )
    pool: Any = engine.pool
    assert (pool.size(), pool.timeout(), pool._recycle) == (7, 12, 600)
    assert pool._pre_ping is True
    assert pool.settings.use_lifo is False
    assert pool.settings.keep_alive is None
    side.wait(pool.start())
    assert pool.stats().pool_size == 2
    side.pinged(engine)
    use(engine)
    side.wait(pool.stop())


def test_the_plugin_chooses_the_pool_for_threads_or_loop(
    database: Database, side: Side
) -> None:
    engine = side.create_engine(
        database.url(side.asynchronous),
        connect_args=database.connect_args(side.asynchronous),
        plugins=["smartpool"],
        min_size=5,
        **PINGING,
    )
    pool: Any = engine.pool
    assert type(pool) is side.pool_class
    side.wait(pool.start())
    assert pool.stats().pool_size == 5
    assert pool.stats().pool_max == 15
    side.pinged(engine)
    use(engine)


def test_the_plugin_tells_a_driver_that_is_both_by_its_engine(
    postgresql_database: Database, side: Side
) -> None:
    url = postgresql_database.server.url("postgresql+psycopg")
    engine = side.create_engine(url, plugins=["smartpool"], min_size=1)
    assert type(engine.pool) is side.pool_class
    use(engine)


def with_plugin(database: Database, side: Side, query: str) -> str:
    url = database.url_text(side.asynchronous)
    return f"{url}{'&' if '?' in url else '?'}plugin=smartpool&{query}"


def test_a_url_names_the_plugin_and_its_options(
    database: Database, side: Side
) -> None:
    options = (
        "min_size=5&max_size=20&pool_timeout=3&pool_recycle=600"
        "&ping_after=0.05&check_interval=0.05"
    )
    engine = side.create_engine(with_plugin(database, side, options))
    assert not {"plugin", "min_size", "pool_timeout"} & set(engine.url.query)
    own_query = database.url(side.asynchronous).query
    assert engine.url.query == own_query
    pool: Any = engine.pool
    assert type(pool) is side.pool_class
    assert (pool.size(), pool.timeout(), pool._recycle) == (20, 3, 600)
    side.wait(pool.start())
    assert pool.stats().pool_size == 5
    side.pinged(engine)
    use(engine)


def test_an_option_of_the_program_wins_over_one_of_the_url(
    database: Database, side: Side
) -> None:
    engine = side.create_engine(
        with_plugin(database, side, "min_size=5&max_size=20"), min_size=1
    )
    pool: Any = engine.pool
    assert (pool.stats().pool_min, pool.stats().pool_max) == (1, 20)


def test_a_timeout_in_the_url_stays_the_drivers(
    sqlite_database: Database, side: Side
) -> None:
    url = with_plugin(sqlite_database, side, "timeout=17&min_size=1")
    engine = side.create_engine(url)
    pool: Any = engine.pool
    assert pool.timeout() == 30
    assert engine.url.query == {"timeout": "17"}
    with engine.connect() as connection:
        milliseconds = connection.exec_driver_sql("PRAGMA busy_timeout")
        assert milliseconds.scalar_one() == 17000


def test_a_pool_class_that_the_program_names_wins_over_the_plugin(
    database: Database, side: Side
) -> None:
    url = with_plugin(database, side, "min_size=5&max_size=20")
    engine = side.create_engine(url, poolclass=NullPool)
    assert type(engine.pool) is NullPool
    assert "min_size" not in engine.url.query
    use(engine)
    url = database.url_text(side.asynchronous)
    engine = side.create_engine(url, poolclass=NullPool, plugins=["smartpool"])
    assert type(engine.pool) is NullPool
    use(engine)
