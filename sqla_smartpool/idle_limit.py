"""At what idle age connections are found dead.

Servers, poolers, firewalls and load balancers end what was silent for long,
and few of them tell.  Their limit shows in that connections die at the same
idle age, at different times; in an outage they die at the same time, at
different ages.
"""

from __future__ import annotations

from collections import deque
import math
from typing import NamedTuple

#: what dies within this time of each other may have died of one cause, seconds
_MOMENT = 10.0
#: so many times connections must have died at one age: the ages at which
#: they die in outages may happen to be alike
_ENOUGH = 3
#: the part of the idle limit at which a ping is in time
IN_TIME = 0.8


class Ages(NamedTuple):
    """Idle ages, in seconds: it was alive at ``after``, and dead at ``by``."""

    after: float
    by: float

    def both(self, other: Ages) -> Ages:
        """Return the ages that are in both; none, if ``by`` is smaller."""
        return Ages(max(self.after, other.after), min(self.by, other.by))

    def __bool__(self) -> bool:
        return self.after < self.by


_ANY = Ages(0.0, math.inf)


class IdleLimit:
    """Finds out whether there is a limit, from connections of one pool.

    Not to be changed by two at a time; to be read by anybody.
    """

    def __init__(self) -> None:
        #: at which ages connections died, each time that some did
        self._found: deque[Ages] = deque(maxlen=_ENOUGH)
        #: the same, of the time that may not be over
        self._now = _ANY
        self._begun_at = -math.inf
        self._disturbed_at = -math.inf
        #: the greatest age that was survived
        self._survived = 0.0
        self._looked_at = -math.inf

    def survived(self, age: float) -> None:
        """A connection has answered that was idle for so long."""
        if any(age >= found.by for found in self._found):
            # there was no limit, or it is another one now
            self.forget()
        self._survived = max(self._survived, age)

    def died(self, now: float, heard_at: float, seen: bool) -> None:
        """A connection was found dead.

        :param heard_at: when it was last in use, or had answered.
        :param seen: the last look would have seen that it was dead.
        """
        if now - self._begun_at > _MOMENT:
            self._close_moment()
            self._begun_at, self._now = now, _ANY
        after = max(0.0, self._looked_at - heard_at) if seen else 0.0
        self._now = self._now.both(Ages(after, now - heard_at))

    def disturbed(self, now: float) -> None:
        """Connections die, or cannot be made, whatever their age."""
        self._disturbed_at = now

    def forget(self) -> None:
        """Begin anew: pings come at other ages now."""
        self._found.clear()
        self._survived = 0.0

    def looked(self, now: float) -> None:
        """No idle connection's socket tells that it is dead."""
        self._looked_at = now
        if now - self._begun_at > _MOMENT:
            self._close_moment()

    @property
    def ages(self) -> Ages:
        """Between which ages the limit lies; false: there is none, as far as
        is known."""
        found = tuple(self._found)
        ages = Ages(self._survived, math.inf)
        for each in found:
            ages = ages.both(each)
        return ages if len(found) == _ENOUGH else Ages(0.0, 0.0)

    def _close_moment(self) -> None:
        """Count what died together as one finding, unless in an outage."""
        ages, self._now = self._now, _ANY
        quiet = self._disturbed_at < self._begun_at - _MOMENT
        if ages and ages is not _ANY and quiet:
            self._found.append(ages)
