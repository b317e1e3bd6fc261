"""A server that does not answer: is it dead, or does it pause?

A pooler may hold up everything for a while, and then goes on as if nothing
had happened.  To replace its connections meanwhile would only add to its
trouble.  So what does not answer is given up only while new connections can
be opened; if those stall as well, all is left as it is.
"""

from __future__ import annotations

import enum
import math
from typing import Callable

from .connecting import Connecting
from .core import PoolCore
from .record import Record
from .tickets import Purpose

#: after so many pings without an answer it is no longer one connection's
#: trouble
_ENOUGH = 2


class Verdict(enum.Enum):
    """What to do with a connection whose ping is due."""

    ASK = "ask it"
    #: others did not answer, but new connections can be opened
    ASK_ONCE_MORE = "ask it, as the last one of those"
    LEAVE = "leave it alone"
    CLOSE = "close it: a ping would be of no use"


class Silence:
    """Remembers which pings of upkeep's were not answered, and what became
    of connects meanwhile.

    :param wake: has upkeep look again.
    """

    def __init__(
        self,
        pool: PoolCore,
        connecting: Connecting,
        wake: Callable[[], object],
    ) -> None:
        self._pool = pool
        self._connecting = connecting
        self._wake = wake
        #: pings that were not answered, in a row
        self.unanswered = 0
        self._silent_at = -math.inf
        #: when a ping was last answered
        self._answered_at = -math.inf
        #: when a connect was last found to stall as well
        self._stalled_at = -math.inf
        #: what was not heard of since then is not asked any more
        self._given_up_at = -math.inf

    @property
    def total(self) -> bool:
        """Nobody answers, and new connects do not succeed either."""
        return self._stalled_at > self._pool.inventory.arrived_at

    def begin_pass(self) -> None:
        """Forget what was not answered before somebody was heard."""
        heard_at = max(self._answered_at, self._pool.inventory.arrived_at)
        if heard_at > self._silent_at:
            self.unanswered = 0

    def forget(self) -> None:
        """Ask each of them, whatever was not answered before."""
        self.unanswered = 0

    def judge(self, record: Record) -> Verdict:
        """Tell what to do with a connection; may open another to find out."""
        silent = self.unanswered >= _ENOUGH
        given_up = self._is_given_up(record)
        if not silent and not given_up and not self.total:
            return Verdict.ASK
        if not self._others_connect(given_up):
            return Verdict.LEAVE
        if given_up:
            return Verdict.CLOSE
        return Verdict.ASK_ONCE_MORE if silent else Verdict.ASK

    def answered(self) -> None:
        """A ping was answered."""
        self._answered_at = self._pool.runtime.clock()

    def not_answered(self, verdict: Verdict, asked_at: float) -> None:
        """A ping was not answered.

        :param verdict: upon which it was sent.
        """
        self.unanswered += 1
        self._silent_at = self._pool.runtime.clock()
        if verdict is Verdict.ASK_ONCE_MORE:
            # and this one while new connects succeeded: it is no pause, and
            # the rest need not be waited for
            self._given_up_at = asked_at

    def _is_given_up(self, record: Record) -> bool:
        # an outage in between may have been a pause of everything
        since = self._given_up_at
        return record.proven_at < since and self._stalled_at < since

    def _others_connect(self, given_up: bool) -> bool:
        """Open a new connection before an old one is asked, or closed.

        :return: False: that stalls as well, or did until now.
        """
        inventory = self._pool.inventory
        seconds = self._pool.settings.ping_timeout
        now, stalled = self._pool.runtime.clock(), self.total
        if inventory.room <= 0:
            # none to find out, but those under way tell
            age = self._connecting.longest
            stalled = age > (0.0 if stalled else seconds)
            self._stalled_at = now if stalled else -math.inf
            return not stalled and (given_up or not age)
        if self._connecting.one(Purpose.PROBE, seconds) is None:
            self._stalled_at = now
            return False
        if stalled:
            # they may answer again as well: the next pass asks
            self._wake()
        return not stalled
