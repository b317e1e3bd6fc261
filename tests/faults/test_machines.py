"""Whatever happens to a pool, in whatever order: nothing is lost.

The examples are the same in each run, and one that fails is printed step by
step.  With ``SMARTPOOL_FAULTS=long`` there are more, and others each time:
their seed is printed, and taken from ``SMARTPOOL_SEED`` if that is set.
"""

from __future__ import annotations

import os
import random
from typing import Any
from typing import Callable

from hypothesis import HealthCheck
from hypothesis import Phase
from hypothesis import seed
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
import pytest

from sqla_smartpool import SmartPool
from sqla_smartpool.checkout import Checkout
from sqla_smartpool.inventory import Inventory
from sqla_smartpool.record import Record
from sqla_smartpool.sockets import Line
from sqla_smartpool.tickets import Waiter
from tests.faults.conftest import DURATIONS
from tests.faults.conftest import LONG
from tests.lab.fake_connections import Fake
from tests.lab.fake_connections import FakeAsync
from tests.lab.fake_connections import FakeAsyncWithHealth
from tests.lab.fake_connections import FakeWithHealth
from tests.lab.fake_connections import FakeWithSocket
from tests.lab.machine import PoolMachine
from tests.lab.worlds import Greenlets
from tests.lab.worlds import Tasks

EXAMPLES, MANY = 60, 2000
#: among so many is one that finds a mutant
FOUND_WITHIN = 1500


class ThreadMachine(PoolMachine):
    world_class = Greenlets
    kinds = [Fake, FakeWithHealth, FakeWithSocket]


class LoopMachine(PoolMachine):
    world_class = Tasks
    kinds = [FakeAsync, FakeAsyncWithHealth]


MACHINES = {"threads": ThreadMachine, "loop": LoopMachine}


@pytest.fixture(params=MACHINES)
def machine(request: pytest.FixtureRequest) -> Any:
    kind = MACHINES[request.param]
    # hypothesis leaves its seed in a class
    return type(kind.__name__, (kind,), {})


def run(machine: Any, examples: int, *phases: Phase, **more: Any) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            phases=phases,  # explaining makes all others slow
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            **more,
        ),
    )


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_whatever_happens_in_any_order_nothing_is_lost(machine: Any) -> None:
    examples, derandomize = EXAMPLES, True
    if DURATIONS is LONG:
        examples, derandomize = MANY, False
        number = int(os.environ.get("SMARTPOOL_SEED", random.getrandbits(32)))
        print(f"SMARTPOOL_SEED={number}")
        seed(number)(machine)
    run(
        machine,
        examples,
        Phase.generate,
        Phase.shrink,
        derandomize=derandomize,
    )


# -- mutants: what is done to the pool ----------------------------------------

Patch = pytest.MonkeyPatch


def do_nothing(*args: Any) -> None:
    """In place of a method."""


def forget_a_return(patch: Patch) -> None:
    patch.setattr(SmartPool, "_do_return_conn", do_nothing)


def forget_to_wake_who_waits(patch: Patch) -> None:
    patch.setattr(Inventory, "_hand_over_idle", do_nothing)


def keep_the_room_of_a_connect(patch: Patch) -> None:
    patch.setattr(Inventory, "_connect_ended", do_nothing)
    # and do not find it, either
    patch.setattr(Inventory, "_forget_lost_connects", do_nothing)


def keep_the_room_of_a_closed_connection(patch: Patch) -> None:
    patch.setattr(Inventory, "gone", do_nothing)


def open_too_many(patch: Patch) -> None:
    room = Inventory.room.fget
    assert room is not None
    patch.setattr(Inventory, "room", property(lambda each: room(each) + 1))


def let_newcomers_overtake(patch: Patch) -> None:
    enter = Inventory.enter

    def overtake(books: Inventory, waiter: Waiter, first: bool) -> None:
        enter(books, waiter, first)
        if waiter in books.waiters:
            books.waiters.move_to_end(waiter, last=False)

    patch.setattr(Inventory, "enter", overtake)


def forget_what_an_interrupted_caller_was_served(patch: Patch) -> None:
    patch.setattr(Checkout, "_pass_on", do_nothing)


def hand_out_the_dead(patch: Patch) -> None:
    patch.setattr(Record, "_is_healthy", lambda record: True)
    patch.setattr(Line, "quiet", lambda line: True)
    patch.setattr(Line, "dead", lambda line: False)


def hand_out_the_old(patch: Patch) -> None:
    patch.setattr(Record, "expires_at", float("inf"))
    patch.setattr(Record, "retire_at", float("inf"))


def use_what_a_parent_has(patch: Patch) -> None:
    patch.setattr(SmartPool, "begin_anew", do_nothing)


MUTANTS = [
    forget_a_return,
    forget_to_wake_who_waits,
    keep_the_room_of_a_connect,
    keep_the_room_of_a_closed_connection,
    open_too_many,
    let_newcomers_overtake,
    forget_what_an_interrupted_caller_was_served,
    use_what_a_parent_has,
    hand_out_the_dead,
]
if DURATIONS is LONG:
    MUTANTS.append(hand_out_the_old)  # takes long to be found


@pytest.mark.slow
@pytest.mark.parametrize("plant", MUTANTS)
def test_mutant_of_the_pool_is_found_by_the_machine(
    machine: Any, plant: Callable[[Patch], None], monkeypatch: Patch
) -> None:
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        run(
            machine,
            FOUND_WITHIN,
            Phase.generate,
            derandomize=True,
            report_multiple_bugs=False,
        )
