"""Who came upon a dead connection has not lost their place in the queue."""

from __future__ import annotations

from typing import Any

import pytest

from tests.lab.callers import Callers
from tests.lab.fake_connections import FakeAsyncWithHealth
from tests.lab.fake_connections import FakeWithHealth

KINDS: dict[str, Any] = {
    "threads": FakeWithHealth,
    "loop": FakeAsyncWithHealth,
}


@pytest.mark.parametrize("world", KINDS)
def test_dead_idle_connections_leave_the_order_of_callers_as_it_was(
    world: str,
) -> None:
    callers = Callers(world, KINDS[world], max_size=2)
    callers.ask()
    callers.ask()
    while callers.held:
        callers.give_back()
    for fake in callers.database.open:
        fake.kill()
    closes = [callers.world.gate(), callers.world.gate()]
    connects = [callers.world.gate(), callers.world.gate()]
    callers.database.once("close", *closes)
    callers.database.once("connect", *connects)
    asked = []
    for _ in range(3):
        asked.append(callers.ask())
        callers.world.advance(0.01)
    # two close what has ended, the later one sooner, and one waits for room
    for gate in reversed(closes):
        gate.open()
        callers.world.settle()
    assert callers.pool.stats().requests_waiting == 3
    for first, gate in enumerate(connects):
        gate.open()
        callers.world.settle()
        done = [actor.done for actor in asked]
        assert done == [number <= first for number in range(3)]
    callers.give_back()
    assert asked[2].done
    callers.leave()
