"""What a pool's users call: start and stop, drain, pause and check."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from sqla_smartpool import Cause
from sqla_smartpool import PoolClosedError
from sqla_smartpool import PoolTimeoutError
from tests.lab import matrix
from tests.lab.matrix import BUSY
from tests.lab.matrix import Client
from tests.lab.matrix import Diary
from tests.lab.matrix import QUIET
from tests.lab.waiting import at_rest

side = matrix.side


# start, stop


@matrix.on(matrix.BOTH)
def test_stop_waits_for_what_is_in_use_and_closes_it(side: Client) -> None:
    engine = side.started(min_size=2, max_size=3, **QUIET)
    pool: Any = engine.pool
    (held,) = side.hold(engine, 1)
    stopped = side.begin(lambda: side.wait(pool.stop()))
    side.eventually(side.has(1), "the idle one is closed")
    assert held.scalar(matrix.ONE) == 1
    held.close()
    stopped()
    assert pool.stats().pool_size == 0
    side.eventually(side.has(0), "the server has seen them go")


@pytest.mark.pain("return after the end")
@matrix.on(matrix.BOTH)
def test_what_is_in_use_for_longer_is_closed_when_it_comes_home(
    side: Client,
) -> None:
    engine = side.started(min_size=2, max_size=3, **QUIET)
    pool: Any = engine.pool
    (held,) = side.hold(engine, 1)
    side.wait(pool.stop(timeout=0.05))
    assert held.scalar(matrix.ONE) == 1
    held.close()
    side.eventually(side.has(0), "it is closed")


@matrix.on(matrix.BOTH)
def test_waiters_of_a_stopped_pool_are_told_and_so_are_newcomers(
    side: Client,
) -> None:
    engine = side.started(min_size=1, max_size=1, **QUIET)
    pool: Any = engine.pool
    (held,) = side.hold(engine, 1)
    waiter = side.begin(engine.connect)
    side.waiting(engine)
    side.wait(pool.stop(timeout=0.05))
    with pytest.raises(PoolClosedError):
        waiter()
    with pytest.raises(PoolClosedError):
        engine.connect()
    held.close()


@matrix.on(matrix.EVERY)
def test_a_stopped_pool_can_be_started_again(side: Client) -> None:
    engine = side.started(min_size=2, max_size=3, **QUIET)
    pool: Any = engine.pool
    for _ in range(2):
        before = side.sessions()
        side.wait(pool.stop())
        with pytest.raises(PoolClosedError):
            engine.connect()
        side.wait(pool.start())
        side.eventually(side.has(2), "the floor")
        if side.server is not None:  # else they have no number to compare
            assert not before & side.sessions()
        side.use(engine, 3)


@matrix.on(matrix.BOTH)
def test_a_pool_restarted_while_one_is_in_use_closes_that_one(
    side: Client,
) -> None:
    engine = side.started(min_size=2, max_size=4, **QUIET)
    pool: Any = engine.pool
    (held,) = side.hold(engine, 1)
    mine = side.session(held)
    side.wait(pool.stop(timeout=0.05))
    side.wait(pool.start())
    held.close()
    side.eventually(lambda: mine not in side.sessions(), "it is closed")
    side.eventually(side.has(2), "the floor")


@matrix.on(matrix.BOTH)
def test_starting_twice_is_harmless(side: Client) -> None:
    engine = side.started(min_size=3, max_size=5, **QUIET)
    pool: Any = engine.pool
    side.wait(pool.start())
    side.wait(pool.wait())
    assert side.has(3)()
    assert pool.stats().connections_num == 3


# drain, pause, check


@matrix.on(matrix.BOTH)
def test_drain_replaces_the_idle_and_those_in_use_when_they_come_home(
    side: Client,
) -> None:
    engine = side.started(min_size=3, max_size=5, **QUIET)
    pool: Any = engine.pool
    before = side.sessions()
    (held,) = side.hold(engine, 1)
    mine = side.session(held)
    side.wait(pool.drain())
    assert side.session(held) == mine
    side.eventually(
        lambda: before & side.sessions() == {mine} and side.has(3)(),
        "the idle ones are others",
    )
    held.close()
    side.eventually(
        lambda: not before & side.sessions() and side.has(3)(),
        "all are others",
    )
    # the server has a session before the pool has the connection
    side.eventually(lambda: pool.stats().pool_available == 3, "the floor")
    side.use(engine, 3)


@matrix.on(matrix.BOTH)
def test_drain_closes_nothing_before_its_successor_is_there(
    side: Client,
) -> None:
    engine = side.started(min_size=2, max_size=5, **QUIET)
    pool: Any = engine.pool
    diary = Diary(engine)
    (held,) = side.hold(engine, 1)
    side.wait(pool.drain())
    held.close()
    side.eventually(lambda: diary.entries.count("closed") == 2, "both")
    side.eventually(lambda: pool.stats().pool_available == 2, "the floor")
    assert diary.entries == ["opened", "drain", "closed"] * 2


@matrix.on(matrix.BOTH)
def test_paused_checkouts_wait_until_resume(side: Client) -> None:
    engine = side.started(min_size=2, max_size=3, **QUIET)
    pool: Any = engine.pool
    side.wait(pool.pause())
    waiter = side.begin(lambda: side.use(engine, 1))
    side.waiting(engine)
    assert pool.stats().pool_available == 2
    side.wait(pool.resume())
    waiter()
    assert pool.stats().connections_num == 2


@matrix.on(matrix.BOTH)
def test_the_timeout_runs_while_paused_and_the_error_says_so(
    side: Client,
) -> None:
    engine = side.started(min_size=1, pool_timeout=0.2, **QUIET)
    pool: Any = engine.pool
    side.wait(pool.pause())
    with pytest.raises(PoolTimeoutError, match="paused"):
        engine.connect()
    side.wait(pool.resume())
    side.use(engine, 1)


@matrix.on(matrix.BOTH)
def test_upkeep_opens_nothing_while_paused(
    side: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = side.started(min_size=2, max_size=3, **BUSY)
    pool: Any = engine.pool
    looks = itertools.count()
    look = pool.upkeep._decide

    def counted(now: float) -> Any:
        next(looks)
        return look(now)

    monkeypatch.setattr(pool.upkeep, "_decide", counted)
    side.wait(pool.pause())
    side.server.terminate()
    enough = next(looks) + 20
    side.eventually(lambda: next(looks) > enough, "upkeep has looked")
    assert side.has(0)()
    side.wait(pool.resume())
    side.eventually(side.has(2), "the floor")


@matrix.on(matrix.NETWORKED)
def test_check_tells_how_many_were_checked_and_replaced(
    side: Client,
) -> None:
    engine = side.started(min_size=4, max_size=8, **QUIET)
    pool: Any = engine.pool
    assert side.wait(pool.check()) == (4, 0)
    # or upkeep would find the dead one first
    side.eventually(at_rest(pool), "upkeep has nothing to do")
    before = side.sessions()
    killed = min(before)
    side.server.terminate([killed])
    assert side.wait(pool.check()) == (4, 1)
    side.eventually(
        lambda: pool.stats().pool_available >= 4
        and not pool.stats().pool_connecting,
        "the floor",
    )
    stats = pool.stats()
    assert (stats.connections_num, stats.closed_unhealthy) == (5, 1)
    assert side.has(4)() and before - {killed} < side.sessions()
    assert side.wait(pool.check()) == (4, 0)


@matrix.on(matrix.BOTH)
def test_a_pause_and_a_stop_are_told_at_once(side: Client) -> None:
    pool: Any = side.smart(max_size=1).pool
    assert pool.diagnosis().cause is Cause.BACKLOG
    side.wait(pool.pause())
    assert "resume()" in pool.diagnosis().remedy
    side.wait(pool.resume())
    assert pool.diagnosis().cause is Cause.BACKLOG
    side.wait(pool.stop())
    assert "start()" in pool.diagnosis().remedy
