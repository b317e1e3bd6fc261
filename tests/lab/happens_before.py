"""What has come before what, while callers run side by side.

Two accesses to one thing conflict when one of them writes; conflicting
accesses to what is *contended* order those who make them, as a lock does.
Everything else must then be ordered by these, or it is contended as well.
"""

from __future__ import annotations

from typing import Hashable
from typing import Optional


class Past:
    """All that has come before where a caller is now."""

    def __init__(self, name: str) -> None:
        self.name = name
        #: a number for it; equal numbers, equal pasts
        self.number = hash(name)
        #: by caller: up to where its steps have come before
        self.clock: dict[str, int] = {name: 1}

    def add(self, *what: Hashable) -> None:
        self.number = hash((self.number, what))

    def join(self, other: Past) -> None:
        """All of the other's past is in this one's too."""
        self.add(other.number)
        _join(self.clock, other.clock)
        other.clock[other.name] += 1


def _join(clock: dict[str, int], other: dict[str, int]) -> None:
    for name, count in other.items():
        if clock.get(name, 0) < count:
            clock[name] = count


class _Thing:
    """What has been done with one contended thing."""

    __slots__ = ("written", "write_clock", "read", "read_clock")

    def __init__(self) -> None:
        #: numbers of the last write, and of all reads since
        self.written = self.read = 0
        self.write_clock: dict[str, int] = {}
        self.read_clock: dict[str, int] = {}


class _Data:
    """Who has touched what is not contended, and when by their clocks."""

    __slots__ = ("only", "reads", "writes")

    def __init__(self, name: str) -> None:
        #: the one caller who has; None: several
        self.only: Optional[str] = name
        self.reads: dict[str, int] = {}
        self.writes: dict[str, int] = {}


class Order:
    """The order of all accesses of one run."""

    def __init__(self) -> None:
        self._things: dict[Hashable, _Thing] = {}
        self._data: dict[Hashable, _Data] = {}

    def contended(self, past: Past, label: Hashable, write: bool) -> None:
        """An access that orders callers."""
        thing = self._things.get(label)
        if thing is None:
            thing = self._things[label] = _Thing()
        _join(past.clock, thing.write_clock)
        if write:
            _join(past.clock, thing.read_clock)
            past.add(label, thing.written, thing.read)
            thing.written, thing.read = past.number, 0
            thing.write_clock = past.clock.copy()
            thing.read_clock = {}
        else:
            past.add(label, thing.written)
            # a sum, as reads may come in any order
            thing.read += past.number
            _join(thing.read_clock, past.clock)
        past.clock[past.name] += 1

    def races(self, past: Past, label: Hashable, write: bool) -> bool:
        """Tell whether nothing orders an access with one before it."""
        clock, me = past.clock, past.name
        data = self._data.get(label)
        if data is None:
            data = self._data[label] = _Data(me)
        elif data.only != me:
            data.only = None
            if _any_later(data.writes, clock):
                return True
            if write and _any_later(data.reads, clock):
                return True
        (data.writes if write else data.reads)[me] = clock[me]
        return False


def _any_later(accesses: dict[str, int], clock: dict[str, int]) -> bool:
    return any(when > clock.get(name, 0) for name, when in accesses.items())
