"""What it costs to hand out no dead connection.

QueuePool knows nothing of its connections without a ping each time; SmartPool
looks at the socket.  Measured are connect, a statement and return.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
import statistics
import threading
import time
from typing import Iterator

from sqlalchemy import Engine
from sqlalchemy import text
from sqlalchemy.pool import QueuePool
from sqlalchemy.pool import StaticPool

from sqla_smartpool import SmartPool
from .measure import Benchmark
from .measure import Case
from .measure import Figures
from .servers import Database
from .servers import server

_ASK = text("SELECT 1")


def _turn(engine: Engine, number: int, busy: bool) -> Figures:
    def work() -> None:
        with engine.connect() as connection:
            connection.execute(_ASK)

    work()  # the first use has more to do
    took = []
    with _computing(busy):
        for _ in range(number):
            began = time.perf_counter()
            work()
            took.append(1e6 * (time.perf_counter() - began))
    # the mean of requests so short is made by what else the machine does
    return {
        "us per request": statistics.median(took),
        "us per request, mean": statistics.mean(took),
    }


@contextmanager
def _computing(busy: bool) -> Iterator[None]:
    """A thread that computes all the time, and gives way when it has to."""
    is_over = threading.Event()

    def compute() -> None:
        number = 0
        while not is_over.is_set():
            number += sum(range(1000))

    thread = threading.Thread(target=compute)
    if busy:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        if busy:
            thread.join()


def cases(quick: bool) -> Iterator[Case]:
    with server("postgresql") as started:
        for delay in (0.0, 0.001):
            for busy in (False, True):
                database = Database(started, "postgresql+psycopg", delay)
                engines = {
                    "QueuePool": database.engine(QueuePool),
                    "QueuePool(pre_ping)": database.engine(
                        QueuePool, pool_pre_ping=True
                    ),
                    "StaticPool": database.engine(StaticPool),
                    "SmartPool": database.engine(SmartPool, min_size=1),
                }
                number = 20 if quick else 100 if delay and busy else 300
                yield Case(
                    f"+{1e3 * delay:g} ms"
                    + (", beside a thread that computes" if busy else ""),
                    {
                        name: partial(_turn, engine, number, busy)
                        for name, engine in engines.items()
                    },
                )
                for engine in engines.values():
                    engine.dispose()
                database.close()


SAFE_CHECKOUT = Benchmark(
    "safe-checkout", "connect, SELECT 1 and return; nothing dead", cases
)
