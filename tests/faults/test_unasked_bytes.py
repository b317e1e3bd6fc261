"""Bytes that nobody has asked for come while a connection is idle: a notice, a
TLS session ticket. They cost at most a ping, and never the connection."""

from __future__ import annotations

import time
from typing import Any
from typing import Iterator

import pytest
from sqlalchemy import Engine

from tests.lab import matrix
from tests.lab.matrix import Client
from tests.lab.matrix import QUIET
from tests.lab.tickets import TicketFront

side = matrix.side

POSTGRESQL = [case for case in matrix.NETWORKED if case.server == "postgresql"]


def heard_since(side: Client, engine: Engine, since: float) -> bool:
    """Whether bytes have come on every connection, read or not."""
    pool: Any = engine.pool
    for record in pool.inventory.members:
        silence = record.line.silence()
        if silence is None:  # a unix socket
            if record.line.quiet():
                return False
        elif time.monotonic() - silence < since:
            return False
    return True


@matrix.on(POSTGRESQL)
def test_a_notice_that_comes_while_idle_costs_no_connection(
    side: Client,
) -> None:
    engine = side.started(min_size=1, max_size=1, **QUIET)
    pool: Any = engine.pool
    heard: list[str] = []
    with engine.connect() as connection:
        before = side.session(connection)
        if "asyncpg" in side.case.drivername:  # reads while idle
            driver: Any = connection.connection.driver_connection
            side.wait(
                driver.add_listener("news", lambda *said: heard.append(""))
            )
        else:
            connection.exec_driver_sql("LISTEN news")
        connection.commit()
    for number in range(1, 4):
        since = time.monotonic()
        side.server.execute("NOTIFY news, 'to whom it may concern'")
        side.eventually(
            lambda: len(heard) == number or heard_since(side, engine, since),
            "the notice",
        )
        if number == 3:
            assert side.wait(pool.check()) == (1, 0)
        with engine.connect() as connection:
            assert side.session(connection) == before
    stats = pool.stats()
    assert (stats.connections_num, stats.connections_lost) == (1, 0)
    assert stats.checks_failed == 0
    # one for each, but where the kernel tells that the connection stands
    assert stats.checks_num <= 4


@pytest.fixture
def front(side: Client) -> Iterator[TicketFront]:
    front = TicketFront(side.server)
    yield front
    front.close()


@matrix.on(matrix.TLS)
def test_a_session_ticket_that_comes_while_idle_costs_no_connection(
    side: Client, front: TicketFront
) -> None:
    engine = side.started(
        side.url().set(port=front.port), min_size=2, max_size=2, **QUIET
    )
    pool: Any = engine.pool
    before = side.sessions()
    for number in range(3):
        since = time.monotonic()
        assert front.send_tickets() == 2
        side.eventually(lambda: heard_since(side, engine, since), "tickets")
        if number == 2:
            assert side.wait(pool.check()) == (2, 0)
        side.use(engine, 2)
    assert side.sessions() == before
    stats = pool.stats()
    assert (stats.connections_num, stats.connections_lost) == (2, 0)
    assert (stats.checks_failed, stats.requests_errors) == (0, 0)
    # one for each, but where the kernel tells that the connection stands
    assert stats.checks_num <= 2 * 3


@matrix.on(matrix.TLS)
def test_the_tickets_of_a_handshake_cost_no_connection(side: Client) -> None:
    engine = side.started(min_size=2, max_size=2, **QUIET)
    pool: Any = engine.pool
    before = side.sessions()
    side.use(engine, 2)
    assert side.wait(pool.check()) == (2, 0)
    side.use(engine, 2)
    assert side.sessions() == before
    stats = pool.stats()
    assert (stats.connections_num, stats.connections_lost) == (2, 0)
    assert stats.checks_num == 2
