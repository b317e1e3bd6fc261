"""Thousands of tasks cancelled at random moments of all that they do."""

from __future__ import annotations

import asyncio
import gc
import random
import time
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from sqla_smartpool._sqlalchemy import await_
from tests.faults.conftest import DURATIONS
from tests.faults.conftest import LONG
from tests.lab import matrix
from tests.lab.matrix import Case
from tests.lab.matrix import Client

side = matrix.side

SIZE = 8
#: a driver, and how many cancellations have to arrive; in short form
STORMS = [
    (Case("postgresql+asyncpg", "postgresql"), 10_000, 10_000),
    (Case("postgresql+asyncpg", "postgresql", "tls"), 10_000, 1_000),
    (Case("postgresql+psycopg_async", "postgresql"), 10_000, 1_000),
]
#: those who are cancelled, at a time, and how long they have at most, seconds:
#: some are in the queue then, some with the server, some done
CROWD = 30
HASTE = 0.1
#: those who are not, and how long one of them may wait, seconds
PATIENT = 4
WAIT = 5.0


class Storm:
    """Tasks that use an engine, most of which are cancelled.

    :param number: how many cancellations have to arrive.
    """

    def __init__(self, engine: AsyncEngine, number: int) -> None:
        self._engine = engine
        self._number = number
        self._arrived = 0
        self._asked = 0
        #: cancelled at the end of all that they did
        self.swallowed = 0
        self.served = 0
        self.longest_wait = 0.0

    async def rage(self) -> None:
        await asyncio.gather(
            *(self._hurry() for _ in range(CROWD)),
            *(self._be_patient() for _ in range(PATIENT)),
        )

    @property
    def _rages(self) -> bool:
        return self._arrived < self._number

    async def _use(self) -> None:
        """Ask something that nobody else asks."""
        self._asked += 1
        mine = self._asked
        async with self._engine.connect() as connection:
            answer = await connection.scalar(text(f"SELECT {mine}"))
            assert answer == mine, "the answer to another question"

    async def _hurry(self) -> None:
        while self._rages:
            task = asyncio.create_task(self._use())
            await asyncio.sleep(HASTE * random.random() ** 2)
            asked_to_leave = task.cancel()
            await asyncio.wait([task])
            if task.cancelled():
                self._arrived += 1
            else:
                task.result()
                self.swallowed += asked_to_leave

    async def _be_patient(self) -> None:
        while self._rages:
            began = time.monotonic()
            await self._use()
            self.served += 1
            took = time.monotonic() - began
            self.longest_wait = max(self.longest_wait, took)


def is_quiet(stats: Any) -> bool:
    """Tell whether nobody has, wants or opens a connection."""
    waiting: int = stats.requests_waiting
    return waiting == stats.pool_in_use == stats.pool_connecting == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "side, number",
    [
        (case, number if DURATIONS is LONG else short)
        for case, number, short in STORMS
    ],
    indirect=["side"],
    ids=[str(case) for case, *_ in STORMS],
)
def test_a_storm_of_cancellations_loses_nothing_and_keeps_nobody_waiting(
    side: Client, number: int
) -> None:
    engine: Any = side.started(
        min_size=2, max_size=SIZE, pool_timeout=30, check_interval=0.5
    )
    pool: Any = engine.pool
    storm = Storm(AsyncEngine(engine), number)
    await_(storm.rage())
    assert storm.swallowed == 0, "each cancellation arrives"
    assert storm.served > number / 100, "others go on"
    assert storm.longest_wait < WAIT
    side.eventually(lambda: is_quiet(pool.stats()), "all are back")
    gc.collect()
    stats = pool.stats()
    assert stats.requests_timeouts == stats.reclaimed == 0, stats
    assert stats.returns_bad > number / 50, "some were with the server"
    side.use(engine, SIZE)
    assert pool.stats().pool_size == SIZE
    side.eventually(side.has(SIZE), "nothing else is left")
