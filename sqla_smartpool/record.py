"""One connection of the pool, and what the pool knows of it."""

from __future__ import annotations

from functools import partial
import math
import sys
from typing import Any
from typing import Callable
from typing import cast
from typing import Iterator
from typing import Optional
from typing import Protocol
import weakref

from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import Pool

from ._sqlalchemy import _ConnectionRecord
from ._sqlalchemy import will_lose
from .histogram import counted
from .runtime import Runtime
from .settings import Settings
from .sockets import health_call_of
from .sockets import Line
from .sockets import line_of
from .whereabouts import Who

#: up to this part of ``max_lifetime`` a connection is retired early, so that
#: connections that were opened together do not expire together
_JITTER = 0.1
#: and for so long before its end at the least, in seconds, or half of that
#: part: its successor has to be opened by then
_SUCCESSION = 1.0
#: a connection whose socket is out of reach is trusted for so long after its
#: checkin, in seconds; pgxpool does the same
_BLIND_TRUST = 1.0
#: one that has just been opened, and was never used, needs no ping for so
#: long, in seconds, even with ``pre_ping``
_FRESH = 1.0
#: the kernel counts in ticks of so many seconds at most (CONFIG_HZ=100)
_TICK = 0.01

#: a time that has always been
_NEVER = -math.inf


class Owner(Protocol):
    """What a record needs of its pool."""

    @property
    def runtime(self) -> Runtime: ...

    @property
    def settings(self) -> Settings: ...

    @property
    def numbers(self) -> Iterator[int]: ...

    @property
    def in_process(self) -> bool: ...

    @property
    def can_ping(self) -> bool: ...

    @property
    def checks_by_event(self) -> bool: ...


class Grip:
    """Somebody's hold of something, for as long as this object lives.

    An exception between any two instructions may tear them away before they
    can let go.  Then this goes with them, which a weak reference tells.
    """

    __slots__ = ("__weakref__",)

    def holds(self, record: Record) -> bool:
        return True


class _Undoings(list[Callable[[DBAPIConnection], None]]):
    """What a return has to undo of its user's options, such as an isolation
    level; SQLAlchemy takes them out one by one.

    It would have a deque, which takes 0.7 kB when it is empty.
    """

    __slots__ = ("record",)

    record: Record

    def pop(  # type: ignore[override]
        self,
    ) -> Callable[[DBAPIConnection], None]:
        return partial(self.record.undo, super().pop())


class Record(_ConnectionRecord):
    """SQLAlchemy's connection record with the pool's own fields.

    Times are those of the pool's clock, in seconds.  Whoever holds the
    connection writes to its record: its caller, or upkeep.
    """

    __slots__ = (
        "pool",
        "connect_time",
        "born",
        "early",
        "proven_at",
        "suspect_at",
        "trusted_until",
        "idle_since",
        "number",
        "taken_at",
        "who",
        "taken",
        "uses",
        "queued",
        "wait_seconds",
        "waits",
        "served",
        "usage",
        "long_uses",
        "going",
        "succeeded",
        "broken",
        "interruption",
        "handed",
        "line",
        "peek",
        "blind",
        "doubted",
        "doubted_at",
    )

    def __init__(self, pool: Owner, connect: bool = True) -> None:
        self.pool = pool
        #: how many checkouts it has served, and for how long it was in use in
        #: all, in seconds
        self.uses = 0
        self.usage = 0.0
        #: how many of these had to wait for their turn, for how long in all,
        #: and by their length
        self.queued = 0
        self.wait_seconds = 0.0
        self.waits: Optional[list[int]] = None
        #: the last checkout that did not have it at once, by ``uses``, and
        #: how long that took
        self.served = 0, 0.0
        #: how many of these were longer than a millisecond, by their length
        self.long_uses: Optional[list[int]] = None
        #: when it was last checked out, by whom and, if traced, where
        self.taken_at = 0.0
        self.who: Who = None
        self.taken: tuple[str, ...] = ()
        #: its connection's number
        self.number = 0
        #: the reason for which it does not go back among the idle ones
        self.going: Optional[str] = None
        #: its successor has been opened already
        self.succeeded = False
        #: it was invalidated, by its user or by SQLAlchemy
        self.broken = False
        #: by what its user was interrupted meanwhile, and the user's proxy
        self.interruption: Optional[tuple[BaseException, weakref.ref[Any]]] = (
            None
        )
        #: who has it in hand, before its user does or without one: the
        #: waiter that it was last handed to, or the grip of who tends it
        self.handed: Optional[weakref.ref[Any]] = None
        #: the checkout that upkeep found nobody to hold, by ``uses``
        self.doubted = -1
        self.doubted_at = 0.0
        #: tells in about a microsecond whether it can be handed out; None:
        #: there is nothing to look at
        self.peek: Optional[Callable[[], bool]] = None
        self.line: Optional[Line] = None
        self.blind = False
        #: what the driver took to connect
        self.connect_time = math.inf
        self.born = self.proven_at = self.idle_since = 0.0
        #: where in the time of its retirement its own is; 1: at the start
        self.early = 0.0
        self.suspect_at = _NEVER
        self.trusted_until = _NEVER
        super().__init__(cast(Pool, pool), connect=connect)
        undoings = _Undoings()
        undoings.record = self
        self.finalize_callback = undoings  # type: ignore[assignment]
        if connect:
            self._opened()

    def get_connection(self) -> DBAPIConnection:
        """Return the connection, opening one if there is none.

        SQLAlchemy's own would also replace, in the caller's path and by the
        wall clock, what it takes for stale: here upkeep does that.
        """
        if self.dbapi_connection is not None:
            return self.dbapi_connection
        if self.interruption is not None:
            # a listener of "checkout" wants another connection
            raise self.interruption[0]
        connection = super().get_connection()
        self._opened()
        return connection

    def _opened(self) -> None:
        runtime, settings = self.pool.runtime, self.pool.settings
        now = runtime.clock()
        self.number = next(self.pool.numbers)
        self.born = self.idle_since = now
        # drawn once: drawn anew at each look, it would gather at the bound
        self.early = runtime.chance()
        self.going = None
        self.served = 0, 0.0
        self.succeeded = self.broken = False
        self.doubted = -1
        self.suspect_at = _NEVER
        self._find_line()
        if self.line is not None and settings.network_timeout is not None:
            self.line.bound_by(settings.network_timeout)
        self.proven(now)

    def _find_line(self) -> None:
        self.line = self.peek = None
        self.blind = False
        if self.pool.in_process:
            return
        driver_connection = self.driver_connection
        healthy = health_call_of(driver_connection)
        self.line = line_of(driver_connection)
        if healthy is not None:
            # no reference to the connection, which must be able to vanish
            self.peek = self._is_healthy
        elif self.line is not None:
            self.peek = self.line.quiet
        elif self.pool.can_ping:
            self.peek = self._was_just_used
            self.blind = True

    def _is_healthy(self) -> bool:
        driver_connection = self.driver_connection
        healthy = health_call_of(driver_connection)
        return healthy is not None and healthy(driver_connection)

    def is_dead(self) -> bool:
        """Tell whether its end is known, to this host or to its driver."""
        if self.line is not None:
            return self.line.dead()
        if self.blind or self.peek is None:
            return False
        return not self.peek()

    def _was_just_used(self) -> bool:
        return self.pool.runtime.clock() - self.idle_since < _BLIND_TRUST

    @property
    def held_since(self) -> float:
        """Since when it has been in use, if it is; that is now for one that
        is on its way to its user, who has not noted it yet."""
        if self.taken_at < self.idle_since:
            return self.pool.runtime.clock()
        return self.taken_at

    @property
    def waited(self) -> float:
        """How long its last checkout took; 0: it was had at once."""
        checkout, seconds = self.served
        return seconds if checkout == self.uses else 0.0

    def note_wait(self, seconds: float) -> None:
        """Count a checkout that had to wait for its turn."""
        self.queued += 1
        self.wait_seconds += seconds
        self.waits = counted(self.waits, seconds)

    def note_long_use(self, seconds: float) -> None:
        """Count a use for the histogram; short ones are what is left."""
        self.long_uses = counted(self.long_uses, seconds)

    def proven(self, when: float) -> None:
        """It has been shown to be alive."""
        self.proven_at = when
        self.judge()

    @property
    def heard_at(self) -> float:
        """When it was last in use, or had answered."""
        return max(self.proven_at, self.idle_since)

    def suspect(self, now: float) -> None:
        """Something has happened that may have killed it."""
        self.suspect_at = now
        self.trusted_until = _NEVER

    def judge(self) -> None:
        """Work out until when a peek is all that a checkout needs."""
        settings = self.pool.settings
        self.trusted_until = min(
            self.proven_at + settings.proof_window, self.expires_at
        )
        if self.suspect_at >= self.proven_at or self.going is not None:
            self.trusted_until = _NEVER

    @property
    def expires_at(self) -> float:
        """From when on it is not handed out any more."""
        lifetime = self.pool.settings.max_lifetime
        return math.inf if lifetime is None else self.born + lifetime

    @property
    def retire_at(self) -> float:
        """From when on upkeep replaces it."""
        lifetime = self.pool.settings.max_lifetime
        if lifetime is None:
            return math.inf
        most = _JITTER * lifetime
        least = min(_SUCCESSION, most / 2)
        return self.expires_at - least - self.early * (most - least)

    def heard_from(self, now: float) -> None:
        """Take what the kernel knows of the server's last bytes as proof."""
        if self.line is not None and not self.pool.checks_by_event:
            silence = self.line.silence()
            if silence is not None:
                when = self.pool.runtime.ago(now, silence + _TICK)
                if when > self.proven_at:
                    self.proven(when)

    def needs_ping(self, now: float) -> bool:
        """Tell whether it must answer a ping before it is handed out."""
        if not self.pool.can_ping:
            return False
        if self.suspect_at >= self.proven_at:
            return True
        if self.blind and not self._was_just_used():
            return now - self.proven_at >= _BLIND_TRUST
        if self.uses == 0 and now - self.proven_at < _FRESH:
            return False
        return now - self.proven_at >= self.pool.settings.proof_window

    def heir(self) -> Record:
        """Return an empty record that takes over its ``record_info``.

        This one goes on being counted for what it did.  And a connection that
        was dropped is detached, and then ended, which may take a while on an
        event loop; after that SQLAlchemy checks the record in, whoever has it
        by then.
        """
        heir = Record(self.pool, connect=False)
        heir.__dict__["record_info"] = self.record_info
        return heir

    def undo(
        self, undo: Callable[[DBAPIConnection], None], connection: Any
    ) -> None:
        """Undo an option of its user, who holds it no more.

        That may take time; and if it fails, SQLAlchemy would lose the record,
        as it takes it for returned already.
        """
        grip = Grip()
        self.handed = weakref.ref(grip)
        pool = cast(Pool, self.pool)
        try:
            undo(connection)
        except BaseException as error:
            self.finalize_callback.clear()
            self.invalidate(error, soft=True)
            if not isinstance(error, Exception):
                pool._return_conn(self)
                raise
            pool.logger.error(
                "Exception during reset or similar", exc_info=True
            )

    def forget(self) -> None:
        """Have nothing more to do with the connection, nor its user: as if
        it had been invalidated, a return does no I/O."""
        holder = self.fairy_ref
        fairy = holder() if holder is not None else None
        if fairy is not None:
            fairy.dbapi_connection = None  # type: ignore[assignment]
        self.dbapi_connection = None

    def invalidate(
        self, e: Optional[BaseException] = None, soft: bool = False
    ) -> None:
        if self.going is None:
            # it is replaced when it comes home, or before it is handed out;
            # also one whose close is interrupted, and so may still be there
            self.going = "unhealthy"
            self.trusted_until = _NEVER
        if not soft and self.fairy_ref is not None:
            self.broken = True
        try:
            super().invalidate(e, soft)
        except BaseException as error:
            if isinstance(error, Exception) or self.fairy_ref is None:
                raise
            # whoever calls this returns the record next, or has it connect
            # anew; without that it would be lost to the garbage collector
            self.interruption = error, self.fairy_ref
        if self.fairy_ref is not None and will_lose(sys._getframe(1), e):
            fairy = self.fairy_ref()
            if fairy is not None:
                # once it has been returned it may be somebody else's
                fairy._connection_record = None
            self.checkin()

    def take_interruption(self) -> Optional[BaseException]:
        """Return what is to be raised now, as it could not be raised while
        the connection was invalidated."""
        if self.interruption is None:
            return None
        error, holder = self.interruption
        self.interruption = None
        fairy = holder()
        if fairy is not None:
            # or it could return the record when it is somebody else's
            fairy._connection_record = None
        return error
