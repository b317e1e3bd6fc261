"""Threads torn out of a checkout or a checkin, at every line of it.

Ctrl-C, the kill of a greenlet and the time limit of a task queue raise
between any two instructions, also between taking a connection and keeping
it.  Whatever is lost then comes back with one pass of upkeep.
"""

from __future__ import annotations

import gc
import itertools
import logging
import sqlite3
from typing import Any
from typing import Callable
from typing import Iterator
from typing import Optional
import weakref

from greenlet import GreenletExit
import pytest
from sqlalchemy import event

from sqla_smartpool import SmartPool
from sqla_smartpool.exc import PoolTimeoutError
from sqla_smartpool.record import Record
from sqla_smartpool.tickets import Grant
from sqla_smartpool.tickets import Waiter
from tests.lab import matrix
from tests.lab.injection import Lines
from tests.lab.manual import ManualRuntime
from tests.lab.waiting import eventually

side = matrix.side

CASES = [matrix.BOTH[0], matrix.Case("sqlite")]
SIZE = 2
#: an exception in a finalizer: Python goes on after it
SWALLOWED = "ignore::pytest.PytestUnraisableExceptionWarning"
CHECK_INTERVAL = 5.0
#: upkeep looks, looks again at what it doubts, and acts
PASS = CHECK_INTERVAL + 1.5
TIMEOUT = 20.0


class TimeLimit(Exception):
    """As a task queue raises it: no mere BaseException."""


class Runtime(ManualRuntime):
    """The threads of others, and of upkeep, are not interrupted."""

    lines = Lines()

    def step(self, ends: float) -> bool:
        with Runtime.lines.elsewhere():
            return super().step(ends)


class ManualPool(SmartPool):
    runtime: Any

    def _new_runtime(self) -> Runtime:
        return Runtime()


class Tracked(sqlite3.Connection):
    """Tells whether it is open; one that was collected is not."""

    there: weakref.WeakSet[Tracked] = weakref.WeakSet()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.there.add(self)

    def close(self) -> None:
        self.there.discard(self)
        super().close()


class Scene:
    """An engine for which time stands still, and what surrounds a caller."""

    def __init__(self, side: matrix.Client) -> None:
        self.side, self.server = side, side.server
        side.pool_class = ManualPool
        self.engine = side.smart(
            max_size=SIZE, check_interval=CHECK_INTERVAL, pool_timeout=TIMEOUT
        )
        self.held: list[Any] = []
        self.waiter: Optional[Waiter] = None
        if self.server is None:

            @event.listens_for(self.engine, "do_connect")
            def connect(dialect: Any, record: Any, args: Any, kw: Any) -> None:
                kw["factory"] = Tracked

        else:
            self.server.terminate()
        Tracked.there.clear()
        # what SQLAlchemy does once per engine is not part of the matter
        self.fill()
        self.engine.dispose()

    @property
    def pool(self) -> Any:
        return self.engine.pool

    def sessions(self) -> int:
        if self.server is None:
            return len(Tracked.there)
        return len(self.server.sessions())

    def hold(self, number: int) -> None:
        taken = [self.engine.raw_connection() for _ in range(number)]
        for connection in taken:
            cursor = connection.cursor()
            cursor.execute("SELECT 7")
            assert cursor.fetchone() == (7,)
            cursor.close()
        self.held += taken

    def release(self) -> None:
        while self.held:
            self.held.pop().close()

    def fill(self) -> None:
        self.hold(SIZE)
        self.release()
        self.pool.runtime.run_jobs()

    def add_waiter(self) -> None:
        pool = self.pool
        self.waiter = Waiter(pool.runtime.signal(), pool.runtime.now)
        pool.inventory.post(pool.inventory.enter, self.waiter)

    def check(self) -> None:
        """All is as if nothing had happened, once upkeep has looked."""
        pool: Any = self.pool
        self.release()
        pool.runtime.advance(PASS)
        gc.collect()
        if self.waiter is not None:
            assert self.waiter.signal.is_set, "who waited was served"
            outcome = self.waiter.give_up()
            assert isinstance(outcome, (Record, Grant)), "it got something"
            pool.checkout._pass_on(outcome)
            self.waiter = None
        began = pool.runtime.now
        self.hold(SIZE)
        assert pool.runtime.now == began, "nobody waited"
        assert pool.stats().pool_in_use == pool.stats().pool_size == SIZE
        self.release()
        pool.runtime.run_jobs()
        stats = pool.stats()
        assert stats.pool_in_use == stats.requests_waiting == 0
        assert stats.pool_connecting == 0
        assert not pool.inventory._key.locked()
        assert stats.pool_available == stats.pool_size == SIZE
        assert self.sessions() == SIZE
        pool.runtime.advance(3 * PASS)
        assert pool.stats().reclaimed <= 1, "nothing is reclaimed in vain"
        self.engine.dispose()
        eventually(lambda: self.sessions() == 0, message="nothing is left")


Operation = Callable[[], Any]


def idle(scene: Scene) -> Operation:
    scene.fill()
    return scene.engine.raw_connection


def suspect(scene: Scene) -> Operation:
    scene.fill()
    scene.pool.upkeep.suspect_all()
    return scene.engine.raw_connection


def dead(scene: Scene) -> Operation:
    scene.fill()
    scene.server.terminate()
    return scene.engine.raw_connection


def expired(scene: Scene) -> Operation:
    scene.fill()
    for record in scene.pool.inventory.members:
        record.born -= scene.pool.settings.max_lifetime
        record.judge()
    return scene.engine.raw_connection


def empty(scene: Scene) -> Operation:
    return scene.engine.raw_connection


def full(scene: Scene) -> Operation:
    scene.hold(SIZE)
    held = scene.held.pop()
    scene.pool.runtime.jobs.append(held.close)
    return scene.engine.raw_connection


def too_full(scene: Scene) -> Operation:
    scene.hold(SIZE)

    def operation() -> None:
        with pytest.raises(PoolTimeoutError):
            scene.engine.raw_connection()

    return operation


def returning(scene: Scene) -> Operation:
    scene.hold(SIZE)
    return scene.held.pop().close


def returning_to_a_waiter(scene: Scene) -> Operation:
    scene.hold(SIZE)
    scene.add_waiter()
    return scene.held.pop().close


def returning_to_retire(scene: Scene) -> Operation:
    scene.hold(SIZE)
    connection = scene.held.pop()
    connection._connection_record.going = "lifetime"
    return connection.close


def returning_disposed(scene: Scene) -> Operation:
    scene.hold(SIZE)
    connection = scene.held.pop()
    scene.pool.dispose()
    return connection.close


def invalidating(scene: Scene) -> Operation:
    scene.hold(SIZE)
    connection = scene.held.pop()

    def operation() -> None:
        connection.invalidate()

    return operation


SCENARIOS = [
    idle,
    suspect,
    dead,
    expired,
    empty,
    full,
    too_full,
    returning,
    returning_to_a_waiter,
    returning_to_retire,
    invalidating,
]


@pytest.fixture(autouse=True)
def _nothing_is_kept() -> Iterator[None]:
    """Collections are quick, and no record of a log keeps a traceback."""
    logging.disable()
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
    logging.disable(logging.NOTSET)


def interrupt(
    operation: Operation, at: int, error: type[BaseException]
) -> Optional[str]:
    """Do something, and raise in the middle of it.

    :return: where; None: it was at its end before.
    """
    Runtime.lines = lines = Lines(at, error)
    try:
        with lines:
            operation()
    except error:
        assert lines.place is not None
    return lines.place


def everywhere(
    scene: Scene,
    scenario: Callable[[Scene], Operation],
    error: type[BaseException],
    check: Callable[[Scene], None],
) -> None:
    """Do something again and again, and raise one line later each time."""
    problems = []
    for at in itertools.count(1):
        place = interrupt(scenario(scene), at, error)
        if place is None:
            break
        try:
            check(scene)
        except Exception as problem:
            problems.append(f"{place}: {problem!r}"[:300])
            scene = Scene(scene.side)
    assert at > 20, "it was interrupted"
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("error", [KeyboardInterrupt, GreenletExit, TimeLimit])
@pytest.mark.parametrize("scenario", SCENARIOS)
@matrix.on(CASES)
@pytest.mark.filterwarnings(SWALLOWED)
def test_an_interrupt_at_any_line_loses_nothing_beyond_one_pass(
    side: matrix.Client,
    scenario: Callable[[Scene], Operation],
    error: type[BaseException],
) -> None:
    if scenario is dead and side.server is None:
        pytest.skip("SQLite has no other end that could end a connection")
    everywhere(Scene(side), scenario, error, Scene.check)


@matrix.on(CASES)
@pytest.mark.filterwarnings(SWALLOWED)
def test_an_interrupt_of_a_return_to_a_disposed_pool_leaves_no_session(
    side: matrix.Client,
) -> None:
    def check(scene: Scene) -> None:
        scene.release()
        scene.engine.dispose()
        gc.collect()
        eventually(lambda: scene.sessions() == 0)

    scene = Scene(side)
    everywhere(scene, returning_disposed, KeyboardInterrupt, check)
