"""What many waiters, many idle connections and many pools cost."""

from __future__ import annotations

from functools import partial
import threading
import time
import tracemalloc
from typing import Callable
from typing import Iterator

from sqlalchemy import Pool
from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.pool import QueuePool
from sqlalchemy.pool import StaticPool

from sqla_smartpool import AsyncSmartPool
from sqla_smartpool import SmartPool
from .async_checkout import turn_of
from .checkout import cpu_of
from .measure import Benchmark
from .measure import Case
from .measure import Figures
from .pools import engine
from .pools import pool
from .servers import Database
from .servers import server

#: few: 20 tasks, one connection or one pool
_FLAT = "us per checkout / that of few"
_KINDS: tuple[type[Pool], ...] = (QueuePool, SmartPool)
#: StaticPool never waits: what many tasks cost without any pool
_ASYNC_KINDS: tuple[type[Pool], ...] = (
    AsyncAdaptedQueuePool,
    StaticPool,
    AsyncSmartPool,
)


def _idle(kind: type[Pool], size: int, number: int) -> Figures:
    """A pool with many idle connections: memory, and what a checkout costs."""
    pool(kind, 1).connect().close()  # what the first pool imports and makes
    tracemalloc.start()
    made = pool(kind, size)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    figures = dict(cpu_of(made.connect, number))
    made.dispose()
    return {**figures, "bytes per idle connection": taken / size}


def _pools(kind: type[Pool], number: int, checkouts: int) -> Figures:
    """Many pools in one process, each with one connection."""
    before = threading.active_count()
    engines = [engine(kind, 1) for _ in range(number)]
    for each in engines:
        each.connect().close()
    figures = dict(cpu_of(engines[-1].connect, checkouts))
    figures["threads"] = threading.active_count() - before
    for each in engines:
        each.dispose()
    return figures


def _at_rest(database: Database, kind: type[Pool], seconds: float) -> Figures:
    """Ten pools of ten connections that nobody uses."""
    options: dict[str, object] = {"pool_size": 10, "max_overflow": 0}
    if issubclass(kind, SmartPool):
        # nothing is due for a ping meanwhile
        options = {"min_size": 10, "max_size": 10, "ping_after": 3600.0}
    engines = [database.engine(kind, **options) for _ in range(10)]
    for each in engines:
        for connection in [each.connect() for _ in range(10)]:
            connection.close()
    time.sleep(1.0)  # what the opening has begun comes to its end
    before = time.process_time()
    time.sleep(seconds)
    cpu = time.process_time() - before
    for each in engines:
        each.dispose()
    return {"% of a core": 100 * cpu / seconds}


def _beside(
    turn: Callable[[], Figures], few: Callable[[], Figures]
) -> Callable[[], Figures]:
    """The same, and what a checkout costs in parts of that with few."""

    def both() -> Figures:
        figures = dict(turn())
        of_few = few()["us per checkout"]
        figures[_FLAT] = figures["us per checkout"] / of_few
        return figures

    return both


def cases(quick: bool) -> Iterator[Case]:
    number = 500 if quick else 10_000
    for tasks in (20, 200) if quick else (20, 100, 1_000, 10_000):
        yield Case(
            f"{tasks} tasks on 10 connections",
            {
                kind.__name__: _beside(
                    turn_of(kind, tasks, 2 * number),
                    turn_of(kind, 20, 2 * number),
                )
                for kind in _ASYNC_KINDS
            },
            ("AsyncAdaptedQueuePool",),
        )
    for size in (1, 100) if quick else (1, 10, 100, 1_000):
        yield Case(
            f"{size} idle connections",
            {
                kind.__name__: _beside(
                    partial(_idle, kind, size, number),
                    partial(_idle, kind, 1, number),
                )
                for kind in _KINDS
            },
        )
    for pools in (1, 20) if quick else (1, 10, 100, 1_000):
        yield Case(
            f"{pools} pools",
            {
                kind.__name__: _beside(
                    partial(_pools, kind, pools, number),
                    partial(_pools, kind, 1, number),
                )
                for kind in _KINDS
            },
        )
    with server("postgresql") as started:
        database = Database(started, "postgresql+psycopg")
        yield Case(
            "ten pools of ten connections at rest",
            {
                kind.__name__: partial(
                    _at_rest, database, kind, 1.0 if quick else 30.0
                )
                for kind in _KINDS
            },
            (),
        )


SCALE = Benchmark("scale", "many waiters, connections and pools", cases)
