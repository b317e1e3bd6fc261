"""What is noticed of a pool's callers, and told: who holds connections too
long, who waits too long, and who waits for itself."""

from __future__ import annotations

import logging
import math
from typing import Optional

from .diagnosis import Cause
from .diagnosis import diagnose
from .diagnosis import Diagnosis
from .diagnosis import Situation
from .holders import Checkout
from .holders import Holder
from .holders import holder_of
from .journal import tell
from .watched import Wait
from .watched import Watched
from .whereabouts import place_of
from .whereabouts import resolved
from .whereabouts import Who
from .whereabouts import with_all_who_await

wait_log = logging.getLogger("sqla_smartpool.waits")
leak_log = logging.getLogger("sqla_smartpool.leaks")

#: seconds after which a wait is looked at, to begin with and later on
FIRST_LOOK = 0.1
NEXT_LOOK = 1.0
#: as long as one was taken less than so many seconds ago, nobody is stuck;
#: to find out who waits for whom takes a while where thousands of tasks wait
_JUST_TAKEN = FIRST_LOOK / 2
#: a longer wait is worth a line in the log, seconds; one line in so many
_LONG_WAIT = 2.0
_QUIET_TIME = 10.0
#: stacks are not looked up more often than that, seconds: a thousand callers
#: may time out at once
_FRESH = 1.0
#: the most waiting callers whose places a text names
_SHOWN = 6


class Lookout:
    """Looks at who has, and who waits for, the connections of one pool.

    :param explains: a long wait is told with its cause, as the pool does not
        tell it in its errors.
    """

    def __init__(self, watched: Watched, explains: bool = False) -> None:
        self._watched = watched
        self._explains = explains
        #: it is going to look at those who wait
        self.looks = False
        self._told_of_wait_at = -math.inf
        self._told_of_deadlock = False
        self._diagnosis: Optional[Diagnosis] = None
        self._diagnosed_at = -math.inf
        #: checkouts that were reported to be too long
        self._leaks: dict[int, Holder] = {}

    # -- on request --------------------------------------------------------

    def holders(self) -> list[Holder]:
        """Who has a connection, the longest first."""
        now = self._watched.clock()
        return sorted(
            (holder_of(each, now) for each in self._watched.in_use()),
            key=lambda holder: -holder.seconds,
        )

    def diagnosis(self, leaving: Who = None) -> Diagnosis:
        """What keeps callers waiting; not older than a second.

        :param leaving: has waited until now.
        """
        now = self._watched.clock()
        known, paused = self._diagnosis, self._watched.paused
        if (
            known is None
            or now - self._diagnosed_at >= _FRESH
            or paused is not (known.cause is Cause.PAUSED)
        ):
            known = diagnose(self._situation(now, leaving))
            self._diagnosis, self._diagnosed_at = known, now
        return known

    def _situation(self, now: float, leaving: Who) -> Situation:
        watched = self._watched
        error, waits = watched.error, watched.waits()
        return Situation(
            self.holders(),
            waiting=len(waits),
            connecting=[now - begun for begun in watched.connects()],
            usual=watched.usual(),
            error=(
                None if error is None else f"{type(error).__name__}: {error}"
            ),
            deadlocked=self._is_deadlocked(waits, leaving),
            paused=watched.paused,
            closed=watched.closed,
        )

    # -- waits -------------------------------------------------------------

    def look_at_waits(self) -> Optional[float]:
        """See who waits, and why.

        :return: seconds after which to look again; None: nobody waits.
        """
        waits = self._watched.waits()
        if not waits:
            self._told_of_deadlock = False
            return None
        now = self._watched.clock()
        held_since = (each.held_since for each in self._watched.in_use())
        stuck = now - max(held_since, default=now) >= _JUST_TAKEN
        if stuck and self._is_deadlocked(waits):
            self._tell_of_deadlock(waits)
        waited = now - waits[0].since
        if waited >= _LONG_WAIT:
            self._tell_of_wait(waited, len(waits))
        return NEXT_LOOK

    def _tell_of_wait(self, waited: float, waiting: int) -> None:
        now = self._watched.clock()
        if now - self._told_of_wait_at < _QUIET_TIME:
            return
        self._told_of_wait_at = now
        text = (
            "a checkout has been waiting for %(seconds).1f s; "
            "%(waiting)d wait, %(in_use)d connections are in use"
        )
        fields = {}
        if self._explains:
            text += "\n%(diagnosis)s"
            fields["diagnosis"] = str(self.diagnosis())
        tell(
            wait_log,
            logging.WARNING,
            self._watched.label,
            text,
            seconds=waited,
            waiting=waiting,
            in_use=len(list(self._watched.in_use())),
            **fields,
        )

    # -- self-deadlock -----------------------------------------------------

    def _is_deadlocked(self, waits: list[Wait], leaving: Who = None) -> bool:
        """Every connection is held by somebody who waits for one.

        :param leaving: has waited as well, until now.
        """
        if not self._watched.full:
            return False
        holding = {resolved(each.who) for each in self._watched.in_use()}
        if not holding or None in holding:
            return False  # whoever has it now does not wait for that task
        # who was served meanwhile has one, and does not wait any more
        still = {(resolved(x.who), x.since) for x in self._watched.waits()}
        asked = ((resolved(x.who), x.since) for x in waits)
        waiting = {who for who, since in asked if (who, since) in still}
        return holding <= with_all_who_await(waiting | {resolved(leaving)})

    def _tell_of_deadlock(self, waits: list[Wait]) -> None:
        if self._told_of_deadlock:
            return
        self._told_of_deadlock = True
        self._diagnosed_at = -math.inf
        places = [place_of(wait.who) for wait in waits[:_SHOWN]]
        tell(
            wait_log,
            logging.WARNING,
            self._watched.label,
            "%(diagnosis)s\nWaiting:\n%(waits)s",
            diagnosis=str(self.diagnosis()),
            waits="\n".join(
                f"  {place.name} at {''.join(place.lines[-1:])}"
                for place in places
            ),
        )

    # -- leaks -------------------------------------------------------------

    def look_for_leaks(self) -> None:
        """Report, once for each checkout, what has been out for too long."""
        limit = self._watched.leak_after
        if limit is None:
            return
        now = self._watched.clock()
        out = {each.number: each for each in self._watched.in_use()}
        self._tell_who_came_home(out, now)
        for number, each in out.items():
            if number not in self._leaks and now - each.held_since >= limit:
                holder = self._leaks[number] = holder_of(each, now)
                self._tell_of_leak(holder)

    def _tell_of_leak(self, holder: Holder) -> None:
        tell(
            leak_log,
            logging.WARNING,
            self._watched.label,
            "connection %(connection)d has been out for %(seconds).1f s, "
            "with %(holder)s\n  now at: %(where)s\n  taken at: %(taken)s",
            connection=holder.connection_id,
            seconds=holder.seconds,
            holder=holder.name,
            where="\n    ".join(holder.where) or "nowhere: it has ended",
            taken="\n    ".join(holder.taken) or "unknown",
        )
        try:
            self._watched.fire_leak(holder)
        except Exception:  # a listener's mistake must not end upkeep
            leak_log.exception("a listener of the event 'leak' failed")

    def _tell_who_came_home(
        self, out: dict[int, Checkout], now: float
    ) -> None:
        for number, holder in list(self._leaks.items()):
            since = out[number].held_since if number in out else math.inf
            if now - since >= holder.seconds:
                continue  # it is the same checkout still
            del self._leaks[number]
            tell(
                leak_log,
                logging.WARNING,
                self._watched.label,
                "connection %(connection)d, reported after %(seconds).1f s, "
                "has come home",
                connection=number,
                seconds=holder.seconds,
            )
