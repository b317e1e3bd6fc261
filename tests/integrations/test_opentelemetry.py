"""What OpenTelemetry's SDK is told of a pool, read back from the SDK."""

from __future__ import annotations

from pathlib import Path
import time
from typing import Any
from typing import Optional

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import TimeoutError as SATimeoutError

from sqla_smartpool.histogram import BOUNDS
from sqla_smartpool.integrations.opentelemetry import instrument
from tests.conftest import Database
from tests.conftest import Side
from tests.integrations.load import beside
from tests.integrations.load import made
from tests.integrations.telemetry import PREFIX
from tests.integrations.telemetry import Telemetry

DOCS = Path(__file__).parents[2] / "docs"
DATABASES = pytest.mark.parametrize(
    "database", ["sqlite", "postgresql"], indirect=True
)
UNITS = {
    "count": "{connection}",
    "idle.max": "{connection}",
    "idle.min": "{connection}",
    "max": "{connection}",
    "pending_requests": "{request}",
    "timeouts": "{timeout}",
    "create_time": "s",
    "wait_time": "s",
    "use_time": "s",
}


def test_the_documentation_has_every_metric() -> None:
    documented = (DOCS / "metrics.rst").read_text()
    assert not [name for name in UNITS if f"``{name}``" not in documented]


@DATABASES
def test_names_units_attributes_and_values_after_a_known_load(
    database: Database, side: Side, kind: str, telemetry: Telemetry
) -> None:
    engine = made(kind, side, database, 2)
    instrument(engine, meter_provider=telemetry.provider)
    held = [engine.connect(), engine.connect()]
    waiter = beside(side, lambda: engine.connect().close())
    side.eventually(lambda: telemetry.value("pending_requests") == 1)
    began = time.monotonic()
    assert telemetry.value("count", "used") == 2
    assert telemetry.value("count", "idle") == 0
    side.eventually(lambda: time.monotonic() > began + 0.5)
    for connection in held:
        connection.close()
    waiter()

    metrics = telemetry.metrics()
    units = {name: metric.unit for name, metric in metrics.items()}
    expected = dict(UNITS)
    if kind == "stock":  # no event tells
        del expected["timeouts"]
    assert units == expected
    for metric in metrics.values():
        for point in metric.data.data_points:
            attributes = dict(point.attributes)
            state = attributes.pop(PREFIX + "state", None)
            assert (state is not None) == metric.name.endswith(".count")
            assert attributes == {
                PREFIX + "pool.name": engine.pool.logging_name,
                "db.system.name": database.name,
            }
    assert telemetry.value("count", "used") == 0
    assert telemetry.value("count", "idle") == 2
    assert telemetry.value("pending_requests") == 0
    assert telemetry.value("max") == telemetry.value("idle.max") == 2
    assert telemetry.value("idle.min") == 0
    used = telemetry.value("use_time")
    assert used.count == 3
    assert 1.0 <= used.sum < 5.0
    opened = telemetry.value("create_time")
    assert opened.count == 2
    assert 0.0 < opened.sum < 5.0
    waited = telemetry.value("wait_time")
    assert waited.count == (3 if kind == "own" else 1)
    assert 0.2 <= waited.max < 5.0
    for histogram in (used, opened, waited):
        assert tuple(histogram.explicit_bounds) == BOUNDS


def test_timeouts_are_counted_and_the_span_says_why(
    sqlite_database: Database, side: Side, telemetry: Telemetry
) -> None:
    engine = made("own", side, sqlite_database, 1, pool_timeout=0.05)
    instrument(engine, meter_provider=telemetry.provider)
    assert telemetry.value("timeouts") == 0
    with engine.connect():
        with telemetry.tracer.start_as_current_span("request"):
            with pytest.raises(SATimeoutError):
                engine.connect()
    assert telemetry.value("timeouts") == 1
    (event,) = telemetry.span_events()
    assert event.name == PREFIX + "timeout"
    assert event.attributes[PREFIX + "cause"] == "self-deadlock"


@pytest.mark.parametrize("long_wait", [0.1, 60.0, None])
def test_a_long_wait_is_an_event_of_the_span_that_waited(
    sqlite_database: Database,
    side: Side,
    kind: str,
    telemetry: Telemetry,
    long_wait: Optional[float],
) -> None:
    engine = made(kind, side, sqlite_database, 1)
    instrument(engine, long_wait=long_wait, meter_provider=telemetry.provider)

    def request() -> None:
        with telemetry.tracer.start_as_current_span("request"):
            engine.connect().close()

    held = engine.connect()
    waiter = beside(side, request)
    side.eventually(lambda: telemetry.value("pending_requests") == 1)
    began = time.monotonic()
    side.eventually(lambda: time.monotonic() > began + 0.5)
    held.close()
    waiter()
    request()  # is served at once
    events = telemetry.span_events()
    if long_wait != 0.1:
        assert not events
        return
    (event,) = events
    assert event.name == PREFIX + "wait"
    assert 0.2 <= event.attributes[PREFIX + "wait_time"] < 5.0
    pool_name = event.attributes[PREFIX + "pool.name"]
    assert pool_name == engine.pool.logging_name


def test_it_goes_on_after_dispose_until_it_is_stopped(
    sqlite_database: Database, side: Side, kind: str, telemetry: Telemetry
) -> None:
    engine = made(kind, side, sqlite_database, 2)
    handle = instrument(engine, meter_provider=telemetry.provider)
    engine.connect().close()
    engine.dispose()
    with engine.connect():
        assert telemetry.value("count", "used") == 1
    assert telemetry.value("use_time").count == 2
    assert telemetry.value("create_time").count == 2
    handle.uninstrument()
    engine.connect().close()
    assert telemetry.value("use_time").count == 2
    assert not telemetry.points("count")
    handle.uninstrument()  # harmless
    instrument(engine, meter_provider=telemetry.provider)
    engine.connect().close()
    assert telemetry.value("use_time").count == 3
    assert len(telemetry.points("count")) == 2


def test_connections_that_leave_the_pool_have_been_used(
    sqlite_database: Database, kind: str, telemetry: Telemetry
) -> None:
    engine = made(kind, Side(False), sqlite_database, 2)
    instrument(engine, meter_provider=telemetry.provider)
    connection = engine.connect()
    connection.detach()
    connection.close()
    connection = engine.connect()
    connection.invalidate()
    connection.close()
    assert telemetry.value("use_time").count == 2
    engine.dispose()


def test_connects_of_a_creator_are_timed(
    sqlite_database: Database, kind: str, telemetry: Telemetry
) -> None:
    plain = create_engine(sqlite_database.url())

    def creator() -> Any:
        time.sleep(0.02)
        return plain.raw_connection().driver_connection

    engine = made(kind, Side(False), sqlite_database, 2, creator=creator)
    instrument(engine, meter_provider=telemetry.provider)
    engine.connect().close()
    opened = telemetry.value("create_time")
    assert opened.count == 1
    assert 0.02 <= opened.sum < 1.0
    engine.dispose()
