"""Bursts: more workers than a small pool has, who come and go.

QueuePool closes what is beyond ``pool_size`` as it comes back, and opens it
again a moment later; or it keeps all of them for ever.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any
from typing import Callable
from typing import Iterator

from sqlalchemy import Pool
from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.pool import QueuePool

from sqla_smartpool import AsyncSmartPool
from sqla_smartpool import SmartPool
from .floor import BareFifo
from .load import Load
from .load import quantiles
from .measure import Benchmark
from .measure import Case
from .measure import Turn
from .servers import asyncpg_pool_of
from .servers import Database
from .servers import Opened
from .servers import server
from .waits import recorded

#: seconds
_THINK = 0.005
#: load before that which is measured, seconds: all may open what they need
_WARM_UP = 1.0
#: of more workers than this most wait at any time
_CROWD = 100
_SMART = {"min_size": 5, "max_size": 15}


def _candidates(
    queue: type[Pool], smart: type[Pool]
) -> dict[str, tuple[type[Pool], dict[str, Any]]]:
    return {
        "QueuePool(15, 0)": (queue, {"pool_size": 15, "max_overflow": 0}),
        "QueuePool(5, 10)": (queue, {"pool_size": 5, "max_overflow": 10}),
        "SmartPool(5..15)": (smart, _SMART),
    }


def _brought(load: Load, opened: Opened) -> Turn:
    found = quantiles(load.waits, 0.5, 0.99)
    figures = {
        "requests/s": load.per_second,
        "connections opened": opened.number,
        **found,
    }
    if load.workers > _CROWD:
        # who does not think waits for a connection: the rest of a round is
        # small beside that
        mean = 1e3 * (load.workers / load.per_second - _THINK / 2)
        figures["p99 wait / mean wait"] = found["p99 wait, ms"] / mean
    return Turn(figures, recorded(load.waits))


def _threads(
    database: Database,
    kind: type[Pool],
    options: dict[str, Any],
    workers: int,
    seconds: float,
) -> Turn:
    engine = database.engine(kind, **options)
    opened = Opened(engine)
    _start(engine.pool)
    Load(workers, _WARM_UP, _THINK).by_threads(engine)
    load = Load(workers, seconds, _THINK)
    load.by_threads(engine)
    engine.dispose()
    return _brought(load, opened)


def _tasks(
    database: Database,
    kind: type[Pool],
    options: dict[str, Any],
    workers: int,
    seconds: float,
) -> Turn:
    async def run() -> Turn:
        engine = database.async_engine(kind, **options)
        opened = Opened(engine.sync_engine)
        if isinstance(engine.pool, AsyncSmartPool):
            await engine.pool.start()
        await Load(workers, _WARM_UP, _THINK).by_tasks(engine)
        load = Load(workers, seconds, _THINK)
        await load.by_tasks(engine)
        await engine.dispose()
        return _brought(load, opened)

    return asyncio.run(run())


def _asyncpg(started: Any, workers: int, seconds: float) -> Turn:
    async def run() -> Turn:
        opened = Opened()
        sizes = {"min_size": 5, "max_size": 15}
        pool = asyncpg_pool_of(started, init=opened.init, **sizes)
        async with pool:
            await Load(workers, _WARM_UP, _THINK).by_asyncpg(pool)
            load = Load(workers, seconds, _THINK)
            await load.by_asyncpg(pool)
        return _brought(load, opened)

    return asyncio.run(run())


def _start(pool: Pool) -> None:
    if isinstance(pool, SmartPool):
        pool.start()


def cases(quick: bool) -> Iterator[Case]:
    seconds = 0.3 if quick else 5.0
    references = ("QueuePool(15, 0)", "QueuePool(5, 10)")
    for name, driver, tls in (
        ("postgresql", "postgresql+psycopg", False),
        ("mariadb", "mysql+pymysql", True),
    ):
        with server(name) as started:
            database = Database(started, driver, tls=tls)
            yield Case(
                f"15 threads, {driver}{' over TLS' if tls else ''}",
                {
                    each: partial(
                        _threads, database, kind, options, 15, seconds
                    )
                    for each, (kind, options) in _candidates(
                        QueuePool, SmartPool
                    ).items()
                },
                references,
            )
    with server("postgresql") as started:
        database = Database(started, "postgresql+asyncpg")
        for workers in (15, 200):
            turns: dict[str, Callable[[], Turn]] = {
                each: partial(
                    _tasks, database, kind, options, workers, seconds
                )
                for each, (kind, options) in _candidates(
                    AsyncAdaptedQueuePool, AsyncSmartPool
                ).items()
            }
            if workers > _CROWD:
                turns["bare FIFO(15)"] = partial(
                    _tasks,
                    database,
                    BareFifo,
                    {"pool_size": 15},
                    workers,
                    seconds,
                )
            # without SQLAlchemy, which takes time of its own
            turns["asyncpg.Pool(5..15)"] = partial(
                _asyncpg, started, workers, seconds
            )
            yield Case(
                f"{workers} tasks, postgresql+asyncpg", turns, references
            )


THRASH = Benchmark("thrash", "bursts beyond the floor, on servers", cases)
