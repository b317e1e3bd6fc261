"""A connect that takes its time, or fails, holds nobody up who need not wait
for it."""

from __future__ import annotations

import time
from typing import Any
from typing import Callable

import pytest
from sqlalchemy import Engine
from sqlalchemy import event

from sqla_smartpool import deadline
from sqla_smartpool import PoolTimeoutError
from tests.lab import matrix
from tests.lab.matrix import Client
from tests.lab.matrix import QUIET

side = matrix.side

#: a bound may be missed by this factor on a slow machine
MARGIN = 5.0


class Refused(Exception):
    """What a connect fails with."""


def at_connect(
    engine: Engine,
    *turns: Callable[[], object],
    name: str = "do_connect",
) -> list[Callable[[], object]]:
    """Have the first connect do this, the second that, all others nothing.

    :param name: of the event at which.
    :return: what has not begun yet.
    """
    left = list(turns)

    @event.listens_for(engine, name)
    def connect(*args: Any) -> None:
        if left:
            left.pop(0)()

    return left


def refuse() -> None:
    raise Refused("by the test")


def how_long(job: Callable[[], object], error: type[Exception]) -> float:
    began = time.monotonic()
    with pytest.raises(error):
        job()
    return time.monotonic() - began


@matrix.on(matrix.TCP)
def test_a_slow_connect_costs_its_caller_the_timeout_and_ends_in_the_pool(
    side: Client,
) -> None:
    engine = side.smart(max_size=2, pool_timeout=1.0, **QUIET)
    pool: Any = engine.pool
    gate = side.gate()
    # a second one may be begun at the very end of the second
    at_connect(engine, gate.wait, gate.wait)
    waited = how_long(engine.connect, PoolTimeoutError)
    assert 0.9 < waited < 1.0 * MARGIN
    gate.open()
    side.eventually(
        lambda: pool.stats().pool_available == pool.stats().connections_num,
        "it is there",
    )
    side.use(engine, 1)
    stats = pool.stats()
    assert stats.pool_size == stats.connections_num == len(side.sessions())
    assert (stats.requests_timeouts, stats.requests_errors) == (1, 1)


@pytest.mark.pain("lost wake-up")
@matrix.on(matrix.BOTH)
def test_a_connect_whose_caller_has_left_serves_the_next_one(
    side: Client,
) -> None:
    engine = side.smart(max_size=1, pool_timeout=matrix.LONG, **QUIET)
    gate = side.gate()
    at_connect(engine, gate.wait)
    with deadline(0.3):
        assert how_long(engine.connect, PoolTimeoutError) < 0.3 * MARGIN
    next_one = side.begin(lambda: side.use(engine, 1))
    side.waiting(engine)
    gate.open()
    next_one()
    assert engine.pool.stats().connections_num == 1


@matrix.on(matrix.BOTH)
def test_a_slow_connect_whose_caller_got_another_ends_in_the_pool(
    side: Client,
) -> None:
    engine = side.smart(max_size=2, **QUIET)
    pool: Any = engine.pool
    (held,) = side.hold(engine, 1)
    gate = side.gate()
    at_connect(engine, gate.wait)
    caller = side.begin(lambda: side.use(engine, 1))
    side.waiting(engine)
    held.close()
    caller()
    assert pool.stats().pool_connecting == 1
    gate.open()
    side.eventually(lambda: pool.stats().pool_available == 2, "both")
    side.use(engine, 2)
    assert pool.stats().connections_num == 2


@matrix.on(matrix.BOTH)
def test_a_connect_that_began_before_a_drain_is_made_anew(
    side: Client,
) -> None:
    engine = side.smart(max_size=2, pool_timeout=matrix.LONG, **QUIET)
    pool: Any = engine.pool
    gate = side.gate()
    at_connect(engine, gate.wait)
    sessions: list[Any] = []

    def use() -> None:
        with engine.connect() as connection:
            sessions.append(side.session(connection))

    caller = side.begin(use)
    side.waiting(engine)
    side.wait(pool.drain())
    opened: list[Any] = []
    event.listen(
        engine, "connect", lambda dbapi, record: opened.append(record)
    )
    gate.open()
    caller()
    assert len(opened) == 2
    side.eventually(lambda: side.sessions() == set(sessions), "one is left")


@matrix.on(matrix.BOTH)
def test_a_slow_connect_that_is_written_off_frees_its_room(
    side: Client,
) -> None:
    engine = side.smart(max_size=1, pool_timeout=1.0, **QUIET)
    pool: Any = engine.pool
    gate = side.gate()
    at_connect(engine, gate.wait)
    how_long(engine.connect, PoolTimeoutError)
    side.eventually(lambda: not pool.stats().pool_connecting, "written off")
    side.use(engine, 1)
    assert pool.stats().connections_num == 2
    gate.open()
    # there is no room for it any more
    side.eventually(
        lambda: pool.stats().closed_other == 1 and side.has(1)(),
        "it comes late, and is closed",
    )
    assert pool.stats().pool_size == 1


@matrix.on(matrix.BOTH)
def test_a_connect_that_fails_is_told_at_once_to_the_next_one_too(
    side: Client,
) -> None:
    engine = side.smart(max_size=1, pool_timeout=matrix.LONG, **QUIET)
    gate = side.gate()

    def refuse_in_time() -> None:
        gate.wait()
        refuse()

    at_connect(engine, refuse_in_time, refuse)
    callers = [side.begin(engine.connect) for _ in range(2)]
    side.waiting(engine, 2)
    gate.open()
    for caller in callers:
        assert how_long(caller, Refused) < 1.0 * MARGIN
    assert engine.pool.stats().connections_errors == 2
    side.use(engine, 1)


@matrix.on(matrix.BOTH)
def test_who_has_a_connect_under_way_does_not_hear_of_another_that_fails(
    side: Client,
) -> None:
    engine = side.smart(max_size=2, pool_timeout=matrix.LONG, **QUIET)
    gate = side.gate()
    at_connect(engine, gate.wait, refuse)
    first = side.begin(lambda: side.use(engine, 1))
    side.waiting(engine)
    second = side.begin(engine.connect)
    assert how_long(second, Refused) < 1.0 * MARGIN
    assert engine.pool.stats().requests_waiting == 1
    gate.open()
    first()


@matrix.on(matrix.BOTH)
def test_a_caller_takes_a_returned_connection_while_his_own_is_opened(
    side: Client,
) -> None:
    engine = side.smart(max_size=3, pool_timeout=matrix.LONG, **QUIET)
    held = side.hold(engine, 2)
    gate = side.gate()
    at_connect(engine, gate.wait)
    mine = side.session(held[0])

    def job() -> int:
        with engine.connect() as connection:
            return side.session(connection)

    caller = side.begin(job)
    side.waiting(engine)
    held[0].close()
    assert caller() == mine
    held[1].close()


@matrix.on(matrix.TCP)
def test_what_sqlalchemy_does_once_does_not_make_connects_slow(
    side: Client,
) -> None:
    engine = side.smart(min_size=3, max_size=3, **QUIET)
    pool: Any = engine.pool
    gate = side.gate()
    left = at_connect(engine, gate.wait, name="connect")
    side.wait(pool.start(wait=False))
    side.eventually(lambda: not left, "the first is being set up")
    began = time.monotonic()
    side.eventually(lambda: time.monotonic() - began > 1.0, "for a while")
    gate.open()
    side.wait(pool.wait())
    assert pool.stats().connect_time.quantile(1.0) >= 1.0
    assert pool.inventory.pace.connect_time < 1.0
