"""A writer is demoted: it answers as before, and refuses to write."""

from __future__ import annotations

from functools import partial
import threading
import time
from typing import Any
from typing import Iterator

import pytest
from sqlalchemy import Engine
from sqlalchemy import event
from sqlalchemy import text

from tests.lab import matrix
from tests.lab.lanes import Lane
from tests.lab.lanes import Lanes
from tests.lab.matrix import Case
from tests.lab.programs import program

pytestmark = pytest.mark.slow

#: a bound may be missed by this factor on a slow machine
MARGIN = 5.0
PING_AFTER = 1.0
OPTIONS: dict[str, Any] = {
    "min_size": 3,
    "max_size": 6,
    "ping_after": PING_AFTER,
    "check_interval": 0.2,
}
CALLERS = 8

DEMOTE: dict[str, dict[str, Any]] = {
    "postgresql": {"default_transaction_read_only": True},
    "mariadb": {"read_only": True},
}
#: the program of docs/servers/failover.rst
PAGE = program("servers/examples/failover.py")
IS_READ_ONLY = {"postgresql": PAGE.POSTGRESQL, "mariadb": PAGE.MARIADB}
PORT = {
    "postgresql": text("SELECT current_setting('port')::int"),
    "mariadb": text("SELECT @@port"),
}
CASES = [
    Case("postgresql+psycopg", "postgresql"),
    Case("postgresql+psycopg", "postgresql", "tls"),
    Case("postgresql+asyncpg", "postgresql"),
    Case("mysql+pymysql", "mariadb"),
    Case("mysql+aiomysql", "mariadb"),
]


class Failover:
    """From the one server to the other."""

    def __init__(self, old: Any, new: Any) -> None:
        self.old = old
        self.new = new
        #: the one that connects go to
        self.writer = old
        self.at = 0.0

    def happen(self) -> None:
        self.writer = self.new
        kind = self.old.name.lower()
        self.old.configure(**DEMOTE[kind])
        self.at = time.monotonic()


@pytest.fixture(scope="module")
def successors() -> Iterator[dict[str, Any]]:
    """The servers that become writers, by kind; started as needed."""
    servers: dict[str, Any] = {}
    yield servers
    for server in servers.values():
        server.close()


@pytest.fixture
def failovers(lanes: Lanes, successors: dict[str, Any]) -> dict[str, Failover]:
    failovers = {}
    for case in matrix.installed(CASES):
        kind, old = str(case.server), lanes.server(case)
        if kind not in successors:
            successors[kind] = type(old)()
            successors[kind].start()
        failovers[kind] = Failover(old, successors[kind])
    return failovers


def engine_that_follows(lane: Lane, failover: Failover) -> Engine:
    """An engine that connects to the writer, and refuses what is none."""
    engine = lane.smart(**OPTIONS)
    tls = lane.case.way == "tls"

    @event.listens_for(engine, "do_connect")
    def to_the_writer(
        dialect: Any, record: Any, args: Any, params: dict[str, Any]
    ) -> None:
        writer, driver = failover.writer, lane.case.drivername
        _, there = dialect.create_connect_args(writer.url(driver, tls))
        params.update(there, **writer.connect_args(driver, tls))

    PAGE.refuse_readers(engine, IS_READ_ONLY[str(lane.case.server)])
    lane.wait(engine.pool.start())  # type: ignore[attr-defined]
    return engine


def ages(engine: Engine) -> list[float]:
    """When each connection of a pool was opened."""
    pool: Any = engine.pool
    return [record.born for record in pool.inventory.members.copy()]


def idle(failover: Failover, lane: Lane) -> None:
    engine = engine_that_follows(lane, failover)
    opened_by = time.monotonic()
    lane.ready()
    lane.until(lambda: failover.at)
    gone_at = lane.until(lambda: min(ages(engine), default=0) > opened_by)
    assert gone_at - failover.at < PING_AFTER + 0.5 * MARGIN
    lane.until(lambda: len(ages(engine)) >= OPTIONS["min_size"])
    assert lane.request(engine).error is None


def busy(failover: Failover, lane: Lane) -> None:
    engine = engine_that_follows(lane, failover)
    opened_by = time.monotonic()
    served: list[tuple[float, int]] = []
    over = threading.Event()

    def caller() -> None:
        while not over.is_set():
            use()
            lane.sleep(0.02)

    def use(seconds: float = 0.0) -> None:
        with engine.connect() as connection:
            got = time.monotonic()
            port = connection.scalar(PORT[str(lane.case.server)])
            served.append((got, port))
            lane.sleep(seconds)

    def one_that_takes_long() -> None:
        # holds on to one of the old ones for longer than that
        while not failover.at:
            use(PING_AFTER / 2)
        use(2 * PING_AFTER)
        lane.until(lambda: min(ages(engine)) > opened_by)
        lane.sleep(0.5)
        over.set()

    lane.ready()
    lane.together(*[caller] * CALLERS, one_that_takes_long)
    last = failover.at + PING_AFTER
    on_old = [got for got, port in served if port == failover.old.port]
    # the clock is read a little after the checkout
    assert max(on_old) < last + 0.1 * MARGIN
    assert max(got for got, _ in served) > last + 0.1 * MARGIN
    stats = engine.pool.stats()  # type: ignore[attr-defined]
    assert stats.requests_errors == 0


def test_a_demoted_writer_is_left_within_ping_after_and_serves_nobody(
    lanes: Lanes, failovers: dict[str, Failover]
) -> None:
    for case in matrix.installed(CASES):
        failover = failovers[str(case.server)]
        for body in (idle, busy):
            lanes.enter(case, partial(body, failover), body.__name__)
    lanes.all_ready()
    for failover in failovers.values():
        failover.happen()
    lanes.end()
