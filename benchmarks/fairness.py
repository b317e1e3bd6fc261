"""Who waits, and for how long, when there are fewer connections than workers.

A worker that has returned its connection asks for the next one at once.  In a
fair queue nobody waits for longer than the others take their turns.
"""

from __future__ import annotations

import asyncio
from functools import partial
import threading
import time
from typing import Any
from typing import Awaitable
from typing import Callable
from typing import Iterator

import asyncpg
from sqlalchemy import Pool
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.pool import QueuePool

from sqla_smartpool import AsyncSmartPool
from sqla_smartpool import SmartPool
from .floor import BareFifo
from .floor import ThreadFifo
from .measure import Benchmark
from .measure import Case
from .measure import Turn
from .pools import dbutils_pool_of
from .pools import engine
from .pools import pool
from .pools import psycopg_pool_of
from .servers import asyncpg_pool_of
from .servers import server
from .waits import recorded

_WORKERS, _SIZE = 50, 30
#: for how long a worker keeps a connection, and waits for one, seconds
_HOLD, _TIMEOUT = 0.02, 2.0
#: what each would wait if all waited alike, seconds
_FAIR = _HOLD * (_WORKERS - _SIZE) / _SIZE


class _Waits:
    """The waits of all workers."""

    def __init__(self) -> None:
        self._waits: list[float] = []
        self.served: dict[int, int] = dict.fromkeys(range(_WORKERS), 0)
        self.starved: set[int] = set()

    def note(self, worker: int, since: float, served: bool) -> None:
        self._waits.append(time.perf_counter() - since)
        self.served[worker] += served
        if not served:
            self.starved.add(worker)

    def turn(self) -> Turn:
        figures = {
            "longest wait / fair wait": max(self._waits) / _FAIR,
            "workers starved": len(self.starved),
            "turns of the least served": min(self.served.values()),
        }
        return Turn(figures, recorded(self._waits))


def _threads(
    acquire: Callable[[], Any],
    release: Callable[[Any], object],
    seconds: float,
) -> Turn:
    waits = _Waits()

    def work(number: int) -> None:
        ends = time.perf_counter() + seconds
        while (since := time.perf_counter()) < ends:
            try:
                connection = acquire()
            except Exception:  # each pool has a timeout error of its own
                waits.note(number, since, False)
                continue
            waits.note(number, since, True)
            time.sleep(_HOLD)
            release(connection)

    workers = [
        threading.Thread(target=work, args=(number,))
        for number in range(_WORKERS)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return waits.turn()


async def _tasks(
    acquire: Callable[[], Any],
    release: Callable[[Any], Awaitable[object]],
    seconds: float,
) -> Turn:
    waits = _Waits()

    async def work(number: int) -> None:
        ends = time.perf_counter() + seconds
        while (since := time.perf_counter()) < ends:
            try:
                connection = await acquire()
            except Exception:
                waits.note(number, since, False)
                continue
            waits.note(number, since, True)
            await asyncio.sleep(_HOLD)
            await release(connection)

    await asyncio.gather(*(work(number) for number in range(_WORKERS)))
    return waits.turn()


def _of_sqlalchemy(kind: type[Pool], seconds: float) -> Turn:
    async def run() -> Turn:
        made = AsyncEngine(engine(kind, _SIZE, True, timeout=_TIMEOUT))
        for connection in [await made.connect() for _ in range(_SIZE)]:
            await connection.close()  # all are open, as the others' are
        turn = await _tasks(made.connect, AsyncConnection.close, seconds)
        await made.dispose()
        return turn

    return asyncio.run(run())


def _of_asyncpg(started: Any, seconds: float) -> Turn:
    async def nothing(connection: asyncpg.Connection) -> None:
        """What others do not ask of the server on a return."""

    async def run() -> Turn:
        options = {"min_size": _SIZE, "max_size": _SIZE, "reset": nothing}
        async with asyncpg_pool_of(started, **options) as pool:
            acquire = partial(pool.acquire, timeout=_TIMEOUT)
            return await _tasks(acquire, pool.release, seconds)

    return asyncio.run(run())


def _close(connection: Any) -> None:
    connection.close()


def cases(quick: bool) -> Iterator[Case]:
    seconds = 0.5 if quick else 4.0
    turns: dict[str, Callable[[], Turn]] = {}
    for kind in (QueuePool, SmartPool):
        made = pool(kind, _SIZE, timeout=_TIMEOUT)
        turns[kind.__name__] = partial(_threads, made.connect, _close, seconds)
    fifo = pool(ThreadFifo, _SIZE)
    turns["bare FIFO"] = partial(_threads, fifo.connect, _close, seconds)
    other = psycopg_pool_of(_SIZE, timeout=_TIMEOUT)
    turns["psycopg_pool"] = partial(
        _threads, other.getconn, other.putconn, seconds
    )
    dbutils = dbutils_pool_of(_SIZE)
    turns["DBUtils"] = partial(_threads, dbutils.connection, _close, seconds)
    yield Case(f"{_WORKERS} threads on {_SIZE} connections", turns)
    other.close()
    with server("postgresql") as started:
        yield Case(
            f"{_WORKERS} tasks on {_SIZE} connections",
            {
                **{
                    kind.__name__: partial(_of_sqlalchemy, kind, seconds)
                    for kind in (AsyncAdaptedQueuePool, AsyncSmartPool)
                },
                "bare FIFO": partial(_of_sqlalchemy, BareFifo, seconds),
                "asyncpg.Pool": partial(_of_asyncpg, started, seconds),
            },
            ("AsyncAdaptedQueuePool",),
        )


FAIRNESS = Benchmark("fairness", "who waits for how long", cases)
