"""Mistakes of listeners, creators and drivers cost no connection, no room
and no upkeep."""

from __future__ import annotations

import logging
from typing import Any
from typing import Callable
from typing import Optional

import pytest
from sqlalchemy import event

from sqla_smartpool import deadline
from sqla_smartpool import PoolTimeoutError
from tests.lab.callers import Callers
from tests.lab.callers import WORLDS
from tests.lab.fake_connections import Disconnected
from tests.lab.fake_connections import Error
from tests.lab.fake_connections import Fake
from tests.lab.fake_connections import FakeAsyncWithHealth
from tests.lab.fake_connections import FakeWithHealth
from tests.lab.fake_connections import FakeWithSocket
from tests.lab.fake_dbapi import driver_connection

both = pytest.mark.parametrize("world", WORLDS)


class Mistake(Exception):
    """What a listener raises."""


class Exit(BaseException):
    """What ends a program, or a greenlet."""


def timed_out(callers: Callers) -> None:
    while len(callers.held) < 2:
        callers.ask()

    def job() -> None:
        with deadline(1.0):
            callers.engine.connect()

    asked = callers.do(job)
    callers.world.advance(2.0)
    # what is the matter with the pool, not with the listener
    assert isinstance(asked.error, (PoolTimeoutError, Exit)), asked.error


def no_connect(callers: Callers) -> None:
    callers.database.once("connect", OSError("down"))
    callers.call("drain")
    callers.world.advance(10.0)


def used(callers: Callers) -> None:
    callers.ask()
    if callers.held:
        callers.execute()
        callers.give_back()


def with_held(step: Callable[[Any], Any]) -> Callable[[Callers], None]:
    def provoke(callers: Callers) -> None:
        callers.ask()

        def job() -> None:
            held = callers.held.pop()
            try:
                step(held)
            finally:
                held.close()

        callers.do(job)

    return provoke


def drained(callers: Callers) -> None:
    callers.call("drain")


def leaked(callers: Callers) -> None:
    callers.ask()
    callers.world.advance(60.0)


def rested(callers: Callers) -> None:
    used(callers)
    callers.world.advance(60.0)


def pooled(callers: Callers) -> list[Fake]:
    return [
        driver_connection(record.dbapi_connection)
        for record in callers.pool.inventory.members
    ]


#: what makes an event fire
PROVOKE: dict[str, Callable[[Callers], None]] = {
    "first_connect": used,
    "connect": used,
    "checkout": used,
    "checkin": used,
    "reset": used,
    "invalidate": with_held(lambda held: held.invalidate()),
    "soft_invalidate": with_held(
        lambda held: held.connection.invalidate(soft=True)
    ),
    "close": drained,
    "detach": with_held(lambda held: held.detach()),
    "close_detached": with_held(lambda held: held.detach()),
    "health_check": rested,
    "retire": drained,
    "connect_failed": no_connect,
    "checkout_timeout": timed_out,
    "leak": leaked,
}


@pytest.mark.pain("only Exception caught")
@both
@pytest.mark.parametrize("error", [Mistake, Exit])
@pytest.mark.parametrize("name", PROVOKE)
def test_a_listener_that_raises_costs_no_connection_and_no_room(
    name: str, world: str, error: type[BaseException]
) -> None:
    callers = Callers(world, max_size=2, leak_after=30.0)
    raised: list[str] = []

    def listen(*arguments: Any) -> None:
        if len(raised) < 3:
            raised.append(name)
            raise error("the listener's")

    if name not in ("connect", "first_connect"):
        used(callers)
    event.listen(callers.engine, name, listen)
    # twice: what it did to the first might only be met by the second
    PROVOKE[name](callers)
    PROVOKE[name](callers)
    assert raised
    raised += [name] * 3
    while callers.held:
        callers.give_back()
    callers.world.advance(30.0)
    callers.database.check()
    callers.is_whole(2)
    # Exit ends whoever meets it
    if error is Exit:
        callers.world.failures.clear()
    if name == "close_detached":
        for fake in callers.database.open:
            # SQLAlchemy closes it after the event; it is not the pool's
            fake.is_open = fake in pooled(callers)
    callers.leave()


@both
def test_a_checkin_that_a_listener_interrupts_serves_who_waits(
    world: str,
) -> None:
    callers = Callers(world, max_size=1, pool_timeout=30.0)
    callers.ask()
    waiting = callers.ask()

    @event.listens_for(callers.engine, "checkin", once=True)
    def listen(*arguments: Any) -> None:
        raise Mistake("the listener's")

    assert isinstance(callers.give_back().error, Mistake)
    # the record never came back; upkeep finds it
    callers.world.advance(10.0)
    assert waiting.done and waiting.error is None
    callers.leave()


@both
def test_a_connection_whose_invalidation_failed_is_not_handed_out_again(
    world: str,
) -> None:
    callers = Callers(world, max_size=1)
    callers.ask()

    @event.listens_for(callers.engine, "invalidate", once=True)
    def listen(*arguments: Any) -> None:
        raise Mistake("the listener's")

    callers.do(lambda: callers.held[0].connection.invalidate())
    callers.give_back()
    callers.ask()
    assert callers.database.count("connect") == 2
    callers.leave()


HEALTH = {"threads": FakeWithHealth, "loop": FakeAsyncWithHealth}


@both
def test_a_creator_that_returns_a_dead_connection_is_a_connect_that_fails(
    world: str,
) -> None:
    callers = Callers(world, HEALTH[world], max_size=2, pool_timeout=30.0)
    database = callers.database

    def dead(connection: Any) -> None:
        getattr(connection, "driver_connection", connection).kill()

    connect = database.connect

    def creator() -> Any:
        connection = connect()
        dead(connection)
        return connection

    database.connect = creator  # type: ignore[method-assign]
    asked = callers.ask()
    # told at once, and not after a storm of further connects
    assert asked.done and isinstance(asked.error, ConnectionError)
    for _ in range(20):
        callers.ask()
    callers.world.advance(30.0)
    assert database.count("connect") < 5 + 10 * 30
    database.check(open=0)
    database.connect = connect  # type: ignore[method-assign]
    callers.world.advance(10.0)
    callers.is_whole(2)
    callers.leave()


@both
def test_a_creator_that_returns_a_connection_again_gets_no_second_owner(
    world: str,
) -> None:
    callers = Callers(world, max_size=2)
    database, connect = callers.database, callers.database.connect
    made: list[Any] = []

    def creator() -> Any:
        if not made:
            made.append(connect())
        return made[0]

    database.connect = creator  # type: ignore[method-assign]
    callers.ask()
    second = callers.ask()
    assert second.done and "already" in str(second.error)
    # who had it first goes on with it
    assert callers.execute().error is None
    assert callers.give_back().error is None
    database.connect = connect  # type: ignore[method-assign]
    callers.world.advance(10.0)
    callers.is_whole(2)
    callers.leave()


@pytest.mark.pain("only Exception caught")
@both
@pytest.mark.parametrize("error", [Error, Disconnected, OSError, Exit])
def test_a_rollback_that_fails_on_return_frees_the_room(
    world: str, error: type[BaseException]
) -> None:
    callers = Callers(world, max_size=1)
    callers.ask()
    waiting = callers.ask()
    callers.database.once("rollback", error("by the test"))
    callers.give_back()
    # the next one gets another connection, at once
    assert waiting.done and waiting.error is None
    callers.database.check(open=1)
    assert callers.database.count("connect") == 2
    assert callers.pool.stats().returns_bad == 1
    callers.leave()


def hanging(world: str, socket: bool, **options: Any) -> Callers:
    kind: Optional[type[Fake]] = FakeWithSocket if socket else None
    return Callers(world, kind, ping_timeout=5.0, **options)


REACHES = [("threads", True), ("threads", False), ("loop", False)]


@pytest.mark.parametrize("world, socket", REACHES)
def test_a_close_that_hangs_keeps_upkeep_for_no_longer_than_a_ping(
    world: str, socket: bool
) -> None:
    callers = hanging(world, socket, min_size=3, max_size=6, keep_alive=60.0)
    callers.call("start")
    for _ in range(6):
        callers.ask()
    while callers.held:
        callers.give_back()
    gate = callers.world.gate()
    callers.database.always("close", gate)
    # three are surplus, and all workers close one
    callers.world.advance(80.0)
    assert callers.pool.stats().closed_idle == 3
    # upkeep goes on: what dies is replaced
    database = callers.database
    for fake in database.connections:
        fake.kill()
    pinged = database.count("ping")
    callers.world.advance(60.0)
    assert database.count("ping") > pinged
    alive = [fake for fake in database.open if fake.alive]
    assert len(alive) == 3
    gate.open()
    database.heal()
    callers.world.advance(10.0)
    assert len(database.open) == 3
    callers.leave()


@pytest.mark.parametrize("world, socket", REACHES)
def test_a_close_that_hangs_holds_no_caller_up(
    world: str, socket: bool
) -> None:
    callers = hanging(world, socket, max_size=1, pool_timeout=30.0)
    used(callers)
    callers.database.connections[0].kill()
    gate = callers.world.gate()
    callers.database.always("close", gate)
    callers.world.advance(3.0)
    # the caller finds it dead, and has to get rid of it
    asked = callers.ask()
    callers.world.advance(6.0)
    assert asked.done and asked.error is None
    gate.open()
    callers.database.heal()
    callers.leave()


@pytest.mark.pain("upkeep dies")
@both
@pytest.mark.parametrize("part", ["_decide", "_carry_out", "ping"])
def test_a_pass_that_raises_is_logged_once_and_upkeep_goes_on(
    world: str, part: str, caplog: pytest.LogCaptureFixture
) -> None:
    callers = Callers(world, min_size=1, max_size=2, ping_after=10.0)
    callers.call("start")
    pool = callers.pool
    room = pool.chores if part == "ping" else pool.upkeep
    own = getattr(room, part)

    def fail(*arguments: Any) -> Any:
        setattr(room, part, own)
        raise Mistake("of the pool's")

    setattr(room, part, fail)
    caplog.set_level(logging.ERROR)
    callers.world.advance(30.0)
    told = [each for each in caplog.records if each.exc_info]
    told = [each for each in told if "of the pool's" in caplog.text]
    assert len(told) == 1
    assert pool.inventory.counts["_failed_passes"] == 1
    # it goes on
    pings = callers.database.count("ping")
    assert pings
    callers.database.connections[0].kill()
    callers.world.advance(30.0)
    assert callers.database.count("ping") > pings
    assert [fake.alive for fake in callers.database.open] == [True]
    callers.leave()
