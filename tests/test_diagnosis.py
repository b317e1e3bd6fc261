"""From what is observed to a cause: pure functions, tried with numbers."""

from __future__ import annotations

from datetime import datetime
from datetime import timezone
import json
import re
from types import SimpleNamespace
from typing import Any

import pytest

from sqla_smartpool import Cause
from sqla_smartpool import Holder
from sqla_smartpool.diagnosis import diagnose
from sqla_smartpool.diagnosis import Situation
from sqla_smartpool.lookout import Lookout
from sqla_smartpool.watched import Wait

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


def holder(number: int, seconds: float, **more: Any) -> Holder:
    return Holder(number, NOW, seconds, f"worker-{number}", number, **more)


def held(*seconds: float, **more: Any) -> list[Holder]:
    return [
        holder(number, each, **more) for number, each in enumerate(seconds)
    ]


def test_a_few_holders_far_longer_than_the_usual_use_are_a_leak() -> None:
    seen = Situation(held(300.0, 200.0, 0.01), waiting=1, usual=0.02)
    found = diagnose(seen)
    assert found.cause is Cause.LEAK
    assert "2 of 3 connections" in found.finding
    assert "200.0 to 300.0 s" in found.finding
    assert "0.02 s" in found.finding
    assert "leak_after" in found.remedy


def test_many_short_holders_are_a_backlog() -> None:
    found = diagnose(Situation(held(*[0.03] * 5), waiting=40, usual=0.05))
    assert found.cause is Cause.BACKLOG
    assert "40 callers wait for 5 connections" in found.finding
    assert "max_size" in found.remedy


def test_who_has_given_up_waiting_is_not_told_that_nobody_waits() -> None:
    found = diagnose(Situation(held(*[0.03] * 5), waiting=0, usual=0.05))
    assert found.finding.startswith("5 connections are in use")


def test_an_unused_pool_is_not_said_to_be_too_small() -> None:
    found = diagnose(Situation([], waiting=0))
    assert "nobody waits" in found.finding
    assert "max_size" not in found.remedy


def test_long_holders_who_wait_for_the_database_do_not_leak() -> None:
    slow = held(300.0, 200.0, 100.0, in_database=True)
    found = diagnose(Situation(slow, waiting=4, usual=0.02))
    assert found.cause is Cause.BACKLOG
    assert "3 of these are in the database" in found.finding
    assert "slow queries" in found.remedy


def test_one_long_holder_among_many_short_ones_is_no_leak() -> None:
    found = diagnose(Situation(held(60.0, *[0.01] * 9), 5, usual=0.02))
    assert found.cause is Cause.BACKLOG


@pytest.mark.parametrize(
    "how, told",
    [
        ({"error": "OperationalError: no route"}, "no route"),
        ({"connecting": [7.25, 0.5]}, "2 connects .* up to 7.2 s"),
    ],
)
def test_connects_that_fail_or_hang_are_the_databases_fault(
    how: dict[str, Any], told: str
) -> None:
    found = diagnose(Situation(held(0.01), waiting=3, usual=0.02, **how))
    assert found.cause is Cause.DATABASE
    assert re.search(told, found.finding)
    assert "larger pool does not help" in found.remedy


def test_a_deadlock_and_a_pause_come_before_all_else() -> None:
    seen = held(300.0, 200.0)
    locked = Situation(seen, 2, error="whatever", deadlocked=True)
    assert diagnose(locked).cause is Cause.SELF_DEADLOCK
    paused = Situation(seen, 2, error="whatever", paused=True)
    assert diagnose(paused).cause is Cause.PAUSED
    assert "resume()" in diagnose(paused).remedy


def test_before_any_use_has_ended_there_is_nothing_to_compare_with() -> None:
    found = diagnose(Situation(held(30.0, 20.0), waiting=1))
    assert found.cause is Cause.LEAK
    assert "none has come back before" in found.finding


def test_the_text_stays_under_sixty_lines() -> None:
    place = tuple(f"app.py:{line} in f: code" for line in range(8))
    many = [
        holder(number, 100.0, where=place, taken=place)
        for number in range(1000)
    ]
    text = str(diagnose(Situation(many, waiting=5, usual=0.01)))
    assert len(text.splitlines()) < 59
    assert "and 994 more" in text
    assert "worker-0" in text and "app.py:7" in text


def test_it_can_be_written_as_json() -> None:
    found = diagnose(Situation(held(300.0), waiting=1, usual=0.02))
    back = json.loads(json.dumps(found.as_dict()))
    assert back["cause"] == "leak"
    told = json.loads(json.dumps(found.holders[0].as_dict()))
    assert told["since"] == "2026-01-01T00:00:00.000+00:00"


class Watched:
    """A pool whose one connection is thread 1's."""

    clock = staticmethod(lambda: 1.0)
    full = True

    def __init__(self, *looks: list[Wait], held_since: float = 0.0) -> None:
        self._looks = list(looks)
        self._held_since = held_since

    def waits(self) -> list[Wait]:
        return self._looks.pop(0)

    def in_use(self) -> list[Any]:
        return [SimpleNamespace(who=1, held_since=self._held_since)]


def told_by(watched: Watched) -> list[Any]:
    """What is told of a deadlock."""
    told: list[Any] = []
    lookout = Lookout(watched)  # type: ignore[arg-type]
    lookout._tell_of_deadlock = told.append  # type: ignore[assignment]
    lookout.look_at_waits()
    return told


def test_who_was_served_meanwhile_is_not_in_a_deadlock_with_itself() -> None:
    """Threads go on while one looks at who waits, and then at who holds."""

    def told(*looks: list[Wait]) -> list[Any]:
        return told_by(Watched(*looks))

    mine, others, anew = Wait(1, 0.0), Wait(2, 0.0), Wait(1, 0.1)
    assert told([mine, others], [mine, others])
    # served, and gone since then; or served, and asks again
    assert not told([mine, others], [others])
    assert not told([mine, others], [others, anew])


def test_nobody_is_looked_for_in_a_deadlock_while_connections_are_taken() -> (
    None
):
    """That takes a while where thousands of tasks wait."""
    asked = [Wait(1, 0.5)]
    assert told_by(Watched(asked, asked))
    looked_once = Watched(asked, held_since=0.99)
    assert not told_by(looked_once)


def test_thousands_who_wait_are_not_compared_with_each_other() -> None:
    compared = 0

    class Caller:
        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return self is other

        def __hash__(self) -> int:
            return id(self)

    asked: Any = [Wait(Caller(), 0.0) for _ in range(1_000)]  # type: ignore
    told_by(Watched(asked, asked))
    assert compared <= len(asked)
