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
        self._first_at = math.inf

    def connected(self, begun: float, now: float, by_driver: float) -> None:
        """Learn from a connect.

        :param begun: when it began, by the pool's clock.
        :param by_driver: what the driver alone took.
        """
        self._first_at = min(self._first_at, now)
        took = now - begun
        if begun <= self._first_at:
            # SQLAlchemy gets to know the database with the first, which those
            # that began meanwhile wait for: that is never so again
            took = min(took, by_driver)
        if took < self.connect_time:
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
        use_time, out_for = _uses(members, now)
        if use_time == math.inf:
            return math.inf
        expected = use_time * waiting / len(members)
        # not that evenly when all were taken at the same time
        rounds, place = divmod(waiting - 1, len(members))
        if place < len(out_for):
            left = use_time - out_for[place]
            expected = max(expected, use_time * rounds + left)
        return expected if expected <= self.connect_time else math.inf

    def look_in(self, expected: float) -> float:
        """When to see whether returns were as soon as expected."""
        # not at each of many short uses
        return max(expected, self.connect_time / 10)


def _uses(
    members: Collection[Record], now: float
) -> tuple[float, list[float]]:
    """For how long a connection is in use (infinite: who knows), and for how
    long those have been that are, longest first.

    Those that are out now may be out for longer than any was before.
    """
    uses, usage, out_for = 0, 0.0, []
    for record in members:
        uses += record.uses
        usage += record.usage
        if record.taken_at > record.idle_since:
            out_for.append(now - record.taken_at)
    ended = uses - len(out_for)
    if ended <= 0:
        return math.inf, out_for
    out_for.sort(reverse=True)
    return max(usage / ended, sum(out_for) / max(1, len(out_for))), out_for
