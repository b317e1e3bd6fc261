"""What a simulated fleet goes through."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Callable
from typing import Mapping
from typing import NamedTuple

from .database import Database
from .database import Down
from .pools import FleetPool
from .world import World
from ..measure import Timeline
from ..measure import Turn

#: makes the pool of a process: its database, size and lifetime
Kind = Callable[[Database, int, float], FleetPool]

_SIZE = 20
#: callers in a process at a time: what comes beyond that is turned away
#: before it gets to the pool
_CALLERS = 20
#: for how long a request keeps its connection, seconds
_HOLD = 0.02
#: a fleet that is to be found at rest starts within this time, seconds
_ROLLOUT = 30.0
#: a cohort is what was opened within this part of a lifetime: of an hour, a
#: second
_MOMENT = 1.0 / 3600.0
#: from when on connections are in use that grow old, and until when, in parts
#: of a lifetime: those that nobody uses expire unnoticed in some pools
_IN_USE, _END = 0.94, 1.05


class Extent(NamedTuple):
    """How much is simulated.

    :param rate: requests a second, in each process.
    :param outage: seconds.
    :param lifetime: of connections, seconds.
    """

    processes: int
    rate: float
    outage: float
    lifetime: float


class _Fleet:
    def __init__(self, kind: Kind, extent: Extent) -> None:
        self.world = World()
        self.database = Database(self.world)
        self.extent = extent
        self._pools = [
            kind(self.database, _SIZE, extent.lifetime)
            for _ in range(extent.processes)
        ]
        self._callers = [0] * extent.processes
        #: when each process first served a request, since that was asked
        self.serving: dict[int, float] = {}
        self.failed: Counter[int] = Counter()

    def start(self, within: float, full: bool = False) -> None:
        """Start all processes, in so many seconds.

        :param full: with all connections open.
        """
        for pool in self._pools:
            when = self.world.chance.uniform(0, within)
            self.world.begin(pool.start, when)
            if full:
                self.world.begin(pool.fill, when)

    def load(self) -> None:
        """Have requests come to all processes, from now on."""
        for number in range(self.extent.processes):
            self._expect(number)

    def run(self, seconds: float) -> None:
        self.world.env.run(until=self.world.now + seconds)

    def run_until_all_serve(self, most: float) -> float:
        """How long it takes, from now, until each process has served."""
        self.serving.clear()
        began = self.world.now
        while len(self.serving) < len(self._pools):
            if self.world.now - began > most:
                return float("inf")
            self.run(0.5)
        return max(self.serving.values()) - began

    def _expect(self, number: int) -> None:
        pause = self.world.chance.expovariate(self.extent.rate)
        self.world.call(partial(self._arrive, number), pause)

    def _arrive(self, number: int) -> None:
        self._expect(number)
        if self._callers[number] < _CALLERS:
            self._callers[number] += 1
            self.world.begin(partial(self._request, number))

    def _request(self, number: int) -> None:
        try:
            self._pools[number].serve(_HOLD)
        except (Down, TimeoutError):
            self.failed[self.database.second] += 1
        else:
            self.serving.setdefault(number, self.world.now)
        finally:
            self._callers[number] -= 1

    def turn(self, figures: Mapping[str, float], **marks: float) -> Turn:
        """What came of it, from the second of the first mark on."""
        begin, end = int(min(marks.values(), default=0)), self.database.second
        attempts = [self.database.attempts[x] for x in range(begin, end + 1)]
        failed = [self.failed[x] for x in range(begin, end + 1)]
        return Turn(
            {"attempts/s at the peak": max(attempts), **figures},
            timeline=Timeline(
                1.0,
                {"attempts": attempts, "requests failed": failed},
                {name: when - begin for name, when in marks.items()},
            ),
        )


def deploy(kind: Kind, extent: Extent) -> Turn:
    """All processes start at once, and requests come at once."""
    fleet = _Fleet(kind, extent)
    fleet.start(0.0)
    fleet.load()
    serving = fleet.run_until_all_serve(60.0)
    fleet.run(10.0)
    return fleet.turn({"s until every process serves": serving})


def outage(kind: Kind, extent: Extent) -> Turn:
    """The database goes, refuses, and comes back."""
    fleet = _Fleet(kind, extent)
    fleet.start(_ROLLOUT)
    fleet.run(_ROLLOUT + 10.0)
    fleet.load()
    fleet.run(2.0)
    down = fleet.database.second
    fleet.database.fail()
    fleet.run(extent.outage)
    back = fleet.database.second
    fleet.database.come_back()
    serving = fleet.run_until_all_serve(60.0)
    fleet.run(10.0)
    return fleet.turn(
        {"s until every process serves": serving}, down=down, back=back
    )


def expiry(kind: Kind, extent: Extent) -> Turn:
    """All connections were opened in the same moment; one lifetime later."""
    fleet = _Fleet(kind, extent)
    fleet.start(0.0, full=True)
    fleet.run(_IN_USE * extent.lifetime)
    fleet.load()
    fleet.run((_END - _IN_USE) * extent.lifetime)
    moment = _MOMENT * extent.lifetime
    born = Counter(each.born // moment for each in fleet.database.open)
    part = 100.0 * max(born.values()) / born.total()
    return fleet.turn(
        {"largest cohort, % of all": part},
        **{"90 %": 0.9 * extent.lifetime, "one lifetime": extent.lifetime},
    )
