"""Threads torn out of a checkout or a checkin, at every line of it.

Ctrl-C, the kill of a greenlet and the time limit of a task queue raise
between any two instructions, also between taking a connection and keeping
it.  Whatever is lost then comes back with one pass of upkeep.
"""

from __future__ import annotations

import gc
import logging
import math
import random
from typing import Any
from typing import Callable
from typing import Iterator
from typing import NamedTuple

from greenlet import GreenletExit
import pytest

from tests.faults.conftest import DURATIONS
from tests.faults.conftest import LONG
from tests.lab import interrupts
from tests.lab import matrix
from tests.lab.interrupts import Runtime
from tests.lab.interrupts import Scenario
from tests.lab.interrupts import Scene
from tests.lab.steps import Steps
from tests.lab.waiting import eventually

side = matrix.side

SQLITE = matrix.Case("sqlite")


class World(NamedTuple):
    """A driver, how its connections are opened, and how far apart the lines
    are at which a run in short form is interrupted; such a run counts a line
    once, however often it is passed."""

    name: str
    pool_class: Any
    stride: int


CALLERS = World("callers", interrupts.ManualPool, 5)
WORKERS = World("workers", interrupts.Beside, 1)
NETWORK = World("network", interrupts.ManualPool, 31)

#: with whom connections are opened, closed and pinged
WORLDS = [
    pytest.param(SQLITE, CALLERS, id="by-callers"),
    pytest.param(SQLITE, WORKERS, id="by-workers"),
    pytest.param(
        matrix.BOTH[0], NETWORK, id="psycopg", marks=pytest.mark.slow
    ),
]


class TimeLimit(Exception):
    """As a task queue raises it: no mere BaseException."""


@pytest.fixture(autouse=True)
def _nothing_is_kept() -> Iterator[None]:
    """No record of a log keeps a traceback, and collections are quick."""
    logging.disable()
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
    logging.disable(logging.NOTSET)


def everywhere(
    side: matrix.Client,
    world: World,
    scenario: Scenario,
    error: type[BaseException] = KeyboardInterrupt,
    check: Callable[[Scene], object] = Scene.check,
) -> None:
    """Do something again and again, interrupted one line later each time."""
    scene = Scene(side, world.pool_class)
    stride, visits = (1, math.inf) if DURATIONS is LONG else (world.stride, 1)
    at = random.randint(1, stride)
    problems = []
    while place := interrupt(scenario(scene), at, error, visits):
        try:
            check(scene)
        except Exception as problem:
            problems.append(f"{place}: {problem!r}"[:300])
            scene = Scene(side, world.pool_class)
        at += stride
    assert at > 20, "it was interrupted"
    assert not problems, "\n".join(problems)


def interrupt(
    operation: Callable[[], object],
    at: int,
    error: type[BaseException],
    visits: float,
) -> str:
    """Do something, and raise in the middle of it.

    :param visits: how often one and the same line counts.
    :return: where; empty: it was at its end before.
    """

    def tear() -> None:
        raise error

    Runtime.steps = steps = Steps(at, tear, visits=visits, sqlalchemy=True)
    try:
        with steps:
            operation()
    except error:
        assert steps.done
    return steps.where


@pytest.mark.parametrize("side, world", WORLDS, indirect=["side"])
@pytest.mark.parametrize("scenario", interrupts.SCENARIOS)
# one that comes in a finalizer is no concern of the operation's
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_at_any_line_loses_nothing_beyond_one_pass(
    side: matrix.Client, world: World, scenario: Scenario
) -> None:
    if scenario is interrupts.dead and side.server is None:
        pytest.skip("SQLite has no other end that could end a connection")
    everywhere(side, world, scenario)


@pytest.mark.pain("only Exception caught")
@pytest.mark.parametrize("error", [GreenletExit, TimeLimit])
# SQLite has no other end that could end a connection
@pytest.mark.parametrize(
    "scenario",
    [each for each in interrupts.SCENARIOS if each is not interrupts.dead],
)
@pytest.mark.parametrize(
    "side, world",
    [
        pytest.param(SQLITE, CALLERS._replace(stride=29), id="by-callers"),
        pytest.param(SQLITE, WORKERS._replace(stride=29), id="by-workers"),
    ],
    indirect=["side"],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_kind_of_the_interrupt_does_not_matter(
    side: matrix.Client,
    world: World,
    scenario: Scenario,
    error: type[BaseException],
) -> None:
    everywhere(side, world, scenario, error)


@pytest.mark.parametrize("side, world", WORLDS, indirect=["side"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_of_a_return_to_a_disposed_pool_leaves_no_session(
    side: matrix.Client, world: World
) -> None:
    def check(scene: Scene) -> None:
        scene.release()
        scene.engine.dispose()
        gc.collect()
        eventually(lambda: scene.sessions() == 0)

    scenario = interrupts.returning_to_a_disposed_pool
    everywhere(side, world, scenario, check=check)
