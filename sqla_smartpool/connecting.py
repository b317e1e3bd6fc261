"""Opening connections, beside the callers who wait for them."""

from __future__ import annotations

from contextvars import copy_context
from functools import partial
import logging
from math import inf
from typing import Any
from typing import cast
from typing import Optional
import warnings

from sqlalchemy import AdaptedConnection
from sqlalchemy.exc import InvalidRequestError

from .core import PoolCore
from .journal import Journal
from .record import Record
from .tickets import Grant
from .tickets import Purpose
from .tickets import Waiter

log = logging.getLogger("sqla_smartpool.connecting")


class Connecting:
    """What a pool does to open connections.

    Room has been claimed by a :class:`.Grant` before anything here begins.
    """

    def __init__(self, pool: PoolCore, journal: Journal) -> None:
        self._pool = pool
        self._journal = journal
        self._warned = False

    def beside(self, grant: Grant) -> None:
        """Open a connection for whoever waits first when it is there.

        A connect whose caller has left ends in the pool all the same.
        """
        job = partial(self._open_quietly, grant)
        try:
            self._pool.runtime.spawn(job, grant.context)
        except RuntimeError:  # no threads at interpreter exit
            job()

    def _open_quietly(self, grant: Grant) -> Optional[Record]:
        try:
            return self.open(grant, idle=True)
        except Exception as error:  # counted, and told to those who wait
            log.debug("a connect failed: %s", type(error).__name__)
            return None

    def open(self, grant: Grant, idle: bool) -> Record:
        """Open a connection, and enter it into the books.

        :param idle: it goes among the idle ones; else the caller keeps it.
        """
        inventory = self._pool.inventory
        try:
            record = self._connected_record()
        except Exception as error:
            inventory.post(inventory.failed, grant, error)
            self._journal.connect_failed(error, self._retry_in())
            if grant.background:
                self._fire_connect_failed(grant, error)
            raise
        except BaseException:  # a cancelled task, an interrupted program
            inventory.post(inventory.abandoned, grant)
            raise
        inventory.post(inventory.arrived, grant, record, idle)
        took = self._pool.runtime.clock() - grant.begun
        self._journal.opened(record, took)
        return record

    def _connected_record(self) -> Record:
        inventory = self._pool.inventory
        record: Optional[Record] = None
        try:
            record = inventory.empty.popleft()
        except IndexError:
            pass  # not in here, or it would be every error's context
        if record is None:
            record = cast(Record, self._pool._create_connection())
        else:
            try:
                record.get_connection()
            except BaseException:
                inventory.empty.append(record)
                raise
        try:
            self._refuse_what_is_not_new(record)
            self._warn_of_memory(record)
        except BaseException:  # such as a warning that is made an error
            record.close()
            raise
        return record

    def _refuse_what_is_not_new(self, record: Record) -> None:
        """A creator may return what has ended, or what it has returned."""
        if record.is_dead():
            raise ConnectionError(
                "the connection had ended as soon as it was opened"
            )
        mine = _driver_connection(record)
        for other in self._pool.inventory.members:
            if _driver_connection(other) is mine:
                record.dbapi_connection = None  # it is the other's
                raise InvalidRequestError(
                    "the creator has returned a connection that is already in "
                    "this pool; it must open a new one at each call (for a "
                    "single one that all share, there is StaticPool)"
                )

    def _fire_connect_failed(self, grant: Grant, error: Exception) -> None:
        pool = self._pool
        if not pool.dispatch.connect_failed:
            return
        attempt = grant.attempt
        try:
            pool.dispatch.connect_failed(
                pool, error, attempt, self._retry_in()
            )
        except Exception:  # a listener's mistake must not end upkeep
            log.exception("a listener of the event 'connect_failed' failed")

    def _retry_in(self) -> float:
        """Seconds until upkeep tries again by itself."""
        pool = self._pool
        retry_at = pool.inventory.backoff.retry_at
        return max(0.0, retry_at - pool.runtime.clock())

    @property
    def longest(self) -> float:
        """For how many seconds a connect has been under way; 0: none is."""
        now = self._pool.runtime.clock()
        grants = self._pool.inventory.grants
        return max((now - grant.begun for grant in grants), default=0.0)

    def ask(self, why: Purpose, up_to: float = inf) -> Optional[Grant]:
        """Claim room for a connect of upkeep's, if it may be made now.

        :param up_to: how many connections there may be then.
        """
        pool = self._pool
        waiter = Waiter(
            pool.runtime.signal(), pool.runtime.clock(), context=copy_context()
        )
        pool.inventory.post(pool.inventory.ask_to_open, waiter, why, up_to)
        # at once, or as soon as who is at the books gets to it
        waiter.signal.wait(pool.settings.ping_timeout)
        outcome = waiter.give_up()
        return outcome if isinstance(outcome, Grant) else None

    def one(
        self, why: Purpose, seconds: float, up_to: float = inf
    ) -> Optional[Record]:
        """Open a connection for upkeep; it goes among the idle ones.

        :param seconds: how long upkeep can wait for it.
        :return: None: it may not be opened now, failed, or is late; when
            late, it goes to the pool without upkeep.
        """
        pool = self._pool
        grant = self.ask(why, up_to)
        if grant is None:
            return None
        if pool.inline:
            return self._open_quietly(grant)
        opened: list[Optional[Record]] = []
        done = pool.runtime.signal()

        def connect() -> None:
            try:
                opened.append(self._open_quietly(grant))
            finally:
                done.set()

        try:
            pool.runtime.spawn(connect, grant.context)
        except RuntimeError:  # no threads at interpreter exit
            pool.inventory.post(pool.inventory.abandoned, grant)
            return None
        done.wait(seconds)
        return opened[0] if opened else None

    def _warn_of_memory(self, record: Record) -> None:
        """An in-memory SQLite database lives and dies with its connection."""
        pool = self._pool
        if self._warned or getattr(pool._dialect, "name", "") != "sqlite":
            return
        self._warned = True
        assert record.dbapi_connection is not None
        if _is_in_memory(record.dbapi_connection):
            warnings.warn(
                "this SQLite database is in memory: unless its cache is "
                "shared, every connection of the pool gets a database of its "
                "own, whose tables vanish when the connection is closed; use "
                "a file, or the default pool of SQLAlchemy for in-memory "
                "databases",
                stacklevel=2,
            )


def _driver_connection(record: Record) -> object:
    """The driver's own connection; what wraps it may be made anew."""
    connection = record.dbapi_connection
    if isinstance(connection, AdaptedConnection):
        return connection.driver_connection
    return connection


def _is_in_memory(connection: Any) -> bool:
    try:
        cursor = connection.cursor()
        try:
            cursor.execute("PRAGMA database_list")
            # number, name and file of the main database
            return tuple(cursor.fetchone()) == (0, "main", "")
        finally:
            cursor.close()
    except Exception as error:  # a hint must not keep a connection away
        log.debug("cannot tell whether SQLite is in memory: %s", error)
        return False
