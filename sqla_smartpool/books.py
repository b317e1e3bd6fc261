"""The only mutable truth of a pool: its connections, connects and callers."""

from __future__ import annotations

from collections import Counter
from collections import deque
from collections import OrderedDict
import math
import threading
from typing import Any
from typing import Callable
from typing import NamedTuple
from typing import TypeVar
import weakref

from .backoff import Backoff
from .changes import Changes
from .histogram import Histogram
from .histogram import summed
from .pace import Pace
from .record import Record
from .runtime import Runtime
from .runtime import Signal
from .settings import Settings
from .stats import PoolStats
from .tickets import Grant
from .tickets import Waiter

_Number = TypeVar("_Number", int, float)


class Ledger(NamedTuple):
    """A pool's connections, and what those that are gone have done.

    It is never changed, but replaced: whoever adds up both parts, at any
    moment and on any thread, counts each connection once.
    """

    #: every record that has, or had until its close, a connection
    members: dict[Record, None] = {}
    #: of those that are gone what :class:`.Record` says of one
    uses: int = 0
    queued: int = 0
    wait_seconds: float = 0.0
    waits: list[int] = summed([])
    usage: float = 0.0
    long_uses: list[int] = summed([])

    def entered(self, record: Record) -> Ledger:
        return self._replace(members={**self.members, record: None})

    def closed(self, record: Record) -> Ledger:
        members = self.members.copy()
        del members[record]
        return Ledger(
            members,
            self.uses + record.uses,
            self.queued + record.queued,
            self.wait_seconds + record.wait_seconds,
            summed([self.waits, record.waits]),
            self.usage + record.usage,
            summed([self.long_uses, record.long_uses]),
        )


class Books(Changes):
    """Who has which connection, who waits for one, and what it has cost.

    Names that begin with an underscore are touched with the key only; so
    are ``ledger``, ``opening`` and ``counts``, which others may read.

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
        self.ledger = Ledger()
        #: the connects under way, each for as long as somebody makes it
        self.opening: dict[weakref.ref[Grant], None] = {}
        #: those that took so long that others were given their room
        self.overdue: dict[weakref.ref[Grant], None] = {}
        #: callers in the order in which they asked; entered and taken out by
        #: anyone, without the key
        self.waiters: OrderedDict[Waiter, None] = OrderedDict()
        #: the counters of :class:`.PoolStats`; times in seconds
        self.counts: Counter[str] = Counter()
        #: the waits that ended without a connection, and the connects that
        #: succeeded, by their length
        self.waits = summed([])
        self.connects = summed([])
        self.backoff = Backoff(runtime.chance)
        self.pace = Pace()
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

        #: what has been told of numbers that are differences, and the lock
        #: of who tells
        self._told: dict[str, Any] = {}
        self._telling = threading.RLock()

        #: held by who changes the settings
        self.changing = threading.RLock()

    # -- what can be read at any time ------------------------------------

    @property
    def members(self) -> dict[Record, None]:
        """Every record that has a connection; to be read only."""
        return self.ledger.members

    @property
    def size(self) -> int:
        """Connections that are open."""
        return len(self.ledger.members)

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
        return ceiling - len(self.ledger.members) - len(self.opening)

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
        kept = sum(record.going is None for record in self.members)
        return kept + len(self.opening)

    def stats(self) -> PoolStats:
        """Sum up; what is counted per checkout is kept with the records.

        Others go on meanwhile.  What is the difference of two numbers is read
        in such an order that it can be too small for a moment, and never too
        large: so it does not go back if no more than the largest is told.
        """
        ledger, settings, counts = self.ledger, self.settings, self.counts
        members = ledger.members
        uses = ledger.uses + sum(record.uses for record in members)
        queued = ledger.queued + sum(record.queued for record in members)
        returned = uses - self.in_use
        waits = summed(
            [self.waits, ledger.waits, *(record.waits for record in members)]
        )
        wait_seconds = counts["requests_wait_ms"] + ledger.wait_seconds
        wait_seconds += sum(record.wait_seconds for record in members)
        usage = ledger.usage + sum(record.usage for record in members)
        long_uses = summed(
            [ledger.long_uses, *(record.long_uses for record in members)]
        )
        at_once = self._at_least("at once", uses - queued)
        wait_seconds = self._at_least("wait", wait_seconds)
        short = self._at_least("short", returned - sum(long_uses))
        usage = self._at_least("usage", usage)
        times = {
            "usage_ms": usage,
            "requests_wait_ms": wait_seconds,
            "connections_ms": counts["connections_ms"],
        }
        plain = {
            name: number
            for name, number in counts.copy().items()
            if not name.startswith("_") and name not in times
        }
        plain["requests_queued"] = counts["requests_queued"] + queued
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
            wait_time=_histogram(waits, at_once, wait_seconds),
            use_time=_histogram(long_uses, short, usage),
            connect_time=_histogram(
                self.connects, 0, counts["_successful_connects"]
            ),
        )

    def _at_least(self, name: str, number: _Number) -> _Number:
        with self._telling:
            told: _Number = max(number, self._told.get(name, number))
            self._told[name] = told
            return told


def _histogram(tally: list[int], shortest: int, seconds: float) -> Histogram:
    """
    :param shortest: how many more there were in the first bucket.
    """
    return Histogram((tally[0] + shortest, *tally[1:]), seconds)


def _there(connects: dict[weakref.ref[Grant], None]) -> list[Grant]:
    grants = (reference() for reference in connects.copy())
    return [grant for grant in grants if grant is not None]
