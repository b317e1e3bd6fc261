"""Why nobody gets a connection: from what was observed to a cause.

Pure functions: they look at what is passed and touch nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
import enum
from typing import Any
from typing import Optional
from typing import Sequence

from .holders import Holder

#: a use is far too long when it has lasted so many times the usual one ...
_FAR = 10.0
#: ... and at least so many seconds
_LONG = 1.0
#: the most holders, and lines of a place, that a text shows
_SHOWN = 6
_SHOWN_LINES = 3


class Cause(enum.Enum):
    """Why a pool is exhausted.

    .. versionadded:: 0.1
    """

    #: :meth:`.SmartPool.pause` was called: nothing is handed out
    PAUSED = "pause"
    #: everybody who has a connection waits for another one
    SELF_DEADLOCK = "self-deadlock"
    #: connects fail, or take long
    DATABASE = "database"
    #: some have had connections for far longer than a use takes
    LEAK = "leak"
    #: many callers, each of whom has a connection for a usual time
    BACKLOG = "backlog"


@dataclass(frozen=True)
class Situation:
    """A pool at one moment, as far as it matters for a diagnosis."""

    #: those who have a connection, the longest first
    holders: Sequence[Holder]
    waiting: int
    #: for how long the connects under way have been so, seconds
    connecting: Sequence[float] = ()
    #: below this most uses lie, seconds; None: none has ended yet
    usual: Optional[float] = None
    #: what the last connect said, if it failed
    error: Optional[str] = None
    #: everybody who has a connection waits for another one
    deadlocked: bool = False
    paused: bool = False
    #: it has been stopped
    closed: bool = False


@dataclass(frozen=True)
class Diagnosis:
    """What keeps callers waiting, and what to do about it.

    .. versionadded:: 0.1
    """

    #: the likely one
    cause: Cause
    #: what was observed, in a sentence
    finding: str
    #: what helps
    remedy: str
    #: who has connections, the longest first
    holders: tuple[Holder, ...] = ()

    def __str__(self) -> str:
        """A text for a person on call; fewer than 60 lines."""
        lines = [
            f"Likely cause: {self.cause.value}: {self.finding}",
            f"Remedy: {self.remedy}",
        ]
        if self.holders:
            lines.append("Held by, the longest first:")
        for holder in self.holders[:_SHOWN]:
            lines += _told(holder)
        if len(self.holders) > _SHOWN:
            lines.append(f"  … and {len(self.holders) - _SHOWN} more")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "cause": self.cause.value,
            "finding": self.finding,
            "remedy": self.remedy,
        }


def _told(holder: Holder) -> list[str]:
    doing = ", in the database" if holder.in_database else ""
    lines = [
        f"  connection {holder.connection_id}: {holder.seconds:.1f} s, "
        f"{holder.name}{doing}"
    ]
    for word, place in (("at", holder.where), ("from", holder.taken)):
        for line in place[-_SHOWN_LINES:]:
            lines.append(f"    {word} {line}")
            word = " " * len(word)
    return lines


def diagnose(seen: Situation) -> Diagnosis:
    """Tell what keeps callers of a pool waiting."""
    long = _far_too_long(seen)
    holders = tuple(seen.holders)
    if seen.closed:
        return Diagnosis(
            Cause.PAUSED,
            "the pool has been stopped, and refuses whoever comes",
            "call start(), which opens it again",
            holders,
        )
    if seen.paused:
        return Diagnosis(
            Cause.PAUSED,
            "the pool is paused, and hands out nothing",
            "call resume() when the database is ready again",
            holders,
        )
    if seen.deadlocked:
        return Diagnosis(
            Cause.SELF_DEADLOCK,
            f"each of the {len(holders)} connections is held by a caller that "
            "waits for another one, so none comes back",
            "do not check out a second connection while holding the first: "
            "pass the Connection or Session on, or end it before",
            holders,
        )
    slow = any(age >= _LONG for age in seen.connecting)
    if seen.error is not None or slow or (seen.connecting and not holders):
        return _database(seen, holders)
    if long and 2 * len(long) >= len(holders):
        return Diagnosis(
            Cause.LEAK,
            f"{len(long)} of {len(holders)} connections have been out for "
            f"{long[-1].seconds:.1f} to {long[0].seconds:.1f} s, "
            + _compared(seen),
            "return connections where they were taken, with 'with "
            "engine.connect()' or Session.close(); leak_after=… reports each "
            "with the place that took it",
            holders,
        )
    return _backlog(seen, holders)


def _compared(seen: Situation) -> str:
    if seen.usual is None:
        return "and none has come back before"
    return f"where nearly all come back within {seen.usual:g} s"


def _far_too_long(seen: Situation) -> list[Holder]:
    """Those who keep a connection for no visible reason, longest first."""
    bound = max(_LONG, _FAR * (seen.usual or 0.0))
    return [
        holder
        for holder in seen.holders
        if holder.seconds >= bound and not holder.in_database
    ]


def _database(seen: Situation, holders: tuple[Holder, ...]) -> Diagnosis:
    if seen.error is not None:
        finding = f"connects fail: {seen.error}"
    else:
        finding = (
            f"{len(seen.connecting)} connects have been under way for up to "
            f"{max(seen.connecting):.1f} s"
        )
    return Diagnosis(
        Cause.DATABASE,
        finding,
        "see whether the database runs, accepts more connections and can be "
        "reached from here; a larger pool does not help",
        holders,
    )


def _backlog(seen: Situation, holders: tuple[Holder, ...]) -> Diagnosis:
    if not seen.waiting and not holders:
        return Diagnosis(
            Cause.BACKLOG,
            "nobody waits, and no connection is known to be in use",
            "none at this moment: ask again while callers wait, best where "
            "the TimeoutError is caught",
        )
    busy = sum(holder.in_database for holder in holders)
    usual = "" if seen.usual is None else f" of up to {seen.usual:g} s each"
    finding = f"{len(holders)} connections are in use{usual}"
    if seen.waiting:
        finding = (
            f"{seen.waiting} callers wait for {len(holders)} connections in "
            f"use{usual}"
        )
    finding += f"; {busy} of these are in the database at this moment"
    remedy = (
        "find the slow queries, or what the database waits for"
        if holders and 2 * busy >= len(holders)
        else "hold connections for less time: no slow work between checkout "
        "and return"
    )
    return Diagnosis(
        Cause.BACKLOG,
        finding,
        remedy + "; else raise max_size, as far as the database can bear it",
        holders,
    )
