"""Throughput over the size of the pool: where its knee is, what follows.

The knee is where *power* is greatest, throughput divided by the time that a
connection is in use: L. Kleinrock, "Power and deterministic rules of thumb
for probabilistic problems in computer communications", ICC 1979.  Below it
another connection adds throughput for nothing; beyond it the statements only
slow each other down.  Power falls off steeply on both sides, so that noise
moves its peak less than it moves the place where a flat curve begins.
"""

from __future__ import annotations

from dataclasses import dataclass
import statistics
from typing import Any
from typing import Iterable
from typing import Optional
from typing import Sequence

from ...sizing import size_for
from ...sizing import waits

#: each size is so many times the one before
_STEP = 1.5
#: parts of the knee's throughput: what a floor is for, and a busy time
_USUAL, _BUSY = 0.5, 0.8
#: a gain in throughput that may be worth its price
_MUCH = 0.1


@dataclass(frozen=True)
class Run:
    """What a pool of one size did for a moment; times in seconds."""

    size: int
    #: statements a second
    throughput: float
    #: how long each had its connection, on average
    use: float
    #: how long each waited for it, on average
    wait: float
    #: what opening a connection took, on average
    connect: float


@dataclass(frozen=True)
class Point:
    """The median of all runs of one size."""

    run: Run
    lowest_throughput: float
    highest_throughput: float

    @property
    def power(self) -> float:
        return self.run.throughput / self.run.use

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers, for ``--json``."""
        return {
            "size": self.run.size,
            "throughput": self.run.throughput,
            "throughput_range": [
                self.lowest_throughput,
                self.highest_throughput,
            ],
            "use_seconds": self.run.use,
            "wait_seconds": self.run.wait,
            "connect_seconds": self.run.connect,
        }


@dataclass(frozen=True)
class Verdict:
    """Which size serves, and why."""

    #: None: throughput still grew at the largest size
    knee: Optional[int]
    min_size: int
    max_size: int
    #: a paragraph for a person
    text: str


def sizes(workers: int) -> list[int]:
    """Return the sizes to try: no more connections than can be in use."""
    chosen, size = [], 1
    while size < workers:
        chosen.append(size)
        size = max(size + 1, round(size * _STEP))
    return [*chosen, workers]


def points(runs: Iterable[Run]) -> list[Point]:
    """Return the medians, by size."""
    by_size: dict[int, list[Run]] = {}
    for run in runs:
        by_size.setdefault(run.size, []).append(run)
    return [
        Point(
            Run(
                size,
                *(
                    statistics.median(getattr(run, name) for run in same)
                    for name in ("throughput", "use", "wait", "connect")
                ),
            ),
            min(run.throughput for run in same),
            max(run.throughput for run in same),
        )
        for size, same in sorted(by_size.items())
    ]


def judge(curve: Sequence[Point], workers: int) -> Verdict:
    """Find the knee, and say which sizes serve.

    :param curve: in order of size.
    :param workers: that shared the pool.
    """
    best = max(curve, key=lambda point: point.power)
    grows = best is curve[-1] and len(curve) > 1
    knee = best.run
    # many that are opened side by side take longer
    alone = min(point.run.connect for point in curve)
    floor = min(knee.size, size_for(_USUAL * knee.throughput * knee.use))
    sentences = [
        _at_the_knee(knee, workers, grows),
        *_beyond(knee, curve, workers),
        f"max_size={knee.size} serves; min_size={floor} has enough open for"
        f" {_USUAL:.0%} of that load, and each one opened on top takes"
        f" {_ms(alone)}.",
        *_too_few(knee, curve),
    ]
    return Verdict(
        knee=None if grows else knee.size,
        min_size=floor,
        max_size=knee.size,
        text=" ".join(sentences),
    )


def _at_the_knee(knee: Run, workers: int, grows: bool) -> str:
    busy = knee.throughput * knee.use
    reached = (
        f"{knee.throughput:.4g} statements a second of {_ms(knee.use)} each,"
        f" which keep {busy:.3g} connections busy (Little's law)"
    )
    if grows:
        return (
            f"Throughput of {workers} workers still grew with the largest"
            f" pool, {knee.size}: {reached}. The database may take more:"
            " measure with more workers."
        )
    return (
        f"The knee of the throughput of {workers} workers is at {knee.size}:"
        f" {reached}."
    )


def _beyond(knee: Run, curve: Sequence[Point], workers: int) -> Iterable[str]:
    larger = [point.run for point in curve if point.run.size > knee.size]
    if not larger:
        return
    other = max(larger, key=lambda run: run.throughput)
    gain = other.throughput / knee.throughput - 1
    yield (
        f"With {other.size} it was {other.throughput:.4g} a second"
        f" ({gain:+.0%}), and each took {_ms(other.use)}:"
    )
    if gain < _MUCH:
        yield "what does not wait in the pool waits in the database."
    else:
        yield (
            "a statement with its wait then takes"
            f" {_ms(workers / other.throughput)} instead of"
            f" {_ms(workers / knee.throughput)} (Little's law), for"
            f" {other.size - knee.size} sessions more that slow each other"
            " down."
        )


def _too_few(knee: Run, curve: Sequence[Point]) -> Iterable[str]:
    """Say what it costs to be wrong: Erlang's figures for a busy time."""
    demand = _BUSY * knee.throughput * knee.use
    yield (
        f"At {_BUSY:.0%} of that load {_waiting(demand, knee)} if callers"
        " come at random."
    )
    smaller = [point.run for point in curve if point.run.size < knee.size]
    if smaller:
        other = smaller[-1]
        change = other.throughput / knee.throughput - 1
        yield (
            f"With {other.size}, the next smaller size, throughput ended at"
            f" {other.throughput:.4g} a second ({change:+.0%})."
        )


def _waiting(demand: float, run: Run) -> str:
    part = waits(demand, run.size)
    if part >= 1.0:
        return "all callers would wait, longer and longer,"
    wait = part * run.use / (run.size - demand)
    return (
        f"{part:.0%} of the callers would wait for one of them,"
        f" {_ms(wait)} on average over all,"
    )


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms"
