"""What a caller is doing when it is interrupted, and what must hold then.

A :class:`Scene` is an engine for which time stands still.  The functions
after it bring it into a state, and return what a caller does then.
"""

from __future__ import annotations

import gc
import sqlite3
from typing import Any
from typing import Callable
from typing import Optional
import weakref

import pytest
from sqlalchemy import event

from sqla_smartpool import SmartPool
from sqla_smartpool.exc import PoolTimeoutError
from sqla_smartpool.record import Record
from sqla_smartpool.tickets import Grant
from sqla_smartpool.tickets import Waiter
from tests.lab import matrix
from tests.lab.manual import ManualRuntime
from tests.lab.steps import Steps
from tests.lab.waiting import eventually

SIZE = 2
CHECK_INTERVAL = 5.0
#: upkeep looks, looks again a second later at what it doubts, and acts
PASS = CHECK_INTERVAL + 1.5


class Runtime(ManualRuntime):
    """The threads of others, and of upkeep, are not interrupted."""

    steps: Optional[Steps] = None

    def step(self, ends: float) -> bool:
        if Runtime.steps is None:
            return super().step(ends)
        with Runtime.steps.elsewhere():
            return super().step(ends)


class ManualPool(SmartPool):
    runtime: Any

    def _new_runtime(self) -> Any:
        return Runtime()


class Beside(ManualPool):
    """Takes its database for one that is reached by a network: connections
    are opened, closed and pinged beside the callers."""

    @property
    def in_process(self) -> bool:
        return False


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
    """An engine, and who has its connections."""

    def __init__(self, side: matrix.Client, pool_class: Any) -> None:
        self.server = side.server
        side.pool_class = pool_class
        self.engine = side.smart(
            max_size=SIZE, check_interval=CHECK_INTERVAL, pool_timeout=2
        )
        self.held: list[Any] = []
        self.waiter: Optional[Waiter] = None
        if self.server is None:
            Tracked.there.clear()
            event.listen(self.engine, "do_connect", self._track)
        else:
            self.server.terminate()
        # what SQLAlchemy does once per engine is no part of the matter
        self.fill()
        self.engine.dispose()

    @staticmethod
    def _track(dialect: Any, record: Any, args: Any, kwargs: Any) -> None:
        kwargs["factory"] = Tracked

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
        """Nothing is lost any more once upkeep has made its pass."""
        pool = self.pool
        self.release()
        gc.collect()
        pool.runtime.advance(PASS)
        if self.waiter is not None:
            assert self.waiter.signal.is_set, "who waited was served"
            outcome = self.waiter.give_up()
            assert isinstance(outcome, (Record, Grant)), "it got something"
            pool.checkout._pass_on(outcome)
            self.waiter = None
        began = pool.runtime.now
        self.hold(SIZE)
        assert pool.runtime.now == began, "nobody had to wait"
        assert pool.stats().pool_in_use == pool.stats().pool_size == SIZE
        self.release()
        pool.runtime.run_jobs()
        stats = pool.stats()
        assert stats.pool_available == stats.pool_size == SIZE
        assert stats.pool_in_use == stats.requests_waiting == 0
        assert stats.pool_connecting == 0
        assert not pool.inventory.tending and not pool.inventory.asked
        assert not pool.inventory._key.locked()
        # the server may take a moment to end what has been closed
        eventually(lambda: self.sessions() == SIZE, message="none besides")
        pool.runtime.advance(3 * PASS)
        assert pool.stats().reclaimed <= 1, "nothing is reclaimed in vain"
        self.engine.dispose()
        eventually(lambda: self.sessions() == 0, message="nothing is left")


Operation = Callable[[], Any]
Scenario = Callable[[Scene], Operation]


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
    scene.pool.runtime.jobs.append(scene.held.pop().close)
    return scene.engine.raw_connection


def full_for_too_long(scene: Scene) -> Operation:
    scene.hold(SIZE)

    def operation() -> None:
        with pytest.raises(PoolTimeoutError):
            scene.engine.raw_connection()

    return operation


def returning(scene: Scene) -> Operation:
    scene.hold(SIZE)
    close: Operation = scene.held.pop().close
    return close


def returning_to_a_waiter(scene: Scene) -> Operation:
    scene.hold(SIZE)
    scene.add_waiter()
    close: Operation = scene.held.pop().close
    return close


def returning_to_retire(scene: Scene) -> Operation:
    scene.hold(SIZE)
    connection = scene.held.pop()
    connection._connection_record.going = "lifetime"
    close: Operation = connection.close
    return close


def returning_to_a_disposed_pool(scene: Scene) -> Operation:
    scene.hold(SIZE)
    close: Operation = scene.held.pop().close
    scene.pool.dispose()
    return close


def invalidating(scene: Scene) -> Operation:
    scene.hold(SIZE)
    invalidate: Operation = scene.held.pop().invalidate
    return invalidate


def checking(scene: Scene) -> Operation:
    scene.fill()
    check: Operation = scene.pool.check
    return check


def draining(scene: Scene) -> Operation:
    scene.fill()
    drain: Operation = scene.pool.drain
    return drain


SCENARIOS = [
    idle,
    suspect,
    dead,
    expired,
    empty,
    full,
    full_for_too_long,
    returning,
    returning_to_a_waiter,
    returning_to_retire,
    invalidating,
    checking,
    draining,
]
