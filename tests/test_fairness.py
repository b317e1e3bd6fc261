"""Callers are served in the order in which they asked."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from sqla_smartpool._sqlalchemy import await_
from tests.conftest import Database
from tests.conftest import Side

WORKERS = 100
CONNECTIONS = 10
HOLD = 0.01
SECONDS = 2.0


@pytest.mark.pain("unfair queue")
def test_a_hundred_who_ask_again_at_once_get_equal_shares(
    sqlite_database: Database, side: Side
) -> None:
    """Under QueuePool, nine in ten of these time out."""
    engine = side.engine(
        sqlite_database, max_size=CONNECTIONS, pool_timeout=3.0
    )
    ends = time.monotonic() + SECONDS

    def hold() -> None:
        # holding a connection for a while is what this test is about
        if side.asynchronous:
            await_(asyncio.sleep(HOLD))
        else:
            time.sleep(HOLD)

    def work() -> int:
        served = 0
        while time.monotonic() < ends:
            with engine.connect():
                hold()
            served += 1
        return served

    shares = side.together(*[work] * WORKERS)
    assert max(shares) <= 2 * min(shares), shares
    pool: Any = engine.pool
    stats = pool.stats()
    assert stats.requests_errors == 0
    assert stats.requests_num == sum(shares)
    assert stats.connections_num == CONNECTIONS
