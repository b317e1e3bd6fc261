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
from tests.lab.waiting import eventually

side = matrix.side

both = pytest.mark.parametrize("world", WORLDS)

#: connections that know when they are dead
KNOWING: dict[str, type[Fake]] = {
    "threads": FakeWithHealth,
    "loop": FakeAsyncWithHealth,
}


def test_every_known_pain_has_a_test_that_names_it() -> None:
    named = Counter(
        pain for test in written.tests() for pain in test.marks("pain")
    )
    assert [pain for pain in PAINS if pain not in named] == []
    assert [pain for pain in named if pain not in PAINS] == []
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


@pytest.mark.pain("no lifetime under load")
@both
def test_who_grows_old_while_it_is_asked_is_not_handed_out(world: str) -> None:
    callers = Callers(world, max_lifetime=100.0, pool_pre_ping=True)
    callers.ask()
    callers.give_back()
    callers.world.advance(89.0)
    gate = callers.world.gate()
    callers.database.once("ping", gate)
    asked = callers.ask()
    assert not asked.done
    callers.world.now += 12.0
    gate.open()
    callers.world.settle()
    assert asked.done and asked.error is None
    record = callers.held[0].connection._connection_record
    assert record.taken_at < record.expires_at
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
    # one that nobody needed any more may be on its way
    eventually(lambda: not engine.pool.stats().pool_connecting)
    stats = engine.pool.stats()
    assert stats.requests_num == threads * rounds
    assert stats.pool_in_use == 0
    assert stats.pool_available == stats.pool_size == stats.connections_num
    assert stats.pool_size <= size
    database.check(open=stats.pool_size)
    engine.dispose()
    # some may be closed by who still looks after the queue
    eventually(lambda: not database.open)
    database.check()
