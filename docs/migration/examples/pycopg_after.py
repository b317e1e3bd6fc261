"""Books, with SmartPool and AsyncSmartPool."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
import os

from sqlalchemy import create_engine
from sqlalchemy import make_url
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from sqla_smartpool import AsyncSmartPool
from sqla_smartpool import PoolTimeoutError
from sqla_smartpool import SmartPool

# one driver for both, as pycopg has it
url = make_url(os.environ["DATABASE_URL"]).set(drivername="postgresql+psycopg")
options = {
    "min_size": 2,
    "max_size": 4,
    "keep_alive": 300.0,
    "max_lifetime": 3600.0,
    "pool_timeout": 2.0,
    "num_workers": 3,
}


def execute(engine, sql, parameters=()):
    """What ``PooledDatabase.execute()`` does, with its ``%s``."""
    with engine.begin() as connection:
        result = connection.exec_driver_sql(sql, tuple(parameters))
        return (
            [dict(row) for row in result.mappings()]
            if result.returns_rows
            else []
        )


def with_threads():
    engine = create_engine(url, poolclass=SmartPool, **options)
    engine.pool.start(timeout=30.0)
    execute(engine, "CREATE TABLE book (number int, title text)")

    def add(number):
        sql = "INSERT INTO book VALUES (%s, %s)"
        execute(engine, sql, [number, f"Volume {number}"])

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(add, range(8)))
    many = [(8, "Volume 8"), (9, "Volume 9")]
    with engine.begin() as connection:
        result = connection.exec_driver_sql(
            "INSERT INTO book VALUES (%s, %s)", many
        )
        print("many:", result.rowcount)
    print(execute(engine, "SELECT * FROM book WHERE number < %s", [1]))
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM book WHERE number > 7"))
    taken = [engine.connect() for _ in range(4)]
    try:
        execute(engine, "SELECT 1")
    except PoolTimeoutError as error:
        print("all in use:", error.stats.pool_size)
    for each in taken:
        each.close()
    engine.pool.check()
    print("healthy:", execute(engine, "SELECT true AS ok")[0]["ok"])
    engine.pool.resize(min_size=1, max_size=8)
    stats = engine.pool.stats()
    print("sizes:", stats.pool_min, stats.pool_max)
    engine.pool.stop()


async def in_a_loop():
    engine = create_async_engine(url, poolclass=AsyncSmartPool, **options)
    count = text("SELECT count(*) FROM book")
    async with engine.pool:
        async with engine.connect() as connection:
            sql = text("SELECT title FROM book WHERE number = :number")
            result = await connection.execute(sql, {"number": 3})
            print(dict(result.mappings().one()))
            print("count:", await connection.scalar(count))
        try:
            async with engine.begin() as connection:
                await connection.execute(text("DELETE FROM book"))
                raise KeyError("not all of them")
        except KeyError:
            async with engine.connect() as connection:
                print("then:", await connection.scalar(count))


with_threads()
asyncio.run(in_a_loop())
