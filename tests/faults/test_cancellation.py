"""Tasks cancelled at every await of the pool, one after the other.

A cancellation arrives, whatever the pool is doing; nothing is lost by it; a
connection on whose answer somebody waited is cut, as nobody knows what comes
over it next; and whoever waits is served.
"""

from __future__ import annotations

import random

import pytest

from tests.faults.conftest import DURATIONS
from tests.faults.conftest import LONG
from tests.lab import cancels
from tests.lab import matrix
from tests.lab.awaits import Moment
from tests.lab.cancels import Scenario
from tests.lab.cancels import Scene
from tests.lab.matrix import Case
from tests.lab.matrix import Client

side = matrix.side

#: and about how far apart the awaits are at which a run in short form cancels
CASES = [
    (Case("postgresql+asyncpg", "postgresql"), 1),
    (Case("postgresql+psycopg_async", "postgresql"), 6),
    (Case("postgresql+asyncpg", "postgresql", "tls"), 6),
    (Case("mysql+aiomysql", "mariadb"), 6),
    (Case("sqlite+aiosqlite"), 6),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "side, stride", CASES, indirect=["side"], ids=[str(c) for c, _ in CASES]
)
@pytest.mark.parametrize("scenario", cancels.SCENARIOS)
def test_a_cancellation_at_any_await_loses_nothing(
    side: Client, stride: int, scenario: Scenario
) -> None:
    if side.server is None and scenario in cancels.NEED_A_SERVER:
        pytest.skip("this does not happen to a database in the process")
    if DURATIONS is LONG:
        for moment in Moment:
            everywhere(side, scenario, [moment])
    else:
        everywhere(side, scenario, list(Moment), stride)


def everywhere(
    side: Client, scenario: Scenario, moments: list[Moment], stride: int = 1
) -> None:
    """Do something again and again, cancelled one await later each time."""
    scene = Scene(side)
    at, awaits = 1, None
    while awaits is None or awaits.done:
        awaits = scene.cancel(scenario, at, random.choice(moments))
        try:
            scene.check()
        except AssertionError as problem:
            raise AssertionError(f"{awaits}: {problem}") from problem
        scene.reset()
        assert awaits.done or at > 1, "it awaits something"
        at += random.randint(1, 2 * stride - 1)
