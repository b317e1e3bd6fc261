"""How long callers waited: every one of them, in an HdrHistogram.

A histogram keeps the shape of the distribution, which figures do not, is
small, and those of several rounds can be added up.
"""

from __future__ import annotations

from typing import Iterable

from hdrh.histogram import HdrHistogram
import numpy

#: one unit of a histogram, seconds
UNIT = 1e-6
#: the longest wait that is told from longer ones, in units: an hour
_LONGEST = 3_600_000_000
_DIGITS = 3


def recorded(waits: Iterable[float]) -> HdrHistogram:
    """A histogram of waits, in seconds."""
    histogram = HdrHistogram(1, _LONGEST, _DIGITS)
    units = numpy.rint(numpy.fromiter(waits, float) / UNIT).astype(int)
    for value, number in zip(*numpy.unique(units, return_counts=True)):
        histogram.record_value(int(min(value, _LONGEST)), int(number))
    return histogram


def encoded(histogram: HdrHistogram) -> str:
    """As text, in the format that all HdrHistogram libraries read."""
    text: bytes = histogram.encode()
    return text.decode("ascii")


def decoded(text: str) -> HdrHistogram:
    return HdrHistogram.decode(text)
