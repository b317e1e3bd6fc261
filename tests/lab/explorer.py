"""Runs a few callers of the pool in every order of their steps.

Each caller is a greenlet; it runs alone until it is about to touch something
contended (:mod:`tests.lab.accesses`), and there any other may go on instead.
What lies between two such accesses concerns the caller alone, so that more
switches would show nothing new.

The search is that of CHESS (Musuvathi and Qadeer): depth first over all
schedules with up to so many preemptions, switches away from a caller that
could have gone on; a switch where a caller blocks, ends or talks to a server
costs nothing.  Two schedules in which the same accesses conflict in the same
order have led to the same state, so that the second is followed no further
(:mod:`tests.lab.happens_before`).  What is contended is learned on the way:
whatever two callers touch in an order that nothing ensures; first from some
schedules at random, and the search begins anew with each thing that turns
out to be later.

As a garbage collection may run a finaliser on any thread between any two of
its steps, that is one more choice (:meth:`tests.lab.schedule.Run.drop`).
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field
from random import Random
from typing import Callable
from typing import Hashable
from typing import Optional

from tests.lab import accesses
from tests.lab import complaints
from tests.lab.schedule import Caller
from tests.lab.schedule import Choice
from tests.lab.schedule import Pruned
from tests.lab.schedule import Run

#: so many schedules in a row that show nothing new
_ENOUGH = 60
#: how probable it is in these that a caller goes on by itself, and how many
#: preemptions more than in all others they may have
_STAY = 0.8
_MORE = 2


@dataclass
class Node:
    """A choice that is to be made in every way."""

    options: list[Choice]
    taken: int = 0


@dataclass
class Report:
    """What an exploration has found."""

    schedules: int = 0
    states: int = 0
    failure: Optional[BaseException] = None
    #: who ran which line when, up to the failure
    story: list[str] = field(default_factory=list)
    #: for :meth:`Explorer.replay`
    schedule: list[tuple[str, str]] = field(default_factory=list)

    def __str__(self) -> str:
        counts = f"{self.schedules} schedules, {self.states} states"
        if self.failure is None:
            return counts
        lines = [f"{type(self.failure).__name__}: {self.failure}", ""]
        lines += [*self.story, "", f"replay: {self.schedule!r}", counts]
        return "\n".join(lines)


class Explorer:
    """Runs a scenario under all schedules up to a bound.

    :param scenario: sets up what is to be explored in a new run: adds
        callers, and says what must hold.
    :param preemptions: how many of them a schedule may have.  All with none
        are run first, then all with one, and so on, so that what is found is
        as simple as can be.
    """

    def __init__(
        self, scenario: Callable[[Run], object], preemptions: int
    ) -> None:
        self._scenario = scenario
        self._preemptions = preemptions
        self._bound = 0
        self.contended: set[Hashable] = set()
        #: the attributes that callers change, of whatever thing
        self.written: set[str] = set()
        #: what a finaliser touches; True: and changes
        self.finalised: dict[Hashable, bool] = {}
        self._path: list[Node] = []
        #: by state: the most preemptions that were left there
        self._seen: dict[int, int] = {}
        self._script: Optional[list[tuple[str, str]]] = None
        self._random = Random(0)
        #: whoever goes on is chosen at random
        self._learning = False

    def explore(self) -> Report:
        """Run them all, or until one fails."""
        report = Report()
        with accesses.watching():
            if self._run_once().has_garbage or self._preemptions:
                self._learn()
            for self._bound in range(self._preemptions + 1):
                self._explore(report)
                if report.failure is not None:
                    break
        return report

    def _learn(self) -> None:
        """Run schedules at random, until they show nothing new that is
        contended: whatever turns out later costs more time."""
        before, self._bound = self._bound, self._preemptions + _MORE
        self._learning = True
        quiet = 0
        while quiet < _ENOUGH:
            run = self._run_once()
            quiet = 0 if run.learned else quiet + 1
            accesses.report_readers(self.written)
        self._learning = False
        self._bound = before

    def _explore(self, report: Report) -> None:
        self._begin_anew()
        while True:
            run = self._run_once()
            report.schedules += 1
            if run.learned:
                accesses.report_readers(self.written)
                self._begin_anew()
            elif run.failure is not None:
                self._tell(report, run)
                break
            elif not self._next_path():
                break
        report.states = len(self._seen)

    def _begin_anew(self) -> None:
        self._path.clear()
        self._seen.clear()

    def replay(self, schedule: list[tuple[str, str]]) -> Run:
        """Run one schedule, which this exploration has found to fail."""
        with accesses.watching():
            return self._replay(schedule)

    def _replay(self, schedule: list[tuple[str, str]]) -> Run:
        self._script = schedule
        try:
            return self._run_once(tells=True)
        finally:
            self._script = None

    def _tell(self, report: Report, run: Run) -> None:
        report.failure, report.schedule = run.failure, run.schedule
        again = self._replay(run.schedule)
        # below its first line it names objects, which are made anew
        same = _first_line(again.failure) == _first_line(run.failure)
        assert same, f"not repeatable: {run.failure!r}, {again.failure!r}"
        report.story = again.story

    def _run_once(self, tells: bool = False) -> Run:
        run = Run(self, self._bound, tells)
        with accesses.by(run), complaints.to(run):
            self._scenario(run)
            run.play()
        return run

    def _next_path(self) -> bool:
        path = self._path
        while path and path[-1].taken + 1 == len(path[-1].options):
            path.pop()
        if path:
            path[-1].taken += 1
        return bool(path)

    def choose(
        self, run: Run, here: Optional[Caller], options: list[Choice]
    ) -> Choice:
        """Say who goes on.

        :raises Pruned: an earlier schedule has been here.
        """
        if self._script is not None:
            wanted = self._script[len(run.schedule)]
            return next(each for each in options if each[:2] == wanted)
        if self._learning:
            stay = self._random.random() < _STAY
            return options[0] if stay else self._random.choice(options)
        if run.depth < len(self._path):
            node = self._path[run.depth]
            assert node.options == options, "the scenario is not repeatable"
            return options[node.taken]
        state = run.state(here)
        if self._seen.get(state, -1) >= run.budget:
            raise Pruned
        self._seen[state] = run.budget
        self._path.append(Node(options))
        return options[0]


def _first_line(failure: Optional[BaseException]) -> str:
    return str(failure).partition("\n")[0]
