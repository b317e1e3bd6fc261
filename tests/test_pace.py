"""How many connects are worth having under way."""

from __future__ import annotations

from dataclasses import dataclass
import math
from typing import Any

import pytest

from sqla_smartpool.pace import Pace

NOW = 100.0


@dataclass(eq=False)
class Member:
    """What is known of a connection's uses; times are in seconds."""

    uses: int = 0
    usage: float = 0.0
    idle_since: float = 0.0
    taken_at: float = -1.0


def used(each: float, number: int = 10) -> Any:
    return Member(uses=number, usage=number * each)


def out_for(seconds: float, before: float = 0.0) -> Any:
    """One that is in use, after ten uses or its first time."""
    member = used(before) if before else Member()
    member.uses += 1
    member.taken_at = NOW - seconds
    return member


def paced(*connects: float) -> Pace:
    """One that has seen the first connect before these began."""
    pace = Pace()
    pace.connected(begun=-10.0, now=-1.0, by_driver=9.0)
    for took in connects:
        pace.connected(begun=0.0, now=took, by_driver=took)
    return pace


@pytest.mark.parametrize(
    "open_now, connect_time, most",
    [(1, 0.01, 10), (10, 0.01, 10), (11, 0.01, 11), (5, 0.12, 30)],
)
def test_as_many_at_a_time_as_are_open_or_ten_or_a_slow_line_delays(
    open_now: int, connect_time: float, most: float
) -> None:
    assert paced(connect_time).most(open_now) == pytest.approx(most)


def test_a_quick_connect_counts_at_once_and_slow_ones_little_by_little() -> (
    None
):
    assert paced(0.5, 0.01).connect_time == 0.01
    assert paced(0.01, 0.5).connect_time == pytest.approx(0.108)
    assert paced(0.01, *[0.5] * 30).connect_time == pytest.approx(0.5, rel=0.1)


def test_those_begun_amid_the_first_tell_what_the_driver_took() -> None:
    pace = Pace()
    for begun in (0.0, 0.9):
        pace.connected(begun, now=1.0 + begun / 10, by_driver=0.05)
        assert pace.connect_time == 0.05
    pace.connected(begun=1.2, now=1.27, by_driver=0.05)
    assert 0.05 < pace.connect_time < 0.07


def test_returns_that_are_sooner_than_a_connect_are_waited_for() -> None:
    pace = paced(0.05)
    five = [used(0.01) for _ in range(5)]
    assert pace.returns_within(20, five, NOW) == pytest.approx(0.04)
    assert pace.returns_within(30, five, NOW) == math.inf


def test_connections_that_were_taken_together_come_back_together() -> None:
    pace = paced(0.015)
    together = [out_for(0.0, 0.01) for _ in range(5)]
    assert pace.returns_within(5, together, NOW) == pytest.approx(0.01)
    # the sixth would have to wait for two uses
    assert pace.returns_within(6, together, NOW) == math.inf
    in_turn = [out_for(0.002 * place, 0.01) for place in range(5)]
    assert pace.returns_within(6, in_turn, NOW) == pytest.approx(0.012)


def test_who_has_a_connection_for_longer_than_any_before_is_no_help() -> None:
    pace = paced(0.05)
    assert pace.returns_within(1, [out_for(0.02, 0.01)], NOW) < 0.03
    assert pace.returns_within(1, [out_for(0.2, 0.01)], NOW) == math.inf


def test_of_connections_that_never_came_back_nothing_is_known() -> None:
    assert paced(0.05).returns_within(1, [out_for(0.001)], NOW) == math.inf
