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
from typing import Sequence

#: what one turn of a candidate measured: figures by name, each with its unit
#: in the name
Figures = Mapping[str, float]


class Case(NamedTuple):
    """Candidates under one condition.

    :param title: the condition.
    :param turns: what each candidate does once a round.
    :param references: the candidates that the others are compared with.
    """

    title: str
    turns: Mapping[str, Callable[[], Figures]]
    references: Sequence[str] = ("QueuePool",)


class Benchmark(NamedTuple):
    """A question, and how it is answered.

    :param name: as on the command line.
    :param about: what is measured, in a sentence.
    :param cases: makes the cases, each when it is its turn and given up
        before the next one; "quick" ones, which show that all runs, or full
        ones.
    """

    name: str
    about: str
    cases: Callable[[bool], Iterator[Case]]


@dataclass
class Measured:
    """What came of one case.

    :param samples: of each candidate its figures, round by round.
    """

    benchmark: str
    title: str
    references: Sequence[str]
    samples: dict[str, list[Figures]] = field(default_factory=dict)

    @property
    def figures(self) -> list[str]:
        """The names of the figures, as far as all candidates have them."""
        first, *others = (rounds[0] for rounds in self.samples.values())
        return [x for x in first if all(x in other for other in others)]

    def values(self, candidate: str, figure: str) -> list[float]:
        return [each[figure] for each in self.samples[candidate]]

    def ratio(self, candidate: str, reference: str, figure: str) -> float:
        """How many times the reference's figure, by the median round."""
        pairs = zip(
            self.values(candidate, figure), self.values(reference, figure)
        )
        return statistics.median(
            a / b if b else float("nan") for a, b in pairs
        )


def measure(
    benchmark: str,
    case: Case,
    rounds: int,
    advance: Callable[[str], object] = lambda candidate: None,
) -> Measured:
    """Have the candidates take turns.

    :param advance: is told who is next.
    """
    measured = Measured(benchmark, case.title, case.references)
    names = list(case.turns)
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            advance(name)
            figures = case.turns[name]()
            measured.samples.setdefault(name, []).append(figures)
    # as they were named, whoever was first in the first round
    measured.samples = {name: measured.samples[name] for name in names}
    return measured
