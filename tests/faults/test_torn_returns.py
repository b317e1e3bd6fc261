"""Whoever is interrupted while a connection that has ended is closed keeps
nobody waiting."""

from __future__ import annotations

from typing import Any
from typing import Callable
import warnings

import pytest
from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError

from tests.lab.callers import Callers
from tests.lab.callers import WORLDS


@pytest.fixture(params=WORLDS)
def callers(request: pytest.FixtureRequest) -> Callers:
    return Callers(request.param, max_size=1)


def give_back(connection: Any) -> None:
    """Its rollback fails, and it is closed."""
    connection.close()


def invalidate(connection: Any) -> None:
    """Close it in any case."""
    connection.invalidate()


@pytest.mark.parametrize("end", [give_back, invalidate])
def test_cancelled_close_of_a_dead_connection_serves_who_waits_next(
    callers: Callers, end: Callable[[Any], None]
) -> None:
    callers.ask()
    # such as a traceback keeps it
    [connection] = callers.held
    second = callers.ask()
    callers.database.open[0].kill()
    gate = callers.database.always("close", callers.world.gate())
    first = callers.do(lambda: end(callers.held.pop(0)))
    assert not first.done and not second.done
    callers.world.interrupt(first)
    assert first.done and not isinstance(first.error, Exception)
    expect_served(callers, second, connection)
    gate.open()
    callers.leave()


def test_twice_cancelled_return_serves_who_waits_next(
    callers: Callers,
) -> None:
    callers.ask()
    [connection] = callers.held
    second = callers.ask()
    gates = [callers.world.gate(), callers.world.gate()]
    callers.database.once("rollback", gates[0])
    callers.database.once("close", gates[1])
    first = callers.give_back()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is returned twice
        callers.world.interrupt(first)
        assert not first.done
        callers.world.interrupt(first)
    assert first.done and not isinstance(first.error, Exception)
    expect_served(callers, second, connection)
    for gate in gates:
        gate.open()
    callers.leave()


def test_cancelled_close_for_a_checkout_listener_ends_the_checkout(
    callers: Callers,
) -> None:
    refused: list[Any] = []

    @event.listens_for(callers.engine, "checkout")
    def refuse(connection: Any, *_: Any) -> None:
        if not refused:
            refused.append(connection)
            raise DisconnectionError

    gate = callers.database.always("close", callers.world.gate())
    first = callers.ask()
    second = callers.ask()
    assert not first.done and not second.done
    callers.world.interrupt(first)
    assert first.done and not isinstance(first.error, Exception)
    assert second.done and second.error is None
    callers.database.heal()
    gate.open()
    callers.leave()


def expect_served(callers: Callers, second: Any, connection: Any) -> None:
    """The second caller has a connection, and has it for itself."""
    assert second.done and second.error is None
    assert callers.pool.stats().pool_in_use == 1
    callers.database.heal()
    callers.do(connection.close)
    assert callers.pool.stats().pool_in_use == 1
    assert callers.execute().error is None
