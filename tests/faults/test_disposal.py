"""A pool that was disposed of leaves nothing behind."""

from __future__ import annotations

from typing import Any

import pytest

from tests.lab.callers import Callers
from tests.lab.callers import WORLDS


@pytest.fixture(params=WORLDS)
def callers(request: pytest.FixtureRequest) -> Callers:
    return Callers(request.param, max_size=1)


def test_dispose_while_callers_wait_leaves_nothing_open(
    callers: Callers,
) -> None:
    first, second = callers.ask(), callers.ask()
    callers.do(callers.engine.dispose)
    assert first.done and not second.done
    callers.give_back()
    # its room served who had waited, with a connection of its own
    assert second.done and second.error is None
    assert callers.database.count("connect") == 2
    callers.give_back()
    callers.database.check(open=0)
    callers.leave()


def test_dispose_while_a_caller_waits_who_then_leaves_leaves_nothing_open(
    callers: Callers,
) -> None:
    callers.ask()
    second = callers.ask()
    callers.do(callers.engine.dispose)
    gate = callers.world.gate()
    callers.database.once("connect", gate)
    callers.give_back()
    callers.world.interrupt(second)
    assert second.done and not isinstance(second.error, Exception)
    gate.open()
    callers.world.settle()
    callers.database.check(open=0)
    callers.leave()


def test_a_disposed_pool_that_is_used_again_keeps_its_connections(
    callers: Callers,
) -> None:
    pool: Any = callers.engine.pool
    for _ in range(2):
        callers.do(pool.dispose)
        for _ in range(2):
            callers.ask()
            callers.give_back()
    assert callers.database.count("connect") == 2
    callers.leave()
