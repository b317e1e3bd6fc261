"""Books, with SmartPool and AsyncSmartPool."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
import os

from sqlalchemy import create_engine
from sqlalchemy import event
from sqlalchemy import make_url
from sqlalchemy import text
from sqlalchemy.exc import TimeoutError
from sqlalchemy.ext.asyncio import create_async_engine

from sqla_smartpool import AsyncSmartPool
from sqla_smartpool import SmartPool

url = make_url(os.environ["DATABASE_URL"])
options = {
    "pool_size": 2,
    "max_overflow": 2,
    "pool_timeout": 2,
    "pool_recycle": 1800,
    "pool_pre_ping": True,
    "pool_use_lifo": True,
    "pool_reset_on_return": "rollback",
}
engine = create_engine(
    url.set(drivername="postgresql+psycopg"), poolclass=SmartPool, **options
)
async_engine = create_async_engine(
    url.set(drivername="postgresql+asyncpg"),
    poolclass=AsyncSmartPool,
    **options,
)
checkouts = []
for each in (engine, async_engine.sync_engine):
    event.listen(each, "checkout", lambda *given: checkouts.append(given[1]))


def add(title):
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO book VALUES (:title)"), {"title": title}
        )


async def read():
    async with async_engine.connect() as connection:
        return await connection.scalar(text("SELECT count(*) FROM book"))


async def read_together():
    print("books:", await asyncio.gather(*(read() for _ in range(8))))
    await async_engine.dispose()


def main():
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE book (title text)"))
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(add, [f"Volume {number}" for number in range(8)]))
    asyncio.run(read_together())
    taken = [engine.connect() for _ in range(4)]
    pool = engine.pool
    print("size:", pool.size(), "overflow:", pool.overflow())
    print("in use:", pool.checkedout(), "idle:", pool.checkedin())
    try:
        engine.connect()
    except TimeoutError as error:
        print(str(error).partition(",")[0])
    for connection in taken:
        connection.close()
    print("checkouts:", len(checkouts))
    engine.dispose()


main()
