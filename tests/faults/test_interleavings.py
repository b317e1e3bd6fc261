"""Every order in which callers of one pool can take their steps."""

from __future__ import annotations

from typing import Any
from typing import Callable
from typing import NamedTuple
from typing import Optional
import weakref

import pytest

from sqla_smartpool import SmartPool
from sqla_smartpool.checkout import Checkout
from sqla_smartpool.chores import Chores
from sqla_smartpool.inventory import Inventory
from sqla_smartpool.record import Record
from tests.faults.conftest import DURATIONS
from tests.faults.conftest import LONG
from tests.lab import scenarios
from tests.lab.explored import Explore
from tests.lab.schedule import Run

if DURATIONS is LONG:
    # a machine's, for one that has other things to do as well
    pytestmark = pytest.mark.timeout(3600)

Scenario = Callable[[Run], object]

#: with how many preemptions, in the short form (None: not at all) and in full
SCENARIOS: list[tuple[Scenario, Optional[int], int]] = [
    (scenarios.two_callers, 2, 3),
    (scenarios.three_callers, 0, 1),
    (scenarios.four_callers, 1, 2),
    (scenarios.newcomer_returner_waiter, 1, 2),
    (scenarios.is_late, 1, 2),
    (scenarios.is_late_before_another, 0, 1),
    (scenarios.is_cancelled, 1, 2),
    (scenarios.is_cancelled_before_another, 0, 1),
    (scenarios.is_cancelled_with_room, 1, 2),
    (scenarios.nobody_connects_twice, 0, 1),
    (scenarios.one_connect_fails, 1, 2),
    (scenarios.one_connect_fails_beside, 0, 1),
    (scenarios.opened_beside, 0, 1),
    (scenarios.one_breaks, 1, 2),
    (scenarios.grows, 0, 1),
    (scenarios.shrinks, 0, 1),
    (scenarios.resized_twice, 1, 3),
    (scenarios.stopped, 0, 1),
    (scenarios.stopped_while_connecting, 0, 1),
    (scenarios.stopped_as_one_is_cancelled, 0, 1),
    (scenarios.disposed, 0, 1),
    (scenarios.disposed_as_one_is_late, 0, 1),
    (scenarios.disposed_while_connecting, 0, 1),
    (scenarios.replaced, 0, 1),
    (scenarios.replaced_while_connecting, 0, 1),
    (scenarios.replaced_as_it_begins, 1, 1),
    (scenarios.pinged, 0, 1),
    (scenarios.pinged_while_disposed, 1, 2),
    (scenarios.closed_for_idleness, 1, 2),
    (scenarios.renewed, 1, 2),
    (scenarios.drained, 1, 1),
    (scenarios.drained_as_one_returns, 1, 2),
    (scenarios.drained_as_one_is_late, 0, 1),
    (scenarios.pinged_while_drained, 1, 2),
    (scenarios.garbage_returns, 1, 2),
    (scenarios.garbage_returns_with_room, 1, 2),
    (scenarios.garbage_returns_as_one_is_late, 0, 1),
    (scenarios.garbage_returns_as_one_is_cancelled, 1, 2),
    (scenarios.garbage_returns_to_two, 0, 1),
    (scenarios.garbage_returns_as_another_does, 0, 1),
    (scenarios.garbage_returns_as_one_of_two_is_late, None, 0),
]


BOUNDS = [
    pytest.param(scenario, bound, id=scenario.__name__)
    for scenario, short, full in SCENARIOS
    for bound in [full if DURATIONS is LONG else short]
    if bound is not None
]


@pytest.mark.parametrize("scenario, preemptions", BOUNDS)
def test_in_any_order_nothing_is_lost(
    explore: Explore, scenario: Scenario, preemptions: int
) -> None:
    report = explore(scenario, preemptions)
    assert report.failure is None, str(report)


# -- mistakes that have to be found ------------------------------------------


def looks_too_early(pool: SmartPool, record: Record) -> None:
    """A return that misses who begins to wait in the middle of it."""
    somebody_waits = bool(pool.inventory.waiters)
    pool.inventory.idle.append(record)
    if somebody_waits:
        pool.inventory.look()


def takes_in_two_steps(inventory: Inventory) -> None:
    """A checkout that looks at a connection before it takes it."""

    def take() -> Record:
        record: Record = inventory.idle[-1]
        try:
            inventory.idle.remove(record)
        except ValueError:
            pass
        return record

    inventory.closed = inventory.paused = False
    inventory.take = take


def passes_nothing_on(checkout: Checkout, outcome: object) -> None:
    """A caller who is interrupted as he is served."""


def hands_over_unasked(inventory: Inventory, record: Record) -> bool:
    """A return that takes who was first for who still is."""
    waiter = inventory._in_line()
    if waiter is None:
        return False
    record.handed = weakref.ref(waiter)
    waiter.serve(record)
    inventory.waiters.pop(waiter, None)
    return True


def looks_no_more(inventory: Inventory, record: Record) -> None:
    """What is put back as it is marked."""


def marks_only(chores: Chores, record: Record, reason: str) -> None:
    """What is marked as it comes home."""
    record.going = reason
    record.judge()


class Mistake(NamedTuple):
    """One that is made on purpose, and what comes of it."""

    name: str
    kind: type
    #: the method in whose place it stands
    method: str
    mistaken: Callable[..., Any]
    scenario: Scenario
    consequence: str


MISTAKES = [
    Mistake(
        "lost wake-up",
        SmartPool,
        "_do_return_conn",
        looks_too_early,
        scenarios.two_callers,
        "wait, and one is idle",
    ),
    Mistake(
        "double hand-out",
        Inventory,
        "open_gates",
        takes_in_two_steps,
        scenarios.two_callers,
        "is with both",
    ),
    Mistake(
        "lost slot",
        Checkout,
        "_pass_on",
        passes_nothing_on,
        scenarios.is_cancelled,
        "open, but not idle",
    ),
    Mistake(
        "re-entrant return",
        Inventory,
        "hand_over",
        hands_over_unasked,
        scenarios.garbage_returns_as_another_does,
        "open, but not idle",
    ),
    Mistake(
        "marked too early",
        Inventory,
        "recheck",
        looks_no_more,
        scenarios.pinged_while_disposed,
        "is to be closed, and nobody does",
    ),
    Mistake(
        "marked too late",
        Chores,
        "dismiss_later",
        marks_only,
        scenarios.drained_as_one_returns,
        "is to be closed, and nobody does",
    ),
]


@pytest.mark.parametrize(
    "mistake", [pytest.param(each, id=each.name) for each in MISTAKES]
)
def test_a_mistake_in_the_pool_is_found(
    explore: Explore, monkeypatch: pytest.MonkeyPatch, mistake: Mistake
) -> None:
    monkeypatch.setattr(mistake.kind, mistake.method, mistake.mistaken)
    report = explore(mistake.scenario, 1)
    assert report.failure is not None
    assert mistake.consequence in repr(report.failure), str(report)
