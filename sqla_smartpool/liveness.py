"""Pinging, closing and cutting connections, none of it without a bound."""

from __future__ import annotations

from contextvars import ContextVar
from contextvars import copy_context
import enum
import logging
import math
from typing import Any
from typing import Callable
from typing import Optional

from ._sqlalchemy import ping
from .core import PoolCore
from .journal import Journal
from .record import Grip
from .record import Record
from .runtime import Alarm
from .runtime import Runtime
from .sockets import Held
from .sockets import Line

log = logging.getLogger("sqla_smartpool.liveness")

#: set while a connection is closed that is known to be dead: that the driver
#: complains is no news then, and SQLAlchemy would log it as an error
closing_the_dead: ContextVar[bool] = ContextVar("closing_the_dead")

#: an alarm that is so many seconds late tells that the event loop, or the
#: process, stood still: then nobody could be heard either
_LATE = 0.1


class Answer(enum.Enum):
    """How a ping ended."""

    ALIVE = "alive"
    DEAD = "dead"
    SILENT = "silent"


class Watchdog:
    """Shuts a connection's socket down if a block takes too long.

    ::

        with Watchdog(runtime, line, 5.0) as watchdog:
            talk to the server
        if watchdog.bit: ...

    :param line: None: the socket is out of reach, and nothing is bounded.
    :param seconds: how long the block may take; it has them once more if
        nobody could hear what it was waiting for.
    """

    def __init__(
        self, runtime: Runtime, line: Optional[Line], seconds: float
    ) -> None:
        self._runtime = runtime
        self._line = line
        self._seconds = seconds
        self._ends = math.inf
        self._held: Optional[Held] = None
        self._alarm: Optional[Alarm] = None
        self.bit = False

    def __enter__(self) -> Watchdog:
        if self._line is not None:
            self._held = self._line.hold()
        if self._held is not None:
            self._ends = self._runtime.clock() + self._seconds
            self._alarm = self._runtime.call_later(self._seconds, self._bite)
        return self

    def _bite(self) -> None:
        ends, self._ends = self._ends, math.inf
        if self._runtime.clock() > ends + _LATE:
            self._alarm = self._runtime.call_later(self._seconds, self._bite)
            return
        self.bit = True
        if self._held is not None:
            self._held.cut()

    def __exit__(self, *exc_info: object) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        if self._held is not None:
            self._held.release()


class Liveness:
    """What a pool does to find out whether connections are alive, and to
    get rid of them."""

    def __init__(self, pool: PoolCore, journal: Journal) -> None:
        self._pool = pool
        self._journal = journal

    # -- ping --------------------------------------------------------------

    def ping(
        self, record: Record, grip: Grip, seconds: float, idle: bool
    ) -> Answer:
        """Ask the server.

        :param grip: the caller's, which must outlive this.
        :param seconds: how long the answer may take.
        :param idle: nobody waits for this connection, so that there is time
            to roll back what the ping has opened.
        """
        pool = self._pool
        if record.line is None and not pool.in_process:
            answer = self._ping_beside(record, seconds, idle)
        else:
            with Watchdog(pool.runtime, record.line, seconds) as watchdog:
                alive = self._ask(record, idle)
            answer = Answer.ALIVE if alive else Answer.DEAD
            if watchdog.bit:
                answer = Answer.SILENT
        pool.count("checks_num")
        if answer is Answer.ALIVE:
            record.suspect_at = float("-inf")
            record.proven(pool.runtime.clock())
        else:
            pool.count("checks_failed")
        return answer

    def _ask(self, record: Record, idle: bool) -> bool:
        pool = self._pool
        connection = record.dbapi_connection
        assert connection is not None
        by_event = pool.checks_by_event
        try:
            if by_event:
                pool.dispatch.health_check(connection, record)
            elif not ping(pool._dialect, connection):
                return False
            if by_event or idle:
                # a ping must not leave a transaction open
                pool._dialect.do_rollback(connection)  # type: ignore
        except Exception as error:  # whatever it is: it has not answered
            pool.logger.info(
                "Connection %r failed its check: %s: %s",
                connection,
                type(error).__name__,
                error,
            )
            return False
        return True

    def _ping_beside(
        self, record: Record, seconds: float, idle: bool
    ) -> Answer:
        """Ping over a socket that is out of reach, and so cannot be bounded.

        If the answer takes too long, whoever waits for it is left with the
        connection, and closes it in the end.
        """
        outcome: dict[str, bool] = {}
        answered = self._pool.runtime.signal()

        def ask() -> None:
            alive = False
            try:
                alive = self._ask(record, idle)
            finally:  # also when interrupted
                # who comes first decides
                if outcome.setdefault("alive", alive) is not alive:
                    self._end_here(record, dead=True)
                answered.set()

        late: Any = None
        alive: Optional[bool] = None
        try:
            try:
                self._pool.runtime.spawn(ask)
            except RuntimeError:  # no threads at interpreter exit: do it here
                ask()
            answered.wait(seconds)
        finally:
            # also when interrupted: two must not use it at the same time
            alive = outcome.setdefault("alive", late)
            if alive is None:
                record.going = "abandoned"
        if alive is None:
            return Answer.SILENT
        return Answer.ALIVE if alive else Answer.DEAD

    # -- close -------------------------------------------------------------

    def close(self, record: Record, grip: Grip, reason: str) -> None:
        """Close a connection; its room is free then.

        :param grip: the caller's, which must outlive this.
        :param reason: as the ``retire`` event tells it; "unhealthy" cuts it,
            without a farewell that could take time.
        """
        pool = self._pool
        abandoned = record.going == "abandoned"
        try:
            if record.dbapi_connection is not None:
                try:
                    self._fire_retire(record, reason)
                finally:  # also when the listener was interrupted
                    if not abandoned:
                        self._end(record, dead=reason == "unhealthy")
        finally:
            pool.inventory.tending.discard(record)
            self._journal.closed(record, reason)
            pool.inventory.post(pool.inventory.gone, record, reason)

    def _fire_retire(self, record: Record, reason: str) -> None:
        pool = self._pool
        if pool.dispatch.retire:
            try:
                pool.dispatch.retire(record.dbapi_connection, record, reason)
            except Exception:  # a listener's mistake must not keep it open
                log.exception("a listener of the event 'retire' failed")

    def _end(self, record: Record, dead: bool) -> None:
        if record.line is None and not self._pool.inline:
            self._end_beside(record, dead)
        else:
            self._end_here(record, dead)

    def _end_beside(self, record: Record, dead: bool) -> None:
        """Close over a socket that is out of reach, and so cannot be bounded.

        If it takes too long, whoever closes it is left with the connection.
        """
        runtime = self._pool.runtime
        ended = runtime.signal()

        def end() -> None:
            try:
                self._end_here(record, dead)
            finally:
                ended.set()

        try:
            runtime.spawn(end, copy_context())
        except RuntimeError:  # no threads at interpreter exit: do it here
            end()
        ended.wait(self._pool.settings.ping_timeout)

    def _end_here(self, record: Record, dead: bool) -> None:
        pool = self._pool
        # a farewell to who is gone is an error of the driver's, which keeps
        # some of them from closing
        dead = dead or record.is_dead()
        token = closing_the_dead.set(dead)
        try:
            if dead and record.line is not None:
                record.line.sever()
            bound = pool.settings.ping_timeout
            with Watchdog(pool.runtime, record.line, bound):
                if dead:
                    record.invalidate()
                else:
                    record.close()
        except Exception:  # a listener's, or the driver's: it must go anyway
            log.exception("closing a connection failed")
        finally:
            self._force(record)
            closing_the_dead.reset(token)

    def _force(self, record: Record) -> None:
        """Close what a failing listener has kept open."""
        connection = record.dbapi_connection
        if connection is not None:
            if record.line is not None:
                record.line.sever()
            self._pool._close_connection(connection, terminate=True)
            record.dbapi_connection = None


def quietly(close: Callable[[], object], logger: Any) -> None:
    """Close a dead connection; that its driver complains is no news."""
    try:
        close()
    except Exception as error:  # nothing is left to be done about it
        logger.debug("Closing a dead connection: %s", error)
