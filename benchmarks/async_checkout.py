"""What a checkout costs on an event loop, of one task and of many."""

from __future__ import annotations

import asyncio
import time
from typing import Callable
from typing import Iterator

from sqlalchemy import Pool
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.pool import StaticPool

from sqla_smartpool import AsyncSmartPool
from .floor import BareFifo
from .floor import FifoWithTimeout
from .measure import Benchmark
from .measure import Case
from .measure import Figures
from .pools import engine

_SIZE = 10
_KINDS: dict[str, type[Pool]] = {
    "AsyncAdaptedQueuePool": AsyncAdaptedQueuePool,
    "StaticPool": StaticPool,
    "bare FIFO": BareFifo,
    "FIFO with timeout": FifoWithTimeout,
    "AsyncSmartPool": AsyncSmartPool,
}


def turn_of(
    kind: type[Pool], tasks: int, number: int
) -> Callable[[], Figures]:
    """So many tasks take and return connections so often, all in all; each
    gives way to the others once while it has one."""
    each = max(1, number // tasks)

    async def work(made: AsyncEngine, begin: asyncio.Event) -> None:
        await begin.wait()
        for _ in range(each):
            async with made.connect():
                await asyncio.sleep(0)

    async def run() -> float:
        made = AsyncEngine(engine(kind, _SIZE, is_async=True))
        async with made.connect():
            pass  # the first use has more to do
        begin = asyncio.Event()
        workers = [
            asyncio.create_task(work(made, begin)) for _ in range(tasks)
        ]
        await asyncio.sleep(0)  # they are there, which takes its time as well
        # there is no I/O, and whatever else the machine does is left out
        began = time.process_time()
        begin.set()
        await asyncio.gather(*workers)
        seconds = time.process_time() - began
        await made.dispose()
        return seconds

    def turn() -> Figures:
        return {"us per checkout": 1e6 * asyncio.run(run()) / (each * tasks)}

    return turn


def cases(quick: bool) -> Iterator[Case]:
    number = 1_000 if quick else 20_000
    for tasks in (1, 50) if quick else (1, 50, 1_000, 10_000):
        yield Case(
            f"{tasks} tasks on {_SIZE} connections",
            {
                name: turn_of(kind, tasks, number)
                for name, kind in _KINDS.items()
            },
            ("AsyncAdaptedQueuePool", "StaticPool", "bare FIFO"),
        )


ASYNC_CHECKOUT = Benchmark(
    "async-checkout", "AsyncEngine.connect() without I/O", cases
)
