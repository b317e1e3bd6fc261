"""Measuring candidates beside each other.

The speed of a shared machine drifts, so the candidates take turns, in another
order each round, and are compared round by round: what is reported of two is
the median of their ratios.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field
import statistics
from typing import Callable
from typing import Iterator
from typing import Mapping
from typing import NamedTuple
from typing import Optional
from typing import Sequence
from typing import Union

from hdrh.histogram import HdrHistogram

#: what one turn of a candidate measured: figures by name, each with its unit
#: in the name
Figures = Mapping[str, float]


class Timeline(NamedTuple):
    """What happened in the course of a turn.

    :param step: the seconds that one number of a series stands for.
    :param series: numbers by name, from the turn's begin on.
    :param marks: when what happened, seconds after the begin.
    """

    step: float
    series: Mapping[str, Sequence[float]]
    marks: Mapping[str, float]


class Turn(NamedTuple):
    """What one turn of a candidate brought, where that is more than figures.

    :param waits: of all callers, as :mod:`.waits` records them.
    """

    figures: Figures
    waits: Optional[HdrHistogram] = None
    timeline: Optional[Timeline] = None


class Case(NamedTuple):
    """Candidates under one condition.

    :param title: the condition.
    :param turns: what each candidate does once a round.
    :param references: the candidates that the others are compared with.
    :param most_rounds: more say nothing more.
    """

    title: str
    turns: Mapping[str, Callable[[], Union[Figures, Turn]]]
    references: Sequence[str] = ("QueuePool",)
    most_rounds: int = 1_000


class Benchmark(NamedTuple):
    """A question, and how it is answered.

    :param name: as on the command line.
    :param about: what is measured, in a sentence.
    :param cases: makes the cases, each when it is its turn and given up
        before the next one; "quick" ones, which show that all runs, or full
        ones.
    :param long_cases: makes those that take so long that they are asked for.
    """

    name: str
    about: str
    cases: Callable[[bool], Iterator[Case]]
    long_cases: Callable[[], Iterator[Case]] = lambda: iter(())


@dataclass
class Measured:
    """What came of one case.

    :param samples: of each candidate its figures, round by round.
    :param waits: of each candidate the waits of all rounds.
    :param timelines: of each candidate that of the last round.
    """

    benchmark: str
    title: str
    references: Sequence[str]
    samples: dict[str, list[Figures]] = field(default_factory=dict)
    waits: dict[str, HdrHistogram] = field(default_factory=dict)
    timelines: dict[str, Timeline] = field(default_factory=dict)

    @property
    def figures(self) -> list[str]:
        """The names of the figures, as far as all candidates have them."""
        first, *others = (rounds[0] for rounds in self.samples.values())
        return [x for x in first if all(x in other for other in others)]

    def values(self, candidate: str, figure: str) -> list[float]:
        return [each[figure] for each in self.samples[candidate]]

    def ratios(
        self, candidate: str, reference: str, figure: str
    ) -> list[float]:
        """How many times the reference's figure, round by round."""
        pairs = zip(
            self.values(candidate, figure), self.values(reference, figure)
        )
        return [a / b if b else float("nan") for a, b in pairs]

    def ratio(self, candidate: str, reference: str, figure: str) -> float:
        """The same, by the median round."""
        return statistics.median(self.ratios(candidate, reference, figure))

    def add(self, candidate: str, brought: Union[Figures, Turn]) -> None:
        """Take down what a turn of a candidate brought."""
        if not isinstance(brought, Turn):
            brought = Turn(brought)
        self.samples[candidate].append(brought.figures)
        if brought.timeline is not None:
            self.timelines[candidate] = brought.timeline
        if brought.waits is not None:
            if candidate in self.waits:
                self.waits[candidate].add(brought.waits)
            else:
                self.waits[candidate] = brought.waits


def measure(
    benchmark: str,
    case: Case,
    rounds: int,
    advance: Callable[[str], object] = lambda candidate: None,
) -> Measured:
    """Have the candidates take turns.

    :param advance: is told who is next.
    """
    names = list(case.turns)
    measured = Measured(benchmark, case.title, case.references)
    # as they were named, whoever was first in the first round
    measured.samples = {name: [] for name in names}
    for turn in range(min(rounds, case.most_rounds)):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            advance(name)
            measured.add(name, case.turns[name]())
    return measured
