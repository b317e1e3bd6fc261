"""Idle connections that the server has ended cost nobody an error."""

from __future__ import annotations

import gc
import time
from typing import Any
from typing import Awaitable
from typing import Callable

import pytest
from sqlalchemy import Engine

from tests.lab import matrix
from tests.lab.matrix import Client
from tests.lab.matrix import QUIET

side = matrix.side

#: a bound may be missed by this factor on a slow machine
MARGIN = 5.0
#: how many connects of the driver a request may take at most
CONNECTS = 10.0
#: a machine that does other things as well keeps anyone waiting, seconds
HICCUP = 0.05


def one_by_one(side: Client, engine: Engine, number: int) -> list[float]:
    """Make requests one after the other; returns how long each took."""
    return [_request(engine, lambda: None) for _ in range(number)]


def at_once(side: Client, engine: Engine, number: int) -> list[float]:
    """Make requests that need so many connections at the same time."""
    served: list[None] = []

    def wait_for_the_others() -> None:
        served.append(None)
        side.eventually(lambda: len(served) == number, "all are served")

    def request() -> float:
        return _request(engine, wait_for_the_others)

    return list(side.together(*[request] * number))


def _request(engine: Engine, hold: Callable[[], None]) -> float:
    began = time.monotonic()
    with engine.connect() as connection:
        assert connection.scalar(matrix.ONE) == 1
        took = time.monotonic() - began
        hold()
    return took


requests = pytest.mark.parametrize(
    "requests", [one_by_one, at_once], ids=lambda how: how.__name__
)
Requests = Callable[[Client, Engine, int], list[float]]


@matrix.on([*matrix.TCP, *matrix.TLS])
@requests
def test_all_ten_killed_cost_nobody_an_error_or_more_than_ten_connects(
    side: Client, requests: Requests
) -> None:
    engine = side.started(min_size=10, max_size=10, **QUIET)
    before = side.sessions()
    bound = CONNECTS * side.connect_takes() + HICCUP
    side.server.terminate()
    took = requests(side, engine, 10)
    assert max(took) < bound * MARGIN
    stats = engine.pool.stats()
    assert (stats.requests_errors, stats.returns_bad) == (0, 0)
    side.eventually(side.has(10), "the floor")
    assert not before & side.sessions()
    assert engine.pool.stats().connections_num == 20


@matrix.on(matrix.NETWORKED)
@requests
def test_one_of_five_killed_costs_one_reconnect_and_nobody_an_error(
    side: Client, requests: Requests
) -> None:
    # oldest first, so that one caller at a time meets them all
    engine = side.started(
        min_size=5, max_size=10, pool_use_lifo=False, **QUIET
    )
    before = side.sessions()
    killed = min(before)
    side.server.terminate([killed])
    requests(side, engine, 5)
    requests(side, engine, 5)
    side.eventually(side.has(5), "the floor")
    assert before - {killed} < side.sessions()
    stats = engine.pool.stats()
    assert stats.connections_num == 6
    assert (stats.closed_unhealthy, stats.requests_errors) == (1, 0)


def whose_farewell(
    side: Client,
    monkeypatch: pytest.MonkeyPatch,
    farewell: Callable[[], Awaitable[None]],
) -> tuple[Engine, Any]:
    """Return an engine and its one connection of aiomysql's, whose farewell
    is this one."""
    engine = side.started(min_size=1, max_size=1, **QUIET)
    with engine.connect() as connection:
        driver_connection: Any = connection.connection.driver_connection
    monkeypatch.setattr(driver_connection, "ensure_closed", farewell)
    return engine, driver_connection


@matrix.on([case for case in matrix.TCP if "aiomysql" in case.drivername])
def test_a_farewell_that_fails_ends_the_connection_all_the_same(
    side: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail() -> None:
        raise ConnectionResetError("Connection lost")

    engine, driver_connection = whose_farewell(side, monkeypatch, fail)
    engine.dispose()
    assert driver_connection.closed


@matrix.on(matrix.NETWORKED)
def test_disposing_of_what_the_server_has_ended_is_no_news(
    side: Client, caplog: pytest.LogCaptureFixture
) -> None:
    engine = side.started(min_size=2, max_size=2, **QUIET)
    pool = engine.pool

    def have_ended() -> bool:
        return all(each.is_dead() for each in pool.inventory.members)

    side.server.terminate()
    side.eventually(have_ended, "the ends are known")
    engine.dispose()
    # where a driver complains of what was not closed
    gc.collect()
    assert caplog.messages == []


@matrix.on([case for case in matrix.TCP if "aiomysql" in case.drivername])
def test_nobody_says_farewell_to_whom_the_server_has_ended(
    side: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    # asyncio would tell of its failure, whenever its future was collected
    said = []

    async def say() -> None:
        said.append("quit")

    engine, driver_connection = whose_farewell(side, monkeypatch, say)
    [member] = engine.pool.inventory.members
    side.server.terminate()
    side.eventually(member.is_dead, "the end is known")
    engine.dispose()
    assert driver_connection.closed
    assert said == []
