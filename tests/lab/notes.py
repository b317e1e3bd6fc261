"""What a :class:`~.machine.PoolMachine` knows of a pool and its callers
without asking the pool."""

from __future__ import annotations

from collections import Counter
import itertools
from typing import Any
from typing import Optional

from sqlalchemy.exc import DBAPIError

from sqla_smartpool import PoolClosedError
from sqla_smartpool import PoolOverloadedError
from sqla_smartpool import PoolTimeoutError
from tests.lab.fake_connections import Error
from tests.lab.fake_connections import Fake
from tests.lab.fake_connections import FakeWithHealth
from tests.lab.fake_connections import FakeWithSocket
from tests.lab.fake_connections import who
from tests.lab.fake_dbapi import driver_connection
from tests.lab.fake_dbapi import FakeDatabase
from tests.lab.world import Actor

#: how long a checkout may take, and a connect; seconds
TIMEOUT = 30.0
#: how long a ping may take, seconds
PING_TIMEOUT = 5.0


class Refused(Error):
    """What a step fails with."""


class Caller:
    """Somebody who wants a connection, has one, or gives it back.

    :param timeout: how long the checkout may take; 0: it does not queue.
    """

    _numbers = itertools.count()

    def __init__(self, pool: Any, since: float, timeout: float) -> None:
        #: in the order in which they began
        self.number = 0
        self.pool, self.since, self.timeout = pool, since, timeout
        self.thread: Any = None
        self.actor: Any = None
        self.connection: Any = None
        self.fake: Optional[Fake] = None
        #: "waiting", "holding", "returning" or "dropped", and then "gone"
        self.state = "waiting"
        #: those who came earlier, but waited on when it was served
        self.overtook: list[int] = []

    def __repr__(self) -> str:
        return f"caller {self.number} ({self.state})"

    def begins(self) -> None:
        self.number, self.thread = next(self._numbers), who()

    @property
    def interrupted(self) -> bool:
        return self.actor is not None and self.actor.interrupted

    @property
    def ends(self) -> float:
        """When it has been served, or refused.

        One that does not queue may have a connection pinged, and then another
        opened for it.
        """
        return self.since + (self.timeout or PING_TIMEOUT + TIMEOUT)


class Notes:
    """The notes, and how they are kept."""

    world: Any
    database: FakeDatabase
    engine: Any
    max_waiting: Optional[int]

    def __init__(self) -> None:
        super().__init__()
        self.callers: list[Caller] = []
        #: what takes longer than a step, other than checkouts
        self.busy: list[Actor] = []
        self.gates: list[Any] = []
        self.faults: set[str] = set()
        self.pools: list[Any] = []
        #: checkouts that have ended, by pool
        self.ended: Counter[Any] = Counter()
        self.totals: dict[Any, int] = {}
        self.begun_before = 0
        self.refused_at = self.closed_at = float("-inf")
        self.closed = self.paused = False
        #: something took so long that it was written off
        self.loose = False

    # -- who is who --------------------------------------------------------

    def _in(self, *states: str) -> list[Caller]:
        return [each for each in self.callers if each.state in states]

    def _one(self, states: str, number: int) -> Caller:
        found = self._in(*states.split())
        return found[number % len(found)]

    def _queue(self, pool: Any) -> list[Caller]:
        threads = [each.signal.owner for each in pool.inventory.waiters]
        return [each for each in self.callers if each.thread in threads]

    def _note_connection(self, connection: Any, record: Any) -> None:
        fake = driver_connection(connection)
        fake.pool, fake.born = record.pool, self.world.now  # type: ignore

    def _note_pool(self) -> None:
        """The engine may have a new one."""
        if self.engine.pool not in self.pools:
            self.pools.append(self.engine.pool)

    def _forget_empty_pools(self) -> None:
        self.pools = [
            pool
            for pool in self.pools
            if pool is self.engine.pool
            or pool.inventory.members
            or pool.inventory.opening
            or pool.inventory.waiters
        ]

    def _note_faults(self) -> None:
        """Until when may a caller be told of a refusal, or a closed pool?"""
        if self.faults:
            self.refused_at = self.world.now
        if self.closed:
            self.closed_at = self.world.now

    # -- who is served, and when -------------------------------------------

    def _on_wait(self, signal: Any) -> None:
        signal.queued = any(
            waiter.signal is signal
            for pool in self.pools
            for waiter in pool.inventory.waiters
        )

    def _on_set(self, signal: Any) -> None:
        if not getattr(signal, "queued", False):
            return
        for caller in self._in("waiting"):
            if caller.thread is signal.owner:
                caller.overtook = [
                    each.number
                    for each in self._queue(caller.pool)
                    if each.number < caller.number
                ]

    # -- how things end ----------------------------------------------------

    def _look_at_callers(self) -> None:
        for caller in self._in("waiting", "returning", "dropped"):
            if caller.actor is None or not caller.actor.done:
                continue
            if caller.state == "waiting":
                self._checkout_ended(caller)
            else:
                self._checkin_ended(caller)
        self.callers = [each for each in self.callers if each.state != "gone"]

    def _checkout_ended(self, caller: Caller) -> None:
        error = caller.actor.error
        if error is None:
            self._served(caller)
            return
        caller.state = "gone"
        if not isinstance(error, Exception):
            assert caller.interrupted, repr(error)
            return
        self.ended[caller.pool] += 1
        self._expect_reason(caller, error)

    def _served(self, caller: Caller) -> None:
        assert not caller.interrupted, "an interruption was swallowed"
        assert not caller.overtook, f"served before {caller.overtook}"
        fairy = caller.connection.connection
        caller.fake = fake = driver_connection(fairy)
        caller.state = "holding"
        self.ended[caller.pool] += 1
        self._own(caller)
        if isinstance(fake, (FakeWithHealth, FakeWithSocket)):
            assert fake.alive, f"{caller} was handed {fake!r}, which is dead"
        age = fairy._connection_record.taken_at - fake.born  # type: ignore
        lifetime = caller.pool.settings.max_lifetime
        assert age < lifetime, f"{fake!r} is {age} s old"

    def _expect_reason(self, caller: Caller, error: Exception) -> None:
        """See that a caller was refused what could not be had."""
        now = self.world.now
        if isinstance(error, PoolOverloadedError):
            assert self.max_waiting is not None
        elif isinstance(error, PoolTimeoutError):
            assert now >= caller.since + caller.timeout - 1e-6, repr(error)
        elif isinstance(error, PoolClosedError):
            assert self.closed or self.closed_at >= caller.since, repr(error)
        else:
            assert isinstance(error, DBAPIError), repr(error)
            assert isinstance(error.orig, Refused), repr(error)
            assert self.refused_at >= caller.since or self.faults, repr(error)

    def _checkin_ended(self, caller: Caller) -> None:
        error = caller.actor.error
        # it may have been cancelled before it could begin
        caller.state = "gone" if caller.connection is None else "holding"
        if error is not None and isinstance(error, Exception):
            trouble = self.faults or self.refused_at >= caller.since
            assert trouble and isinstance(error, DBAPIError), repr(error)
        elif error is not None:
            assert caller.interrupted, repr(error)

    def _own(self, caller: Caller) -> None:
        """Whoever closes or pings its connection now is a stranger."""
        if caller.fake is not None and caller.fake.owner is not None:
            caller.fake.owner = lambda: caller
