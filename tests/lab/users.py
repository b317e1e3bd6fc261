"""What the users of a pool do to it: rules of a
:class:`~.machine.PoolMachine`."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Optional
import warnings
import weakref

from hypothesis import strategies as st
from hypothesis.stateful import precondition
from hypothesis.stateful import rule
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from sqla_smartpool import deadline
from tests.lab.fake_connections import who
from tests.lab.notes import Caller
from tests.lab.notes import TIMEOUT
from tests.lab.promises import Promises
from tests.lab.world import Actor
from tests.lab.world import Job

ONE = text("SELECT 1")

timeouts = st.sampled_from([TIMEOUT, TIMEOUT, 2.0, 0.0])
some_one = st.integers(0, 5)
#: how many steps of the world later
steps = st.integers(0, 8)


class Users(Promises):
    """Programs, and what interrupts them."""

    # -- checkout ----------------------------------------------------------

    @rule(timeout=timeouts)
    def checkout(self, timeout: float) -> None:
        queue = self._queue(self.engine.pool)
        caller = self._want(timeout)
        self._let_them()
        if caller.state == "holding":
            left = [each for each in queue if each in self._queue(caller.pool)]
            assert not left, f"a newcomer was served before {left}"

    @rule(timeout=timeouts, number=st.integers(2, 4))
    def checkout_several(self, timeout: float, number: int) -> None:
        """Several come at the same time."""
        for _ in range(number):
            self._want(timeout)
        self._let_them()

    @rule(timeout=timeouts, steps=steps)
    def checkout_and_cancel(self, timeout: float, steps: int) -> None:
        """A task is cancelled at any of its awaits, or when it is done."""
        caller = self._want(timeout)
        self.world.interrupt_in(steps, caller.actor)
        self._let_them()

    def _want(self, timeout: float) -> Caller:
        caller = Caller(self.engine.pool, self.world.now, timeout)
        self.callers.append(caller)

        def job() -> None:
            caller.begins()
            limit = nullcontext() if timeout == TIMEOUT else deadline(timeout)
            with limit:
                caller.connection = self.engine.connect()

        caller.actor = self.world.start(job)
        return caller

    @precondition(lambda self: self._in("waiting", "returning"))
    @rule(number=some_one)
    def cancel(self, number: int) -> None:
        """A task is cancelled, or a thread interrupted, wherever it waits."""
        caller = self._one("waiting returning", number)
        self.world.interrupt(caller.actor)
        self._look_at_callers()

    # -- use ---------------------------------------------------------------

    @precondition(lambda self: self._in("holding"))
    @rule(number=some_one)
    def use(self, number: int) -> None:
        caller = self._one("holding", number)
        if caller.fake is not None and caller.fake.alive:
            actor = self._start_with(caller, self._execute(caller))
            self._let_them()
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
        self._let_them()

    def _execute(self, caller: Caller) -> Job:
        return lambda: caller.connection.execute(ONE)

    # -- checkin -----------------------------------------------------------

    @precondition(lambda self: self._in("holding"))
    @rule(number=some_one)
    def checkin(self, number: int) -> None:
        self._give_back(self._one("holding", number))
        self._let_them()

    @precondition(lambda self: self._in("holding"))
    @rule()
    def checkin_all(self) -> None:
        """All that are in use come home at the same time."""
        for caller in self._in("holding"):
            self._give_back(caller)
        self._let_them()

    @precondition(lambda self: self._in("holding"))
    @rule(number=some_one, steps=steps)
    def checkin_and_cancel(self, number: int, steps: int) -> None:
        """Somebody is cancelled while they give their connection back."""
        caller = self._one("holding", number)
        self._give_back(caller)
        self.world.interrupt_in(steps, caller.actor)
        self._let_them()

    @precondition(lambda self: self._in("holding") and self._in("waiting"))
    @rule(number=some_one, other=some_one, steps=steps)
    def checkin_and_cancel_another(
        self, number: int, other: int, steps: int
    ) -> None:
        """Somebody is cancelled, maybe just as they are served."""
        waiting = self._one("waiting", other)
        self._give_back(self._one("holding", number))
        self.world.interrupt_in(steps, waiting.actor)
        self._let_them()

    @precondition(lambda self: self._in("holding"))
    @rule(number=some_one, outside=st.booleans())
    def drop(self, number: int, outside: bool) -> None:
        """A connection that is collected comes back, or is ended.

        :param outside: of SQLAlchemy's bridge.
        """
        caller = self._one("holding", number)

        def job() -> None:
            # a cycle with its transaction keeps it
            vars(caller.connection).clear()

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._give_back(caller, job, "dropped", outside)
            self._let_them()

    def _give_back(
        self,
        caller: Caller,
        job: Optional[Job] = None,
        state: str = "returning",
        outside: bool = False,
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
        caller.actor = self._start_with(caller, give_back, outside)

    def _start_with(
        self, caller: Caller, job: Job, outside: bool = False
    ) -> Actor:
        fake = caller.fake

        def own() -> None:
            if fake is not None and fake.owner is not None:
                fake.owner = weakref.ref(who())
            job()

        actor: Actor = self.world.start(own, outside)
        return actor

    def _let_them(self) -> None:
        """Let everybody go on, until all wait."""
        self.world.settle()
        self._look_at_callers()
