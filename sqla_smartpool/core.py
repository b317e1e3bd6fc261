"""What the rooms of the pool know of it: its books, its runtime, and what
kind of database it is for."""

from __future__ import annotations

from typing import Iterator
from typing import Optional

from sqlalchemy.pool import QueuePool

from .idle_limit import IdleLimit
from .inventory import Inventory
from .record import Record
from .runtime import Runtime
from .settings import Settings

#: drivers whose connections may refuse other threads than their own
_MAY_BE_THREAD_BOUND = ("sqlite3", "pysqlite2", "sqlcipher3")


class PoolCore(QueuePool):
    """The part of the pool that everything else in it builds on."""

    runtime: Runtime
    inventory: Inventory
    idle_limit: IdleLimit
    #: numbers for connections
    numbers: Iterator[int]
    #: connections refuse other threads than their own; None: not known yet
    _thread_bound: Optional[bool] = None

    @property
    def settings(self) -> Settings:
        """The checked arguments that are in force."""
        return self.inventory.settings

    @property
    def label(self) -> str:
        """The pool's name in logs and metrics."""
        name: Optional[str] = self._orig_logging_name
        return name or f"pool-{id(self) & 0xFFFFFF:06x}"

    def trace(self) -> None:
        """Begin or end to note more of each checkout, as it is asked for."""
        raise NotImplementedError

    def take_notes(self) -> None:
        """See whether something is to be told, or kept for who asks."""
        raise NotImplementedError

    def count(self, name: str) -> None:
        """Add one to a counter of :class:`.PoolStats`."""
        self.inventory.post(self.inventory.count, name)

    @property
    def in_process(self) -> bool:
        """The database lives in this process: there is no socket."""
        return getattr(self._dialect, "name", None) in ("sqlite", "duckdb")

    @property
    def can_ping(self) -> bool:
        """There is an engine's dialect, or a listener, that knows how to."""
        return hasattr(self._dialect, "do_ping") or self.checks_by_event

    @property
    def checks_by_event(self) -> bool:
        """Somebody listens to ``health_check``."""
        return bool(self.dispatch.health_check)

    @property
    def inline(self) -> bool:
        """Callers connect themselves: there is nothing to wait for, or
        nothing known, and connections may be bound to their threads."""
        return self.in_process or not hasattr(self._dialect, "do_ping")

    @property
    def may_open_in_background(self) -> bool:
        """A connection that upkeep opens is of use to callers."""
        return not self.inline or (
            self.in_process and self._thread_bound is False
        )

    def may_touch(self, record: Record) -> bool:
        """Tell whether upkeep may use a connection, from its own thread."""
        if not self.inline:
            return True
        if self._thread_bound is None:
            self._thread_bound = self._is_thread_bound(record)
        return not self._thread_bound

    def _is_thread_bound(self, record: Record) -> bool:
        """Try; SQLite connections refuse other threads than their own."""
        connection = record.dbapi_connection
        kind = type(connection).__module__.partition(".")[0]
        if connection is None or kind not in _MAY_BE_THREAD_BOUND:
            return False
        try:
            connection.cursor().close()
        except Exception:  # the driver's own class, which is unknown here
            return True
        return False
