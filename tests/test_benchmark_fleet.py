"""The simulated fleet: SmartPool's is the real one, and the others do what
their source says."""

from __future__ import annotations

from typing import Callable

import pytest

from tests.lab.fixtures import missing

try:
    from benchmarks.fleet.pools import Psycopg
    from benchmarks.fleet.pools import Queue
    from benchmarks.fleet.pools import Smart
    from benchmarks.fleet.scenes import deploy
    from benchmarks.fleet.scenes import expiry
    from benchmarks.fleet.scenes import Extent
    from benchmarks.fleet.scenes import outage
    from benchmarks.measure import Turn
except ModuleNotFoundError as error:
    missing(f"{error} (pip install -e '.[test,benchmarks]')")

PROCESSES, SIZE = 5, 20
EXTENT = Extent(PROCESSES, rate=40.0, outage=5.0, lifetime=60.0)


def series(turn: Turn, name: str) -> list[float]:
    assert turn.timeline is not None
    return list(turn.timeline.series[name])


def test_one_seed_is_one_course() -> None:
    first, second = (outage(Smart, EXTENT) for _ in range(2))
    assert first == second


def test_a_deploy_opens_what_was_asked_for_and_no_more() -> None:
    for kind in Smart, Psycopg:
        attempts = series(deploy(kind, EXTENT), "attempts")
        assert sum(attempts) == PROCESSES * SIZE
    attempts = series(deploy(Queue, EXTENT), "attempts")
    assert PROCESSES <= sum(attempts) < PROCESSES * SIZE


def test_while_the_database_is_down_each_pool_tries_as_it_does() -> None:
    down = slice(1, 5)  # whole seconds
    queue = outage(Queue, EXTENT)
    attempts, failed = (
        series(queue, x) for x in ("attempts", "requests failed")
    )
    # one for each request
    assert sum(attempts[down]) == pytest.approx(sum(failed[down]), abs=5)
    # the bucket's ten a second, and a token that is left
    smart = series(outage(Smart, EXTENT), "attempts")
    assert all(5 * PROCESSES < x <= 11 * PROCESSES for x in smart[down])
    # all connections, after a second, two and four: nothing at 4 s
    psycopg = series(outage(Psycopg, EXTENT), "attempts")
    assert sum(psycopg[1:4]) >= PROCESSES * SIZE
    assert psycopg[4] == 0


@pytest.mark.parametrize("kind", [Smart, Psycopg, Queue])
def test_all_serve_again(kind: Callable[..., Smart]) -> None:
    turn = outage(kind, EXTENT)
    assert turn.figures["s until every process serves"] < 10.0
    assert sum(series(turn, "requests failed")[-5:]) == 0


def test_what_was_opened_together_does_not_expire_together() -> None:
    extent = EXTENT._replace(lifetime=600.0)
    cohorts = {
        kind: expiry(kind, extent).figures["largest cohort, % of all"]
        for kind in (Queue, Psycopg, Smart)
    }
    assert cohorts[Queue] > 10.0
    assert cohorts[Smart] < cohorts[Queue] / 3
    assert cohorts[Psycopg] < cohorts[Queue] / 3
