"""Which engines are reported to OpenTelemetry, for how long, as what."""

from __future__ import annotations

import gc
import os
import threading
from typing import Any
from typing import Optional
import weakref

from opentelemetry import trace
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.metrics import NoOpMeterProvider
import pytest
from sqlalchemy import create_engine
from sqlalchemy import text
from sqlalchemy.exc import ArgumentError
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool
from sqlalchemy.pool import QueuePool

from sqla_smartpool import observe
from sqla_smartpool import SmartPool
from sqla_smartpool.integrations.opentelemetry import instrument
from tests.conftest import Database
from tests.conftest import Side
from tests.integrations.load import made
from tests.integrations.load import run
from tests.integrations.telemetry import Telemetry
from tests.lab.fake_dbapi import FakeDatabase
from tests.lab.waiting import eventually


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
