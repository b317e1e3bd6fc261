"""Books, with Piccolo and its connection pool."""

import asyncio
import os
from urllib.parse import urlsplit

from piccolo.columns import Varchar
from piccolo.engine.postgres import PostgresEngine
from piccolo.table import Table

url = urlsplit(os.environ["DATABASE_URL"])
engine = PostgresEngine(
    config={
        "host": url.hostname,
        "port": url.port,
        "user": url.username,
        "password": url.password,
        "database": url.path[1:],
    }
)


class Book(Table, db=engine):
    title = Varchar()


async def main():
    await engine.start_connection_pool(min_size=2, max_size=4)
    await Book.create_table()
    await asyncio.gather(
        *(Book(title=f"Volume {number}").save() for number in range(8))
    )
    print("books:", await Book.count())
    try:
        async with engine.transaction():
            await Book.delete(force=True)
            raise KeyError("not all of them")
    except KeyError:
        print("rolled back:", await Book.count())
    row = await Book.select(Book.title).order_by(Book.title).first()
    print("first:", row)
    print("at most:", engine.pool.get_max_size())
    await engine.close_connection_pool()


asyncio.run(main())
