"""With every driver, and over every way to the server: the floor stands, the
surplus goes, and upkeep leaves no trace in between."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy import text

from tests.lab import matrix
from tests.lab.matrix import BUSY
from tests.lab.matrix import Client
from tests.lab.matrix import Passes
from tests.lab.matrix import QUIET

side = matrix.side

TRANSACTIONS = {
    "PostgreSQL": "SELECT pid FROM pg_stat_activity"
    " WHERE usename = 'smart' AND state <> 'idle'",
    "MariaDB": "SELECT trx_mysql_thread_id FROM information_schema.innodb_trx",
}


def are_idle(side: Client, engine: Any, number: int) -> None:
    """The server has a session before the pool has the connection."""
    side.eventually(
        lambda: engine.pool.stats().pool_available == number,
        f"{number} are idle",
    )


@matrix.on(matrix.EVERY)
def test_after_start_exactly_the_floor_is_open(side: Client) -> None:
    engine = side.started(min_size=4, max_size=6, **QUIET)
    assert len(side.sessions()) == 4
    assert engine.pool.stats().pool_available == 4


@matrix.on(matrix.EVERY)
def test_the_floor_serves_without_another_connect(side: Client) -> None:
    engine = side.started(min_size=4, max_size=6, **QUIET)
    opened = side.sessions()
    for _ in range(3):
        side.use(engine, 4)
    assert side.sessions() == opened
    assert engine.pool.stats().connections_num == 4


@pytest.mark.pain("floor not refilled")
@matrix.on(matrix.NETWORKED)
def test_the_floor_is_back_without_traffic_after_one_was_terminated(
    side: Client,
) -> None:
    engine = side.started(min_size=3, max_size=6, check_interval=0.05)
    before = side.sessions()
    killed = min(before)
    side.server.terminate([killed])
    side.eventually(
        lambda: before - {killed} < side.sessions() and side.has(3)(),
        "another in its place, and those that were well",
    )
    are_idle(side, engine, 3)
    assert engine.pool.stats().connections_num == 4


@pytest.mark.pain("floor not refilled")
@matrix.on(matrix.NETWORKED)
def test_the_floor_is_back_without_traffic_after_all_were_terminated(
    side: Client,
) -> None:
    engine = side.started(min_size=3, max_size=6, check_interval=0.05)
    before = side.sessions()
    assert side.server.terminate() == 3
    side.eventually(side.has(3), "the floor")
    assert not before & side.sessions()
    are_idle(side, engine, 3)
    assert engine.pool.stats().connections_num == 6


@pytest.mark.pain("floor closed and reopened")
@matrix.on(matrix.EVERY)
def test_a_hundred_idle_passes_reconnect_nothing(
    side: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = Passes(monkeypatch)
    engine = side.started(
        min_size=3, max_size=6, keep_alive=0.05, network_timeout=20, **BUSY
    )
    before = side.sessions()
    passes.let(side, 100)
    assert side.sessions() == before
    stats = engine.pool.stats()
    assert stats.connections_num == 3
    assert stats.checks_num > 3 and stats.checks_failed == 0


@matrix.on([*matrix.IN_PROCESS, *matrix.TCP])
def test_without_a_floor_nothing_is_open_once_keep_alive_has_passed(
    side: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = Passes(monkeypatch)
    engine = side.smart(min_size=0, max_size=5, keep_alive=0.2, **BUSY)
    side.use(engine, 3)
    side.eventually(side.has(0), "none is open")
    passes.let(side, 20)
    stats = engine.pool.stats()
    assert stats.pool_size == 0
    assert (stats.connections_num, stats.closed_idle) == (3, 3)
    assert stats.checks_failed == 0 and not side.sessions()
    side.use(engine, 1)  # and it can be used again


@matrix.on([*matrix.IN_PROCESS, *matrix.TCP])
def test_stop_leaves_nothing_open(side: Client) -> None:
    engine = side.started(min_size=3, max_size=5, **QUIET)
    side.use(engine, 4)
    pool: Any = engine.pool
    side.wait(pool.stop())
    side.eventually(side.has(0), "the server has seen them go")
    assert pool.stats().pool_size == 0


@pytest.mark.pain("check that leaves a trace")
@matrix.on(matrix.TCP)
def test_pings_leave_no_transaction_open(side: Client) -> None:
    engine = side.started(min_size=3, max_size=3, **QUIET)
    pool: Any = engine.pool
    assert side.wait(pool.check()) == (3, 0)
    assert side.server.execute(TRANSACTIONS[side.server.name]) == []


@pytest.mark.pain("check that leaves a trace")
@matrix.on(matrix.TCP)
def test_a_transaction_that_a_health_check_opens_is_rolled_back(
    side: Client,
) -> None:
    engine = side.started(min_size=3, max_size=3, **QUIET)
    pool: Any = engine.pool
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE checked (id int)"))
    asked = []

    @event.listens_for(pool, "health_check")
    def look(dbapi_connection: Any, record: Any) -> None:
        cursor = dbapi_connection.cursor()
        cursor.execute("INSERT INTO checked VALUES (1)")
        cursor.close()
        asked.append(record)

    try:
        assert side.wait(pool.check()) == (3, 0)
        assert len(asked) == 3
        side.eventually(  # MariaDB shows what was true up to 0.1 s ago
            lambda: not side.server.execute(TRANSACTIONS[side.server.name]),
            "no transaction is open",
        )
        assert side.server.execute("SELECT count(*) FROM checked") == [(0,)]
    finally:
        side.wait(pool.stop())  # or a transaction would hold the table
        side.server.terminate()
        side.server.execute("DROP TABLE checked")
