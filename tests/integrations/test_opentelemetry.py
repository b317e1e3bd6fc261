"""What OpenTelemetry's SDK is told of a pool, read back from the SDK."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from typing import Any
from typing import Iterator
from typing import Optional
import weakref

from opentelemetry import trace
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import (
    InMemorySpanExporter,
)
import pytest
from sqlalchemy import create_engine
from sqlalchemy import text
from sqlalchemy.exc import ArgumentError
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.exc import TimeoutError as SATimeoutError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool
from sqlalchemy.pool import QueuePool

from sqla_smartpool import observe
from sqla_smartpool import SmartPool
from sqla_smartpool.histogram import BOUNDS
from sqla_smartpool.integrations.opentelemetry import instrument
from tests.conftest import Database
from tests.conftest import Side
from tests.integrations.load import beside
from tests.integrations.load import made
from tests.lab.fake_dbapi import FakeDatabase
from tests.lab.waiting import eventually

DATABASES = pytest.mark.parametrize(
    "database", ["sqlite", "postgresql"], indirect=True
)
PREFIX = "db.client.connection."
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


class Telemetry:
    """What an SDK has been told."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader])
        self.spans = InMemorySpanExporter()
        tracers = TracerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(self.spans))
        self.tracer = tracers.get_tracer("test")

    def metrics(self) -> dict[str, Any]:
        """All metrics, by their names without the prefix."""
        data = self.reader.get_metrics_data()
        if data is None:
            return {}
        found = [
            metric
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        ]
        names = [metric.name.removeprefix(PREFIX) for metric in found]
        assert len(set(names)) == len(names), "one is there twice"
        return dict(zip(names, found))

    def points(self, name: str, pool: Optional[str] = None) -> list[Any]:
        metric = self.metrics().get(name)
        return [
            point
            for point in (metric.data.data_points if metric else [])
            if pool in (None, point.attributes[PREFIX + "pool.name"])
        ]

    def value(self, name: str, state: Optional[str] = None) -> Any:
        """The value of the one point that there is."""
        (point,) = (
            point
            for point in self.points(name)
            if point.attributes.get(PREFIX + "state") == state
        )
        return getattr(point, "value", point)

    def span_events(self) -> list[Any]:
        return [
            event
            for span in self.spans.get_finished_spans()
            for event in span.events
        ]


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    made = Telemetry()
    yield made
    made.provider.shutdown()


@DATABASES
def test_names_units_attributes_and_values_after_a_known_load(
    database: Database, side: Side, kind: str, telemetry: Telemetry
) -> None:
    engine = made(kind, side, database, 2)
    instrument(engine, meter_provider=telemetry.provider)
    held = [engine.connect(), engine.connect()]
    began = time.monotonic()
    waiter = beside(side, lambda: engine.connect().close())
    side.eventually(lambda: telemetry.value("pending_requests") == 1)
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


def test_an_async_engine(telemetry: Telemetry) -> None:
    engine = create_async_engine("postgresql+asyncpg://127.0.0.1/shop")
    handle = instrument(engine, meter_provider=telemetry.provider)
    assert handle.engine is engine.sync_engine
    assert telemetry.value("idle.max") == 5
    assert telemetry.value("max") == 15


def test_names(telemetry: Telemetry) -> None:
    url = "postgresql+psycopg://user:secret@127.0.0.1:5432/shop"
    engines = [create_engine(url, poolclass=SmartPool) for _ in range(3)]
    named = create_engine(url, poolclass=SmartPool, pool_logging_name="mine")

    def name(engine: Any, given: Optional[str] = None) -> str:
        return instrument(
            engine, pool_name=given, meter_provider=telemetry.provider
        ).name

    assert name(engines[0]) == "127.0.0.1:5432/shop"
    assert name(engines[1]) == "127.0.0.1:5432/shop 2"
    assert name(named) == "mine"
    with pytest.raises(ArgumentError, match="'mine' already"):
        name(engines[2], "mine")
    assert name(engines[2], "other") == "other"
    assert len(telemetry.points("pending_requests")) == 4
    oracle = create_engine("oracle+oracledb://", poolclass=SmartPool)
    assert name(oracle) == "oracle"
    (point,) = telemetry.points("pending_requests", "oracle")
    assert point.attributes["db.system.name"] == "oracle.db"


def test_a_second_instrumentation_warns(
    sqlite_database: Database, telemetry: Telemetry
) -> None:
    engine = made("own", Side(False), sqlite_database, 2)
    handle = instrument(engine, meter_provider=telemetry.provider)
    with pytest.warns(UserWarning, match="instrumented already"):
        assert instrument(engine) is handle
    engine.connect().close()
    assert telemetry.value("use_time").count == 1
    handle.uninstrument()

    other = SQLAlchemyInstrumentor()
    # its bounds on SQLAlchemy's version lag behind
    other.instrument(engine=engine, skip_dep_check=True)
    try:
        with pytest.warns(UserWarning, match="instrumentation.sqlalchemy"):
            instrument(engine, meter_provider=telemetry.provider)
    finally:
        other.uninstrument()
    engine.dispose()


def test_a_pool_without_a_queue_is_refused() -> None:
    engine = create_engine("sqlite://", poolclass=NullPool)
    with pytest.raises(InvalidRequestError, match="NullPool"):
        instrument(engine)


def test_what_observe_was_told_stays(sqlite_database: Database) -> None:
    engine = create_engine(sqlite_database.url(), poolclass=QueuePool)
    observer: Any = observe(engine, leak_after=5.0)
    instrument(engine, meter_provider=NoOpMeterProvider()).uninstrument()
    assert (observer.leak_after, observer.traces) == (5.0, True)
    assert observe(engine) is observer
    assert (observer.leak_after, observer.traces) == (None, False)


@pytest.mark.parametrize("poolclass", [SmartPool, QueuePool])
def test_an_engine_that_is_dropped_is_not_kept(
    telemetry: Telemetry, poolclass: Any
) -> None:
    database = FakeDatabase()
    engine = database.engine(poolclass=poolclass)
    handle = instrument(engine, meter_provider=telemetry.provider)
    engine.connect().close()
    there = weakref.ref(engine)
    del engine, handle

    def gone() -> bool:
        gc.collect()
        return there() is None

    eventually(gone, message="nothing refers to the engine")
    assert not telemetry.points("count")


def test_a_return_by_the_collector_takes_no_lock_of_the_sdk(
    sqlite_database: Database,
    telemetry: Telemetry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may come while the same thread records something, and holds it."""
    engine = made("own", Side(False), sqlite_database, 2)
    handle: Any = instrument(engine, meter_provider=telemetry.provider)
    connection = engine.connect()
    threads: list[int] = []

    class Recorder:
        def record(self, *_: Any) -> None:
            threads.append(threading.get_ident())

    monkeypatch.setattr(handle._reporter, "use_time", Recorder())
    connection.close()
    assert not threads
    engine.connect().close()  # is not in the middle of anything
    assert threads == [threading.get_ident()]
    engine.dispose()


def test_nothing_is_added_to_a_span_that_is_not_recorded(
    sqlite_database: Database, telemetry: Telemetry
) -> None:
    engine = made("own", Side(False), sqlite_database, 2)
    instrument(engine, long_wait=0.0, meter_provider=telemetry.provider)
    with trace.use_span(trace.NonRecordingSpan(trace.INVALID_SPAN_CONTEXT)):
        engine.connect().close()
    assert not telemetry.span_events()
    assert telemetry.value("wait_time").count == 1
    engine.dispose()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="cannot fork here")
def test_a_child_reports_its_own_connections(
    sqlite_database: Database, telemetry: Telemetry
) -> None:
    engine = made("own", Side(False), sqlite_database, 5)
    instrument(engine, meter_provider=telemetry.provider)
    held = [engine.connect() for _ in range(3)]
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with engine.connect() as connection:
                connection.execute(text("SELECT 1"))
                status = 10 + telemetry.value("count", "used")
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 10 + 1
    assert telemetry.value("count", "used") == 3
    for connection in held:
        connection.close()
    engine.dispose()


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_global_provider_may_be_set_later() -> None:
    done = run("""if True:
        from opentelemetry import metrics
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from sqlalchemy import create_engine
        from sqla_smartpool import SmartPool
        from sqla_smartpool.integrations.opentelemetry import instrument

        def engine():
            return create_engine("sqlite:///x.db", poolclass=SmartPool)

        early, late, later = engine(), engine(), engine()
        instrument(early)
        reader = InMemoryMetricReader()
        metrics.set_meter_provider(MeterProvider([reader]))
        instrument(late)
        instrument(later, meter_provider=metrics.get_meter_provider())
        (scopes,) = reader.get_metrics_data().resource_metrics
        (scope,) = scopes.scope_metrics
        for metric in scope.metrics:
            if metric.name.endswith("idle.min"):
                print(len(metric.data.data_points))
        """)
    assert done.stdout == "3\n", done.stderr
    assert not done.stderr


def test_without_the_library_the_error_says_what_to_install() -> None:
    done = run("""if True:
        import sys
        sys.modules["opentelemetry"] = None
        import sqla_smartpool.integrations.opentelemetry
        """)
    assert "pip install 'sqla_smartpool[opentelemetry]'" in done.stderr
