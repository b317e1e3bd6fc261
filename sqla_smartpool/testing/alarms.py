"""Calls that are due at their times, whoever keeps the time."""

from __future__ import annotations

import heapq
import itertools
from typing import Callable
from typing import Optional


class TimedCall:
    """A call that is made once, unless it is cancelled before."""

    __slots__ = ("_calls",)

    def __init__(self, call: Callable[[], object]) -> None:
        self._calls = [call]

    @property
    def pending(self) -> bool:
        return bool(self._calls)

    def ring(self) -> None:
        """Make the call; of several who try, the first to come does."""
        try:
            call = self._calls.pop()
        except IndexError:
            return
        call()

    def cancel(self) -> None:
        self._calls.clear()


class Alarms:
    """The calls that are to come, in the order of their times."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, TimedCall]] = []
        self._order = itertools.count()

    def add(self, when: float, alarm: TimedCall) -> None:
        self._drop_made()
        heapq.heappush(self._heap, (when, next(self._order), alarm))

    def take_due(self, until: float) -> Optional[tuple[float, TimedCall]]:
        """Take the next one out that is due until then, with its time."""
        self._drop_made()
        if not self._heap or self._heap[0][0] > until:
            return None
        when, _, alarm = heapq.heappop(self._heap)
        return when, alarm

    def _drop_made(self) -> None:
        while self._heap and not self._heap[0][2].pending:
            heapq.heappop(self._heap)
