"""Whatever happens to a pool, in whatever order: nothing is lost."""

from __future__ import annotations

from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

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


def test_threads() -> None:
    run_state_machine_as_test(
        ThreadMachine,
        settings=settings(
            max_examples=100, stateful_step_count=40, deadline=None
        ),
    )


def test_loop() -> None:
    run_state_machine_as_test(
        LoopMachine,
        settings=settings(
            max_examples=100, stateful_step_count=40, deadline=None
        ),
    )
