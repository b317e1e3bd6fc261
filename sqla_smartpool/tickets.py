"""What passes between callers and the inventory."""

from __future__ import annotations

from contextvars import Context
import enum
from typing import Optional
from typing import Union

from .record import Record
from .runtime import Signal
from .whereabouts import Who


class Refusal(enum.Enum):
    """Why a caller gets nothing."""

    TIMEOUT = "timeout"
    OVERLOADED = "overloaded"
    CLOSED = "closed"


class Purpose(enum.Enum):
    """What upkeep opens a connection for."""

    #: to have ``min_size`` open
    FLOOR = "floor"
    #: in place of one that goes
    SUCCESSOR = "successor"
    #: to find out whether the database can be reached, now
    PROBE = "probe"


class Grant:
    """Room for one connection, claimed for a connect that is under way.

    It lives in the hands of whoever makes the connect; the books refer to it
    weakly.
    """

    __slots__ = (
        "begun",
        "context",
        "written_off",
        "unwanted",
        "background",
        "attempt",
        "__weakref__",
    )

    def __init__(
        self,
        begun: float,
        context: Optional[Context] = None,
        background: bool = False,
    ) -> None:
        self.begun = begun
        #: of the caller for whom it is opened
        self.context = context
        #: it took too long, and its room was given to others
        self.written_off = False
        #: all connections of its time are to go
        self.unwanted = False
        #: it is upkeep's
        self.background = background
        #: how many connects in a row had failed when it failed
        self.attempt = 0


Outcome = Union[Record, Grant, Refusal, BaseException]


class Waiter:
    """A caller in the queue.

    Serving it and its giving up are the same atomic operation, of which the
    first to come decides.
    """

    __slots__ = (
        "signal",
        "since",
        "impatient",
        "context",
        "who",
        "error",
        "_box",
        "__weakref__",
    )

    def __init__(
        self,
        signal: Signal,
        since: float,
        impatient: bool = False,
        context: Optional[Context] = None,
        who: Who = None,
    ) -> None:
        self.signal = signal
        self.since = since
        #: it does not queue (``timeout=0``)
        self.impatient = impatient
        self.context = context
        self.who = who
        #: why connects fail, while ``reconnect_timeout`` lets it wait on
        self.error: Optional[BaseException] = None
        self._box: dict[int, tuple[Optional[Outcome]]] = {}

    def serve(self, outcome: Outcome) -> bool:
        """Hand it an outcome; False: it has given up."""
        # a tuple of its own: it may have been handed the same thing before
        mine = (outcome,)
        served = self._box.setdefault(0, mine) is mine
        # in any case: whoever served it may not have got so far
        self.signal.set()
        return served

    def give_up(self) -> Optional[Outcome]:
        """Leave the queue; returns what it was handed before, if anything."""
        return self._box.setdefault(0, (None,))[0]

    @property
    def outcome(self) -> Optional[Outcome]:
        return self._box.get(0, (None,))[0]

    def holds(self, record: Record) -> bool:
        """It was served with this connection."""
        return self.outcome is record

    @property
    def decided(self) -> bool:
        """It was served, or has given up."""
        return 0 in self._box
