"""What a user has set for one checkout is taken back on its return, which
may take time, fail, or be cancelled."""

from __future__ import annotations

import asyncio
from contextlib import suppress
import sqlite3
from typing import Any

import pytest
from sqlalchemy import event

from sqla_smartpool import SmartPool
from sqla_smartpool._sqlalchemy import await_
from sqla_smartpool._sqlalchemy import greenlet_spawn
from tests.lab import matrix
from tests.lab.awaits import Awaits
from tests.lab.awaits import Moment
from tests.lab.manual import ManualRuntime
from tests.lab.matrix import Client
from tests.lab.matrix import ONE
from tests.lab.matrix import QUIET

side = matrix.side

#: drivers that ask the server to set another isolation level
ASKING = [
    case
    for case in matrix.TCP
    if case.drivername in ("mysql+pymysql", "mysql+aiomysql")
]


def with_undo(engine: Any, undo: Any) -> Any:
    """Check out a connection with something to undo on its return."""
    connection = engine.connect()
    record = connection.connection._connection_record
    record.finalize_callback.append(lambda dbapi_connection: undo())
    return connection


def test_what_is_on_its_way_between_two_looks_in_a_row_is_not_lost() -> None:
    runtime: Any = ManualRuntime()
    pool = SmartPool(
        lambda: sqlite3.connect(":memory:"), max_size=1, _runtime=runtime
    )
    # as a caller who has it, and has not got to saying so
    record = pool._do_get()
    for _ in range(10):
        pool.upkeep.wake()
        runtime.advance(0.02)
    assert pool.stats().reclaimed == 0
    assert record.dbapi_connection is not None
    runtime.advance(2.0)
    assert pool.stats().reclaimed == 1


@matrix.on(matrix.BOTH)
def test_a_slow_return_is_not_taken_for_a_loss(side: Client) -> None:
    engine = side.started(min_size=1, max_size=1, **QUIET)
    pool: Any = engine.pool
    gate = side.gate()
    returned = side.begin(with_undo(engine, gate.wait).close)
    record = next(iter(pool.inventory.members))
    side.eventually(lambda: record.fairy_ref is None, "it is on its way")
    now = pool.runtime.clock()
    for seconds in (0.0, 2.0, 500.0):
        pool.upkeep._reclaim(now + seconds)
    gate.open()
    returned()
    assert pool.stats().reclaimed == 0
    side.use(engine, 1)
    assert pool.stats().connections_num == 1


@matrix.on(ASKING)
def test_a_server_that_fails_to_take_it_back_costs_that_connection(
    side: Client,
) -> None:
    engine = side.started(min_size=1, max_size=1, **QUIET)
    pool: Any = engine.pool
    connection = engine.connect().execution_options(
        isolation_level="SERIALIZABLE"
    )
    session = side.session(connection)
    # after the rollback, and before the level is set back
    event.listen(
        engine, "reset", lambda *_: side.server.terminate([session]), once=True
    )
    connection.scalar(ONE)
    connection.close()
    assert session not in side.sessions()
    assert pool.stats().pool_in_use == 0
    side.eventually(lambda: pool.stats().closed_unhealthy == 1, "it is cut")
    side.use(engine, 1)
    assert pool.stats().reclaimed == 0


@matrix.on([case for case in matrix.BOTH if case.asynchronous])
def test_a_cancellation_while_it_is_taken_back_costs_that_connection(
    side: Client,
) -> None:
    engine = side.started(min_size=1, max_size=1, **QUIET)
    pool: Any = engine.pool
    gate = side.gate()
    connection = with_undo(engine, gate.wait)
    session = side.session(connection)
    task = asyncio.ensure_future(greenlet_spawn(connection.close))
    record = next(iter(pool.inventory.members))
    side.eventually(lambda: record.fairy_ref is None, "it is on its way")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await_(task)
    assert pool.stats().pool_in_use == 0
    side.eventually(lambda: session not in side.sessions(), "it is cut")
    side.use(engine, 1)
    assert pool.stats().reclaimed == 0


AUTOCOMMIT = {"isolation_level": "AUTOCOMMIT"}


def of_a_connection(engine: Any) -> None:
    connection = engine.connect()
    try:
        connection.execution_options(**AUTOCOMMIT)
    finally:
        connection.close()


def of_an_engine(engine: Any) -> None:
    engine.execution_options(**AUTOCOMMIT).connect().close()


@pytest.mark.parametrize("moment", Moment)
@pytest.mark.parametrize("set_option", [of_a_connection, of_an_engine])
@matrix.on([case for case in matrix.TCP if case.asynchronous])
def test_an_option_whose_setting_is_cancelled_reaches_nobody_else(
    side: Client,
    set_option: Any,
    moment: Moment,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "psycopg" in side.case.drivername:
        # it awaits after it has been set, once in a while
        monkeypatch.setattr("psycopg.waiting.MAX_BUSY_TIME", 0.0)
    engine = side.started(min_size=1, max_size=1, **QUIET)
    at, awaits = 1, None
    while awaits is None or awaits.done:
        with Awaits(at, moment) as awaits, suppress(asyncio.CancelledError):
            await_(asyncio.ensure_future(greenlet_spawn(set_option, engine)))
        with engine.connect() as connection:
            dbapi_connection = connection.connection.dbapi_connection
            left = engine.dialect.detect_autocommit_setting(dbapi_connection)
            assert not left, awaits
            assert connection.scalar(ONE) == 1
        at += 1
    assert engine.pool.stats().reclaimed == 0
