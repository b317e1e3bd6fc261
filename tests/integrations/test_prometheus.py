"""What prometheus_client is told of a pool."""

from __future__ import annotations

import gc
import os
from pathlib import Path
import subprocess
import threading
import time
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client import generate_latest
import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import ArgumentError
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.exc import TimeoutError as SATimeoutError
from sqlalchemy.pool import NullPool

from sqla_smartpool import PoolStats
from sqla_smartpool import SmartPool
from sqla_smartpool.histogram import BOUNDS
from sqla_smartpool.histogram import Histogram
from sqla_smartpool.integrations import prometheus
from sqla_smartpool.integrations.prometheus import PoolCollector
from tests.conftest import Database
from tests.conftest import Side
from tests.integrations.load import beside
from tests.integrations.load import made
from tests.integrations.load import run
from tests.lab.fake_dbapi import FakeDatabase
from tests.lab.fixtures import missing
from tests.lab.prometheus import tool
from tests.lab.waiting import eventually

DOCS = Path(__file__).parents[2] / "docs"
DATABASES = pytest.mark.parametrize(
    "database", ["sqlite", "postgresql"], indirect=True
)


class Scraped:
    """A registry with a collector, and what is to be read there."""

    def __init__(self, *engines: Any, **named: Any) -> None:
        self.collector = PoolCollector(*engines, **named)
        self.registry = CollectorRegistry(auto_describe=True)
        self.registry.register(self.collector)

    def value(self, name: str, **labels: str) -> Any:
        return self.registry.get_sample_value(
            f"sqlalchemy_pool_{name}", {"pool": "shop", **labels}
        )

    def pools(self) -> set[str]:
        return {
            sample.labels["pool"]
            for family in self.registry.collect()
            for sample in family.samples
        }


@DATABASES
def test_values_after_a_known_load(
    database: Database, side: Side, kind: str
) -> None:
    engine = made(kind, side, database, 2)
    scraped = Scraped(shop=engine)
    held = [engine.connect(), engine.connect()]
    waiter = beside(side, lambda: engine.connect().close())
    side.eventually(lambda: scraped.value("requests_waiting") == 1)
    began = time.monotonic()
    assert scraped.value("connections", state="used") == 2
    assert scraped.value("connections", state="idle") == 0
    assert scraped.value("starved", cause="backlog") == 1
    assert scraped.value("starved", cause="leak") == 0
    side.eventually(lambda: time.monotonic() > began + 0.5)
    assert 0.5 <= scraped.value("longest_use_seconds") < 5.0
    for connection in held:
        connection.close()
    waiter()

    assert scraped.value("connections", state="used") == 0
    assert scraped.value("connections", state="idle") == 2
    assert scraped.value("connections", state="opening") == 0
    assert scraped.value("size_max") == 2
    assert scraped.value("size_min") == 0
    assert scraped.value("requests_waiting") == 0
    assert scraped.value("starved", cause="backlog") == 0
    assert scraped.value("longest_use_seconds") == 0
    assert scraped.value("requests_total") == 3
    assert scraped.value("connects_total") == 2
    assert scraped.value("connect_errors_total") == 0
    assert scraped.value("use_seconds_count") == 3
    assert scraped.value("use_seconds_bucket", le="0.2") == 1
    assert scraped.value("use_seconds_bucket", le="+Inf") == 3
    assert 1.0 <= scraped.value("use_seconds_sum") < 5.0
    assert scraped.value("connect_seconds_count") == 2
    assert scraped.value("wait_seconds_bucket", le="100.0") >= 1
    assert 0.2 <= scraped.value("wait_seconds_sum") < 5.0
    of_ours = 0 if kind == "own" else None  # nothing tells of the other's
    assert scraped.value("request_timeouts_total") == of_ours
    closed = scraped.value("connections_closed_total", reason="idle")
    assert closed == of_ours


def test_what_goes_wrong_is_counted(
    sqlite_database: Database, side: Side
) -> None:
    engine = made("own", side, sqlite_database, 1, pool_timeout=0.05)
    scraped = Scraped(shop=engine)
    with engine.connect() as connection:
        with pytest.raises(SATimeoutError):
            engine.connect()
        connection.invalidate()
    assert scraped.value("request_timeouts_total") == 1
    assert scraped.value("request_errors_total") == 1
    assert scraped.value("returns_bad_total") == 1
    pool: Any = engine.pool
    side.wait(pool.start())
    engine.connect().close()
    side.wait(pool.drain())
    side.eventually(
        lambda: scraped.value("connections_closed_total", reason="other") == 1
    )


def promtool(*arguments: Any, input: bytes = b"") -> bytes:
    """Run it with success, and return what it says."""
    try:
        program = tool("promtool")
    except FileNotFoundError as error:
        missing(str(error))
    done = subprocess.run(
        [program, *arguments],
        input=input,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_alerts_fire_when_they_are_to() -> None:
    told = promtool("test", "rules", Path(__file__).parent / "alerts_test.yml")
    assert b"SUCCESS" in told


def test_promtool_has_nothing_to_say_against_the_exposition(
    sqlite_database: Database,
) -> None:
    own = made("own", Side(False), sqlite_database, 2)
    stock = made("stock", Side(False), sqlite_database, 2)
    scraped = Scraped(own, stock)
    for engine in (own, stock):
        engine.connect().close()
    exposed = generate_latest(scraped.registry)
    assert not promtool("check", "metrics", input=exposed)
    for engine in (own, stock):
        engine.dispose()


def test_engines_come_and_go(sqlite_database: Database) -> None:
    url = "postgresql+psycopg://user:secret@127.0.0.1:5432/shop"
    first, second = (create_engine(url, poolclass=SmartPool) for _ in "ab")
    scraped = Scraped(first, second, reports=create_engine(url))
    place = "127.0.0.1:5432/shop"

    def there() -> set[str]:
        gc.collect()
        return scraped.pools()

    # nobody but the collector has had the third one
    eventually(lambda: there() == {place, f"{place} 2"})
    with pytest.raises(ArgumentError, match="is called"):
        scraped.collector.add(create_engine(url), place)
    scraped.collector.remove(first)
    assert scraped.pools() == {f"{place} 2"}
    scraped.collector.add(first, "first")
    assert scraped.pools() == {"first", f"{place} 2"}
    with pytest.raises(InvalidRequestError, match="NullPool"):
        scraped.collector.add(create_engine(url, poolclass=NullPool))
    with pytest.raises(ValueError, match="Duplicated"):
        scraped.registry.register(PoolCollector(first))


def test_the_documentation_has_every_metric() -> None:
    documented = (DOCS / "metrics.rst").read_text()
    shown = (DOCS / "grafana" / "sqla_smartpool.json").read_text()
    for family in PoolCollector().describe():
        name = family.name.removeprefix("sqlalchemy_pool_")
        name += "_total" if family.type == "counter" else ""
        assert f"``{name}``" in documented
        assert f"sqlalchemy_pool_{name}" in shown


def test_a_disposed_pool_and_a_child_begin_anew() -> None:
    engine = FakeDatabase().engine()
    scraped = Scraped(shop=engine)
    for _ in range(3):
        engine.connect().close()
    assert scraped.value("requests_total") == 3
    engine.dispose()
    engine.connect().close()
    assert scraped.value("requests_total") == 1
    if not hasattr(os, "fork"):
        return
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 10 + int(scraped.value("requests_total"))
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 10 + 0
    engine.dispose()


def test_a_sum_that_is_off_for_a_moment_is_no_restart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Prometheus would count all of it again."""
    engine = FakeDatabase().engine()
    told = [
        PoolStats(requests_num=n, pool_in_use=n, use_time=_of(n, 1))
        for n in (7, 6, 8)
    ]

    class Told:
        lookout = engine.pool.lookout

        def stats(self) -> PoolStats:
            return told.pop(0)

    monkeypatch.setattr(prometheus, "observer_of", lambda _: Told())
    scraped = PoolCollector()
    scraped.add(engine, "shop")
    found = []
    for _ in range(3):
        samples = {
            (sample.name, sample.labels.get("state")): sample.value
            for family in scraped.collect()
            for sample in family.samples
        }
        prefix = "sqlalchemy_pool_"
        found.append(
            (
                samples[prefix + "requests_total", None],
                samples[prefix + "use_seconds_count", None],
                samples[prefix + "connections", "used"],
            )
        )
    assert found == [(7, 8, 7), (7, 8, 6), (8, 9, 8)]
    engine.dispose()


def _of(short: int, long: int) -> Histogram:
    return Histogram((short, *[0] * (len(BOUNDS) - 1), long))


def test_counters_only_rise_while_a_pool_is_used() -> None:
    engine = FakeDatabase().engine(max_size=3, keep_alive=0.001)
    scraped = Scraped(shop=engine)
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            connection = engine.connect()
            connection.invalidate()
            connection.close()
            engine.connect().close()

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    before: dict[Any, float] = {}
    try:
        while scraped.value("requests_total") < 1000:
            for family in scraped.registry.collect():
                if family.type == "gauge":
                    continue
                for sample in family.samples:
                    key = (sample.name, *sorted(sample.labels.items()))
                    assert sample.value >= before.get(key, 0), key
                    before[key] = sample.value
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    engine.dispose()


def test_without_the_library_the_error_says_what_to_install() -> None:
    done = run("""if True:
        import sys
        sys.modules["prometheus_client"] = None
        import sqla_smartpool.integrations.prometheus
        """)
    assert "pip install 'sqla_smartpool[prometheus]'" in done.stderr
