"""The only mutable truth of a pool: its connections, connects and callers."""

from __future__ import annotations

from collections import Counter
from collections import deque
from collections import OrderedDict
import math
import threading
from typing import Callable
import weakref

from .backoff import Backoff
from .changes import Changes
from .histogram import Histogram
from .histogram import summed
from .record import Record
from .runtime import Runtime
from .runtime import Signal
from .settings import Settings
from .stats import PoolStats
from .tickets import Grant
from .tickets import Waiter


class Books(Changes):
    """Who has which connection, who waits for one, and what it has cost.

    Names that begin with an underscore are touched with the key only; so
    are ``members``, ``opening``, ``waiters`` and ``counts``, which others
    may read.

    :param settings: of the pool; replaced when it is resized.
    :param runtime: clock, chance and signals.
    """

    def __init__(self, settings: Settings, runtime: Runtime) -> None:
        super().__init__(runtime)
        self.settings = settings
        #: callers open connections themselves
        self.inline = False
        #: connections that wait for a caller, the newest right; taken from
        #: and added to by anyone, without the key
        self.idle: deque[Record] = deque()
        #: of these, the ones that no caller should run into any more: upkeep
        #: pings them, or cuts them for the room
        self.aside: deque[Record] = deque()
        #: connections in the hands of upkeep, which adds and removes them
        self.tending: set[Record] = set()
        #: what upkeep pings, or is about to take for that, and since when;
        #: it adds and removes
        self.asked: dict[Record, float] = {}
        #: records whose connection is gone; their ``record_info`` is not
        self.empty: deque[Record] = deque(maxlen=100)
        #: every record that has, or had until its close, a connection
        self.members: dict[Record, None] = {}
        #: the connects under way, each for as long as somebody makes it
        self.opening: dict[weakref.ref[Grant], None] = {}
        #: those that took so long that others were given their room
        self.overdue: dict[weakref.ref[Grant], None] = {}
        #: callers in the order in which they asked
        self.waiters: OrderedDict[Waiter, None] = OrderedDict()
        #: the counters of :class:`.PoolStats`; times in seconds
        self.counts: Counter[str] = Counter()
        #: the waits, the connects that succeeded, and the longer ones of the
        #: uses of connections that are gone, by their length
        self.waits = summed([])
        self.connects = summed([])
        self.long_uses = summed([])
        self.backoff = Backoff(runtime.chance)
        #: when a connect last succeeded
        self.arrived_at = -math.inf
        self.closed = False
        self.paused = False
        #: it was disposed: callers who waited, or are late, are served, and
        #: nothing is kept for others
        self.retired = False
        #: takes an idle connection, or raises IndexError
        self.take: Callable[[], Record] = self.idle.pop
        self._impatient: dict[Waiter, None] = {}
        #: who waits for the pool to fill, or to become empty
        self._watchers: dict[Signal, Callable[[], bool]] = {}

        #: held by who changes the settings
        self.changing = threading.RLock()

    # -- what can be read at any time ------------------------------------

    @property
    def size(self) -> int:
        """Connections that are open."""
        return len(self.members)

    @property
    def in_use(self) -> int:
        """Connections in the hands of callers."""
        return max(0, self.size - self.idle_now - len(self.tending))

    @property
    def idle_now(self) -> int:
        return len(self.idle) + len(self.aside)

    def resting(self) -> list[Record]:
        """The connections in nobody's hands."""
        return [*self.idle.copy(), *self.aside.copy()]

    @property
    def room(self) -> float:
        """How many more connections may be opened; infinite: no ceiling."""
        ceiling = self.settings.ceiling
        if ceiling is None:
            return math.inf
        return ceiling - len(self.members) - len(self.opening)

    @property
    def grants(self) -> list[Grant]:
        """The connects under way that have room."""
        return _there(self.opening)

    @property
    def under_way(self) -> list[Grant]:
        """All connects under way."""
        return _there(self.opening) + _there(self.overdue)

    @property
    def leaving(self) -> int:
        """Connections in the hands of upkeep that will not come back."""
        return sum(record.going is not None for record in self.tending.copy())

    @property
    def room_to_be(self) -> float:
        """The room when all that are being closed now are closed."""
        return self.room + self.leaving

    @property
    def staying(self) -> int:
        """Connections that are open or being opened, and are to be kept."""
        kept = sum(record.going is None for record in self.members.copy())
        return kept + len(self.opening)

    def stats(self) -> PoolStats:
        """Sum up; what is counted per checkout is kept with the records."""
        members = self.members.copy()
        settings, counts = self.settings, self.counts
        uses = counts["_uses"] + sum(record.uses for record in members)
        usage = counts["usage_ms"] + sum(record.usage for record in members)
        times = {
            "usage_ms": usage,
            "requests_wait_ms": counts["requests_wait_ms"],
            "connections_ms": counts["connections_ms"],
        }
        plain = {
            name: number
            for name, number in counts.copy().items()
            if not name.startswith("_") and name not in times
        }
        connect_time = Histogram(
            tuple(self.connects), counts["_successful_connects"]
        )
        return PoolStats(
            pool_min=settings.min_size,
            pool_max=settings.ceiling or 0,
            pool_size=self.size,
            pool_available=self.idle_now,
            pool_in_use=self.in_use,
            pool_connecting=len(self.opening),
            requests_waiting=len(self.waiters),
            requests_num=uses + counts["requests_errors"],
            **{name: round(1000 * seconds) for name, seconds in times.items()},
            **plain,
            wait_time=_histogram(self.waits, uses, counts["requests_wait_ms"]),
            use_time=_histogram(
                summed([self.long_uses, *(rec.long_uses for rec in members)]),
                uses - self.in_use,
                usage,
            ),
            connect_time=connect_time,
        )


def _histogram(tally: list[int], count: int, seconds: float) -> Histogram:
    """Those of ``count`` that are not in the tally were the shortest."""
    shortest = tally[0] + max(count - sum(tally), 0)
    return Histogram((shortest, *tally[1:]), seconds)


def _there(connects: dict[weakref.ref[Grant], None]) -> list[Grant]:
    grants = (reference() for reference in connects.copy())
    return [grant for grant in grants if grant is not None]
