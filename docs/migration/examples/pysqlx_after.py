"""Books, with SmartPool and AsyncSmartPool."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
import logging
import os

from pydantic import BaseModel
from sqlalchemy import create_engine
from sqlalchemy import make_url
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from sqla_smartpool import AsyncSmartPool
from sqla_smartpool import SmartPool

url = make_url(os.environ["DATABASE_URL"])
options = {
    "min_size": 2,
    "max_size": 4,
    "pool_timeout": 10.0,
    "keep_alive": 900.0,
    "check_interval": 0.5,
    "monitor_batch_size": 10,
}


class Kept(logging.Handler):
    """What is logged, as a list of lines."""

    def __init__(self, name):
        super().__init__()
        self.lines = []
        logging.getLogger(name).setLevel(logging.INFO)
        logging.getLogger(name).addHandler(self)

    def emit(self, record):
        self.lines.append(record.getMessage())

    def count(self, words):
        return sum(words in line for line in self.lines)


log = Kept("sqlalchemy.engine")


class Book(BaseModel):
    number: int
    title: str


def with_threads():
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        poolclass=SmartPool,
        **options,
    )
    engine.pool.start()

    def add(number):
        with engine.begin() as connection:
            connection.execute(
                text("INSERT INTO book VALUES (:number, :title)"),
                {"number": number, "title": f"Volume {number}"},
            )

    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE book (number int, title text)"))
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(add, range(8)))
    with engine.connect() as connection:
        sql = text("SELECT * FROM book WHERE number < :below ORDER BY number")
        rows = connection.execute(sql, {"below": 2}).mappings()
        books = [Book(**row) for row in rows]
        print("two:", [(book.number, book.title) for book in books])
        rows = connection.execute(sql, {"below": 1}).mappings()
        print("as a dictionary:", sorted(rows.one().items()))
    with engine.connect() as connection:
        connection.execute(text("DELETE FROM book"))
        connection.rollback()
    engine.pool.stop()


async def in_a_loop():
    engine = create_async_engine(
        url.set(drivername="postgresql+asyncpg"),
        poolclass=AsyncSmartPool,
        **options,
    )
    await engine.pool.start()

    async def count():
        async with engine.connect() as connection:
            return await connection.scalar(text("SELECT count(*) FROM book"))

    print("counted:", await asyncio.gather(*(count() for _ in range(8))))
    async with engine.connect() as connection:
        try:
            await connection.execute(text("SELECT * FROM nowhere"))
        except DBAPIError as error:
            print("refused:", error.orig.sqlstate)
    await engine.pool.stop()


with_threads()
asyncio.run(in_a_loop())
print("inserts in the log:", log.count("INSERT INTO book"))
