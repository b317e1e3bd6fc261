"""Books, with psycopg_pool."""

from concurrent.futures import ThreadPoolExecutor
import os

from psycopg_pool import ConnectionPool
from psycopg_pool import PoolTimeout

pool = ConnectionPool(
    os.environ["DATABASE_URL"],
    min_size=2,
    max_size=4,
    max_idle=300,
    max_lifetime=1800,
    timeout=10,
    open=False,
)


def add(title):
    with pool.connection() as connection:  # commits
        connection.execute("INSERT INTO book VALUES (%s)", [title])


def count():
    with pool.connection() as connection:
        return connection.execute("SELECT count(*) FROM book").fetchone()[0]


def main():
    pool.open(wait=True)
    with pool.connection() as connection:
        connection.execute("CREATE TABLE book (title text)")
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(add, [f"Volume {number}" for number in range(8)]))
    print("books:", count())
    try:
        with pool.connection() as connection:
            connection.execute("DELETE FROM book")
            raise KeyError("not all of them")
    except KeyError:
        print("rolled back:", count())
    taken = [pool.getconn() for _ in range(4)]
    try:
        with pool.connection(timeout=0.1):
            print("one too many")
    except PoolTimeout:
        print("all in use")
    for connection in taken:
        pool.putconn(connection)
    pool.resize(1, 8)
    stats = pool.get_stats()
    print("sizes:", stats["pool_min"], stats["pool_max"])
    print("waiting:", stats.get("requests_waiting", 0))
    pool.close()


main()
