"""What the pool writes to the log: one line each, with its fields."""

from __future__ import annotations

from itertools import count
import logging
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from tests.conftest import Database
from tests.conftest import Side

_numbers = count()


def made(side: Side, database: Database, **options: Any) -> Engine:
    options = {"min_size": 2, "max_size": 4, **options}
    name = f"pool {next(_numbers)}"
    return side.engine(database, pool_logging_name=name, **options)


def told(
    caplog: pytest.LogCaptureFixture, engine: Engine, logger: str
) -> list[Any]:
    return [
        record
        for record in caplog.records
        if record.name == f"sqla_smartpool.{logger}"
        and vars(record).get("pool") == engine.pool.logging_name
    ]


def test_start_ready_and_stop_are_told_once(
    database: Database, side: Side, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sqla_smartpool")
    engine = made(side, database)
    pool = side.start(engine)
    side.wait(pool.start())  # once more is harmless, and no news
    # by whoever has opened the last one, and may not have come to it
    side.eventually(lambda: len(told(caplog, engine, "pool")) == 2)
    engine.connect().close()
    side.wait(pool.stop())
    starting, ready, stopped = told(caplog, engine, "pool")
    assert starting.min_size == 2 and starting.max_size == 4
    assert ready.size == 2 and ready.ms >= 0
    assert stopped.size == 0
    for record in (starting, ready, stopped):
        assert "\n" not in record.getMessage()
        assert str(engine.pool.logging_name) in record.getMessage()


@pytest.mark.parametrize("end", ["stop", "dispose"])
def test_upkeep_is_told_when_it_starts_and_when_it_ends(
    end: str,
    sqlite_database: Database,
    side: Side,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "sqla_smartpool")
    engine = made(side, sqlite_database, check_interval=0.05)
    assert told(caplog, engine, "upkeep") == []
    for times in (1, 2):
        if end == "stop":
            side.start(engine)
        for _ in range(3):  # the first one starts a pool that nobody has
            engine.connect().close()
        assert len(told(caplog, engine, "upkeep")) == 2 * times - 1
        if end == "dispose":
            engine.dispose()
        else:
            pool: Any = engine.pool
            side.wait(pool.stop())
            side.wait(pool.stop())  # once more is no news
        assert len(told(caplog, engine, "upkeep")) == 2 * times
    started, stopped = told(caplog, engine, "upkeep")[:2]
    assert started.check_interval == 0.05
    assert started.getMessage().endswith("it looks every 0.05 s")
    assert stopped.getMessage().endswith("upkeep stopped")


def test_each_connection_is_told_when_opened_and_why_closed(
    database: Database, side: Side, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sqla_smartpool")
    engine = made(side, database)
    pool = side.start(engine)
    side.eventually(lambda: len(told(caplog, engine, "connections")) == 2)
    engine.connect().close()
    side.wait(pool.stop())
    side.eventually(lambda: len(told(caplog, engine, "connections")) == 4)
    records = told(caplog, engine, "connections")
    opened, closed = records[:2], records[2:]
    assert sorted(record.connection for record in opened) == [1, 2]
    assert {record.connection for record in closed} == {1, 2}
    assert {record.reason for record in closed} == {"close"}
    assert sum(record.uses for record in closed) == 1
    assert all(record.age >= 0 for record in closed)


def test_an_unreachable_database_is_told_once_and_its_return_as_well(
    sqlite_database: Database, side: Side, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "sqla_smartpool")
    engine = made(side, sqlite_database, min_size=0)

    @event.listens_for(engine, "do_connect")
    def refuse(dialect: Any, record: Any, args: Any, params: Any) -> Any:
        args[:] = ["/nowhere/at.all"]

    for _ in range(3):
        with pytest.raises(OperationalError):
            engine.connect()
    event.remove(engine, "do_connect", refuse)
    engine.connect().close()
    _, down, up = [
        record
        for record in told(caplog, engine, "pool")
        if "ready" not in record.getMessage()
    ]
    assert down.levelno == logging.WARNING
    assert "unable to open database file" in down.error
    assert "\n" not in down.getMessage()
    assert down.retry_in >= 0
    assert up.attempts == 3 and up.seconds > 0


def test_at_debug_each_checkout_is_told_with_its_wait(
    sqlite_database: Database, side: Side, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "sqla_smartpool")
    engine = made(side, sqlite_database)
    for _ in range(3):
        engine.connect().close()
    records = [
        record
        for record in told(caplog, engine, "connections")
        if record.levelno == logging.DEBUG
    ]
    assert len(records) == 3
    assert all(record.ms >= 0 and record.waiting == 0 for record in records)
    caplog.set_level(logging.INFO, "sqla_smartpool")
    engine.pool.trace()  # type: ignore[attr-defined]
    assert "_do_get" not in vars(engine.pool), "the fast path is back"
