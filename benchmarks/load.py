"""Workers, threads or tasks, and how long they wait for connections."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from typing import Any
from typing import Callable
from typing import Sequence

import asyncpg
import numpy
from sqlalchemy import Engine
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from .measure import Figures

_ASK = text("SELECT 1")


class Load:
    """What workers do, and what it took.

    Each connects, asks the database something small, disconnects, and thinks
    for a while, again and again.

    :param workers: how many there are.
    :param seconds: for how long.
    :param think: the longest pause between two requests, seconds.
    """

    def __init__(self, workers: int, seconds: float, think: float) -> None:
        self.workers = workers
        self.seconds = seconds
        self.think = think
        #: from asking for a connection to having it, seconds
        self.waits: list[float] = []
        self._errors: list[BaseException] = []

    def by_threads(self, engine: Engine) -> None:
        """Have threads do it."""
        threads = [
            threading.Thread(target=self._guarded, args=(engine, number))
            for number in range(self.workers)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for error in self._errors:
            raise error

    def _guarded(self, engine: Engine, number: int) -> None:
        try:
            self._work(engine, random.Random(number))
        except BaseException as error:
            self._errors.append(error)

    def _work(self, engine: Engine, chance: random.Random) -> None:
        clock, ends = time.perf_counter, time.perf_counter() + self.seconds
        while (since := clock()) < ends:
            with engine.connect() as connection:
                self.waits.append(clock() - since)
                connection.execute(_ASK)
            if self.think:
                time.sleep(chance.uniform(0.0, self.think))

    async def by_tasks(self, engine: AsyncEngine) -> None:
        """Have tasks do it."""
        await self._all(engine.connect, _ASK)

    async def by_asyncpg(self, pool: asyncpg.Pool) -> None:
        """Have tasks do it without SQLAlchemy."""
        await self._all(pool.acquire, _ASK.text)

    async def _all(self, connect: Callable[[], Any], ask: Any) -> None:
        await asyncio.gather(
            *(
                self._task(connect, ask, random.Random(number))
                for number in range(self.workers)
            )
        )

    async def _task(
        self, connect: Callable[[], Any], ask: Any, chance: random.Random
    ) -> None:
        clock, ends = time.perf_counter, time.perf_counter() + self.seconds
        while (since := clock()) < ends:
            async with connect() as connection:
                self.waits.append(clock() - since)
                await connection.execute(ask)
            await asyncio.sleep(chance.uniform(0.0, self.think))

    @property
    def per_second(self) -> float:
        return len(self.waits) / self.seconds


def quantiles(waits: Sequence[float], *parts: float) -> Figures:
    """Quantiles of waits, in milliseconds, and the longest one."""
    found = {
        f"p{100 * part:g} wait, ms": 1e3 * float(numpy.quantile(waits, part))
        for part in parts
    }
    return {**found, "longest wait, ms": 1e3 * max(waits)}
