"""What programs ask of a pool: checks, readiness, statistics, cursors."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from sqla_smartpool import PoolTimeoutError
from tests.conftest import Database
from tests.conftest import Side
from tests.lab.waiting import at_rest

pytestmark = pytest.mark.parametrize(
    "database", ["sqlite", "postgresql"], indirect=True
)


def test_checking_counts_what_was_checked_and_replaces_what_is_dead(
    database: Database, side: Side
) -> None:
    # upkeep would find the dead ones first
    engine = side.engine(database, min_size=3, max_size=5, check_interval=300)
    pool: Any = engine.pool
    side.wait(pool.start())
    assert tuple(side.wait(pool.check())) == (3, 0)
    assert pool.stats().checks_num == 3
    if database.server is not None:
        side.eventually(at_rest(pool), "upkeep has nothing to do")
        sessions = database.server.sessions()
        database.server.terminate(sessions[:2])
        assert tuple(side.wait(pool.check())) == (3, 2)
        side.eventually(lambda: pool.stats().pool_available == 3, "all three")
        after = database.server.sessions()
        assert len(after) == 3
        assert set(after) & set(sessions) == {sessions[2]}
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1


def test_waiting_returns_when_the_floor_is_open(
    database: Database, side: Side
) -> None:
    engine = side.engine(database, min_size=5, max_size=8)
    pool: Any = engine.pool
    side.wait(pool.start(wait=False))
    side.wait(pool.wait(timeout=30))
    assert pool.stats().pool_size == 5
    assert database.sessions() in (None, 5)


def test_the_statistics_have_the_keys_of_psycopg_pool(
    database: Database, side: Side
) -> None:
    engine = side.engine(database, min_size=1, max_size=2, pool_timeout=0)
    pool: Any = engine.pool
    side.wait(pool.start())

    def read() -> dict[str, Any]:
        with pytest.raises(PoolTimeoutError):
            engine.connect()
        stats: dict[str, Any] = pool.stats().as_dict()
        return stats

    taken = side.together(engine.connect, engine.connect)
    busy = read()
    for connection in taken:
        connection.close()
    stats = pool.stats().as_dict()
    expected = {
        "pool_min": 1,
        "pool_max": 2,
        "pool_size": 2,
        "pool_available": 2,
        "requests_waiting": 0,
        "requests_num": 3,
        "requests_errors": 1,
        "returns_bad": 0,
        "connections_num": 2,
        "connections_errors": 0,
        "connections_lost": 0,
    }
    assert {key: stats[key] for key in expected} == expected
    times = {"requests_queued", "requests_wait_ms", "usage_ms"}
    assert times | {"connections_ms"} <= stats.keys()
    assert min(stats.values()) >= 0
    assert (busy["pool_available"], busy["pool_in_use"]) == (0, 2)


def test_cursors_of_raw_connections_work_between_pings(
    database: Database, side: Side
) -> None:
    engine = side.pinging_engine(database)
    for _ in range(3):
        raw = engine.raw_connection()
        try:
            cursor = raw.cursor()
            cursor.execute("SELECT 1 AS a")
            assert cursor.description[0][0] == "a"
            assert tuple(cursor.fetchone()) == (1,)
            cursor.close()
        finally:
            raw.close()
        side.pinged(engine)
    pool: Any = engine.pool
    assert pool.stats().checks_num > 0
