"""What is done to the connections beside their callers: opened, pinged,
replaced, closed."""

from __future__ import annotations

from functools import partial
import logging
import math
from typing import Callable
from typing import Iterable
from typing import Optional
from typing import Protocol
import weakref

from .connecting import Connecting
from .core import PoolCore
from .liveness import Answer
from .liveness import Liveness
from .record import Grip
from .record import Record
from .runtime import side_by_side
from .silence import Silence
from .silence import Verdict
from .tickets import Purpose

log = logging.getLogger("sqla_smartpool.upkeep")

#: a connect that failed, or might not be made, is tried again after so long at
#: the earliest, seconds
_NEXT_TRY = 0.1
#: what a connect that is under way for long was in the way of is looked at
#: again after so long, seconds
_SLOW = 1.0


class Keeper(Protocol):
    """Who has the chores done."""

    #: what goes is to be replaced
    active: bool

    def wake(self, delay: float = 0.0) -> None:
        """Look again in ``delay`` seconds, if not sooner."""


class Chores:
    """The jobs of one pool."""

    def __init__(
        self,
        pool: PoolCore,
        connecting: Connecting,
        liveness: Liveness,
        keeper: Keeper,
    ) -> None:
        self._pool = pool
        self._connecting = connecting
        self._liveness = liveness
        self._keeper = keeper
        self.silence = Silence(pool, connecting, keeper.wake)
        #: the grips of those who replace what came home too old
        self.replacing: weakref.WeakSet[Grip] = weakref.WeakSet()

    def do(self, jobs: Iterable[Callable[[], object]]) -> None:
        """Do jobs side by side, by as many workers as there may be."""
        side_by_side(
            self._pool.runtime,
            [partial(self._guarded, job) for job in jobs],
            self._pool.settings.num_workers,
        )

    def _guarded(self, job: Callable[[], object]) -> None:
        try:
            job()
        except Exception:  # one connection's trouble is not the others'
            self._pool.count("_failed_passes")
            log.exception("upkeep of a connection failed")

    # -- opening -----------------------------------------------------------

    def fill(self) -> None:
        """Begin to open what is missing to ``min_size``, side by side."""
        pool = self._pool
        floor = pool.settings.min_size
        for _ in range(floor - pool.inventory.staying):
            grant = self._connecting.ask(Purpose.FLOOR, floor)
            if grant is None:
                break  # not now: upkeep goes on
            if pool.inline:
                self._connecting.open(grant, idle=True)
            else:
                self._connecting.beside(grant)
        self._keeper.wake()

    def open_floor(self) -> None:
        """Open one of those that are missing to ``min_size``."""
        settings = self._pool.settings
        # one that hangs must not hold up the rest of upkeep: it is left to
        # itself, and no more are begun beside it
        if self._connecting.longest < settings.ping_timeout:
            seconds = min(settings.ping_timeout, settings.connect_timeout)
            self._open(Purpose.FLOOR, settings.min_size, seconds)
        else:
            self._keeper.wake(_SLOW)

    def open_successor(self, up_to: float = math.inf) -> Optional[Record]:
        """Open a connection in the place of another.

        :param up_to: how many there may be then.
        :return: None: it may not be opened now, or failed.
        """
        seconds = self._pool.settings.connect_timeout
        return self._open(Purpose.SUCCESSOR, up_to, seconds)

    def _open(
        self, why: Purpose, up_to: float, seconds: float
    ) -> Optional[Record]:
        pool = self._pool
        if not pool.may_open_in_background:
            return None
        opened = self._connecting.one(why, seconds, up_to)
        if opened is None:
            again_in = _SLOW
            if pool.inventory.backoff.failing:
                # its time may have come long ago, while callers take the
                # attempts
                retry_at = pool.inventory.backoff.retry_at
                again_in = max(_NEXT_TRY, retry_at - pool.runtime.clock())
            self._keeper.wake(again_in)
        return opened

    # -- pinging -----------------------------------------------------------

    def ping(self, record: Record) -> Optional[bool]:
        """Ping an idle connection.

        :return: None: a caller has it, or it is left alone.
        """
        inventory = self._pool.inventory
        try:
            # before it is taken, and until it is back, or a caller who finds
            # nothing idle in between would have another opened
            inventory.asked[record] = self._pool.runtime.clock()
            verdict = self.silence.judge(record)
            if verdict is Verdict.CLOSE:
                self.close(record, "unhealthy")
            if verdict in (Verdict.CLOSE, Verdict.LEAVE):
                return None
            return self._take_and_ping(record, verdict)
        finally:
            inventory.asked.pop(record, None)
            if inventory.waiters:
                inventory.look()

    def _take_and_ping(
        self, record: Record, verdict: Verdict
    ) -> Optional[bool]:
        pool = self._pool
        grip = pool.may_touch(record) and pool.inventory.claim(record)
        if not grip:
            return None
        began, heard_at = pool.runtime.clock(), record.heard_at
        try:
            answer = self._liveness.ping(
                record, grip, pool.settings.ping_timeout, idle=True
            )
        except BaseException:  # interrupted: its stream may be out of step
            self._liveness.close(record, grip, "unhealthy")
            raise
        limit = pool.idle_limit
        if answer is Answer.ALIVE:
            self.silence.answered()
            pool.inventory.post(limit.survived, began - heard_at)
            pool.inventory.put_back(record)
            return True
        if answer is Answer.SILENT:
            self.silence.not_answered(verdict, began)
        if not pool.checks_by_event:
            pool.inventory.post(limit.died, began, heard_at, False)
        pool.count("connections_lost")
        self._liveness.close(record, grip, "unhealthy")
        self._keeper.wake()
        return False

    # -- closing and replacing ---------------------------------------------

    def close(self, record: Record, reason: str) -> bool:
        """Close an idle connection.

        :return: False: a caller has it.
        """
        pool = self._pool
        grip = pool.may_touch(record) and pool.inventory.claim(record)
        if not grip:
            return False
        if reason == "unhealthy":
            pool.count("connections_lost")
        self._liveness.close(record, grip, reason)
        self._keeper.wake()
        return True

    def cut(self, record: Record) -> None:
        """Close an idle connection that is known to be dead."""
        pool = self._pool
        now, heard_at = pool.runtime.clock(), record.heard_at
        if self.close(record, "unhealthy"):
            pool.inventory.post(pool.idle_limit.died, now, heard_at, True)

    def renew(self, record: Record, reason: str) -> None:
        """Replace a connection, opening the new one before closing the old.

        :param reason: "lifetime" or "drain".
        """
        pool = self._pool
        inventory = pool.inventory
        if not pool.may_open_in_background:
            self.close(record, reason)
            return
        opened = self.open_successor()
        if opened is None and inventory.room > 0:
            if inventory.backoff.failing:
                return  # the old one is better than none
        if opened is not None:
            # keep_alive counts on from its predecessor's last use
            opened.idle_since = record.idle_since
        grip = inventory.claim(record)
        if grip:
            self._liveness.close(record, grip, reason)
            if opened is None:
                self.open_successor()
        else:
            # in use, or on its way: it goes when it comes home
            record.succeeded = opened is not None
            self.dismiss_later(record, reason)

    def dismiss(self, record: Record, reason: str) -> None:
        """Close a connection beside the caller, who has taken it.

        :param reason: as the ``retire`` event tells it.
        """
        grip = self._pool.inventory.tend(record)
        if reason == "lifetime":
            self.replacing.add(grip)
        job = partial(self._close_and_replace, record, reason, grip)
        if not self._pool.inline:
            try:
                return self._pool.runtime.spawn(job)
            except RuntimeError:
                pass  # no threads at interpreter exit
        job()

    def dismiss_later(self, record: Record, reason: str) -> None:
        """Have a connection that is in use closed as it comes home."""
        record.going = reason
        record.judge()
        if self._pool.inventory.seize(record):
            # it has come home in the meantime
            self.dismiss(record, reason)

    def _close_and_replace(
        self, record: Record, reason: str, grip: Grip
    ) -> None:
        replaced = reason in ("lifetime", "drain") and not record.succeeded
        if replaced:
            record.succeeded = self._replace()
        self._liveness.close(record, grip, reason)
        if replaced and not record.succeeded:
            # there was no room for both
            self._replace()
        self._keeper.wake()

    def _replace(self) -> bool:
        return self._keeper.active and self.open_successor() is not None

    # -- all of them -------------------------------------------------------

    def drain(self) -> None:
        """Replace every connection."""
        self._pool.inventory.disown_connects()
        resting = self._pool.inventory.resting()
        for record in self._pool.inventory.members:
            if record not in resting:
                self.dismiss_later(record, "drain")
        self.do(partial(self.renew, record, "drain") for record in resting)

    def dismiss_all(self, reason: str) -> None:
        """Close what is idle, and have the rest closed as it comes home."""
        self._pool.inventory.disown_connects()
        self.mark_all(reason)
        self._close_resting(reason)

    def mark_all(self, reason: str) -> None:
        """Have each closed as it comes home."""
        for record in self._pool.inventory.members:
            record.going = reason
            record.judge()

    def _close_resting(self, reason: str) -> None:
        """Close what is in nobody's hands, whoever waits."""
        pool = self._pool
        hands: dict[Record, Grip] = {}
        for record in pool.inventory.resting():
            grip = pool.inventory.seize(record)
            if grip:
                hands[record] = grip

        def close() -> None:
            try:
                record, grip = hands.popitem()
            except KeyError:
                return  # it was dismissed below
            self._liveness.close(record, grip, reason)

        jobs: list[Callable[[], object]]
        jobs = [partial(self._guarded, close)] * len(hands)
        try:
            # connections may be bound to the caller's thread
            side_by_side(pool.runtime, jobs, 1 if pool.inline else len(jobs))
        finally:
            # who closes them may have been cancelled at the first
            for record in list(hands):
                if hands.pop(record, None):
                    self.dismiss(record, reason)
