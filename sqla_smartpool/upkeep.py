"""What the pool does by itself: one pass after the other; look, decide, do.

What is decided stands in :mod:`.plan`.
"""

from __future__ import annotations

from functools import partial
import logging
import math
from typing import Callable
from typing import Optional
import weakref

from .backoff import is_hopeless as is_hopeless_error
from .connecting import Connecting
from .core import PoolCore
from .exc import PoolTimeoutError
from .exc import without_traceback
from .liveness import Answer
from .liveness import Liveness
from .plan import Plan
from .plan import plan
from .plan import Seen
from .plan import Snapshot
from .record import Record
from .runtime import Alarm
from .runtime import call_weakly
from .runtime import side_by_side
from .stats import CheckResult
from .tickets import Purpose

log = logging.getLogger("sqla_smartpool.upkeep")

#: how much later than planned a look may come before it is taken for a stop
#: of the whole process, seconds
_LATE = 5.0
#: a pass that takes longer than this is given up for lost, seconds
_LONGEST_PASS = 120.0


class Upkeep:
    """Looks after one pool, from its start until its stop."""

    def __init__(
        self, pool: PoolCore, connecting: Connecting, liveness: Liveness
    ) -> None:
        self._pool = pool
        self._connecting = connecting
        self._liveness = liveness
        self.active = False
        self._alarm: Optional[Alarm] = None
        self._due_at = math.inf
        #: when the pass that is under way began; None: none is
        self._pass_began: Optional[float] = None
        #: something happened during the pass
        self._again = False
        #: pings of the pass that is under way that were not answered
        self._silent = 0
        #: when a connect was last found to stall as well
        self._stalled_at = -math.inf

    # -- when --------------------------------------------------------------

    def begin(self) -> None:
        """A pool that nobody has started starts with its first use."""
        pool = self._pool
        if not self.active and not pool.inventory.closed:
            pool.inventory.inline = pool.inline
            self.active = True
            self.wake()
            if not pool.inline:
                self.fill()

    def stop(self) -> None:
        self.active = False
        if self._alarm is not None:
            self._alarm.cancel()
        self._due_at = math.inf

    def wake(self, delay: float = 0.0) -> None:
        """Look again in ``delay`` seconds, if not sooner."""
        if not self.active:
            return
        due_at = self._pool.runtime.clock() + delay
        if due_at < self._due_at:
            self._due_at = due_at
            if self._alarm is not None:
                self._alarm.cancel()
            look = call_weakly(weakref.WeakMethod(self._look))
            self._alarm = self._pool.runtime.call_later(delay, look)

    def _look(self) -> None:
        """Look and decide; whatever takes time is done elsewhere."""
        if not self.active:
            return
        pool = self._pool
        now = pool.runtime.clock()
        late = now - self._due_at
        self._due_at = math.inf
        # whatever happens below, there is a next look
        self.wake(pool.settings.check_interval)
        if math.inf > late > pool.settings.check_interval + _LATE:
            pool.logger.info("upkeep was stopped for %.0f s", late)
            self.suspect_all()
        pool.inventory.look()
        if self._under_way(now):
            self._again = True
            return
        todo = self._decide(now)
        self.wake(todo.look_in)
        if todo:
            self._pass_began = now
            try:
                pool.runtime.spawn(partial(self._pass, todo, now))
            except RuntimeError:  # interpreter exit: there is no upkeep then
                self._pass_began = None

    def _under_way(self, now: float) -> bool:
        began = self._pass_began
        if began is None:
            return False
        if now - began < _LONGEST_PASS:
            return True
        log.error("a pass of upkeep has not ended in %.0f s", now - began)
        return False

    # -- look --------------------------------------------------------------

    def _decide(self, now: float) -> Plan:
        pool = self._pool
        inventory = pool.inventory
        if inventory.paused:
            return Plan(look_in=pool.settings.check_interval)
        self._reclaim(now)
        resting = self._pool.inventory.resting()
        idle = [self._see(record, now) for record in resting]
        elsewhere = set(inventory.tending.copy())
        elsewhere.update(resting)
        snapshot = Snapshot(
            idle,
            [
                (record, record.retire_at)
                for record in inventory.members.copy()
                if record not in elsewhere and record.going is None
            ],
            len(inventory.opening)
            + len(inventory.tending)
            - inventory.leaving,
            bool(inventory.waiters),
            inventory.backoff.retry_at,
            pool.can_ping,
        )
        todo = plan(snapshot, now, pool.settings)
        if not pool.may_open_in_background:
            todo.open = 0
        if self._outage:
            del todo.ping[1:]
        return todo

    @staticmethod
    def _see(record: Record, now: float) -> Seen:
        record.heard_from(now)
        noisy = record.line is not None and not record.line.quiet()
        return Seen(
            record,
            record.idle_since,
            record.retire_at,
            record.proven_at,
            dead=record.is_dead(),
            suspect=noisy or record.suspect_at >= record.proven_at,
        )

    @property
    def _outage(self) -> bool:
        """Nobody answers, and new connects do not succeed either: what is
        there is left alone, as it may be a pooler that pauses."""
        return self._stalled_at > self._pool.inventory.arrived_at

    def _reclaim(self, now: float) -> None:
        """Find what was lost to an exception between any two bytecodes.

        A connection that is neither idle nor with upkeep, and whose checkout
        nobody holds, is lost if the next look finds it the same.
        """
        pool = self._pool
        inventory = pool.inventory
        resting = {*self._pool.inventory.resting(), *inventory.tending.copy()}
        for record in inventory.members.copy():
            held = record.fairy_ref() if record.fairy_ref else None
            handed = record.handed() if record.handed else None
            if record in resting or held is not None or handed is not None:
                record.doubted = -1
            elif record.doubted != record.uses:
                record.doubted = record.uses
                self.wake(1.0)
            else:
                log.warning("found a connection that was lost; closing it")
                pool.count("reclaimed")
                record.doubted = -1
                inventory.tending.add(record)
                self.dismiss(record, "unhealthy")

    # -- do ----------------------------------------------------------------

    def _pass(self, todo: Plan, began: float) -> None:
        self._silent = 0
        try:
            self._carry_out(todo)
        except Exception:  # upkeep must go on; the next look tries again
            self._pool.count("_failed_passes")
            log.exception("a pass of upkeep failed")
        finally:
            self._pass_ended(began)

    def _pass_ended(self, began: float) -> None:
        if self._pass_began == began:
            self._pass_began = None
        if self._again:
            self._again = False
            self.wake()

    def _carry_out(self, todo: Plan) -> None:
        jobs: list[Callable[[], object]] = []
        jobs += [partial(self._close, rec, "unhealthy") for rec in todo.cut]
        jobs += [self._open_floor] * todo.open
        jobs += [partial(self.renew, rec, "lifetime") for rec in todo.renew]
        jobs += [partial(self._ping, record) for record in todo.ping]
        jobs += [partial(self._close, *item) for item in todo.close]
        self._do(jobs)

    def _do(self, jobs: list[Callable[[], object]]) -> None:
        side_by_side(
            self._pool.runtime,
            [partial(self._guarded, job) for job in jobs],
            self._pool.settings.num_workers,
        )

    def _guarded(self, job: Callable[[], object]) -> None:
        try:
            job()
        except Exception:  # one connection's trouble is not the others'
            self._pool.count("_failed_passes")
            log.exception("upkeep of a connection failed")

    def _open_floor(self) -> None:
        self._open(Purpose.FLOOR, self._pool.settings.min_size)

    def _open(self, why: Purpose, up_to: float = math.inf) -> Optional[Record]:
        pool = self._pool
        if not pool.may_open_in_background:
            return None
        seconds = pool.settings.connect_timeout
        opened = self._connecting.one(why, seconds, up_to)
        if opened is None and pool.inventory.backoff.failing:
            retry_at = pool.inventory.backoff.retry_at
            self.wake(max(0.0, retry_at - pool.runtime.clock()))
        return opened

    def _close(self, record: Record, reason: str) -> bool:
        pool = self._pool
        if not pool.may_touch(record) or not pool.inventory.claim(record):
            return False
        if reason == "unhealthy":
            pool.count("connections_lost")
        self._liveness.close(record, reason)
        self.wake()
        return True

    def _ping(self, record: Record) -> Optional[bool]:
        """Ping an idle connection.

        :return: None: a caller has it.
        """
        pool = self._pool
        if self._silent > 1 or self._outage:
            self._replace_suspect(record)
            return None
        if not pool.may_touch(record) or not pool.inventory.claim(record):
            return None
        try:
            answer = self._liveness.ping(
                record, pool.settings.ping_timeout, idle=True
            )
        except BaseException:  # interrupted: its stream may be out of step
            self._liveness.close(record, "unhealthy")
            raise
        if answer is Answer.ALIVE:
            if record.going is None:
                pool.inventory.put_back(record)
            else:  # the pool was disposed or drained in the meantime
                self.dismiss(record, record.going)
            return True
        self._silent += answer is Answer.SILENT
        pool.count("connections_lost")
        self._liveness.close(record, "unhealthy")
        self.wake()
        return False

    def _replace_suspect(self, record: Record) -> None:
        """Nobody answers: have a new connection before giving up this one.

        If connects stall as well, it is left alone.
        """
        pool = self._pool
        now, stalled = pool.runtime.clock(), self._outage
        seconds = pool.settings.ping_timeout
        if self._connecting.one(Purpose.PROBE, seconds) is None:
            self._stalled_at = now
        elif stalled:
            # it may answer again as well: the next pass asks
            self.wake()
        else:
            self._close(record, "unhealthy")

    def renew(self, record: Record, reason: str) -> None:
        """Replace a connection, opening the new one before closing the old.

        :param reason: "lifetime" or "drain".
        """
        pool = self._pool
        inventory = pool.inventory
        if not pool.may_open_in_background:
            self._close(record, reason)
            return
        opened = self._open(Purpose.SUCCESSOR)
        if opened is None and inventory.room > 0:
            if inventory.backoff.failing:
                return  # the old one is better than none
        if opened is not None:
            # keep_alive counts on from its predecessor's last use
            opened.idle_since = record.idle_since
        if inventory.claim(record):
            self._liveness.close(record, reason)
            if opened is None:
                self._open(Purpose.SUCCESSOR)
        else:
            # in use, or on its way: it goes when it comes home
            record.succeeded = opened is not None
            self._dismiss_later(record, reason)

    # -- for checkouts and returns -----------------------------------------

    def suspect_all(self) -> None:
        """Have every connection answer a ping before it is handed out."""
        pool = self._pool
        now = pool.runtime.clock()
        for record in pool.inventory.members.copy():
            record.suspect(now)
        self.wake()

    def dismiss(self, record: Record, reason: str) -> None:
        """Close a connection beside the caller, who has taken it.

        :param reason: as the ``retire`` event tells it.
        """
        job = partial(self._close_and_replace, record, reason)
        if not self._pool.inline:
            try:
                return self._pool.runtime.spawn(job)
            except RuntimeError:
                pass  # no threads at interpreter exit
        job()

    def _dismiss_later(self, record: Record, reason: str) -> None:
        """Have a connection that is in use closed as it comes home."""
        record.going = reason
        record.judge()
        if self._pool.inventory.seize(record):
            # it has come home in the meantime
            self.dismiss(record, reason)

    def _close_and_replace(self, record: Record, reason: str) -> None:
        replaced = reason in ("lifetime", "drain") and not record.succeeded
        if replaced:
            record.succeeded = self._replace()
        self._liveness.close(record, reason)
        if replaced and not record.succeeded:
            # there was no room for both
            self._replace()
        self.wake()

    def _replace(self) -> bool:
        """Open a connection in place of one that goes."""
        return self.active and self._open(Purpose.SUCCESSOR) is not None

    def dismiss_all(self, reason: str) -> None:
        """Close what is idle, and have the rest closed as it comes home."""
        inventory = self._pool.inventory
        for grant in inventory.opening.copy():
            grant.unwanted = True
        for record in inventory.members.copy():
            record.going = reason
            record.judge()
        self._close_idle(reason)

    # -- on request --------------------------------------------------------

    def fill(self) -> None:
        """Open what is missing to ``min_size``, side by side."""
        pool = self._pool
        floor = pool.settings.min_size
        for _ in range(floor - pool.inventory.staying):
            grant = self._connecting.ask(Purpose.FLOOR, floor)
            if grant is None:
                break  # not now: upkeep goes on
            if pool.inline:
                self._connecting.open(grant, idle=True)
            else:
                self._connecting.beside(grant)
        self.wake()

    def wait_until_full(self, timeout: float) -> None:
        """Wait until the floor is there; raises what keeps it away."""
        pool = self._pool
        inventory = pool.inventory

        def is_full() -> bool:
            return inventory.size >= pool.settings.min_size

        def is_hopeless() -> bool:
            error = inventory.backoff.error
            return error is not None and is_hopeless_error(error)

        self._wait(lambda: is_full() or is_hopeless(), timeout)
        if is_full():
            return
        error = inventory.backoff.error
        if error is not None and is_hopeless_error(error):
            raise without_traceback(error)
        text = (
            f"{inventory.size} of {pool.settings.min_size} connections "
            f"(min_size) were open after {timeout:.2f} s"
        )
        if error is not None:
            text += f"; connects fail: {type(error).__name__}: {error}"
        raise PoolTimeoutError(text, pool.inventory.stats(), error) from error

    def wait_until_empty(self, timeout: float) -> None:
        """Wait until no connection is open any more, but not too long."""
        inventory = self._pool.inventory
        self._wait(lambda: not inventory.members, timeout)

    def _wait(self, condition: Callable[[], bool], timeout: float) -> None:
        inventory = self._pool.inventory
        signal = self._pool.runtime.signal()
        inventory.post(inventory.watch, signal, condition)
        try:
            signal.wait(timeout)
        finally:
            inventory.post(inventory.unwatch, signal)

    def check(self) -> CheckResult:
        """Ping every idle connection now, and replace the unhealthy."""
        inventory = self._pool.inventory
        results: list[Optional[bool]] = []
        before = inventory.staying

        def check(record: Record) -> None:
            results.append(self._ping(record))

        # as a pass, or another would take the dead ones out of its hands
        began = self._pool.runtime.clock()
        if self._pass_began is None:
            self._pass_began = began
        self._silent = 0
        try:
            self._do([partial(check, each) for each in inventory.resting()])
            replaced = results.count(False)
            successor = partial(self._open, Purpose.SUCCESSOR, before)
            self._do([successor] * replaced)
        finally:
            self._pass_ended(began)
        return CheckResult(replaced + results.count(True), replaced)

    def drain(self) -> None:
        """Replace every connection."""
        resting = self._pool.inventory.resting()
        for record in self._pool.inventory.members.copy():
            if record not in resting:
                self._dismiss_later(record, "drain")
        self._do([partial(self.renew, record, "drain") for record in resting])

    def _close_idle(self, reason: str) -> None:
        """Close what is idle, whoever waits."""
        pool = self._pool
        jobs: list[Callable[[], object]] = []
        for record in self._pool.inventory.resting():
            if pool.inventory.seize(record):
                close = partial(self._liveness.close, record, reason)
                jobs.append(partial(self._guarded, close))
        # connections may be bound to the caller's thread
        side_by_side(pool.runtime, jobs, 1 if pool.inline else len(jobs))
