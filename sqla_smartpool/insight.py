"""What the pool knows of itself, for those who ask."""

from __future__ import annotations

import math
import weakref

from sqlalchemy.pool import ConnectionPoolEntry

from .diagnosis import Diagnosis
from .face import QueuePoolFace
from .holders import ConnectionInfo
from .holders import Holder
from .idle_limit import IdleLimit
from .idle_limit import IN_TIME
from .journal import Journal
from .lookout import FIRST_LOOK
from .lookout import Lookout
from .record import Record
from .runtime import call_weakly
from .sizing import Advice
from .sizing import Meter
from .stats import PoolStats
from .watched import WatchedPool
from .whereabouts import here

#: where pings alone tell that connections are dead, it may be for another
#: reason than their age: so they are not sent sooner and sooner; seconds
_LEAST = 5.0


class Insight(QueuePoolFace):
    """Statistics, who holds what, and why somebody waits."""

    def _open_eyes(self) -> None:
        self.journal = Journal(self)
        watched = WatchedPool(self)
        self.lookout = Lookout(watched)
        self.meter = Meter(watched, self.stats)
        self.idle_limit = IdleLimit()
        #: the ``ping_after`` that was told to follow from it
        self._told = math.inf

    def holders(self) -> list[Holder]:
        """Tell who has connections, and where they stand; longest first."""
        return self.lookout.holders()

    def connections(self) -> list[ConnectionInfo]:
        """Tell of every connection, the oldest first."""
        inventory, now = self.inventory, self.runtime.clock()
        idle, tending = set(inventory.resting()), inventory.tending.copy()
        found = []
        for record in inventory.members:
            state = "in use"
            if record in tending:
                state = "upkeep"
            elif record in idle:
                state = "idle"
            found.append(
                ConnectionInfo(
                    record.number,
                    state,
                    age=now - record.born,
                    idle=0.0 if state == "in use" else now - record.idle_since,
                    uses=record.uses,
                    proven=now - record.proven_at,
                )
            )
        return sorted(found, key=lambda each: each.id)

    def diagnosis(self) -> Diagnosis:
        """Tell what keeps callers waiting; up to a second old."""
        return self.lookout.diagnosis()

    def stats(self) -> PoolStats:
        """Return the state of the pool, and what it has done so far."""
        return self.inventory.stats()

    def advise(self) -> Advice:
        """Tell which sizes would have served, by what was measured in the
        last day, or since the pool was made."""
        return self.meter.advise()

    def take_notes(self) -> None:
        self.trace()
        self.lookout.look_for_leaks()
        self.meter.look()
        self._look_for_an_idle_limit()

    def _look_for_an_idle_limit(self) -> None:
        inventory, limit = self.inventory, self.idle_limit
        now = self.runtime.clock()
        if inventory.backoff.failing:
            inventory.post(limit.disturbed, now)
        ages = limit.ages
        in_time = IN_TIME * ages.by
        settings = self.settings
        asked_after = max(settings.proof_window, settings.check_interval)
        if not ages or asked_after <= in_time:
            return
        inventory.post(limit.forget)
        if ages.after < ages.by / 2 and in_time < _LEAST:
            return
        # what was found first may have been found late
        if in_time < 0.9 * self._told:
            self._told = in_time
            self.journal.idle_limit(*ages, in_time)
        if settings.learns:
            self._change_settings(
                ping_after=min(settings.ping_after, in_time),
                check_interval=min(settings.check_interval, in_time),
            )

    # -- what is noted of checkouts, if asked for ---------------------------

    def _do_get_traced(self) -> ConnectionPoolEntry:
        """Check out, and note the place; in ``_do_get``'s place, if asked."""
        clock = self.runtime.clock
        since = clock()
        record = type(self)._do_get(self)
        assert isinstance(record, Record)
        if self.settings.traces:
            record.taken = here()
        self.journal.checked_out(record, clock() - since)
        return record

    def trace(self) -> None:
        """Begin or end to trace checkouts: whatever is not asked for is not
        even looked at."""
        if self.settings.traces or self.journal.tells_of_checkouts:
            self._do_get = self._do_get_traced  # type: ignore[method-assign]
        else:
            self.__dict__.pop("_do_get", None)

    # -- long waits ----------------------------------------------------------

    def watch_waits(self) -> None:
        """A caller begins to wait; have it looked at if that takes long."""
        if not self.lookout.looks:
            self.lookout.looks = True
            self._look_at_waits_in(FIRST_LOOK)

    def _look_at_waits_in(self, seconds: float) -> None:
        method = weakref.WeakMethod(self._look_at_waits)
        self.runtime.call_later(seconds, call_weakly(method))

    def _look_at_waits(self) -> None:
        self.lookout.looks = False
        again_in = self.lookout.look_at_waits()
        if again_in is not None:
            self.lookout.looks = True
            self._look_at_waits_in(again_in)
