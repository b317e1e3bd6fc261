"""A real Prometheus server scrapes pools under load, and is asked what the
dashboard and the alerts ask."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
import json
from pathlib import Path
import re
import threading
from typing import Any
from typing import Iterator
from typing import Union

from prometheus_client import CollectorRegistry
from prometheus_client import start_http_server
import pytest
from sqlalchemy import create_engine
from sqlalchemy import Engine
from sqlalchemy import text
from sqlalchemy.exc import TimeoutError as SATimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import QueuePool

from sqla_smartpool import AsyncSmartPool
from sqla_smartpool import SmartPool
from sqla_smartpool.integrations.prometheus import PoolCollector
from tests.conftest import Database
from tests.lab.fixtures import missing
from tests.lab.prometheus import Prometheus
from tests.lab.waiting import eventually

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parents[2] / "docs"
DASHBOARD = DOCS / "grafana" / "sqla_smartpool.json"
ALERTS = DOCS / "prometheus" / "alerts.yml"
SLEEP = text("SELECT pg_sleep(0.03)")
WORKERS = 6
POOLS = {"threads", "tasks", "stock", "stock_tasks"}


def queries() -> list[str]:
    """All that the dashboard's panels ask."""
    found = [
        target["expr"]
        for panel in json.loads(DASHBOARD.read_text())["panels"]
        for target in panel["targets"]
    ]
    assert len(found) > 20
    return found


def asked(expression: str) -> str:
    """As Grafana would send it, for all jobs and pools."""
    for name, value in (
        ("$__rate_interval", "5s"),
        ("$job", ".*"),
        ("$pool", ".*"),
    ):
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression


class Load:
    """Two pools of ours and two of SQLAlchemy's, each for two connections
    and six callers, some of whom do not get one."""

    def __init__(self, database: Database) -> None:
        options: dict[str, Any] = {"pool_timeout": 0.2}
        ours = {"max_size": 2, "ping_after": 0.1, "check_interval": 0.1}
        self.threads = create_engine(
            database.url(), poolclass=SmartPool, **options, **ours
        )
        self.tasks = create_async_engine(
            database.url(True), poolclass=AsyncSmartPool, **options, **ours
        )
        options.update(pool_size=2, max_overflow=0)
        self.stock = create_engine(
            database.url(), poolclass=QueuePool, **options
        )
        self.stock_tasks = create_async_engine(database.url(True), **options)
        self.engines: dict[str, Union[Engine, AsyncEngine]] = {
            "threads": self.threads,
            "tasks": self.tasks,
            "stock": self.stock,
            "stock_tasks": self.stock_tasks,
        }
        self.ended = threading.Event()
        self.timeouts: list[Any] = []

    def work(self, engine: Engine) -> None:
        while not self.ended.is_set():
            try:
                with engine.connect() as connection:
                    connection.execute(SLEEP)
            except SATimeoutError:
                self.timeouts.append(engine)

    def spoil(self) -> None:
        """Hold all connections for so long that the others give up, and
        break one."""
        while not self.ended.wait(1.0):
            try:
                with self.threads.connect() as one:
                    with self.threads.connect():
                        self.ended.wait(0.4)
                    one.invalidate()
            except SATimeoutError:
                pass  # the others were first

    async def work_in_task(self, engine: AsyncEngine) -> None:
        while not self.ended.is_set():
            try:
                async with engine.connect() as connection:
                    await connection.execute(SLEEP)
            except SATimeoutError:
                self.timeouts.append(engine)

    async def work_in_tasks(self) -> None:
        engines = (self.tasks, self.stock_tasks)
        await asyncio.gather(
            *(
                self.work_in_task(engine)
                for engine in engines
                for _ in range(WORKERS)
            )
        )
        for engine in engines:
            await engine.dispose()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        threads = [
            threading.Thread(target=self.work, args=[engine])
            for engine in (self.threads, self.stock)
            for _ in range(WORKERS)
        ]
        threads.append(threading.Thread(target=self.spoil))
        threads.append(
            threading.Thread(target=asyncio.run, args=[self.work_in_tasks()])
        )
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.ended.set()
            for thread in threads:
                thread.join()

    def dispose(self) -> None:
        self.threads.dispose()
        self.stock.dispose()


@pytest.fixture
def load(postgresql_database: Database) -> Iterator[Load]:
    load = Load(postgresql_database)
    yield load
    load.dispose()


@pytest.fixture
def prometheus(load: Load) -> Iterator[Prometheus]:
    registry = CollectorRegistry(auto_describe=True)
    registry.register(PoolCollector(**load.engines))
    server, thread = start_http_server(0, "127.0.0.1", registry)
    try:
        prometheus = Prometheus(server.server_port, ALERTS)
    except FileNotFoundError as error:
        missing(str(error))
    else:
        try:
            prometheus.wait_until_ready()
            yield prometheus
        finally:
            prometheus.close()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_the_dashboard_the_alerts_and_the_numbers(
    load: Load, prometheus: Prometheus
) -> None:
    with load():
        _every_query_is_answered(prometheus)
        _variables_are_found(prometheus)
        _alerts_work(prometheus)
        _percentiles_are_those_of_the_load(prometheus)
    _numbers_are_those_of_the_pool(load, prometheus)


def _every_query_is_answered(prometheus: Prometheus) -> None:
    for expression in queries():
        series = eventually(
            lambda: prometheus.query(asked(expression)),
            60.0,
            f"an answer to {expression}",
            0.5,
        )
        if "by (pool" in expression:
            pools = {each["metric"]["pool"] for each in series}
            assert pools <= POOLS
    for name, pools in (
        ("connections", POOLS),
        ("wait_seconds_bucket", POOLS),
        ("request_timeouts_total", {"threads", "tasks"}),
    ):
        series = prometheus.query(f"sqlalchemy_pool_{name}")
        assert {each["metric"]["pool"] for each in series} == pools
    for counter in (
        *(f'requests_total{{pool="{pool}"}}' for pool in POOLS),
        "request_timeouts_total",
        "returns_bad_total",
    ):
        rate = f"sum(rate(sqlalchemy_pool_{counter}[10s])) > 0"
        eventually(lambda: prometheus.query(rate), 60.0, rate, 0.5)


def _variables_are_found(prometheus: Prometheus) -> None:
    variables = json.loads(DASHBOARD.read_text())["templating"]["list"]
    found = {}
    for variable in variables:
        if variable["type"] != "query":
            continue
        asks = re.fullmatch(
            r"label_values\((.+), (\w+)\)", variable["definition"]
        )
        assert asks
        found[variable["name"]] = prometheus.ask(
            f"label/{asks[2]}/values", **{"match[]": asked(asks[1])}
        )
    assert found == {"job": ["test"], "pool": sorted(POOLS)}


def _alerts_work(prometheus: Prometheus) -> None:
    def rules() -> Any:
        (group,) = prometheus.ask("rules")["groups"]
        return {rule["name"]: rule for rule in group["rules"]}

    eventually(
        lambda: rules()["PoolTimeouts"]["state"] == "firing",
        60.0,
        "the timeouts are noticed",
        0.5,
    )
    healths = {rule["health"] for rule in rules().values()}
    assert healths == {"ok"}


def _percentiles_are_those_of_the_load(prometheus: Prometheus) -> None:
    """A use takes 30 ms and a round trip or two on a busy machine."""
    for pool in POOLS:
        (series,) = prometheus.query(
            "histogram_quantile(0.5, rate("
            f'sqlalchemy_pool_use_seconds_bucket{{pool="{pool}"}}[10s]))'
        )
        assert 0.02 < float(series["value"][1]) < 1.0


def _numbers_are_those_of_the_pool(load: Load, prometheus: Prometheus) -> None:
    """Nobody works any more: the last scrape has it all."""
    pool: Any = load.threads.pool
    stats = pool.stats()
    # those of who spoiled it come on top
    assert stats.requests_timeouts >= load.timeouts.count(load.threads) > 0
    for counter, wanted in (
        ("requests_total", stats.requests_num),
        ("requests_queued_total", stats.requests_queued),
        ("request_timeouts_total", stats.requests_timeouts),
        ("use_seconds_count", stats.use_time.count),
    ):
        assert wanted > 0
        query = f'sqlalchemy_pool_{counter}{{pool="threads"}} == {wanted}'
        eventually(lambda: prometheus.query(query), 30.0, query, 0.5)
