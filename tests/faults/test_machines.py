"""Whatever happens to a pool, in whatever order: nothing is lost.

The examples are the same in each run, and one that fails is printed step by
step.  With ``SMARTPOOL_FAULTS=long`` there are more, and others each time:
the seed is printed, and taken from ``SMARTPOOL_SEED`` if that is set.
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

from sqla_smartpool import pool
from sqla_smartpool.checkout import Checkout
from sqla_smartpool.inventory import Inventory
from sqla_smartpool.liveness import Liveness
from tests.faults.conftest import DURATIONS
from tests.lab.fake_connections import Fake
from tests.lab.fake_connections import FakeAsync
from tests.lab.fake_connections import FakeAsyncWithHealth
from tests.lab.fake_connections import FakeWithHealth
from tests.lab.fake_connections import FakeWithSocket
from tests.lab.machine import PoolMachine
from tests.lab.worlds import Greenlets
from tests.lab.worlds import Tasks


class ThreadMachine(PoolMachine):
    world_class = Greenlets
    kinds = [Fake, FakeWithHealth, FakeWithSocket]


class LoopMachine(PoolMachine):
    world_class = Tasks
    kinds = [FakeAsync, FakeAsyncWithHealth]


MACHINES = {"threads": ThreadMachine, "loop": LoopMachine}


@pytest.fixture(params=MACHINES)
def machine(request: pytest.FixtureRequest) -> type[PoolMachine]:
    return MACHINES[request.param]


def run(machine: type[PoolMachine], examples: int, **more: Any) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            **more,
        ),
    )


def test_anything_in_any_order_loses_nothing(
    machine: type[PoolMachine],
) -> None:
    run(machine, 100, derandomize=True)
