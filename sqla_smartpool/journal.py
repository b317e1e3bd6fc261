"""What the pool writes to the log of the standard library.

One line each, whose facts are also fields of the record (``extra``), so that
structured logs show them.  Under ``sqla_smartpool.*``, beside what SQLAlchemy
logs itself under ``sqlalchemy.pool`` with ``echo_pool``.
"""

from __future__ import annotations

import logging
from typing import Any

from .core import PoolCore
from .record import Record

#: the life of the pool as a whole, and of the database behind it
pool_log = logging.getLogger("sqla_smartpool.pool")
#: the life of each connection
connection_log = logging.getLogger("sqla_smartpool.connections")
#: what the pool does by itself
upkeep_log = logging.getLogger("sqla_smartpool.upkeep")


class Journal:
    """Tells in words what happens to one pool, each thing once."""

    def __init__(self, pool: PoolCore) -> None:
        self._pool = pool
        #: when it was started, until it is ready
        self._starting: dict[str, float] = {}
        #: when connects began to fail, and how many had failed by then
        self._down: dict[str, float] = {}

    # -- the pool ----------------------------------------------------------

    def started(self) -> None:
        settings = self._pool.settings
        self._starting["since"] = self._pool.runtime.clock()
        self._tell(
            logging.INFO,
            "starting: %(min_size)d to %(max_size)s connections",
            min_size=settings.min_size,
            max_size=settings.ceiling or "any number of",
        )
        self._look_whether_ready()

    def stopped(self) -> None:
        self._look_whether_ready()  # who opened the last may not have yet
        self._starting.clear()
        self._tell(
            logging.INFO,
            "stopped: %(size)d connections still in use",
            size=self._pool.inventory.in_use,
        )

    def _look_whether_ready(self) -> None:
        pool = self._pool
        if pool.inventory.size < pool.settings.min_size:
            return
        since = self._starting.pop("since", None)  # who comes first tells
        if since is None:
            return
        self._tell(
            logging.INFO,
            "ready with %(size)d connections in %(ms).0f ms",
            size=pool.inventory.size,
            ms=1000 * (pool.runtime.clock() - since),
        )

    def upkeep_started(self) -> None:
        self._tell(
            logging.DEBUG,
            "upkeep started: it looks every %(check_interval)g s",
            upkeep_log,
            check_interval=self._pool.settings.check_interval,
        )

    def upkeep_stopped(self) -> None:
        self._tell(logging.DEBUG, "upkeep stopped", upkeep_log)

    # -- its connections ---------------------------------------------------

    def opened(self, record: Record, seconds: float) -> None:
        self._tell(
            logging.INFO,
            "connection %(connection)d opened in %(ms).1f ms, "
            "%(size)d are open",
            connection_log,
            connection=record.number,
            ms=1000 * seconds,
            size=self._pool.inventory.size,
        )
        self._reachable()
        self._look_whether_ready()

    def closed(self, record: Record, reason: str) -> None:
        self._tell(
            logging.INFO,
            "connection %(connection)d closed (%(reason)s) after %(age).1f s "
            "and %(uses)d uses",
            connection_log,
            connection=record.number,
            reason=reason,
            age=self._pool.runtime.clock() - record.born,
            uses=record.uses,
        )

    @property
    def tells_of_checkouts(self) -> bool:
        return connection_log.isEnabledFor(logging.DEBUG)

    def checked_out(self, record: Record, seconds: float) -> None:
        self._tell(
            logging.DEBUG,
            "connection %(connection)d checked out after %(ms).2f ms, "
            "%(waiting)d wait",
            connection_log,
            connection=record.number,
            ms=1000 * seconds,
            waiting=len(self._pool.inventory.waiters),
        )

    # -- the database ------------------------------------------------------

    def connect_failed(self, error: BaseException, retry_in: float) -> None:
        """Tell once that the database cannot be reached."""
        now = self._pool.runtime.clock()
        # who comes first tells
        if self._down.setdefault("since", now) is not now:
            return
        self._down["failures"] = self._failures() - 1
        self._tell(
            logging.WARNING,
            "database unreachable: %(error)s; next attempt in "
            "%(retry_in).1f s at the latest",
            # in one line, which drivers do not keep to
            error=" ".join(f"{type(error).__name__}: {error}".split()),
            retry_in=retry_in,
        )

    def idle_limit(self, after: float, by: float, ping_after: float) -> None:
        """Tell that idle connections are closed by somebody else.

        :param after: the idle age, in seconds, at which they were alive.
        :param by: the one at which they were dead.
        :param ping_after: what would keep them.
        """
        learns = self._pool.settings.learns
        check_interval = self._pool.settings.check_interval
        setting = "ping_after=%(ping_after).3g"
        if check_interval > ping_after:
            setting += ", check_interval=%(ping_after).3g"
        self._tell(
            logging.WARNING,
            "something closes idle connections after about %(age).3g s (they "
            "were alive after %(after).3g s): "
            + (
                setting + " from now on"
                if learns
                else "to keep them, set " + setting
            ),
            age=by,
            after=after,
            ping_after=ping_after,
        )

    def _reachable(self) -> None:
        since = self._down.pop("since", None)
        if since is None:
            return
        failures = self._down.pop("failures", 0)
        self._tell(
            logging.INFO,
            "database reachable again after %(seconds).1f s and "
            "%(attempts)d failed attempts",
            seconds=self._pool.runtime.clock() - since,
            attempts=self._failures() - failures,
        )

    def _failures(self) -> int:
        return self._pool.inventory.counts["connections_errors"]

    # -- how ---------------------------------------------------------------

    def _tell(
        self,
        level: int,
        text: str,
        log: logging.Logger = pool_log,
        **fields: Any,
    ) -> None:
        tell(log, level, self._pool.label, text, **fields)


def tell(
    log: logging.Logger,
    level: int,
    pool: str,
    text: str,
    **fields: Any,
) -> None:
    """Write a line on a pool.

    :param pool: its name.
    :param text: is formatted with the fields.
    :param fields: go into the record as well, beside the pool's name.
    """
    if log.isEnabledFor(level):
        fields["pool"] = pool
        # as one argument, so that "%(name)s" refers to its keys
        log.log(level, "%(pool)s: " + text, fields, extra=fields)
