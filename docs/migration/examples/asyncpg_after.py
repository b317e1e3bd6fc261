"""Books, with AsyncSmartPool."""

import asyncio
import os

from sqlalchemy import event
from sqlalchemy import make_url
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from sqla_smartpool import AsyncSmartPool
from sqla_smartpool import deadline
from sqla_smartpool import PoolTimeoutError

url = make_url(os.environ["DATABASE_URL"])
engine = create_async_engine(
    url.set(drivername="postgresql+asyncpg"),
    poolclass=AsyncSmartPool,
    min_size=2,
    max_size=4,
    keep_alive=300,
)


@event.listens_for(engine.sync_engine, "connect")
def prepare(connection, record):
    connection.run_async(
        lambda driver: driver.execute("SET application_name = 'books'")
    )


async def add(title):
    async with engine.begin() as connection:
        await connection.execute(
            text("INSERT INTO book VALUES (:title)"), {"title": title}
        )


async def count():
    async with engine.connect() as connection:
        return await connection.scalar(text("SELECT count(*) FROM book"))


async def main():
    await engine.pool.start()
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE book (title text)"))
    await asyncio.gather(*(add(f"Volume {number}") for number in range(8)))
    print("books:", await count())
    try:
        async with engine.begin() as connection:
            await connection.execute(text("DELETE FROM book"))
            raise KeyError("not all of them")
    except KeyError:
        print("rolled back:", await count())
    async with engine.connect() as connection:
        # what only asyncpg can do, on its own connection
        raw = await connection.get_raw_connection()
        await raw.driver_connection.copy_records_to_table(
            "book", records=[("Volume 8",), ("Volume 9",)]
        )
        name = await connection.scalar(text("SHOW application_name"))
    print("copied:", await count(), "by", name)
    taken = [await engine.connect() for _ in range(4)]
    try:
        with deadline(0.1):
            await engine.connect()
    except PoolTimeoutError as error:
        stats = error.stats
        print("all in use:", stats.pool_size, "idle:", stats.pool_available)
    for connection in taken:
        await connection.close()
    await engine.pool.drain()
    await engine.pool.stop()


asyncio.run(main())
