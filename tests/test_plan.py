"""What a pass of upkeep decides, without doing any of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sqla_smartpool.plan import plan
from sqla_smartpool.plan import Seen
from sqla_smartpool.plan import Snapshot
from sqla_smartpool.settings import Settings

NOW = 10_000.0


def seen(
    idle: float = 0.0,
    proof: float = 0.0,
    left: float = 1000.0,
    **more: Any,
) -> Seen:
    """A connection, by the seconds that have passed or are left."""
    record: Any = SimpleNamespace()
    return Seen(record, NOW - idle, NOW + left, NOW - proof, **more)


def records(items: list[Seen]) -> list[Any]:
    return [item.record for item in items]


def test_nothing_is_to_be_done_about_a_healthy_pool() -> None:
    todo = plan(Snapshot([seen(), seen()]), NOW, Settings(min_size=2))
    assert not todo
    assert todo.look_in == 5.0


def test_the_surplus_is_closed_when_unused_for_keep_alive() -> None:
    idle = [seen(idle=901), seen(idle=950), seen(idle=10), seen(idle=899)]
    todo = plan(Snapshot(idle), NOW, Settings(min_size=1))
    assert todo.close == [(idle[1].record, "idle"), (idle[0].record, "idle")]
    # and looks again when the next one is due
    assert todo.look_in == 1.0


@pytest.mark.pain("floor closed and reopened")
def test_the_floor_is_never_closed_for_idleness() -> None:
    idle = [seen(idle=5000) for _ in range(3)]
    for _ in range(100):
        todo = plan(Snapshot(idle), NOW, Settings(min_size=3))
        assert not todo.close and not todo.open and not todo.renew


def test_connections_in_use_count_for_the_floor() -> None:
    busy: list[Any] = [(SimpleNamespace(), NOW + 1000)] * 2
    idle = [seen(idle=1000), seen(idle=1001)]
    todo = plan(Snapshot(idle, busy), NOW, Settings(min_size=3))
    assert todo.close == [(idle[1].record, "idle")]


def test_min_size_0_goes_down_to_nothing() -> None:
    idle = [seen(idle=1000) for _ in range(3)]
    assert len(plan(Snapshot(idle), NOW, Settings()).close) == 3
    assert not plan(Snapshot([]), NOW, Settings())


def test_what_is_missing_to_the_floor_is_opened() -> None:
    settings = Settings(min_size=5)
    assert plan(Snapshot([seen()], opening=1), NOW, settings).open == 3
    dead = [seen(dead=True), seen()]
    todo = plan(Snapshot(dead), NOW, settings)
    assert todo.cut == [dead[0].record]
    assert todo.open == 4


def test_while_connects_fail_upkeep_comes_back_at_its_time() -> None:
    todo = plan(Snapshot([], retry_at=NOW + 2), NOW, Settings(min_size=5))
    assert todo.open == 0
    assert todo.look_in == 2


def test_what_callers_were_in_the_way_of_is_looked_at_again_soon() -> None:
    settings = Settings(min_size=2, check_interval=60)
    opening = plan(Snapshot([], opening=2), NOW, settings)
    suspect = Snapshot([seen(suspect=True)] * 2, waiting=True)
    waiting = plan(suspect, NOW, settings)
    for todo in (opening, waiting):
        assert not todo
        assert todo.look_in == 1.0


def test_old_connections_are_replaced_idle_or_in_use() -> None:
    old = seen(left=-1)
    busy: Any = SimpleNamespace()
    todo = plan(Snapshot([old, seen()], [(busy, NOW)]), NOW, Settings())
    assert todo.renew == [old.record, busy]
    later = plan(Snapshot([seen(left=3)]), NOW, Settings())
    assert later.look_in == 3


def test_pings_come_before_the_proof_of_life_is_too_old() -> None:
    # 30 s is the limit, and the next look is 5 s away
    idle = [seen(proof=24), seen(proof=26), seen(proof=100)]
    todo = plan(Snapshot(idle), NOW, Settings(min_size=3))
    assert todo.ping == [idle[2].record, idle[1].record]


def test_pings_come_in_batches_and_the_next_batch_at_once() -> None:
    idle = [seen(proof=100) for _ in range(25)]
    todo = plan(Snapshot(idle), NOW, Settings(min_size=5, max_size=30))
    assert len(todo.ping) == 10
    assert todo.look_in < 0.1


def test_nothing_is_pinged_more_often_than_half_the_interval() -> None:
    idle = [seen(proof=2), seen(proof=3)]
    todo = plan(Snapshot(idle), NOW, Settings(pre_ping=True))
    assert todo.ping == [idle[1].record]


def test_suspects_are_pinged_however_young_their_proof() -> None:
    idle = [seen(proof=0.1, suspect=True), seen(proof=0.1)]
    assert plan(Snapshot(idle), NOW, Settings()).ping == [idle[0].record]
    left_alone = plan(Snapshot(idle, may_ping=False), NOW, Settings())
    assert not left_alone.ping


def test_nothing_is_taken_away_while_somebody_waits() -> None:
    idle = [seen(idle=5000, proof=5000, left=-1)]
    assert not plan(Snapshot(idle, waiting=True), NOW, Settings())


def test_what_is_beyond_a_lowered_ceiling_is_closed_longest_unused_first() -> (
    None
):
    idle = [seen(idle=i) for i in range(5)]
    todo = plan(Snapshot(idle), NOW, Settings(max_size=2))
    assert todo.close == [
        (item.record, "resize") for item in (idle[4], idle[3], idle[2])
    ]
