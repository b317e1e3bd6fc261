"""Books, with SmartPool."""

from concurrent.futures import ThreadPoolExecutor
import os

from sqlalchemy import create_engine
from sqlalchemy import make_url
from sqlalchemy import text

from sqla_smartpool import deadline
from sqla_smartpool import PoolTimeoutError
from sqla_smartpool import SmartPool

url = make_url(os.environ["DATABASE_URL"])
engine = create_engine(
    url.set(drivername="postgresql+psycopg"),
    poolclass=SmartPool,
    min_size=2,
    max_size=4,
    keep_alive=300,
    max_lifetime=1800,
    pool_timeout=10,
)


def add(title):
    with engine.begin() as connection:  # commits
        connection.execute(
            text("INSERT INTO book VALUES (:title)"), {"title": title}
        )


def count():
    with engine.connect() as connection:
        return connection.scalar(text("SELECT count(*) FROM book"))


def main():
    engine.pool.start()
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE book (title text)"))
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(add, [f"Volume {number}" for number in range(8)]))
    print("books:", count())
    try:
        with engine.begin() as connection:
            connection.execute(text("DELETE FROM book"))
            raise KeyError("not all of them")
    except KeyError:
        print("rolled back:", count())
    taken = [engine.connect() for _ in range(4)]
    try:
        with deadline(0.1), engine.connect():
            print("one too many")
    except PoolTimeoutError:
        print("all in use")
    for connection in taken:
        connection.close()
    engine.pool.resize(1, 8)
    stats = engine.pool.stats().as_dict()
    print("sizes:", stats["pool_min"], stats["pool_max"])
    print("waiting:", stats["requests_waiting"])
    engine.pool.stop()


main()
