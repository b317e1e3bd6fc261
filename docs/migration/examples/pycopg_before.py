"""Books, with PooledDatabase and AsyncPooledDatabase of pycopg."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
import os

from psycopg_pool import PoolTimeout
from pycopg import AsyncPooledDatabase
from pycopg import PooledDatabase

options = {
    "min_size": 2,
    "max_size": 4,
    "max_idle": 300.0,
    "max_lifetime": 3600.0,
    "timeout": 2.0,
    "num_workers": 3,
}


def with_threads():
    db = PooledDatabase.from_url(os.environ["DATABASE_URL"], **options)
    db.wait(timeout=30.0)
    db.execute("CREATE TABLE book (number int, title text)")

    def add(number):
        sql = "INSERT INTO book VALUES (%s, %s)"
        db.execute(sql, [number, f"Volume {number}"])

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(add, range(8)))
    many = [(8, "Volume 8"), (9, "Volume 9")]
    print("many:", db.execute_many("INSERT INTO book VALUES (%s, %s)", many))
    print(db.execute("SELECT * FROM book WHERE number < %s", [1]))
    with db.connection() as connection:
        with connection.cursor() as cursor:
            cursor.execute("DELETE FROM book WHERE number > 7")
        connection.commit()
    taken = [db.connection() for _ in range(4)]
    for each in taken:
        each.__enter__()
    try:
        db.execute("SELECT 1")
    except PoolTimeout:
        print("all in use:", db.stats["pool_size"])
    for each in taken:
        each.__exit__(None, None, None)
    db.check()
    print("healthy:", db.health()["connected"])
    db.resize(min_size=1, max_size=8)
    print("sizes:", db.stats["pool_min"], db.stats["pool_max"])
    db.close()


async def in_a_loop():
    url = os.environ["DATABASE_URL"]
    async with AsyncPooledDatabase.from_url(url, **options) as db:
        sql = "SELECT title FROM book WHERE number = %s"
        print(await db.fetch_one(sql, [3]))
        print("count:", await db.fetch_val("SELECT count(*) FROM book"))
        try:
            async with db.transaction() as connection:
                await connection.execute("DELETE FROM book")
                raise KeyError("not all of them")
        except KeyError:
            print("then:", await db.fetch_val("SELECT count(*) FROM book"))


with_threads()
asyncio.run(in_a_loop())
