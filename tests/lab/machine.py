"""A pool as a machine that Hypothesis drives, and what must always hold.

A :class:`PoolMachine` does to a pool, in a world of :mod:`.worlds`, whatever
programs, databases and operators do, in any order.  After each step it
compares the pool with its own notes and with the books of the fake database.
"""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
import gc
import itertools
import logging
import sys
from typing import Any
from typing import Callable
from typing import Optional
import warnings
import weakref

from hypothesis import strategies as st
from hypothesis.stateful import initialize
from hypothesis.stateful import invariant
from hypothesis.stateful import precondition
from hypothesis.stateful import rule
from hypothesis.stateful import RuleBasedStateMachine
from sqlalchemy import event
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from sqla_smartpool import deadline
from sqla_smartpool import PoolClosedError
from sqla_smartpool import PoolOverloadedError
from sqla_smartpool import PoolTimeoutError
from sqla_smartpool._sqlalchemy import await_
from sqla_smartpool.fork import start_anew
from tests.lab.fake_connections import Error
from tests.lab.fake_connections import Fake
from tests.lab.fake_connections import who
from tests.lab.fake_dbapi import driver_connection
from tests.lab.fake_dbapi import FakeDatabase
from tests.lab.worlds import Actor
from tests.lab.worlds import Job

ONE = text("SELECT 1")
#: how long a checkout may take, seconds
TIMEOUT = 30.0
#: how long after the end of all trouble everybody has been served, seconds
SOON = 10.0

some_one = st.integers(0, 5)
names = st.sampled_from(["connect", "ping", "rollback", "close"])
seconds = st.sampled_from([0.02, 0.3, 1.5, 6.0, 31.0, 130.0, 1000.0, 4000.0])
sizes = st.integers(1, 4)


class Refused(Error):
    """What a step fails with."""


class Caller:
    """Somebody who wants a connection, has one, or gives it back."""

    _numbers = itertools.count()

    def __init__(self, pool: Any, since: float, timeout: float) -> None:
        self.number = next(self._numbers)
        self.pool, self.since, self.timeout = pool, since, timeout
        self.thread: Any = None
        self.actor: Any = None
        self.connection: Any = None
        self.fake: Optional[Fake] = None
        self.state = "waiting"
        self.interrupted = False
        #: those who came earlier, but waited on when it was served
        self.overtook: list[int] = []

    def __repr__(self) -> str:
        return f"caller {self.number} ({self.state})"


class PoolMachine(RuleBasedStateMachine):
    """The rules; what the world is, a subclass tells."""

    #: class of the world
    world_class: Any
    #: kinds of connections
    kinds: list[type[Fake]]

    def __init__(self) -> None:
        super().__init__()
        # a collection would run the pool's code in the test itself
        gc.disable()
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

    @initialize(
        seed=st.integers(0, 2**16),
        kind=some_one,
        min_size=st.integers(0, 2),
        max_size=sizes,
        pool_use_lifo=st.booleans(),
        ping_after=st.sampled_from([30.0, 0.0]),
        reconnect_timeout=st.sampled_from([0.0, 5.0]),
        max_connecting=st.sampled_from([None, 1]),
        max_waiting=st.sampled_from([None, None, 2]),
    )
    def set_up(
        self, seed: int, kind: int, min_size: int, max_size: int, **more: Any
    ) -> None:
        self.world = self.world_class(seed)
        self.world.on_wait, self.world.on_set = self._on_wait, self._on_set
        self.database = FakeDatabase(
            self.world.asynchronous, self.kinds[kind % len(self.kinds)]
        )
        self.max_waiting = more["max_waiting"]
        engine = self.database.engine(
            poolclass=self.world.pool_class,
            _runtime=None if self.world.asynchronous else self.world,
            min_size=min(min_size, max_size),
            max_size=max_size,
            pool_timeout=TIMEOUT,
            **more,
        )
        self.engine = getattr(engine, "sync_engine", engine)
        event.listen(self.engine, "connect", self._note_pool)
        self.pools.append(self.engine.pool)

    # -- what programs do --------------------------------------------------

    @rule(timeout=st.sampled_from([TIMEOUT, TIMEOUT, 2.0, 0.0]))
    def checkout(self, timeout: float) -> None:
        caller = Caller(self.engine.pool, self.world.now, timeout)
        queue = self._queue(caller.pool)
        self.callers.append(caller)

        def job() -> None:
            caller.thread = who()
            limit = nullcontext() if timeout == TIMEOUT else deadline(timeout)
            with limit:
                caller.connection = self.engine.connect()

        caller.actor = self.world.begin(job)
        self._look_at_callers()
        if caller.state == "holding":
            left = [each for each in queue if each in self._queue(caller.pool)]
            assert not left, f"a newcomer was served before {left}"

    @precondition(lambda self: self._in("holding"))
    @rule(number=some_one)
    def checkin(self, number: int) -> None:
        self._give_back(self._one("holding", number))

    @precondition(lambda self: self._in("holding"))
    @rule(number=some_one)
    def drop(self, number: int) -> None:
        """A connection that is collected comes back, or is ended."""
        caller = self._one("holding", number)

        def job() -> None:
            # a cycle with its transaction keeps it; a collection must not be
            # held up in the middle
            vars(caller.connection).clear()

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._give_back(caller, job, "dropped")

    @precondition(lambda self: self._in("holding"))
    @rule(number=some_one)
    def use(self, number: int) -> None:
        caller = self._one("holding", number)
        if caller.fake is not None and caller.fake.alive:
            actor = self._begin_with(caller, self._execute(caller))
            assert actor.done and actor.error is None
            self._own(caller)
        else:
            self.fail(number)

    @precondition(lambda self: self._in("holding"))
    @rule(number=some_one)
    def fail(self, number: int) -> None:
        """A query meets a disconnect."""
        caller = self._one("holding", number)
        if caller.fake is None:
            return
        caller.fake.kill()

        def job() -> None:
            try:
                self._execute(caller)()
            except DBAPIError as error:
                assert error.connection_invalidated
            else:
                raise AssertionError("the query did not meet it")
            finally:
                caller.connection.close()

        self._give_back(caller, job)

    @precondition(lambda self: self._in("waiting", "returning"))
    @rule(number=some_one)
    def cancel(self, number: int) -> None:
        """A task is cancelled, or a thread interrupted, wherever it waits."""
        caller = self._one("waiting returning", number)
        caller.interrupted = True
        self.world.interrupt(caller.actor)
        self._look_at_callers()

    def _execute(self, caller: Caller) -> Job:
        return lambda: caller.connection.execute(ONE)

    def _give_back(
        self,
        caller: Caller,
        job: Optional[Job] = None,
        state: str = "returning",
    ) -> None:
        def close() -> None:
            try:
                caller.connection.close()
            except DBAPIError:  # its rollback failed; it is still there
                caller.connection.close()

        def give_back() -> None:
            try:
                (job or close)()
            finally:
                caller.connection = None

        caller.state = state
        caller.actor = self._begin_with(caller, give_back, state == "dropped")
        self._look_at_callers()

    def _begin_with(
        self, caller: Caller, job: Job, outside: bool = False
    ) -> Actor:
        fake = caller.fake

        def own() -> None:
            if fake is not None and fake.owner is not None:
                fake.owner = weakref.ref(who())
            job()

        actor: Actor = self.world.begin(own, outside)
        return actor

    def _own(self, caller: Caller) -> None:
        """Whoever closes or pings it now is a stranger."""
        if caller.fake is not None and caller.fake.owner is not None:
            caller.fake.owner = lambda: caller

    # -- what databases and clocks do --------------------------------------

    @precondition(lambda self: self.database.open)
    @rule(number=some_one)
    def kill(self, number: int) -> None:
        """A connection dies at the other end."""
        open_ones = self.database.open
        open_ones[number % len(open_ones)].kill()

    @rule(name=names, hangs=st.booleans())
    def break_down(self, name: str, hangs: bool) -> None:
        """Steps of one kind hang or fail from now on."""
        self.faults.add(name)
        if not hangs:
            self.database.always(name, _refuse)
            return
        self.gates.append(self.world.gate())
        self.database.always(name, self.gates[-1])

    @precondition(lambda self: self.faults)
    @rule()
    def heal(self) -> None:
        self._note_faults()
        self.faults.clear()
        self.database.heal()
        for gate in self.gates:
            gate.open()
        self.gates.clear()
        self.world.settle()

    @rule(seconds=seconds)
    def tick(self, seconds: float) -> None:
        self.loose = self.loose or bool(self.gates)
        self._note_faults()
        self.world.advance(seconds)
        self._note_faults()

    @rule(seconds=seconds)
    def oversleep(self, seconds: float) -> None:
        """The process is stopped for a while."""
        self.loose = self.loose or bool(self.gates)
        self.world.now += seconds
        self.world.advance(0.0)
        self._note_faults()

    def _note_faults(self) -> None:
        """Until when may a caller be told of a refusal, or a closed pool?"""
        if self.faults:
            self.refused_at = self.world.now
        if self.closed:
            self.closed_at = self.world.now

    # -- what operators do -------------------------------------------------

    @rule(min_size=st.integers(0, 2), max_size=sizes)
    def resize(self, min_size: int, max_size: int) -> None:
        least = min(min_size, max_size)
        self._operate(lambda pool: pool.resize(least, max_size))

    @rule()
    def drain(self) -> None:
        self._operate(lambda pool: pool.drain())

    @rule()
    def check(self) -> None:
        self._operate(lambda pool: pool.check())

    @precondition(lambda self: not self.closed)
    @rule()
    def pause(self) -> None:
        self.paused = True
        self._operate(lambda pool: pool.pause())

    @precondition(lambda self: self.paused)
    @rule()
    def resume(self) -> None:
        self.paused = False
        self._operate(lambda pool: pool.resume())

    @rule(timeout=st.sampled_from([0.0, 10.0]))
    def stop(self, timeout: float) -> None:
        self.closed, self.paused = True, False
        self.closed_at = self.world.now
        self._operate(lambda pool: pool.stop(timeout))

    @rule()
    def start(self) -> None:
        self._note_faults()
        self.paused = self.paused and not self.closed
        self.closed = False
        self._operate(lambda pool: pool.start(wait=False))

    @rule()
    def dispose(self) -> None:
        self._note_faults()
        self.closed = self.paused = False
        self._operate(lambda pool: self.engine.dispose())
        self.pools.append(self.engine.pool)

    @rule()
    def fork(self) -> None:
        """What the fork hook does, in a child, to which no thread came."""
        self.world.fork()
        self.callers = self._in("holding")
        for caller in self.callers:
            caller.fake = None
        self.busy.clear()
        self.gates.clear()
        self.faults.clear()
        self.database.heal()
        self.database.connecting = 0
        self.begun_before = self.database.count("connect")
        for fake in self.database.open:
            fake.is_open = False  # from here on, every use is a mistake
            fake.owner = None
        for pool in self.pools:
            start_anew(pool)
        self.ended.clear()
        self.totals.clear()
        self.closed = self.paused = self.loose = False
        self._forget_empty_pools()

    def _operate(
        self, operation: Callable[[Any], Any], pool: Any = None
    ) -> None:
        pool = pool or self.engine.pool

        def job() -> None:
            result = operation(pool)
            if hasattr(result, "__await__"):
                await_(result)

        actor = self.world.begin(job)
        if not actor.done:
            self.busy.append(actor)
        else:
            assert actor.error is None, repr(actor.error)

    # -- notes -------------------------------------------------------------

    def _in(self, *states: str) -> list[Caller]:
        return [each for each in self.callers if each.state in states]

    def _one(self, states: str, number: int) -> Caller:
        found = self._in(*states.split())
        return found[number % len(found)]

    def _note_pool(self, connection: Any, record: Any) -> None:
        driver_connection(connection).pool = record.pool  # type: ignore

    def _queue(self, pool: Any) -> list[Caller]:
        threads = [each.signal.owner for each in pool.inventory.waiters]
        return [each for each in self.callers if each.thread in threads]

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

    def _look_at_callers(self) -> None:
        for caller in self._in("waiting", "returning", "dropped"):
            if caller.actor is None or not caller.actor.done:
                continue
            if caller.state == "waiting":
                self._checkout_ended(caller)
            else:
                self._checkin_ended(caller)
                caller.state = "gone"
        self.callers = [each for each in self.callers if each.state != "gone"]

    def _checkout_ended(self, caller: Caller) -> None:
        error, now = caller.actor.error, self.world.now
        if error is None:
            assert not caller.interrupted, "an interruption was swallowed"
            assert not caller.overtook, f"served before {caller.overtook}"
            caller.fake = driver_connection(caller.connection.connection)
            caller.state = "holding"
            self.ended[caller.pool] += 1
            self._own(caller)
            return
        caller.state = "gone"
        if not isinstance(error, Exception):
            assert caller.interrupted, repr(error)
            return
        self.ended[caller.pool] += 1
        if isinstance(error, PoolOverloadedError):
            assert self.max_waiting is not None
        elif isinstance(error, PoolTimeoutError):
            assert now >= caller.since + caller.timeout - 1e-6, repr(error)
        elif isinstance(error, PoolClosedError):
            assert self.closed_at >= caller.since, repr(error)
        else:
            assert isinstance(error, DBAPIError), repr(error)
            assert isinstance(error.orig, Refused), repr(error)
            assert self.refused_at >= caller.since or self.faults, repr(error)

    def _checkin_ended(self, caller: Caller) -> None:
        error = caller.actor.error
        if error is not None and isinstance(error, Exception):
            trouble = self.faults or self.refused_at >= caller.since
            assert trouble and isinstance(error, DBAPIError), repr(error)
        elif error is not None:
            assert caller.interrupted, repr(error)

    def _forget_empty_pools(self) -> None:
        self.pools = [
            pool
            for pool in self.pools
            if pool is self.engine.pool
            or pool.inventory.members
            or pool.inventory.opening
            or pool.inventory.waiters
        ]

    # -- what must hold ----------------------------------------------------

    @invariant()
    def all_is_well(self) -> None:
        self.the_books_are_right()
        self.every_connection_is_somewhere()
        self.there_are_never_too_many()
        self.nobody_waits_in_vain()
        self.nobody_waits_for_longer_than_allowed()
        self.the_numbers_add_up()

    def the_books_are_right(self) -> None:
        self.world.settle()
        self._look_at_callers()
        self.database.check()
        assert not self.world.failures, self.world.failures
        for actor in [each for each in self.busy if each.done]:
            assert actor.error is None, repr(actor.error)
            self.busy.remove(actor)

    def every_connection_is_somewhere(self) -> None:
        members = {
            id(driver_connection(record.dbapi_connection))
            for pool in self.pools
            for record in pool.inventory.members
            if record.dbapi_connection is not None
        }
        for fake in self.database.open:
            # one that did not answer is closed by whoever still waits for it
            if not fake.under_way == "ping":
                assert id(fake) in members, f"{fake!r} is lost"
        opening = sum(len(pool.inventory.opening) for pool in self.pools)
        assert opening <= self.database.connecting

    def there_are_never_too_many(self) -> None:
        for pool in self.pools:
            inventory = pool.inventory
            open_ones = sum(
                getattr(fake, "pool", None) is pool
                for fake in self.database.open
            )
            kept = sum(each.going is None for each in inventory.members)
            total = len(inventory.opening)
            total += kept if self.loose else open_ones
            most = max(pool.settings.max_size, self.totals.get(pool, 0))
            assert total <= most, f"{total} of {most}"
            self.totals[pool] = total

    def nobody_waits_in_vain(self) -> None:
        for pool in self.pools:
            inventory = pool.inventory
            queue = inventory.waiters
            assert len(queue) == len(self._queue(pool)), "a ghost waits"
            if not queue or inventory.paused:
                continue
            assert not inventory.idle, "waits beside an idle connection"
            now, limit = self.world.now, pool.settings.max_connecting
            young = sum(now - each.begun < 1.0 for each in inventory.opening)
            # what is just being pinged may be free in a moment
            young += sum(now - when < 0.1 for when in inventory.asked.values())
            may_open = (
                len(queue) > young
                and not inventory.backoff.failing
                and (limit is None or len(inventory.opening) < limit)
            )
            assert not may_open or inventory.room <= 0, "waits beside room"

    def nobody_waits_for_longer_than_allowed(self) -> None:
        for pool in self.pools:
            for caller in self._queue(pool):
                late = self.world.now - caller.since - caller.timeout
                assert late <= 0, f"{caller} is {late} s late"

    def the_numbers_add_up(self) -> None:
        begun = 0
        for pool in self.pools:
            stats = pool.stats()
            numbers = [
                number
                for number in vars(stats).values()
                if isinstance(number, (int, float))
            ]
            assert min(numbers) >= 0, stats
            tended = len(pool.inventory.tending)
            known = stats.pool_available + stats.pool_in_use + tended
            assert stats.pool_size == known, stats
            holders = [
                each
                for each in self._in("holding", "returning", "dropped")
                if each.pool is pool and each.fake is not None
            ]
            assert stats.pool_in_use == len(holders), (stats, holders)
            assert stats.requests_num == self.ended[pool], stats
            assert stats.reclaimed == 0, "a connection was lost"
            assert not pool.inventory.counts["_failed_passes"], stats
            begun += stats.connections_num
        if len(self.pools) == 1:
            so_far = self.database.count("connect") - self.begun_before
            assert begun <= so_far

    # -- the end -----------------------------------------------------------

    def teardown(self) -> None:
        gc.enable()
        if sys.exc_info()[0] is None:  # or nothing is well already
            self._end_well()
            self.world.close()

    def _end_well(self) -> None:
        """All trouble is over, and everybody goes home: nothing is lost."""
        if self.faults:
            self.heal()
        if self.closed:
            self.start()
        for pool in self.pools:  # one may have been disposed of while paused
            self._operate(lambda pool: pool.resume(), pool)
        over_at = self.world.now
        in_time = [
            each
            for each in self._in("waiting")
            if each.since + each.timeout > over_at + SOON
            and not each.interrupted
        ]
        for _ in range(int(SOON / 0.5)):
            for caller in self._in("holding"):
                self._give_back(caller)
            self.world.advance(0.5)
            self.all_is_well()
        assert not self.callers, self.callers
        for caller in in_time:
            assert not isinstance(caller.actor.error, PoolTimeoutError)
        assert not self.busy, "somebody has not ended"
        pool = self.engine.pool
        if pool.upkeep.active:
            stats = pool.stats()
            assert stats.pool_size >= stats.pool_min, stats
        assert pool.stats().pool_in_use == 0
        self._operate(lambda pool: self.engine.dispose())
        self.world.advance(SOON)
        self.all_is_well()
        self.database.check(open=0)
        for pool in self.pools:
            assert pool.stats().pool_size == 0


def _refuse(_: Any) -> None:
    raise Refused("no")


logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
