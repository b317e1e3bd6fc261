"""How many connects are worth having under way for those who wait."""

from __future__ import annotations

import math
from typing import Collection

from .record import Record

#: so many connects may be under way for callers however few connections are
#: open; chosen by ``python -m benchmarks spike``
_AT_LEAST = 10
#: or so many that no more than that begin in a second, as connects that take
#: longer on a slow line are no more work; chosen likewise
_A_SECOND = 250
#: how much of what the last connect took above what is expected goes into what
#: is expected of the next
_NEWS = 0.2


class Pace:
    """Weighs connects, which slow each other down, against returns.

    As many may be under way as connections are open, which doubles them in
    the time of a connect where all are wanted (the method: slow start, as in
    Jacobson, "Congestion Avoidance and Control", SIGCOMM 1988), or as a slow
    line has on its way.  And none beside others that would come when those
    who wait have been served by returns.

    Times are in seconds.
    """

    def __init__(self) -> None:
        #: what a connect takes at best of late
        self.connect_time = math.inf

    def connected(self, took: float) -> None:
        """Learn from a connect."""
        if took < self.connect_time:
            # the first may have included what SQLAlchemy does once
            self.connect_time = took
        else:
            self.connect_time += _NEWS * (took - self.connect_time)

    def most(self, open_now: int) -> float:
        """How many connects may be under way for callers."""
        return max(_AT_LEAST, open_now, _A_SECOND * self.connect_time)

    def returns_within(
        self, waiting: int, members: Collection[Record], now: float
    ) -> float:
        """In how long returns will have served those who wait, if that is
        not later than a connect; infinite: it is, or who knows."""
        expected = waiting * _use_time(members, now) / len(members)
        return expected if expected <= self.connect_time else math.inf

    def look_in(self, expected: float) -> float:
        """When to see whether returns were as soon as expected."""
        # not at each of many short uses
        return max(expected, self.connect_time / 10)


def _use_time(members: Collection[Record], now: float) -> float:
    """For how long a connection is in use; infinite: who knows.

    Those that are out now may be out for longer than any was before.
    """
    uses, usage, out = 0, 0.0, []
    for record in members:
        uses += record.uses
        usage += record.usage
        if record.taken_at > record.idle_since:
            out.append(now - record.taken_at)
    ended = uses - len(out)
    if ended <= 0:
        return math.inf
    return max(usage / ended, sum(out) / max(1, len(out)))
