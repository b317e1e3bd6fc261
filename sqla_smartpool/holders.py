"""Who has which connection: what ``holders()`` and ``connections()`` tell."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from datetime import timedelta
from datetime import timezone
from typing import Any
from typing import Optional
from typing import Protocol

from .whereabouts import place_of
from .whereabouts import Who


@dataclass(frozen=True)
class Holder:
    """Who has a connection in use.

    .. versionadded:: 0.1
    """

    #: the connection's number; the pool counts them from 1
    connection_id: int
    #: when it was checked out, by the clock of the wall
    since: datetime
    #: for how long it has been in use
    seconds: float
    #: the thread's or task's name
    name: str
    #: the thread's ident; None: a task
    ident: Optional[int]
    #: where that thread or task stands now: ``file:line in function: code``,
    #: the innermost last, SQLAlchemy and the pool left out.  Empty: it has
    #: ended, and has left the connection to somebody, or to nobody.
    where: tuple[str, ...] = ()
    #: where the connection was checked out; empty without ``leak_after`` or
    #: ``trace_checkouts``
    taken: tuple[str, ...] = ()
    #: it waits for the database at this moment
    in_database: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            **vars(self),  # asdict() would copy deeply, which takes long
            "since": self.since.isoformat(timespec="milliseconds"),
            "where": list(self.where),
            "taken": list(self.taken),
        }


@dataclass(frozen=True)
class ConnectionInfo:
    """What the pool knows of a connection; times are in seconds.

    .. versionadded:: 0.1
    """

    #: its number; the pool counts them from 1
    id: int
    #: ``"idle"``, ``"in use"`` or ``"upkeep"``
    state: str
    #: since it was opened
    age: float
    #: since its last checkin; 0 when it is in use
    idle: float
    #: how many checkouts it has served
    uses: int
    #: since it last proved to be alive
    proven: float

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return dict(vars(self))


class Checkout(Protocol):
    """A connection in use; times are in seconds."""

    number: int
    who: Who
    taken: tuple[str, ...]

    @property
    def held_since(self) -> float: ...


def holder_of(checkout: Checkout, now: float) -> Holder:
    """Look up who has a connection.

    :param now: by the clock of ``held_since``.
    """
    seconds = max(now - checkout.held_since, 0.0)
    place = place_of(checkout.who)
    return Holder(
        checkout.number,
        datetime.now(timezone.utc) - timedelta(seconds=seconds),
        seconds,
        place.name,
        checkout.who if isinstance(checkout.who, int) else None,
        place.lines,
        checkout.taken,
        place.in_database,
    )
