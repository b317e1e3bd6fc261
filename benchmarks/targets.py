"""What SmartPool is to reach, beside what was measured.

Ratios hold where times do not, so most are parts of another candidate's
figure, taken round by round.
"""

from __future__ import annotations

import math
import statistics
from typing import Mapping
from typing import NamedTuple
from typing import Optional
from typing import Sequence

from .measure import Measured


class Target(NamedTuple):
    """A bound on one figure of one candidate.

    :param bound: which it may not exceed.
    :param reference: the candidate whose figure is the unit; None: the figure
        is taken as it is.
    :param at_least: the bound is one that must be reached instead.
    :param where: what the titles of the cases that are meant begin with.
    :param python: the version that is meant, "3.11"; None: all.
    """

    candidate: str
    figure: str
    bound: float
    reference: Optional[str] = None
    at_least: bool = False
    where: str = ""
    python: Optional[str] = None

    def applies(self, measured: Measured, machine: Mapping[str, str]) -> bool:
        version = machine.get("CPython", "").rpartition(".")[0]
        return (
            measured.title.startswith(self.where)
            and self.candidate in measured.samples
            and self.figure in measured.samples[self.candidate][0]
            and self.python in (None, version)
        )

    def found(self, measured: Measured) -> float:
        """What came of it, by the median round."""
        if self.reference is not None:
            return measured.ratio(self.candidate, self.reference, self.figure)
        return statistics.median(measured.values(self.candidate, self.figure))

    def met(self, measured: Measured) -> bool:
        found = self.found(measured)
        if math.isnan(found):
            return False
        return found >= self.bound if self.at_least else found <= self.bound

    def __str__(self) -> str:
        sign = ">=" if self.at_least else "<="
        unit = f" x {self.reference}" if self.reference else ""
        return f"{self.figure} {sign} {self.bound:g}{unit}"


_CPU = "us per checkout"
_WAIT = "longest wait, ms"
_FLAT = "us per checkout / that of few"
_FIFO = "bare FIFO"
_QUEUE_15 = "QueuePool(15, 0)"
_PATIENT = "SmartPool(reconnect_timeout=15)"
_THRASH = "SmartPool(5..15)"
_SERVED = "until all are served, ms"

#: by the name of the benchmark
TARGETS: dict[str, Sequence[Target]] = {
    "checkout": (
        Target("SmartPool", _CPU, 1.12, "StaticPool", where="the pool alone"),
        Target("SmartPool", _CPU, 1.08, "StaticPool", where="through"),
    ),
    "contended": (
        Target("SmartPool", _CPU, 0.7, "QueuePool", python="3.11"),
        Target("SmartPool", _WAIT, 1.0, "psycopg_pool"),
    ),
    "async-checkout": (
        Target("AsyncSmartPool", _CPU, 1.05, "StaticPool", where="1 tasks"),
        *(
            Target("AsyncSmartPool", _CPU, 1.05, _FIFO, where=tasks)
            for tasks in ("50 tasks", "1000 tasks", "10000 tasks")
        ),
    ),
    "fairness": tuple(
        Target(candidate, figure, bound)
        for candidate in ("SmartPool", "AsyncSmartPool")
        for figure, bound in (
            ("longest wait / fair wait", 1.7),
            ("workers starved", 0),
        )
    ),
    "stress": (
        Target("SmartPool", "longest wait / fair", 1.15),
        Target("SmartPool", "total / fair", 1.02),
    ),
    "thrash": (
        Target(_THRASH, "requests/s", 1.0, _QUEUE_15, at_least=True),
        Target(_THRASH, "connections opened", 15),
        Target(_THRASH, "p99 wait, ms", 0.2, where="15 "),
        Target(_THRASH, "p99 wait / mean wait", 1.3, where="200 "),
    ),
    "safe-checkout": (
        Target("SmartPool", "us per request", 1.03, "QueuePool"),
    ),
    "retirement": (
        Target("SmartPool(10..15)", "p99 wait, ms / without", 1.3),
        Target("SmartPool(10..15)", "p99.9 wait, ms", 1.0),
        Target("SmartPool(10..15)", "fewest open", 10, at_least=True),
    ),
    "cold-start": (
        Target(
            "SmartPool, started", _SERVED, 1.05, "QueuePool, opened by hand"
        ),
        Target("SmartPool, not started", _SERVED, 1.02, "QueuePool"),
    ),
    "spike": (
        Target("SmartPool", "connections opened", 0.99, "QueuePool"),
        Target("SmartPool", _SERVED, 1.0, "QueuePool"),
    ),
    "scale": (
        # one connection is more than itself: there is a pool around it
        Target("SmartPool", "bytes per idle connection", 1200, where="1000 "),
        Target("SmartPool", _FLAT, 1.2),
        Target("AsyncSmartPool", _FLAT, 1.2),
        Target("SmartPool", "threads", 1),
        Target("SmartPool", "% of a core", 0.1),
    ),
    "recovery": (
        Target("SmartPool", "s until one is served", 0.3, where="an outage"),
        *(
            # those that were being executed as it began
            Target(_PATIENT, "requests failed", 8, where=outage)
            for outage in ("an outage of 1 s", "an outage of 5 s")
        ),
        Target("SmartPool", "requests failed", 0, where="idle"),
        *(
            Target("SmartPool", figure, bound, where=fault)
            for fault in ("a peer stalls", "packets")
            for figure, bound in (
                ("requests that hang", 0),
                ("longest request, s", 6.0),
            )
        ),
    ),
    "fleet": (
        Target("SmartPool", "attempts/s at the peak", 0.1, "QueuePool"),
        Target("SmartPool", "s until every process serves", 5.0),
        # what would come of even spreading over a tenth of the lifetime is
        # less than half of this
        Target("SmartPool", "largest cohort, % of all", 1.0),
    ),
}


def targets_of(measured: Measured, machine: Mapping[str, str]) -> list[Target]:
    """The targets that apply to a case."""
    return [
        each
        for each in TARGETS.get(measured.benchmark, ())
        if each.applies(measured, machine)
    ]
