"""A checkout that has to wait, to ask, or to open a connection.

The checkout that does not is the whole of ``SmartPool._do_get``.
"""

from __future__ import annotations

from contextvars import copy_context
import logging
import math
from typing import Callable
from typing import Optional

from . import exc
from .connecting import Connecting
from .deadline import checkout_timeout
from .face import QueuePoolFace
from .liveness import Answer
from .liveness import Liveness
from .lookout import Lookout
from .record import Record
from .tickets import Grant
from .tickets import Outcome
from .tickets import Refusal
from .tickets import Waiter
from .upkeep import Upkeep
from .whereabouts import Who

log = logging.getLogger("sqla_smartpool.checkout")


class Checkout:
    """The slow way to a connection."""

    def __init__(
        self,
        pool: QueuePoolFace,
        connecting: Connecting,
        liveness: Liveness,
        upkeep: Upkeep,
        lookout: Lookout,
        waiting: Callable[[], object],
    ) -> None:
        self._pool = pool
        self._connecting = connecting
        self._liveness = liveness
        self._upkeep = upkeep
        self._lookout = lookout
        self._waiting = waiting

    def slowly(self, record: Optional[Record]) -> Record:
        """Check a connection out that has to be asked, awaited or opened.

        :param record: one at hand, for which a look was not enough.
        """
        runtime, inventory = self._pool.runtime, self._pool.inventory
        since = runtime.clock()
        timeout = checkout_timeout(inventory.settings)
        ends = since + timeout if timeout else math.inf
        upkeep = self._upkeep
        if not (upkeep.active and since < upkeep.due_at < math.inf):
            upkeep.begin()
        who = runtime.who()
        waited = failed = False
        while True:
            if record is None:
                outcome = self._queue(who, since, ends, timeout == 0, failed)
                waited = True
                if isinstance(outcome, Record):
                    record = outcome
                else:
                    record = self._connected(outcome, since, timeout)
            if self._admit(record, ends):
                record.who = who
                seconds = record.taken_at - since
                # in this order, see stats()
                if waited:
                    record.note_wait(seconds)
                record.uses += 1
                record.served = record.uses, seconds
                if inventory.retired:
                    record.going = "close"
                return record
            record, failed = None, True
            if not waited and not inventory.waiters:
                try:
                    record = inventory.take()
                except IndexError:
                    pass

    def _queue(
        self, who: Who, since: float, ends: float, impatient: bool, first: bool
    ) -> Outcome:
        """Wait for a turn, and return what came of it."""
        runtime, inventory = self._pool.runtime, self._pool.inventory
        waiter = Waiter(
            runtime.signal(),
            since,
            impatient,
            copy_context(),
            who,
        )
        try:
            inventory.queue(waiter, first)
            if inventory.waiters and not self._lookout.looks:
                self._waiting()
            left: Optional[float] = None
            if impatient:
                # for a connect or a ping under way, but for no second one
                left = self._pool.settings.connect_timeout
            elif ends < math.inf:
                left = ends - runtime.clock()
            waiter.signal.wait(left)
            outcome = waiter.give_up()
        except BaseException:
            # cancelled or interrupted at the very moment it was served
            self._pass_on(waiter.give_up())
            inventory.post(inventory.leave, waiter)
            raise
        if outcome is None:
            inventory.post(inventory.leave, waiter)
            return Refusal.TIMEOUT
        return outcome

    def _pass_on(self, outcome: Optional[Outcome]) -> None:
        """Give back what a caller was handed who is no longer there."""
        inventory = self._pool.inventory
        if isinstance(outcome, Record):
            inventory.idle.append(outcome)
            inventory.look()
            inventory.recheck(outcome)
        elif isinstance(outcome, Grant):
            inventory.post(inventory.abandoned, outcome)

    def _connected(
        self, outcome: Outcome, since: float, timeout: Optional[float]
    ) -> Record:
        """Turn what else the queue gave into a connection, or raise."""
        if isinstance(outcome, Grant):
            try:
                return self._connecting.open(outcome, idle=False)
            except BaseException:
                self._pool.count("requests_errors")
                raise
        self._pool.count("requests_errors")
        if outcome is Refusal.CLOSED:
            raise exc.PoolClosedError(
                "the pool has been stopped; start() opens it again"
            )
        if isinstance(outcome, Refusal):
            self._raise_timeout(outcome, since, timeout)
        assert isinstance(outcome, BaseException)
        try:
            raise outcome
        finally:
            del outcome  # or its traceback would refer to itself

    def _admit(self, record: Record, ends: float) -> bool:
        """See whether a connection can be handed out; else close it."""
        now = self._pool.runtime.clock()
        if now < record.trusted_until and (
            record.peek is None or record.peek()
        ):
            # another caller has just returned it
            record.taken_at = now
            return True
        reason = record.going
        if reason is None and now >= record.expires_at:
            reason = "lifetime"
        if reason is not None:
            self._upkeep.chores.dismiss(record, reason)
            return False
        alive = False
        try:
            alive = self._is_alive(record, now, ends)
        finally:
            if not alive:
                # also when interrupted: its stream may be out of step
                grip = self._pool.inventory.tend(record)
                self._pool.count("connections_lost")
                self._liveness.close(record, grip, "unhealthy")
                self._upkeep.wake()
        if not alive:
            return False
        record.taken_at = self._pool.runtime.clock()
        if record.taken_at < record.expires_at:
            return True
        # its time came while it was asked
        self._upkeep.chores.dismiss(record, "lifetime")
        return False

    def _is_alive(self, record: Record, now: float, ends: float) -> bool:
        inventory, limit = self._pool.inventory, self._pool.idle_limit
        if record.is_dead():
            inventory.post(limit.died, now, record.heard_at, True)
            self._upkeep.suspect_all()
            return False
        heard_at = record.heard_at
        record.heard_from(now)
        # bytes that nobody has asked for may be the server's farewell
        quiet = record.blind or record.peek is None or record.peek()
        if quiet and not record.needs_ping(now):
            record.judge()
            return True
        seconds = min(self._pool.settings.ping_timeout, max(ends - now, 0.0))
        # so that upkeep does not take it for lost in the meantime
        grip = inventory.tend(record)
        answer = self._liveness.ping(record, grip, seconds, idle=False)
        if answer is Answer.ALIVE:
            inventory.tending.discard(record)
            inventory.post(limit.survived, now - heard_at)
            # or SQLAlchemy would ping it again, without a bound
            record.fresh = True
            return True
        if not self._pool.checks_by_event:
            inventory.post(limit.died, now, heard_at, False)
        self._upkeep.suspect_all()
        if answer is Answer.SILENT:
            inventory.post(inventory.set_aside, now)
        return False

    def _raise_timeout(
        self, refusal: Refusal, since: float, timeout: Optional[float]
    ) -> None:
        pool = self._pool
        stats = pool.inventory.stats()
        waited = pool.runtime.clock() - since
        # begins as QueuePool's does, so that alerts keep matching
        text = (
            f"QueuePool limit of size {pool.size()} overflow "
            f"{pool.overflow()} reached, connection timed out, timeout "
            f"{timeout or 0:.2f}; after {waited:.2f} s: {stats.pool_in_use} "
            f"of {stats.pool_max or 'any number'} in use, "
            f"{stats.pool_available} idle, {stats.pool_connecting} being "
            f"opened, {stats.requests_waiting} others waiting"
        )
        kind = exc.PoolTimeoutError
        if refusal is Refusal.OVERLOADED:
            kind = exc.PoolOverloadedError
            text += f"; no more than {pool.settings.max_waiting} may wait"
        else:
            pool.count("requests_timeouts")
        error = pool.inventory.backoff.error
        failure = kind(
            text, stats, error, self._lookout.diagnosis(pool.runtime.who())
        )
        if pool.dispatch.checkout_timeout:
            try:
                pool.dispatch.checkout_timeout(pool, failure)
            except Exception:  # a listener's mistake is not what happened
                log.exception("a listener of 'checkout_timeout' failed")
        raise failure from error
