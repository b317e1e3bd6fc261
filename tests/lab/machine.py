"""A pool as a machine that Hypothesis drives.

A :class:`PoolMachine` does to a pool, in a world of :mod:`.worlds`, whatever
programs, databases and operators do, in any order.  After each step it
compares the pool with its own :mod:`.notes` and with the books of the fake
database; what must hold stands in :mod:`.promises`, and what
users do in :mod:`.users`.
"""

from __future__ import annotations

import gc
import logging
import sys
from typing import Any
from typing import Callable

from hypothesis import strategies as st
from hypothesis.stateful import initialize
from hypothesis.stateful import invariant
from hypothesis.stateful import precondition
from hypothesis.stateful import rule
from hypothesis.stateful import RuleBasedStateMachine
from sqlalchemy import event

from sqla_smartpool import PoolTimeoutError
from sqla_smartpool._sqlalchemy import await_
from sqla_smartpool.fork import start_anew
from tests.lab.fake_connections import Fake
from tests.lab.fake_dbapi import FakeDatabase
from tests.lab.notes import Refused
from tests.lab.notes import TIMEOUT
from tests.lab.users import some_one
from tests.lab.users import Users

#: how long after the end of all trouble everybody has been served, seconds
SOON = 10.0

names = st.sampled_from(["connect", "ping", "rollback", "close"])
seconds = st.sampled_from([0.02, 0.3, 1.5, 6.0, 31.0, 130.0, 1000.0, 4000.0])
sizes = st.integers(1, 4)


class PoolMachine(Users, RuleBasedStateMachine):
    """The rules; what the world is, a subclass tells."""

    #: class of the world
    world_class: Any
    #: kinds of connections
    kinds: list[type[Fake]]

    def __init__(self) -> None:
        super().__init__()
        # a collection would run the pool's code in the test itself
        gc.disable()
        # in hours of its time, a pool may often search all objects for what
        # was lost: not through those that were there before
        gc.freeze()

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
        event.listen(self.engine, "connect", self._note_connection)
        self._note_pool()

    # -- what databases and clocks do --------------------------------------

    @precondition(lambda self: self.database.open)
    @rule(number=some_one)
    def kill(self, number: int) -> None:
        """A connection dies at the other end."""
        open_ones = self.database.open
        open_ones[number % len(open_ones)].kill()

    @precondition(lambda self: len(self.faults) < 2)
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
        self._about_to_pass()
        self.world.advance(seconds)
        self._note_faults()

    @rule(seconds=seconds)
    def oversleep(self, seconds: float) -> None:
        """The process is stopped for a while."""
        self._about_to_pass()
        self.world.now += seconds
        self.world.advance(0.0)
        self._note_faults()

    def _about_to_pass(self) -> None:
        self.loose = self.loose or bool(self.gates)
        self._note_faults()

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

    @precondition(lambda self: not self.closed and not self.paused)
    @rule()
    def pause(self) -> None:
        self.paused = True
        self._operate(lambda pool: pool.pause())

    @precondition(lambda self: self.paused)
    @rule()
    def resume(self) -> None:
        self.paused = False
        self._operate(lambda pool: pool.resume())

    @precondition(lambda self: not self.closed)
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
        self._operate(self._dispose)

    def _dispose(self, pool: Any) -> None:
        self.engine.dispose()
        # at once, or when what is idle is closed
        self._note_pool()

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

    # -- what must hold ----------------------------------------------------

    @invariant()
    def all_is_well(self) -> None:
        self.see_that_all_is_well()

    # -- the end -----------------------------------------------------------

    def teardown(self) -> None:
        gc.unfreeze()
        gc.enable()
        if sys.exc_info()[0] is None:  # or nothing is well already
            self._end_well()
            self.world.close()
        for fake in self.database.connections:
            fake.put_away()  # a child keeps what it inherited for good

    def _end_well(self) -> None:
        """All trouble is over, and everybody goes home: nothing is lost."""
        if self.faults:
            self.heal()
        if self.closed:
            self.start()
        for pool in self.pools:  # one may have been disposed of while paused
            self._operate(lambda pool: pool.resume(), pool)
        self._send_everybody_home()
        stats = self.engine.pool.stats()
        assert stats.pool_in_use == 0
        if self.engine.pool.upkeep.active:
            assert stats.pool_size >= stats.pool_min, stats
        self.dispose()
        # two who dispose at once may have left one behind
        for pool in self.pools:
            self._operate(lambda pool: pool.dispose(), pool)
        self.world.advance(SOON)
        self.all_is_well()
        self.database.check(open=0)
        for pool in self.pools:
            assert pool.stats().pool_size == 0

    def _send_everybody_home(self) -> None:
        over_at = self.world.now
        in_time = [
            each
            for each in self._in("waiting")
            if each.since + each.timeout > over_at + SOON
        ]
        for _ in range(int(SOON / 0.5)):
            while self._in("holding"):
                self.checkin_all()
            self.world.advance(0.5)
            self.all_is_well()
        assert not self.callers, self.callers
        for caller in in_time:
            assert not isinstance(caller.actor.error, PoolTimeoutError)
        assert not self.busy, "somebody has not ended"


def _refuse(_: Any) -> None:
    raise Refused("no")


logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
