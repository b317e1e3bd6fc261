"""Books, with the pools of pysqlx-engine."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
import logging
import os

from pysqlx_engine import BaseRow
from pysqlx_engine import LOG_CONFIG
from pysqlx_engine import PySQLXEnginePool
from pysqlx_engine import PySQLXEnginePoolSync
from pysqlx_engine.errors import QueryError

options = {
    "uri": os.environ["DATABASE_URL"],
    "min_size": 2,
    "max_size": 4,
    "conn_timeout": 10.0,
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


log = Kept("pysqlx_engine")
LOG_CONFIG.PYSQLX_SQL_LOG = True


class Book(BaseRow):
    number: int
    title: str


def with_threads():
    pool = PySQLXEnginePoolSync(**options)
    pool.start()

    def add(number):
        with pool.connection() as connection:
            connection.execute(
                "INSERT INTO book VALUES (:number, :title)",
                {"number": number, "title": f"Volume {number}"},
            )

    with pool.connection() as connection:
        connection.execute("CREATE TABLE book (number int, title text)")
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(add, range(8)))
    with pool.connection() as connection:
        sql = "SELECT * FROM book WHERE number < :below ORDER BY number"
        books = connection.query(sql, {"below": 2}, model=Book)
        print("two:", [(book.number, book.title) for book in books])
        rows = connection.query_as_dict(sql, {"below": 1})
        print("as a dictionary:", sorted(rows[0].items()))
    with pool.connection() as connection:
        connection.start_transaction()
        connection.execute("DELETE FROM book")
        connection.rollback()
    pool.stop()


async def in_a_loop():
    pool = PySQLXEnginePool(**options)
    await pool.start()

    async def count():
        async with pool.connection() as connection:
            row = await connection.query_first("SELECT count(*) n FROM book")
            return row.n

    print("counted:", await asyncio.gather(*(count() for _ in range(8))))
    async with pool.connection() as connection:
        try:
            await connection.query("SELECT * FROM nowhere")
        except QueryError as error:
            print("refused:", error.code)
    await pool.stop()


with_threads()
asyncio.run(in_a_loop())
print("inserts in the log:", log.count("INSERT INTO book"))
