"""What a checkout costs when many threads want one."""

from __future__ import annotations

import threading
import time
from typing import Any
from typing import Callable
from typing import Iterator

from sqlalchemy import Pool
from sqlalchemy.pool import QueuePool

from sqla_smartpool import SmartPool
from .floor import ThreadFifo
from .floor import WithoutLock
from .measure import Benchmark
from .measure import Case
from .measure import Figures
from .pools import dbutils_pool_of
from .pools import pool
from .pools import psycopg_pool_of


def _turn(
    acquire: Callable[[], Any],
    release: Callable[[Any], object],
    threads: int,
    seconds: float,
) -> Callable[[], Figures]:
    """So many threads take and return connections, for so long: a number of
    times may be over for one before the next has begun."""

    def work(done: list[tuple[int, float]], begin: threading.Barrier) -> None:
        clock = time.perf_counter
        number, longest = 0, 0.0
        begin.wait()
        ends = clock() + seconds
        while (since := clock()) < ends:
            connection = acquire()
            longest = max(longest, clock() - since)
            release(connection)
            number += 1
        done.append((number, longest))

    def turn() -> Figures:
        done: list[tuple[int, float]] = []
        begin = threading.Barrier(threads + 1)
        workers = [
            threading.Thread(target=work, args=(done, begin))
            for _ in range(threads)
        ]
        for worker in workers:
            worker.start()
        begin.wait()
        began = time.perf_counter()
        for worker in workers:
            worker.join()
        took = time.perf_counter() - began
        assert len(done) == threads, "a worker has failed"
        return {
            "us per checkout": 1e6 * took / sum(number for number, _ in done),
            "longest wait, ms": 1e3 * max(longest for _, longest in done),
        }

    return turn


def _close(connection: Any) -> None:
    connection.close()


def cases(quick: bool) -> Iterator[Case]:
    seconds = 0.05 if quick else 1.0
    for threads in (8, 50):
        for size in (5, 15):
            turns: dict[str, Callable[[], Figures]] = {}
            kinds: dict[str, type[Pool]] = {
                "QueuePool": QueuePool,
                "SmartPool": SmartPool,
                "bare FIFO": ThreadFifo,
            }
            if size >= threads:
                kinds["without a lock"] = WithoutLock
            for name, kind in kinds.items():
                made = pool(kind, size)
                turns[name] = _turn(made.connect, _close, threads, seconds)
            other = psycopg_pool_of(size)
            turns["psycopg_pool"] = _turn(
                other.getconn, other.putconn, threads, seconds
            )
            dbutils = dbutils_pool_of(size)
            turns["DBUtils"] = _turn(
                dbutils.connection, _close, threads, seconds
            )
            yield Case(
                f"{threads} threads on {size} connections",
                turns,
                ("QueuePool", "bare FIFO"),
            )
            other.close()


CONTENDED = Benchmark(
    "contended", "checkout and checkin without I/O, many threads", cases
)
