"""What the pool does by itself: one pass after the other; look, decide, do.

What is decided stands in :mod:`.plan`.
"""

from __future__ import annotations

from collections import deque
from functools import partial
import logging
import math
from typing import Callable
from typing import Optional
import weakref

from ._sqlalchemy import MODULE
from .backoff import is_hopeless as is_hopeless_error
from .connecting import Connecting
from .core import PoolCore
from .exc import PoolTimeoutError
from .exc import without_traceback
from .journal import Journal
from .liveness import Answer
from .liveness import Liveness
from .lookout import Lookout
from .plan import Plan
from .plan import plan
from .plan import Seen
from .plan import Snapshot
from .record import Grip
from .record import Record
from .runtime import Alarm
from .runtime import call_weakly
from .runtime import side_by_side
from .stats import CheckResult
from .tickets import Purpose
from .whereabouts import has_in_hand

log = logging.getLogger("sqla_smartpool.upkeep")

#: how much later than planned a look may come before it is taken for a stop
#: of the whole process, seconds
_LATE = 5.0
#: so much later than planned a look will not come any more: whoever was about
#: to set the alarm was interrupted, seconds
_OVERDUE = 1.0
#: a pass that takes longer than this is given up for lost, seconds
_LONGEST_PASS = 120.0
#: what nobody seems to have may be on its way for so long, seconds
_DOUBT = 1.0


class Upkeep:
    """Looks after one pool, from its start until its stop."""

    def __init__(
        self,
        pool: PoolCore,
        connecting: Connecting,
        liveness: Liveness,
        journal: Journal,
        lookout: Lookout,
    ) -> None:
        self._pool = pool
        self._journal = journal
        self._lookout = lookout
        self._connecting = connecting
        self._liveness = liveness
        self.active = False
        #: the engine has put another pool in the place of this one
        self.replaced = False
        self._alarm: Optional[Alarm] = None
        self._due_at = math.inf
        #: when the pass that is under way began; None: none is
        self._pass_began: Optional[float] = None
        #: something happened during the pass
        self._again = False
        #: pings that were not answered, of the pass that is under way and of
        #: those before it since which nothing was heard of the server
        self._silent = 0
        self._silent_at = -math.inf
        #: when a ping was last answered
        self._answered_at = -math.inf
        #: when a connect was last found to stall as well
        self._stalled_at = -math.inf
        #: what was not heard of since then is not asked any more
        self._given_up_at = -math.inf

    # -- when --------------------------------------------------------------

    def begin(self) -> None:
        """A pool that nobody has started starts with its first use."""
        pool = self._pool
        inventory = pool.inventory
        if inventory.closed:
            return
        if not self.active:
            inventory.inline = pool.inline
            if self.replaced:
                return
            inventory.retired = False
            self.active = True
            self._journal.started()
            self.wake()
            if not pool.inline:
                self.fill()
        else:
            # whoever began may have been interrupted
            self.wake(pool.settings.check_interval)

    def stop(self) -> None:
        if self.active:
            self._journal.stopped()
        self.active = False
        if self._alarm is not None:
            self._alarm.cancel()
        self._due_at = math.inf

    def wake(self, delay: float = 0.0) -> None:
        """Look again in ``delay`` seconds, if not sooner."""
        if not self.active:
            return
        now = self._pool.runtime.clock()
        if now + delay < self._due_at:
            before = self._alarm
            self._due_at = now + delay
            self._alarm = self._look_in(delay)
            # not earlier: who is interrupted in between leaves one of the two
            if before is not None:
                before.cancel()
        elif self._due_at < now - _OVERDUE:
            self._look_in(0.0)

    def _look_in(self, delay: float) -> Alarm:
        look = call_weakly(weakref.WeakMethod(self._look))
        return self._pool.runtime.call_later(delay, look)

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
        try:
            self._look_around(now)
        except Exception:  # upkeep must go on; the next look tries again
            pool.count("_failed_passes")
            log.exception("a look of upkeep failed")

    def _look_around(self, now: float) -> None:
        pool = self._pool
        pool.trace()
        pool.inventory.mend()
        self._lookout.look_for_leaks()
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

        A connection that is neither idle nor in anybody's hands is lost if
        it stays so.
        """
        pool = self._pool
        inventory = pool.inventory
        resting = set(inventory.resting())
        for record in inventory.members.copy():
            # read once: a collection in here may give it back
            holder = record.fairy_ref
            user = holder() if holder is not None else None
            hand = record.handed() if record.handed else None
            held = user is not None or (hand and hand.holds(record))
            if record in resting or held:
                record.doubted = -1
            elif (
                record.doubted != record.uses
                or record.doubted_at < record.idle_since
            ):
                record.doubted, record.doubted_at = record.uses, now
                self.wake(_DOUBT)
            elif now < record.doubted_at + _DOUBT:
                self.wake(record.doubted_at + _DOUBT - now)
            elif has_in_hand(MODULE, record):
                # the reset of one that was dropped, or a listener of
                # "checkin", which may take their time
                record.doubted_at = now
            elif record.idle_since <= record.doubted_at:
                # and it has not come home either in the meantime
                log.warning("found a connection that was lost; closing it")
                pool.count("reclaimed")
                record.doubted = -1
                self.dismiss(record, "unhealthy")

    # -- do ----------------------------------------------------------------

    def _pass(self, todo: Plan, began: float) -> None:
        heard_at = max(self._answered_at, self._pool.inventory.arrived_at)
        if heard_at > self._silent_at:
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
        settings = self._pool.settings
        # one that hangs must not hold up the rest of upkeep: it is left to
        # itself, and no more are begun beside it
        if self._oldest_connect() < settings.ping_timeout:
            seconds = min(settings.ping_timeout, settings.connect_timeout)
            self._open(Purpose.FLOOR, settings.min_size, seconds)

    def _oldest_connect(self) -> float:
        """For how long a connect has been under way; 0: none is."""
        now = self._pool.runtime.clock()
        grants = self._pool.inventory.grants
        return max((now - grant.begun for grant in grants), default=0.0)

    def _open(
        self,
        why: Purpose,
        up_to: float = math.inf,
        seconds: Optional[float] = None,
    ) -> Optional[Record]:
        """Open a connection, if it may be opened now.

        :param up_to: how many there may be then.
        :param seconds: how long to wait for it; None: until its room is
            freed.
        """
        pool = self._pool
        if not pool.may_open_in_background:
            return None
        if seconds is None:
            seconds = pool.settings.connect_timeout
        opened = self._connecting.one(why, seconds, up_to)
        if opened is None and pool.inventory.backoff.failing:
            retry_at = pool.inventory.backoff.retry_at
            self.wake(max(0.0, retry_at - pool.runtime.clock()))
        return opened

    def _close(self, record: Record, reason: str) -> bool:
        pool = self._pool
        grip = pool.may_touch(record) and pool.inventory.claim(record)
        if not grip:
            return False
        if reason == "unhealthy":
            pool.count("connections_lost")
        self._liveness.close(record, grip, reason)
        self.wake()
        return True

    def _ping(self, record: Record) -> Optional[bool]:
        """Ping an idle connection.

        :return: None: a caller has it.
        """
        inventory = self._pool.inventory
        try:
            # before it is taken, and until it is back, or a caller who finds
            # nothing idle in between would have another opened
            inventory.asked[record] = self._pool.runtime.clock()
            return self._take_and_ping(record)
        finally:
            inventory.asked.pop(record, None)
            if inventory.waiters:
                inventory.look()

    def _take_and_ping(self, record: Record) -> Optional[bool]:
        pool = self._pool
        silent = self._silent > 1
        given_up = self._is_given_up(record)
        if silent or given_up or self._outage:
            if not self._others_connect(given_up):
                return None
            if given_up:
                self._close(record, "unhealthy")
                return None
        grip = pool.may_touch(record) and pool.inventory.claim(record)
        if not grip:
            return None
        began = pool.runtime.clock()
        try:
            answer = self._liveness.ping(
                record, grip, pool.settings.ping_timeout, idle=True
            )
        except BaseException:  # interrupted: its stream may be out of step
            self._liveness.close(record, grip, "unhealthy")
            raise
        now = pool.runtime.clock()
        if answer is Answer.ALIVE:
            self._answered_at = now
            pool.inventory.put_back(record)
            return True
        if answer is Answer.SILENT:
            self._silent += 1
            self._silent_at = now
            if silent:
                # the third, and this one while new connects succeeded: it is
                # no pause, and the rest need not be waited for
                self._given_up_at = began
        pool.count("connections_lost")
        self._liveness.close(record, grip, "unhealthy")
        self.wake()
        return False

    def _is_given_up(self, record: Record) -> bool:
        """Tell whether a ping would be of no use; see :meth:`_ping`."""
        # an outage in between may have been a pause of everything
        since = self._given_up_at
        return record.proven_at < since and self._stalled_at < since

    def _others_connect(self, given_up: bool) -> bool:
        """Nobody answers: open a new connection before an old one is asked,
        or closed because it is given up.

        :return: False: that stalls as well, or did until now; what is there
            is left alone.
        """
        inventory = self._pool.inventory
        seconds = self._pool.settings.ping_timeout
        now, stalled = self._pool.runtime.clock(), self._outage
        if inventory.room <= 0:
            # none to find out, but those under way tell
            age = self._oldest_connect()
            stalled = age > (0.0 if stalled else seconds)
            self._stalled_at = now if stalled else -math.inf
            return not stalled and (given_up or not age)
        if self._connecting.one(Purpose.PROBE, seconds) is None:
            self._stalled_at = now
            return False
        if stalled:
            # they may answer again as well: the next pass asks
            self.wake()
        return not stalled

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
        grip = inventory.claim(record)
        if grip:
            self._liveness.close(record, grip, reason)
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
        grip = self._pool.inventory.tend(record)
        job = partial(self._close_and_replace, record, reason, grip)
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

    def _close_and_replace(
        self, record: Record, reason: str, grip: Grip
    ) -> None:
        replaced = reason in ("lifetime", "drain") and not record.succeeded
        if replaced:
            record.succeeded = self._replace()
        self._liveness.close(record, grip, reason)
        if replaced and not record.succeeded:
            # there was no room for both
            self._replace()
        self.wake()

    def _replace(self) -> bool:
        """Open a connection in place of one that goes."""
        return self.active and self._open(Purpose.SUCCESSOR) is not None

    def dismiss_all(self, reason: str) -> None:
        """Close what is idle, and have the rest closed as it comes home."""
        for grant in self._pool.inventory.grants:
            grant.unwanted = True
        self._mark_all(reason)
        self._close_idle(reason)

    def _mark_all(self, reason: str) -> None:
        for record in self._pool.inventory.members.copy():
            record.going = reason
            record.judge()

    def retire(self) -> None:
        """Keep nothing from now on: the engine has another pool."""
        inventory = self._pool.inventory
        self.replaced = True
        self.stop()
        inventory.post(inventory.retire)
        self._mark_all("close")

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
        try:
            if self._pass_began is None:
                self._pass_began = began
            self._silent = 0
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
        taken: deque[tuple[Record, Grip]] = deque()
        for record in pool.inventory.resting():
            grip = pool.inventory.seize(record)
            if grip:
                taken.append((record, grip))

        def close_next() -> None:
            self._liveness.close(*taken.popleft(), reason)

        jobs: list[Callable[[], object]] = []
        jobs += [partial(self._guarded, close_next)] * len(taken)
        try:
            # connections may be bound to the caller's thread
            width = 1 if pool.inline else len(jobs)
            side_by_side(pool.runtime, jobs, width)
        finally:
            # who is cancelled at one of them leaves the rest to others
            while taken:
                self.dismiss(taken.popleft()[0], reason)
