"""Connections that die of idleness tell of a limit; others do not."""

from __future__ import annotations

import logging
import random
from typing import Any

import pytest

from sqla_smartpool.idle_limit import IdleLimit
from tests.lab.callers import Callers
from tests.lab.callers import WORLDS
from tests.lab.fake_connections import FakeAsyncWithHealth
from tests.lab.fake_connections import FakeWithHealth

both = pytest.mark.parametrize("world", WORLDS)

#: how long a firewall between pool and database bears silence, seconds
LIMIT = 12.0
KINDS = {"threads": FakeWithHealth, "loop": FakeAsyncWithHealth}
TOLD = "something closes idle connections"


def die(
    limit: IdleLimit, now: float, *ages: float, width: float = 5.0
) -> None:
    """Have connections of some ages found dead, a look after the last."""
    limit.looked(now - width)
    for age in ages:
        limit.died(now, now - age, True)


def test_what_dies_at_one_age_at_different_times_tells_of_a_limit() -> None:
    limit = IdleLimit()
    for now, age in ((100.0, 352.0), (500.0, 351.0), (900.0, 354.0)):
        assert not limit.ages
        die(limit, now, age, age + 0.5)
    limit.looked(950.0)
    assert limit.ages == (349.5, 351.0)


def test_a_narrower_finding_replaces_the_wider_one() -> None:
    limit = IdleLimit()
    for now, age in ((100.0, 600.0), (800.0, 600.0), (1500.0, 600.0)):
        limit.died(now, now - age, False)
    limit.looked(1600.0)
    assert limit.ages == (0.0, 600.0)
    limit.survived(300.0)
    limit.died(2100.0, 1620.0, False)
    limit.looked(2200.0)
    assert limit.ages == (300.0, 480.0)


def test_what_dies_at_one_time_at_different_ages_tells_of_an_outage() -> None:
    limit = IdleLimit()
    for now in (100.0, 500.0, 900.0, 1300.0):
        die(limit, now, 30.0, 12.0)
    limit.looked(1400.0)
    assert not limit.ages


def test_what_dies_while_connects_fail_or_queries_do_tells_nothing() -> None:
    limit = IdleLimit()
    for now in (100.0, 500.0, 900.0, 1300.0):
        limit.disturbed(now - 2.0)
        die(limit, now, 350.0)
    for now in (2100.0, 2500.0, 2900.0, 3300.0):
        die(limit, now, 350.0)
        limit.disturbed(now + 2.0)
    limit.looked(3400.0)
    assert not limit.ages


def test_who_survives_it_tells_that_there_is_no_limit_any_more() -> None:
    limit = IdleLimit()
    for now in (100.0, 500.0, 900.0):
        die(limit, now, 350.0)
    limit.looked(950.0)
    assert limit.ages
    limit.survived(400.0)
    assert not limit.ages


class Firewall:
    """Kills what was silent for too long."""

    def __init__(self, callers: Callers) -> None:
        self._callers = callers
        self._seen = 0
        self._heard: dict[int, float] = {}

    def stand(self, seconds: int) -> None:
        world, database = self._callers.world, self._callers.database
        for _ in range(seconds):
            world.advance(1.0)
            for _, number in database.calls[self._seen :]:
                self._heard[number] = world.clock()
            self._seen = len(database.calls)
            for each in database.connections:
                heard = self._heard.setdefault(each.number, world.clock())
                if world.clock() - heard >= LIMIT:
                    each.kill()


def told(caplog: pytest.LogCaptureFixture) -> list[Any]:
    return [record for record in caplog.records if TOLD in record.getMessage()]


@both
def test_a_pool_learns_when_to_ping_and_says_so_once(
    world: str, caplog: pytest.LogCaptureFixture
) -> None:
    callers = Callers(world, KINDS[world], min_size=3, max_size=5)
    firewall = Firewall(callers)
    callers.call("start")
    firewall.stand(150)
    (line,) = told(caplog)
    assert line.levelno == logging.WARNING
    assert line.after <= LIMIT <= line.age  # type: ignore[attr-defined]
    settings = callers.pool.settings
    assert settings.ping_after == pytest.approx(
        0.8 * line.age  # type: ignore[attr-defined]
    )
    # none has died since then, nor do they after dispose()
    lost = callers.pool.stats().connections_lost
    assert lost >= 3
    firewall.stand(150)
    assert callers.pool.stats().connections_lost == lost
    callers.call("dispose")
    assert callers.pool.recreate().settings == settings
    callers.leave()


@both
def test_who_has_set_ping_after_is_told_what_to_set(
    world: str, caplog: pytest.LogCaptureFixture
) -> None:
    callers = Callers(
        world, KINDS[world], min_size=3, max_size=5, ping_after=30.0
    )
    callers.call("start")
    Firewall(callers).stand(300)
    (line,) = told(caplog)
    assert "to keep them, set ping_after=" in line.getMessage()
    assert callers.pool.settings.ping_after == 30.0
    callers.leave()


@both
def test_checks_that_always_fail_do_not_come_sooner_and_sooner(
    world: str,
) -> None:
    callers = Callers(world, min_size=3, max_size=5)
    callers.call("start")
    for _ in range(1000):
        callers.world.advance(1.0)
        for each in callers.database.connections:
            each.kill()
    assert callers.pool.stats().checks_failed > 20
    assert callers.pool.settings.ping_after >= 4.0
    callers.leave()


@both
def test_restarts_of_the_server_teach_nothing(
    world: str, caplog: pytest.LogCaptureFixture
) -> None:
    callers = Callers(world, KINDS[world], min_size=3, max_size=5)
    callers.call("start")
    chance = random.Random(1)
    for _ in range(30):
        for _ in range(chance.randrange(30, 90)):
            callers.world.advance(1.0)
            if chance.random() < 0.2:
                callers.ask()
                callers.give_back()
        for each in callers.database.connections:
            each.kill()
    assert callers.pool.stats().connections_lost > 60
    assert not told(caplog)
    assert callers.pool.settings.ping_after == 30.0
    callers.leave()
