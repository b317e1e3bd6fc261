"""A pool on which a story is played, and a connection that nobody will close.

Time is the test's, and what the pool does beside its callers is done while
one of them waits, on the same thread: a story takes the same steps each time.
"""

from __future__ import annotations

import gc
from typing import Any
from typing import Callable

from sqlalchemy import create_engine
from sqlalchemy import event

from sqla_smartpool import SmartPool
from tests.lab.manual import ManualRuntime

#: how long a caller waits on a stage, seconds
PATIENCE = 5.0


def doomed(connection: Any) -> list[Any]:
    """A cycle that refers to a connection, for the garbage collector."""
    cycle = [connection]
    cycle.append(cycle)
    return cycle


class Beside(SmartPool):
    """A pool that takes its database for one that is reached by a network:
    connections are opened beside the callers, and pinged."""

    @property
    def in_process(self) -> bool:
        return False


class Stage:
    """An engine, what is open of it, and who has it."""

    def __init__(self, url: Any, **options: Any) -> None:
        self.runtime = ManualRuntime()
        #: what must never happen, and did
        self.faults: list[str] = []
        self._open: set[int] = set()
        self._out: set[int] = set()
        self._doomed: list[Any] = []
        options.setdefault("pool_timeout", PATIENCE)
        options.setdefault("poolclass", Beside)
        self.engine = create_engine(url, _runtime=self.runtime, **options)
        self.pool: Any = self.engine.pool
        event.listen(self.engine, "connect", self._opened)
        event.listen(self.engine, "close", self._closed)
        event.listen(self.engine, "checkout", self._taken)
        event.listen(self.engine, "checkin", self._given_back)
        event.listen(self.engine, "detach", self._detached)

    def _opened(self, connection: Any, record: Any) -> None:
        self._open.add(id(connection))
        if len(self._open) > self.pool.settings.ceiling:
            self.faults.append("more connections than max_size")

    def _closed(self, connection: Any, record: Any) -> None:
        self._open.remove(id(connection))

    def _taken(self, connection: Any, record: Any, fairy: Any) -> None:
        if id(connection) not in self._open:
            self.faults.append("a closed connection was handed out")
        if id(record) in self._out:
            self.faults.append("a connection has two owners")
        self._out.add(id(record))

    def _detached(self, connection: Any, record: Any) -> None:
        self._open.remove(id(connection))
        self._out.discard(id(record))

    def _given_back(self, connection: Any, record: Any) -> None:
        self._out.discard(id(record))

    def doom(self) -> None:
        """Take a connection that only a cycle refers to."""
        self._doomed.append(doomed(self.engine.connect()))

    def drop(self) -> None:
        """Let go of it, and have the garbage collector find it."""
        self._doomed.clear()
        gc.collect()

    def hand_back_later(self) -> None:
        """Take a connection that is given back while others wait."""
        self.runtime.jobs.append(self.engine.connect().close)

    def find_faults(self) -> list[str]:
        """What is wrong now, when everybody has gone home."""
        self.runtime.advance(1.0)  # what was begun comes to its end
        stats = self.pool.stats()
        if stats.pool_size != len(self._open):
            self.faults.append(f"{len(self._open)} connections are open")
        if not stats.pool_available == stats.pool_size <= stats.pool_max:
            self.faults.append("a connection is lost")
        if self._out or self.pool.inventory.tending:
            self.faults.append("somebody still has a connection")
        if stats.requests_waiting or stats.pool_connecting:
            self.faults.append("somebody still waits")
        if stats.reclaimed or self.pool.inventory.counts["_failed_passes"]:
            self.faults.append("upkeep had to mend it")
        return self.faults and [*self.faults, repr(stats)]

    def end(self) -> None:
        self.pool.dispose()


Story = Callable[[Stage], object]
