"""What must hold, how often it was checked, and what did not."""

from __future__ import annotations

from collections import Counter
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
import math
import threading
import time
from typing import Any
from typing import Callable
from typing import Optional

from sqlalchemy import Engine
from sqlalchemy import event

#: how long a fault that has ended may still be found in errors, seconds: a
#: reset has to get through the proxy and the kernel
_AFTERMATH = 0.3
#: faults that ended so long ago are forgotten, seconds
_FORGET_AFTER = 120.0


@dataclass(eq=False)
class Window:
    """The time of one fault.

    :param allows: the kinds of errors that it may cause.
    :param lanes: the names of those that it may hit.
    """

    fault: str
    allows: frozenset[str]
    lanes: frozenset[str]
    begun: float
    ended: float = math.inf


class Judge:
    """Keeps the record of a run: checks, violations, and the faults that
    excuse errors.

    :param tell: called at once with the text of each violation.
    """

    def __init__(self, seed: int, tell: Callable[[str], object]) -> None:
        self.seed = seed
        self.begun = time.monotonic()
        self.checked: Counter[str] = Counter()
        self.violations: list[str] = []
        self._tell = tell
        self._windows: deque[Window] = deque()
        self._lock = threading.Lock()

    def check(self, name: str, holds: Any, text: str, *args: object) -> bool:
        """Count one check of an invariant; False is a violation.

        :param text: what was found instead, with ``{}`` for ``args``.
        """
        with self._lock:
            self.checked[name] += 1
        if not holds:
            self.violated(f"{name}: {text.format(*args)}")
        return bool(holds)

    def violated(self, text: str) -> None:
        now = time.monotonic()
        faults = ", ".join(
            f"{window.fault} on {'/'.join(sorted(window.lanes))} "
            + (
                "under way"
                if window.ended == math.inf
                else f"ended {now - window.ended:.2f} s ago"
            )
            for window in self.recent(5.0)
        )
        line = (
            f"seed {self.seed}, {now - self.begun:.2f} s: {text}"
            f" [faults: {faults or 'none'}]"
        )
        with self._lock:
            self.violations.append(line)
        self._tell(line)

    # -- faults, and the errors they excuse --------------------------------

    @contextmanager
    def window(
        self, fault: str, allows: frozenset[str], lanes: list[str]
    ) -> Iterator[Window]:
        """A fault is under way inside the block."""
        now = time.monotonic()
        window = Window(fault, allows, frozenset(lanes), now)
        with self._lock:
            self._windows.append(window)
            while now - self._windows[0].ended > _FORGET_AFTER:
                self._windows.popleft()
        try:
            yield window
        finally:
            window.ended = time.monotonic()

    def recent(self, seconds: float, lane: str = "") -> list[Window]:
        """The faults of the last seconds, of all lanes or of one."""
        since = time.monotonic() - seconds
        with self._lock:
            return [
                window
                for window in self._windows
                if window.ended >= since and (not lane or lane in window.lanes)
            ]

    def excused(
        self, kind: str, lane: str, begun: float, ended: float
    ) -> bool:
        """Tell whether a fault may have caused an error in that time."""
        with self._lock:
            return any(
                kind in window.allows
                and lane in window.lanes
                and window.begun <= ended
                and begun <= window.ended + _AFTERMATH
                for window in self._windows
            )


class Owners:
    """Who holds which of a lane's connections, by their holders' word."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokens: dict[int, str] = {}

    def claim(self, connection: object, token: str) -> Optional[str]:
        """Enter a holder; returns the one who is there already, if any."""
        with self._lock:
            other = self._tokens.get(id(connection))
            self._tokens[id(connection)] = token
            return other

    def of(self, connection: object) -> Optional[str]:
        """Who holds it."""
        with self._lock:
            return self._tokens.get(id(connection))

    def release(self, connection: object, token: str) -> Optional[str]:
        """Strike a holder out; returns the one who was there."""
        with self._lock:
            return self._tokens.pop(id(connection), None)


class Books:
    """A lane's connections, as SQLAlchemy's events tell of them.

    By pool, as ``dispose()`` puts another in the place of the first.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: Counter[int] = Counter()
        self._dropped: set[int] = set()
        self.opened = self.closed = 0
        #: the most that one pool had open at a time
        self.most = 0

    def listen(self, engine: Engine) -> None:
        self._terminates = engine.dialect.has_terminate
        event.listen(engine, "connect", self._connected)
        event.listen(engine, "close", self._closed)
        event.listen(engine, "detach", self._detached)
        event.listen(engine, "close_detached", self._closed_detached)

    def _connected(self, connection: object, record: Any) -> None:
        with self._lock:
            self.opened += 1
            self._open[id(record.pool)] += 1
            self.most = max(self.most, self._open[id(record.pool)])

    def _closed(self, connection: object, record: Any) -> None:
        with self._lock:
            self.closed += 1
            self._open[id(record.pool)] -= 1

    def drop(self, record: Any) -> None:
        """The garbage collector is going to find a connection of an event
        loop, and gives its room away before it closes it."""
        with self._lock:
            self._dropped.add(id(record))
            self._open[id(record.pool)] -= 1

    def _detached(self, connection: object, record: Any) -> None:
        with self._lock:
            if id(record) in self._dropped:
                self._dropped.remove(id(record))
                # else the driver's own finalizer is left to close it
                self.closed += not self._terminates
            else:
                self._open[id(record.pool)] -= 1

    def _closed_detached(self, connection: object) -> None:
        with self._lock:
            self.closed += 1
