"""What programs read of a QueuePool, and assign to one.

Applications, dashboards and SQLAlchemy's own fixtures use these names; some
begin with an underscore all the same.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any
from typing import Optional

from .core import PoolCore


class QueuePoolFace(PoolCore):
    """QueuePool's contract, without its queue."""

    def _change_settings(self, **changes: Any) -> None:
        """Put other settings into force, on what is open as well."""
        inventory = self.inventory
        with inventory.changing:
            inventory.settings = inventory.settings.changed(**changes)
        surplus = inventory.room < 0
        resting = inventory.resting()
        for record in inventory.members:
            if surplus and record.going is None and record not in resting:
                # goes when it comes home, unless enough others have gone
                record.going = "resize"
                if inventory.seize(record):
                    # it has come home: upkeep chooses among the idle ones
                    record.going = None
                    inventory.put_back(record)
            record.judge()
        inventory.look()

    def size(self) -> int:
        """``pool_size``, or ``max_size`` where that was given."""
        return self.settings.size

    def checkedin(self) -> int:
        """The number of connections that are idle or with upkeep."""
        return self.inventory.size - self.inventory.in_use

    def checkedout(self) -> int:
        """The number of connections in use."""
        return self.inventory.in_use

    def overflow(self) -> int:
        """The number of open connections less :meth:`size`."""
        return self.inventory.size - self.size()

    def timeout(self) -> float:
        """The seconds that a checkout may take."""
        timeout: float = self._timeout
        return timeout

    def status(self) -> str:
        """Describe the state of the pool in one line."""
        inventory = self.inventory
        return (
            f"Pool size: {self.size()}  "
            f"Connections in pool: {self.checkedin()} "
            f"Current Overflow: {self.overflow()} "
            f"Current Checked out connections: {self.checkedout()} "
            f"Connecting: {len(inventory.opening)} "
            f"Waiting: {len(inventory.waiters)}"
        )

    @property
    def _timeout(self) -> Any:
        return self.settings.timeout

    @_timeout.setter
    def _timeout(self, value: Optional[float]) -> None:
        self._change_settings(timeout=value)

    @property
    def _max_overflow(self) -> int:
        settings = self.settings
        if settings.ceiling is None:
            return -1
        return settings.ceiling - settings.size

    @_max_overflow.setter
    def _max_overflow(self, value: int) -> None:
        settings = self.settings
        self._change_settings(
            max_size=None, pool_size=settings.size, max_overflow=value
        )

    @property
    def _recycle(self) -> Any:
        return self.settings.recycle

    @_recycle.setter
    def _recycle(self, value: float) -> None:
        self._change_settings(max_lifetime=None if value < 0 else value)

    # attrgetter, as SQLAlchemy reads this one at each checkout
    def _set_pre_ping(self, value: bool) -> None:
        self._change_settings(pre_ping=value)

    _pre_ping: Any = property(
        attrgetter("inventory.settings.pre_ping"), _set_pre_ping
    )
