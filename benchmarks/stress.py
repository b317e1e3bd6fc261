"""The program of ``python -m sqla_smartpool stress``, beside what a fair queue
without any cost would take for it."""

from __future__ import annotations

import asyncio
from collections import deque
from functools import partial
import random
import time
from typing import Any
from typing import Iterator
from typing import Sequence

from sqla_smartpool.cli import stress
from .measure import Benchmark
from .measure import Case
from .measure import Turn
from .servers import asyncpg_pool_of
from .servers import server
from .waits import recorded


def _fifo(holds: list[float], size: int, workers: int) -> tuple[float, float]:
    """Simulate a fair queue: each worker asks again as it has returned.

    :return: the longest wait, and when the last job ends; seconds.
    """
    free_at = [0.0] * size
    asks_at = [0.0] * workers
    longest = 0.0
    for hold in holds:
        asked = min(asks_at)
        free = min(free_at)
        begins = max(asked, free)
        longest = max(longest, begins - asked)
        asks_at[asks_at.index(asked)] = begins + hold
        free_at[free_at.index(free)] = begins + hold
    return longest, max(free_at)


def _asyncpg(program: stress.Program, started: Any) -> Turn:
    """The same program, without SQLAlchemy."""
    waits: list[float] = []
    jobs = deque(program.holds)

    async def run() -> float:
        sizes = {"min_size": program.min_size, "max_size": program.max_size}
        async with asyncpg_pool_of(started, **sizes) as pool:

            async def work() -> None:
                while jobs:
                    hold = jobs.popleft()
                    asked = time.perf_counter()
                    async with pool.acquire() as connection:
                        waits.append(time.perf_counter() - asked)
                        await connection.fetchval("SELECT 1")
                        await asyncio.sleep(hold)

            began = time.perf_counter()
            await asyncio.gather(*(work() for _ in range(program.workers)))
            return time.perf_counter() - began

    return _brought(program, waits, asyncio.run(run()))


def _turn(program: stress.Program, pool: str, is_async: bool) -> Turn:
    measured: Any = stress.measure(program, pool, is_async, lambda: None)
    assert not measured.failed, measured.errors
    return _brought(program, measured.waits, measured.seconds)


def _brought(
    program: stress.Program, waits: Sequence[float], seconds: float
) -> Turn:
    longest, total = _fifo(
        list(program.holds), program.max_size, program.workers
    )
    figures = {
        "longest wait / fair": max(waits) / longest,
        "total / fair": seconds / total,
    }
    return Turn(figures, recorded(waits))


def cases(quick: bool) -> Iterator[Case]:
    number, low, high = (100, 0.01, 0.05) if quick else (1000, 0.1, 0.5)
    chance = random.Random(0)
    holds = [chance.uniform(low, high) for _ in range(number)]
    with server("postgresql") as started:
        for is_async in (False, True):
            driver = "asyncpg" if is_async else "psycopg"
            url = started.url(f"postgresql+{driver}")
            program = stress.Program(url, 5, 30, 50, holds)
            turns = {
                name: partial(_turn, program, pool, is_async)
                for name, pool in (
                    ("QueuePool", "queue"),
                    ("SmartPool", "smart"),
                )
            }
            if is_async:
                turns["asyncpg.Pool"] = partial(_asyncpg, program, started)
            yield Case(
                f"{number} jobs by 50 {'tasks' if is_async else 'threads'} on"
                f" 5..30 connections, {driver}",
                turns,
            )


STRESS = Benchmark(
    "stress", "many jobs that hold their connections for a while", cases
)
