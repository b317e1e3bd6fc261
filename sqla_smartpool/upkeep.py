"""What the pool does by itself: one pass after the other; look, decide, do.

What is decided stands in :mod:`.plan`.
"""

from __future__ import annotations

from functools import partial
import math
from typing import Callable
from typing import Optional
import weakref

from .chores import Chores
from .connecting import Connecting
from .core import PoolCore
from .journal import Journal
from .journal import upkeep_log as log
from .liveness import Liveness
from .lost import find_lost
from .plan import Plan
from .plan import plan
from .plan import Seen
from .plan import Snapshot
from .record import Record
from .runtime import Alarm
from .runtime import call_weakly
from .stats import CheckResult

#: how much later than planned a look may come before it is taken for a stop
#: of the whole process, seconds
_LATE = 5.0
#: so much later than planned a look will not come any more: whoever was about
#: to set the alarm was interrupted, seconds
_OVERDUE = 1.0
#: a pass that takes longer than this is given up for lost, seconds
_LONGEST_PASS = 120.0


class Upkeep:
    """Looks after one pool, from its start until its stop."""

    def __init__(
        self,
        pool: PoolCore,
        connecting: Connecting,
        liveness: Liveness,
        journal: Journal,
    ) -> None:
        self._pool = pool
        self._journal = journal
        self.chores = Chores(pool, connecting, liveness, self)
        self.active = False
        #: the engine has put another pool in the place of this one
        self.replaced = False
        self._alarm: Optional[Alarm] = None
        #: when it looks next; infinite: it does not, or is about to say
        self.due_at = math.inf
        #: when the pass that is under way began; None: none is
        self._pass_began: Optional[float] = None
        #: something happened during the pass
        self._again = False

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
            if self.replaced:
                # by somebody who said so first, and did the rest before this
                self.retire()
                return
            self._journal.started()
            self._journal.upkeep_started()
            self.wake()
            if not pool.inline:
                self._fill_beside()
        else:
            # whoever began may have been interrupted
            self.wake(pool.settings.check_interval)

    def _fill_beside(self) -> None:
        """The caller, and others who come now, have theirs opened first."""
        try:
            self._pool.runtime.spawn(self.chores.fill)
        except RuntimeError:  # interpreter exit: there is no upkeep then
            pass

    def stop(self) -> None:
        was_active, self.active = self.active, False
        if self._alarm is not None:
            self._alarm.cancel()
        self.due_at = math.inf
        if was_active:
            self._journal.upkeep_stopped()
            self._journal.stopped()

    def wake(self, delay: float = 0.0) -> None:
        """Look again in ``delay`` seconds, if not sooner."""
        if not self.active:
            return
        now = self._pool.runtime.clock()
        if now + delay < self.due_at:
            before = self._alarm
            self.due_at = now + delay
            self._alarm = self.look_in(delay)
            # not earlier: who is interrupted in between leaves one of the two
            if before is not None:
                before.cancel()
        elif self.due_at < now - _OVERDUE:
            self.look_in(0.0)

    def look_in(self, delay: float) -> Alarm:
        """Look in ``delay`` seconds, whatever else is to come."""
        look = call_weakly(weakref.WeakMethod(self._look))
        return self._pool.runtime.call_later(delay, look)

    def _look(self) -> None:
        """Look and decide; whatever takes time is done elsewhere."""
        if not self.active:
            return
        pool = self._pool
        now = pool.runtime.clock()
        late = now - self.due_at
        self.due_at = math.inf
        # whatever happens below, there is a next look
        self.wake(pool.settings.check_interval)
        if math.inf > late > pool.settings.check_interval + _LATE:
            pool.logger.info("upkeep was stopped for %.0f s", late)
            pool.inventory.post(pool.idle_limit.disturbed, now)
            self.suspect_all()
        for step in (
            pool.inventory.mend,
            pool.take_notes,
            partial(self._begin_pass, now),
        ):
            try:
                step()
            except Exception:  # upkeep must go on; the next look tries again
                pool.count("_failed_passes")
                log.exception("a look of upkeep failed")

    def _begin_pass(self, now: float) -> None:
        if self._under_way(now):
            self._again = True
            return
        todo = self._decide(now)
        self.wake(todo.look_in)
        if todo:
            self._pass_began = now
            try:
                self._pool.runtime.spawn(partial(self._pass, todo, now))
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
                for record in inventory.members
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
        if self.chores.silence.total:
            del todo.ping[1:]
        if not todo.cut:
            inventory.post(pool.idle_limit.looked, now)
        return todo

    def _see(self, record: Record, now: float) -> Seen:
        dead = record.is_dead()
        next_look = now + self._pool.settings.check_interval
        # not a dead one, or it would be heard from at its end
        if not dead and record.trusted_until <= next_look:
            record.heard_from(now)
        noisy = record.line is not None and record.line.noisy()
        return Seen(
            record,
            record.idle_since,
            record.retire_at,
            record.proven_at,
            dead=dead,
            suspect=noisy or record.suspect_at >= record.proven_at,
        )

    def _reclaim(self, now: float) -> None:
        inventory = self._pool.inventory
        lost, look_in = find_lost(
            inventory.members,
            set(inventory.resting()),
            now,
            self._pool.settings.check_interval,
        )
        self.wake(look_in)
        for record in lost:
            log.warning("found a connection that was lost; closing it")
            self._pool.count("reclaimed")
            # or a collection that has found it, but has not come to it,
            # would return it when it is somebody else's
            record.fairy_ref = None
            self.chores.dismiss(record, "unhealthy")

    # -- do ----------------------------------------------------------------

    def _pass(self, todo: Plan, began: float) -> None:
        self.chores.silence.begin_pass()
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
        chores = self.chores
        jobs: list[Callable[[], object]] = []
        jobs += [partial(chores.cut, record) for record in todo.cut]
        jobs += [chores.open_floor] * todo.open
        jobs += [partial(chores.renew, rec, "lifetime") for rec in todo.renew]
        jobs += [partial(chores.ping, record) for record in todo.ping]
        jobs += [partial(chores.close, *item) for item in todo.close]
        chores.do(jobs)

    # -- on request --------------------------------------------------------

    def suspect_all(self) -> None:
        """Have every connection answer a ping before it is handed out."""
        now = self._pool.runtime.clock()
        for record in self._pool.inventory.members:
            record.suspect(now)
        self.wake()

    def retire(self) -> None:
        """Keep nothing from now on: the engine has another pool."""
        inventory = self._pool.inventory
        self.replaced = True
        self.stop()
        inventory.post(inventory.retire)
        self.chores.mark_all("close")

    def check(self) -> CheckResult:
        """Ping every idle connection now, and replace the unhealthy."""
        inventory, chores = self._pool.inventory, self.chores
        results: list[Optional[bool]] = []
        before = inventory.staying

        def check(record: Record) -> None:
            results.append(chores.ping(record))

        # as a pass, or another would take the dead ones out of its hands
        began = self._pool.runtime.clock()
        try:
            if self._pass_began is None:
                self._pass_began = began
            chores.silence.forget()
            chores.do(partial(check, each) for each in inventory.resting())
            replaced = results.count(False)
            chores.do([partial(chores.open_successor, before)] * replaced)
        finally:
            self._pass_ended(began)
        return CheckResult(replaced + results.count(True), replaced)
