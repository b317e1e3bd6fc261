"""Durations, counted in buckets."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Iterable
from typing import Optional

#: upper bounds of the buckets, seconds; what is longer goes into one more.
#: The first and the steps of ten are those that OpenTelemetry's conventions
#: advise for the use and wait times of a connection pool.
BOUNDS = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5),
    *(1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0),
)
#: what is not longer falls into the first bucket
SHORTEST = BOUNDS[0]


def bucket_of(seconds: float) -> int:
    """Return the number of the bucket that a duration falls into."""
    return bisect_left(BOUNDS, seconds)


def counted(tally: Optional[list[int]], seconds: float) -> list[int]:
    """Count a duration, and return the counts: no longer than they have to
    be, as there are some for each connection.

    :param tally: what has been counted so far; None: nothing.
    """
    bucket = bisect_left(BOUNDS, seconds)
    try:
        tally[bucket] += 1  # type: ignore[index]
    except (IndexError, TypeError):
        tally = tally or []
        tally = [*tally, *[0] * (bucket - len(tally)), 1]
    return tally  # type: ignore[return-value]


@dataclass(frozen=True)
class Histogram:
    """How long something took, how often.

    .. versionadded:: 0.1
    """

    #: how many durations fell into each bucket: up to ``BOUNDS[i]`` seconds
    #: and above the bound before it; the last: longer than all bounds
    counts: tuple[int, ...] = (0,) * (len(BOUNDS) + 1)
    #: of all durations, in seconds
    sum: float = 0.0

    @property
    def count(self) -> int:
        """How many durations there were."""
        return sum(self.counts)

    def quantile(self, part: float) -> Optional[float]:
        """Return a bound below which so large a part of the durations lies.

        :param part: between 0 and 1; 0.5 for the median.
        :return: seconds; None: there was none, or it is beyond all bounds.
        """
        wanted, found = part * self.count, 0
        for bound, number in zip(BOUNDS, self.counts):
            found += number
            if found and found >= wanted:
                return bound
        return None


def summed(tallies: Iterable[Optional[list[int]]]) -> list[int]:
    """Add up counts, bucket by bucket.

    :param tallies: None counts nothing.
    """
    total = [0] * (len(BOUNDS) + 1)
    for tally in tallies:
        for bucket, number in enumerate(tally or ()):
            total[bucket] += number
    return total
