"""A lock that nobody waits for, and that is not lost with its holder."""

from __future__ import annotations

import weakref

from .record import Grip


class Key:
    """Taken by one at a time; who does not get it goes on without.

    An exception may come between any two instructions, also between taking
    a lock and the ``try`` that would release it.  So it is known by whom this
    one is held, and whether they still exist.
    """

    def __init__(self) -> None:
        self._holder: dict[int, weakref.ref[Grip]] = {}

    def take(self, grip: Grip) -> bool:
        """Take it, if it is free; False: somebody has it."""
        # one atomic operation, of which the first to come decides
        return self._holder.setdefault(0, weakref.ref(grip))() is grip

    def give_back(self, grip: Grip) -> None:
        """Give it back, if this grip has it."""
        holder = self._holder.get(0)
        if holder is not None and holder() is grip:
            self._holder.clear()

    def locked(self) -> bool:
        return bool(self._holder)

    def reclaim(self) -> None:
        """Free it when its holder has vanished; for one thread only."""
        holder = self._holder.get(0)
        if holder is not None and holder() is None:
            self._holder.clear()
