"""Connects that never end hold nobody up for good."""

from __future__ import annotations

import pytest

from sqla_smartpool import PoolClosedError
from sqla_smartpool import PoolTimeoutError
from tests.lab.callers import Callers
from tests.lab.callers import WORLDS

#: after so long a connect is written off, where callers do not queue;
#: seconds
CONNECT_LIMIT = 30.0


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("max_connecting", [None, 1])
def test_connects_that_never_end_refuse_who_does_not_queue(
    world: str, max_connecting: int | None
) -> None:
    callers = Callers(
        world, pool_timeout=0, max_size=3, max_connecting=max_connecting
    )
    gate = callers.database.always("connect", callers.world.gate())
    asked = callers.ask()
    callers.world.advance(CONNECT_LIMIT - 1.0)
    assert not asked.done
    # others have been begun in the meantime, which hang as well
    callers.world.advance(2.0)
    assert asked.done and isinstance(asked.error, PoolTimeoutError)
    gate.open()
    callers.database.heal()
    callers.world.settle()
    callers.is_whole(3)
    callers.leave()


@pytest.mark.parametrize("world", WORLDS)
def test_a_connect_that_took_long_keeps_the_floor_open_no_longer(
    world: str,
) -> None:
    callers = Callers(
        world,
        max_size=6,
        check_interval=600.0,
        ping_timeout=0.3,
        num_workers=1,
    )
    callers.ask()
    callers.give_back()
    gate = callers.world.gate()
    callers.database.once("connect", gate)
    callers.call("resize", min_size=5)
    callers.world.advance(5.0)
    # one at a time, and no more beside one that seems to hang
    assert callers.pool.stats().pool_size == 1
    gate.open()
    callers.world.advance(2.0)
    assert callers.pool.stats().pool_size == 5
    callers.leave()


@pytest.mark.parametrize("world", WORLDS)
def test_a_stop_waits_for_connects_but_not_for_those_that_never_end(
    world: str,
) -> None:
    for ends in (True, False):
        callers = Callers(world, max_size=3)
        gate = callers.database.always("connect", callers.world.gate())
        asked = callers.ask()
        stopped = callers.call("stop")
        assert isinstance(asked.error, PoolClosedError)
        assert not stopped.done
        if ends:
            gate.open()
            callers.world.settle()
            callers.database.check(open=0)
        else:
            callers.world.advance(1.0)
        assert stopped.done and stopped.error is None
        gate.open()
        callers.leave()
