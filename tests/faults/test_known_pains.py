"""The mistakes that connection pools are known to have made: each has a test
that names it, here or where it belongs."""

from __future__ import annotations

import ast
from collections import Counter
import inspect
import sys
import threading
from typing import Any
from typing import Callable

import pytest
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError

from sqla_smartpool import upkeep
from tests.lab import matrix
from tests.lab import written
from tests.lab.callers import Callers
from tests.lab.callers import WORLDS
from tests.lab.fake_connections import Error
from tests.lab.fake_connections import Fake
from tests.lab.fake_connections import FakeAsyncWithHealth
from tests.lab.fake_connections import FakeWithHealth
from tests.lab.fake_dbapi import FakeDatabase
from tests.lab.matrix import Client
from tests.lab.matrix import QUIET
from tests.lab.pains import PAINS

side = matrix.side

both = pytest.mark.parametrize("world", WORLDS)

#: connections that know when they are dead
KNOWING: dict[str, type[Fake]] = {
    "threads": FakeWithHealth,
    "loop": FakeAsyncWithHealth,
}
HOUR = 3600.0


def test_every_known_pain_has_a_test_that_names_it() -> None:
    named = Counter(
        pain for test in written.tests() for pain in test.marks("pain")
    )
    assert not [pain for pain in PAINS if pain not in named]
    assert not [pain for pain in named if pain not in PAINS]
    # and none is named where pytest collects nothing
    uses = sum(
        len(node.args)
        for file in written.files()
        for node in ast.walk(written.tree(file))
        if written.is_mark(node, "pain") and isinstance(node, ast.Call)
    )
    assert uses == named.total()


def gated(gate: Any, error: BaseException) -> Callable[[Any], Any]:
    """A step that is held up, and fails then."""

    def act(connection: Any) -> Any:
        waiting = gate(connection)
        if not inspect.isawaitable(waiting):
            raise error

        async def fail() -> None:
            await waiting
            raise error

        return fail()

    return act


@pytest.mark.pain("lost wake-up")
@both
def test_a_connect_that_fails_gives_its_room_to_who_waits(world: str) -> None:
    callers = Callers(world, max_size=1)
    gate = callers.world.gate()
    callers.database.once("connect", gated(gate, Error("by the test")))
    first, second = callers.ask(), callers.ask()
    assert not first.done and not second.done
    gate.open()
    callers.world.settle()
    # no time has passed
    assert isinstance(first.error, DBAPIError)
    assert second.done and second.error is None
    callers.leave()


@pytest.mark.pain("lost wake-up")
@both
def test_a_connect_whose_caller_is_cancelled_serves_who_waits(
    world: str,
) -> None:
    callers = Callers(world, max_size=1)
    gate = callers.world.gate()
    callers.database.once("connect", gate)
    first, second = callers.ask(), callers.ask()
    callers.world.interrupt(first)
    assert first.done and not second.done
    gate.open()
    callers.world.settle()
    assert second.done and second.error is None
    assert callers.database.count("connect") == 1
    callers.leave()


@pytest.mark.pain("check that always fails")
@both
def test_a_health_check_that_always_fails_is_made_when_due_and_no_more(
    world: str,
) -> None:
    callers = Callers(world, min_size=3, max_size=3, ping_after=30.0)
    callers.call("start")
    asked: list[float] = []

    @event.listens_for(callers.engine, "health_check")
    def fail(connection: Any, record: Any) -> None:
        asked.append(callers.world.now)
        raise Error("by the test")

    callers.world.advance(600.0)
    # upkeep looks a little before they are due
    assert 3 * 600 / 30 <= len(asked) <= 3 * 600 / 20
    # a caller's fails once, and then a new connection needs none
    callers.world.advance(29.0)
    del asked[:]
    callers.is_whole(3)
    assert len(asked) <= 3
    callers.leave()


def unused(callers: Callers) -> None:
    callers.world.advance(80.0)


def too_old(callers: Callers) -> None:
    callers.world.advance(200.0)


def killed(callers: Callers) -> None:
    for fake in callers.database.open:
        fake.kill()
    callers.world.advance(60.0)


def drained(callers: Callers) -> None:
    callers.call("drain")
    callers.world.advance(1.0)


@pytest.mark.pain("full for ever")
@both
@pytest.mark.parametrize(
    "end, min_size",
    [(unused, 0), (too_old, 5), (killed, 0), (killed, 5), (drained, 5)],
)
def test_whatever_has_closed_them_there_is_room_again(
    world: str, end: Callable[[Callers], None], min_size: int
) -> None:
    callers = Callers(
        world, min_size=min_size, max_size=5, keep_alive=60.0, max_lifetime=200
    )
    for _ in range(10):
        callers.is_whole(5)
        used = callers.database.open
        end(callers)
        assert not [fake for fake in used if fake.is_open]
        assert callers.pool.stats().pool_size == len(callers.database.open)
    callers.is_whole(5)
    callers.leave()


@pytest.mark.pain("closed in use")
@both
def test_what_is_in_use_is_left_alone_however_long(world: str) -> None:
    callers = Callers(
        world, max_size=2, keep_alive=10.0, max_lifetime=100.0, leak_after=5.0
    )
    callers.ask()
    callers.world.advance(HOUR)
    assert callers.execute().error is None
    assert callers.give_back().error is None
    callers.world.advance(20.0)
    callers.database.check(open=0)
    callers.leave()


@pytest.mark.pain("never used, never closed")
@both
def test_what_nobody_has_ever_used_is_closed_as_any_other(world: str) -> None:
    callers = Callers(world, min_size=10, max_size=10, keep_alive=60.0)
    callers.call("start")
    callers.world.advance(120.0)
    callers.database.check(open=10)
    callers.call("resize", min_size=2)
    callers.world.advance(10.0)
    callers.database.check(open=2)
    # nor does the floor grow older than anything else
    first = callers.database.open
    callers.world.advance(HOUR)
    callers.database.check(open=2)
    assert not [fake for fake in first if fake.is_open]
    callers.leave()


@pytest.mark.pain("no lifetime under load")
@both
def test_a_pool_that_is_always_in_use_hands_out_none_that_is_too_old(
    world: str,
) -> None:
    callers = Callers(world, max_size=3, max_lifetime=30.0)
    ages: list[float] = []

    @event.listens_for(callers.engine, "checkout")
    def checkout(connection: Any, record: Any, fairy: Any) -> None:
        ages.append(callers.world.now - record.born)

    for _ in range(6):
        callers.ask()
    for _ in range(1000):
        callers.world.advance(0.3)
        assert callers.pool.stats().requests_waiting == 3
        callers.give_back()
        callers.ask()
    assert max(ages) < 30.0
    stats = callers.pool.stats()
    assert stats.closed_lifetime == stats.connections_num - 3 >= 3 * 8
    while callers.held:
        callers.give_back()
    callers.leave()


@pytest.mark.pain("storm while down")
@both
@pytest.mark.parametrize("with_callers", [False, True])
def test_ten_minutes_of_a_database_that_is_down_stay_within_the_bucket(
    world: str, with_callers: bool
) -> None:
    callers = Callers(world, min_size=5, max_size=20)
    callers.call("start")
    database = callers.database
    database.always("connect", OSError("down"))
    for fake in database.open:
        fake.kill()
    callers.world.advance(60.0)
    assert callers.pool.stats().pool_size == 0
    before = database.count("connect")
    asked = []
    for _ in range(600):
        if with_callers:
            asked += [callers.ask() for _ in range(6)]
        callers.world.advance(1.0)
    attempts = database.count("connect") - before
    if with_callers:
        assert attempts <= 5 + 10 * 600
        # each is told when the attempt has failed that it waited for
        assert all(one.done and one.error for one in asked)
    else:
        # up to 5 s apart, by chance
        assert 600 / 5 <= attempts <= 600 / 2.5 * 1.5
    database.heal()
    callers.world.advance(6.0)
    database.check(open=5)
    callers.leave()


class Spins(BaseException):
    """What ends a look that is one of too many."""


@pytest.mark.pain("storm while down")
@both
def test_upkeep_does_not_spin_while_callers_take_the_attempts(
    world: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    callers = Callers(world, min_size=2, max_size=4)
    database = callers.database
    database.once("connect", OSError("down"), OSError("down"))
    looks, plan = [], upkeep.plan

    def counted(*args: Any) -> Any:
        looks.append(args)
        if len(looks) > 100:
            raise Spins
        return plan(*args)

    monkeypatch.setattr(upkeep, "plan", counted)
    gate = database.always("connect", callers.world.gate())
    callers.call("start", wait=False)
    callers.world.advance(0.0)
    callers.ask()
    # upkeep would like to try as well, and may not
    callers.pool.upkeep.wake(0.5)
    callers.world.advance(0.9)
    assert database.count("connect") == 2 + 1
    assert len(looks) < 20
    gate.open()
    callers.world.settle()
    assert callers.execute().error is None
    callers.leave()


@pytest.mark.pain("more than the ceiling")
@both
def test_replacements_and_cancelled_connects_keep_to_the_ceiling(
    world: str,
) -> None:
    callers = Callers(
        world, KNOWING[world], min_size=2, max_size=3, max_lifetime=50.0
    )
    database = callers.database
    most = 0

    def look(connection: Any) -> None:
        nonlocal most
        most = max(most, len(database.open) + database.connecting)

    callers.call("start")
    for turn in range(100):
        gate = callers.world.gate()
        if turn % 2:
            for fake in database.open:
                fake.kill()
            database.always("connect", gate)
        asked = [callers.ask() for _ in range(5)]
        if turn % 3 == 0:
            callers.call("drain")
        callers.world.advance(5.0)
        look(None)
        for one in asked:
            if not one.done:
                callers.world.interrupt(one)
        database.always("connect", look)
        gate.open()
        callers.world.settle()
        look(None)
        while callers.held:
            callers.give_back()
        look(None)
    assert most == 3
    assert database.count("connect") > 100
    callers.leave()


class Held:
    """A listener that holds up the first who comes."""

    def __init__(self, side: Client) -> None:
        self._gate = side.gate()
        self.visits = 0
        self.open = self._gate.open

    def __call__(self, *args: Any) -> None:
        self.visits += 1
        if self.visits == 1:
            self._gate.wait()


#: what waits for the network, and what makes the pool do it
STEPS: dict[str, Callable[[Client, Any], Any]] = {
    "health_check": lambda side, engine: side.wait(engine.pool.check()),
    "do_connect": lambda side, engine: side.use(engine, 3),
    "reset": lambda side, engine: side.use(engine, 1),
    "close": lambda side, engine: side.wait(engine.pool.drain()),
}


@pytest.mark.pain("lock across I/O")
@matrix.on(matrix.BOTH)
@pytest.mark.parametrize("step", STEPS)
def test_one_who_waits_for_the_network_keeps_nobody_from_the_pool(
    side: Client, step: str
) -> None:
    engine = side.started(min_size=2, max_size=4, **QUIET)
    pool: Any = engine.pool
    held = Held(side)
    event.listen(engine, step, held)
    job = side.begin(lambda: STEPS[step](side, engine))
    side.eventually(lambda: held.visits, "somebody waits")
    # who had to wait for it would have to until the end of the test
    side.use(engine, 1)
    pool.stats(), pool.holders(), pool.connections(), pool.status()
    side.wait(pool.resize(max_size=5))
    side.use(engine, 1)
    held.open()
    job()
    assert pool.stats().requests_errors == 0


@pytest.mark.pain("upkeep dies")
@both
def test_after_a_day_without_callers_upkeep_still_works(world: str) -> None:
    callers = Callers(world, min_size=2, max_size=2, check_interval=300.0)
    callers.call("start")
    callers.world.advance(25 * HOUR)
    callers.database.check(open=2)
    pings = callers.database.count("ping")
    callers.database.open[0].kill()
    callers.world.advance(600.0)
    assert callers.database.count("ping") > pings
    assert [fake.alive for fake in callers.database.open] == [True, True]
    callers.leave()


@pytest.mark.pain("change unnoticed")
@both
def test_a_new_limit_counts_at_once_and_not_after_the_next_look(
    world: str,
) -> None:
    callers = Callers(
        world,
        min_size=1,
        max_size=4,
        check_interval=24 * HOUR,
        ping_after=HOUR,
    )
    callers.call("start")
    callers.call("resize", min_size=4)
    callers.world.advance(1.0)
    callers.database.check(open=4)
    callers.call("resize", min_size=1, max_size=2)
    callers.world.advance(1.0)
    callers.database.check(open=2)
    callers.world.advance(100.0)
    callers.pool._recycle = 50
    callers.world.advance(1.0)
    assert callers.pool.stats().closed_lifetime == 2
    callers.leave()


@pytest.mark.pain("counts without a lock")
def test_threads_that_switch_at_every_chance_lose_no_count() -> None:
    threads, rounds, size = 8, 300, 3
    database = FakeDatabase()
    engine = database.engine(max_size=size, pool_timeout=matrix.LONG)
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(rounds):
                engine.connect().close()
        except BaseException as error:
            errors.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        sys.setswitchinterval(interval)
    assert not errors
    stats = engine.pool.stats()
    assert stats.requests_num == threads * rounds
    assert stats.pool_in_use == 0
    assert stats.pool_available == stats.pool_size == stats.connections_num
    assert stats.pool_size <= size
    database.check(open=stats.pool_size)
    engine.dispose()
    database.check(open=0)
