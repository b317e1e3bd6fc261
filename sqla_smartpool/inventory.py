"""Who gets which connection, in which order, and who may open one.

It does no I/O, and has no clock and no threads of its own.

Three rules keep it simple:

* Taking an idle connection and putting it back are single operations on a
  deque, and need no lock.  A newcomer looks for waiters before it takes one;
  a returner puts it back and then looks for waiters; a waiter is entered and
  then idle connections are looked for.  One of the two always sees the other.

* So are queueing and handing a returned connection to who is first in the
  queue: whoever enters looks then whether there is anything to have but
  returns, and of those who serve a waiter the first to come decides.

* Every other change is posted, as :mod:`.changes` tells.

Whoever is in the middle of something may be torn away by an exception.  So a
waiter is served before it leaves the queue, and what is in somebody's hands
is known by a weak reference to them, so that it is found when they vanish.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from itertools import islice
import math
from typing import Callable
from typing import Optional
import weakref

from .backoff import is_authentication_error
from .books import Books
from .exc import without_traceback
from .histogram import bucket_of
from .record import Grip
from .record import Record
from .runtime import Runtime
from .runtime import Signal
from .settings import Settings
from .tickets import Grant
from .tickets import Outcome
from .tickets import Purpose
from .tickets import Refusal
from .tickets import Waiter

#: a connect that takes longer no longer counts as one that a waiter can
#: expect something of, seconds
_SOON = 1.0
#: a ping of upkeep's that takes longer no longer counts as one after which a
#: waiter gets the connection, seconds
_MOMENT = 0.3


class Inventory(Books):
    """Hands the connections out, and takes them back.

    :param settings: of the pool; replaced when it is resized.
    :param runtime: clock, chance and signals.
    :param connect: called, without the key, to open a connection for which
        a :class:`Grant` was given.
    :param dismiss: called, without the key, to close a connection beside the
        caller, with the reason.
    :param look_again: called with the number of seconds after which to call
        :meth:`look` anew.
    """

    def __init__(
        self,
        settings: Settings,
        runtime: Runtime,
        connect: Callable[[Grant], object],
        dismiss: Callable[[Record, str], object],
        look_again: Callable[[float], object],
    ) -> None:
        super().__init__(settings, runtime)
        self._connect = connect
        self._dismiss = dismiss
        self._look_again = look_again
        self.open_gates()

    def mend(self) -> None:
        """Bring in order what was interrupted; for upkeep's thread only."""
        self.reclaim_key()
        self.post(self._mend)

    # -- changes by callers: to be posted ---------------------------------

    def enter(self, waiter: Waiter, first: bool = False) -> None:
        """A caller queues.

        :param first: it came upon a dead connection, and is before all who
            asked later than it did.
        """
        if self.closed:
            waiter.serve(Refusal.CLOSED)
            return
        self.waiters[waiter] = None
        if first:
            self._put_before_who_asked_later(waiter)
        if waiter.impatient:
            self._impatient[waiter] = None
        limit = self.settings.max_waiting
        if limit is not None and not first:
            self._assign()
            uncovered: float = len(self.waiters) - self._covered()
            if self._has_enough_under_way():
                uncovered -= self.room  # a connect for each is to come
            if waiter in self.waiters and uncovered > limit:
                self._serve(waiter, Refusal.OVERLOADED)

    def _put_before_who_asked_later(self, waiter: Waiter) -> None:
        waiting = self.waiters.copy()
        asked = [each for each in waiting if each.since <= waiter.since]
        for each in reversed(asked):
            try:
                self.waiters.move_to_end(each, last=False)
            except KeyError:
                pass  # was served meanwhile

    def leave(self, waiter: Waiter) -> None:
        """A caller leaves the queue, served or not."""
        self._impatient.pop(waiter, None)
        if self.waiters.pop(waiter, self) is self:
            return
        if isinstance(waiter.outcome, (Record, Grant)):
            return  # is noted with the connection
        waited = self._runtime.clock() - waiter.since
        self.counts["requests_queued"] += 1
        self.counts["requests_wait_ms"] += waited  # type: ignore[assignment]
        self.waits[bucket_of(waited)] += 1

    def count(self, name: str, number: float = 1) -> None:
        """Add to one of the counters."""
        self.counts[name] += number  # type: ignore[assignment]

    # -- changes by connects: to be posted --------------------------------

    def arrived(self, grant: Grant, record: Record, idle: bool) -> None:
        """A connect has succeeded.

        :param idle: nobody holds the connection, so it can be handed out.
        """
        if record in self.ledger.members:
            return  # is made for the second time
        now = self.arrived_at = self._runtime.clock()
        # in this order: who dismisses all finds it at one place or the other
        self.ledger = self.ledger.entered(record)
        self._connect_ended(grant)
        took = now - grant.begun
        self.count("connections_ms", took)
        self.count("_successful_connects", took)
        self.pace.connected(grant.begun, now, record.connect_time)
        self.connects[bucket_of(took)] += 1
        if self.backoff.failing:
            self.backoff.succeeded()
            for waiter in self.waiters.copy():
                waiter.error = None
        if self.closed or grant.unwanted or self.room < 0:
            record.going = "close"
            record.judge()
            if idle:
                self.tend(record)
                self._todo.append(lambda: self._dismiss(record, "close"))
        elif idle:
            self.idle.append(record)
            self._todo.append(partial(self.recheck, record))

    def failed(self, grant: Grant, error: BaseException) -> None:
        """A connect has failed; tell those who waited for it."""
        now = self._runtime.clock()
        self._connect_ended(grant)
        self.counts["connections_errors"] += 1
        self.count("connections_ms", now - grant.begun)
        if grant.written_off:
            return  # those who waited for it have been told, or have left
        first, waiting = not self.backoff.failing, self.waiters.copy()
        self.backoff.failed(
            now,
            grant.begun,
            without_traceback(error),
            is_authentication_error(error),
        )
        grant.attempt = self.backoff.failures
        if first:
            # the others may be lucky with connects of their own
            covered = self._covered()
            told = list(islice(waiting, covered, covered + 1))
        else:
            told = [each for each in waiting if each.since <= grant.begun]
        for waiter in told:
            mine, error = error, without_traceback(error)
            if now - waiter.since >= self.settings.reconnect_timeout:
                self._serve(waiter, mine)
            else:
                waiter.error = mine

    def abandoned(self, grant: Grant) -> None:
        """A connect was interrupted; that says nothing of the database."""
        self._connect_ended(grant)

    def write_off(self, grant: Grant) -> None:
        """A connect takes too long: others may have its room."""
        reference = weakref.ref(grant)
        if reference in self.opening:
            grant.written_off = True
            self.overdue[reference] = None
            del self.opening[reference]

    def _connect_ended(self, grant: Grant) -> None:
        reference = weakref.ref(grant)
        self.opening.pop(reference, None)
        self.overdue.pop(reference, None)

    def ask_to_open(self, waiter: Waiter, why: Purpose, up_to: float) -> None:
        """Upkeep wants to open a connection; it does not queue for that.

        :param up_to: how many there may be then.
        """
        now = self._runtime.clock()
        unasked = why is not Purpose.PROBE
        if (
            self.closed
            or self.paused
            or self.room <= 0
            or self._connect_delay(now) > 0
            or (unasked and now < self.backoff.retry_at)
            or self.staying >= up_to
        ):
            waiter.serve(Refusal.TIMEOUT)
        else:
            self._grant(waiter, now, background=True)

    # -- changes by returns and upkeep: to be posted -----------------------

    def gone(self, record: Record, reason: Optional[str] = None) -> None:
        """A connection has been closed, or taken away by its user.

        :param reason: for which the pool closed it.
        """
        if record not in self.ledger.members:
            return  # was dropped with all others by a fork
        if reason is not None:
            known = reason in ("idle", "lifetime", "unhealthy")
            self.counts["closed_" + (reason if known else "other")] += 1
        self.ledger = self.ledger.closed(record)
        if reason in (None, "unhealthy") and record.dbapi_connection is None:
            self.empty.append(record.heir())

    def set_aside(self, since: float) -> None:
        """Take the idle ones without proof of life since then off the way.

        A caller whose ping was not answered must not run into the next one
        that is not: upkeep sorts them out.
        """
        for record in self.idle.copy():
            if record.proven_at < since:
                try:
                    self.idle.remove(record)
                except ValueError:
                    continue  # a caller was faster
                self.aside.append(record)

    def retire(self) -> None:
        """Keep nothing from now on."""
        self.retired = True

    def watch(self, signal: Signal, condition: Callable[[], bool]) -> None:
        """Have a signal set as soon as a condition holds."""
        self._watchers[signal] = condition

    def unwatch(self, signal: Signal) -> None:
        self._watchers.pop(signal, None)

    # -- without the key ---------------------------------------------------

    def close_gates(self, closed: bool) -> None:
        """Hand out nothing any more; ``closed``: for good.

        At once, whoever is at the books: who pauses a pool relies on it.
        """
        self.take = deque[Record]().pop
        self.paused = True
        if closed:
            self.closed = True
            self.post(self._refuse_all)

    def open_gates(self) -> None:
        """Hand out connections (again)."""
        self.closed = self.paused = False
        lifo = self.settings.use_lifo
        self.take = self.idle.pop if lifo else self.idle.popleft
        self.look()

    def disown_connects(self) -> None:
        """Have what is being opened closed as it comes.

        To be called before the members are looked at, see :meth:`arrived`.
        """
        for grant in self.under_way:
            grant.unwanted = True

    def queue(self, waiter: Waiter, first: bool) -> None:
        """A caller queues, as :meth:`enter` tells."""
        limited = self.settings.max_waiting is not None
        if first or limited or waiter.impatient:
            self.post(self.enter, waiter, first)
            return
        self.waiters[waiter] = None
        if self.closed:
            self.post(self._serve, waiter, Refusal.CLOSED)
        elif self._has_more_than_returns():
            self.look()

    def _has_more_than_returns(self) -> bool:
        """Tell whether a waiter may have to do with more than returns."""
        return bool(
            self.idle
            or self.room > 0
            or self.opening
            or self.overdue
            or self.asked
            or self.aside
            or self.retired
            or self.backoff.failing
            or self._watchers
        )

    def take_back(self, record: Record) -> None:
        """A connection comes home, to be handed out again."""
        awaited = bool(self.waiters)
        if awaited and not self.paused and self.hand_over(record):
            return
        self.idle.append(record)
        if awaited or self.waiters:
            self.look()

    def hand_over(self, record: Record) -> bool:
        """Give a connection to who is first in the queue.

        :return: False: nobody waits any more.
        """
        waiters = self.waiters
        while waiters:
            try:
                waiter = next(iter(waiters))
            except (StopIteration, RuntimeError):
                continue  # somebody has come or gone meanwhile
            record.handed = weakref.ref(waiter)
            record.who = None  # until the waiter has it; who had it may wait
            served = waiter.serve(record)
            # in this order: who is interrupted in between can be found, and
            # the other way round the waiter would be neither served nor
            # waiting
            waiters.pop(waiter, None)
            if waiter.impatient:
                self._impatient.pop(waiter, None)
            if served:
                return True
        return False

    def _in_line(self, place: int = 0) -> Optional[Waiter]:
        """Who has that place in the queue, if anybody has."""
        while len(self.waiters) > place:
            try:
                waiter = next(islice(self.waiters, place, None), None)
            except RuntimeError:
                continue  # somebody has come or gone meanwhile
            if waiter is not None:
                return waiter
        return None

    def tend(self, record: Record) -> Grip:
        """Have a connection in hand, for as long as the answer lives."""
        grip = Grip()
        record.handed = weakref.ref(grip)
        self.tending.add(record)
        return grip

    def claim(self, record: Record) -> Optional[Grip]:
        """Take a certain idle connection for upkeep, if nobody waits.

        :return: to be kept for as long as it is in use; None: a caller has
            the connection.
        """
        if self.waiters and not self.paused and record in self.idle:
            return None
        return self.seize(record)

    def seize(self, record: Record) -> Optional[Grip]:
        """Take a certain connection that is in nobody's hands."""
        for shelf in (self.idle, self.aside):
            try:
                shelf.remove(record)
            except ValueError:
                continue
            return self.tend(record)
        return None

    def put_back(self, record: Record) -> None:
        """Return a connection from upkeep, to be handed out last."""
        # in this order: who is interrupted in between has lost it, which is
        # found; the other way round it would be in two places
        self.tending.discard(record)
        if self.settings.use_lifo:
            self.idle.appendleft(record)
        else:
            self.idle.append(record)
        if self.waiters:
            self.look()
        self.recheck(record)

    def recheck(self, record: Record) -> None:
        """Look again at a connection that has just been made idle.

        Whoever marks connections as going takes those that are idle then;
        whoever makes one idle looks then whether it is marked.  One of the
        two always sees the other.
        """
        if record.going is not None and self.seize(record):
            self._dismiss(record, record.going)

    # -- with the key ------------------------------------------------------

    def young(self) -> int:
        """The number of connects under way that have not been slow so far."""
        now = self._runtime.clock()
        return sum(now - grant.begun < _SOON for grant in self.grants)

    def _covered(self) -> int:
        """For how many waiters a connect is under way that is not slow, or a
        ping: the connection comes back sooner than another is opened.

        A caller who opens its connection itself has left the queue.
        """
        return self._pings() + (0 if self.inline else self.young())

    def _pings(self) -> int:
        """The number of upkeep's pings that have not been slow so far."""
        now = self._runtime.clock()
        began = self.asked.copy().values()
        return sum(since + _MOMENT > now for since in began)

    def _serve(self, waiter: Waiter, outcome: Outcome) -> bool:
        served = waiter.serve(outcome)  # first, as hand_over() tells
        self.leave(waiter)
        return served

    def _refuse_all(self) -> None:
        for waiter in self.waiters.copy():
            self._serve(waiter, Refusal.CLOSED)

    def _mend(self) -> None:
        for waiter in self.waiters.copy():
            if waiter.decided:  # but may not have been woken
                waiter.signal.set()
                self.leave(waiter)
        for record in self.asked.copy():
            if record not in self.tending:
                self.asked.pop(record, None)

    def _forget_lost_connects(self) -> None:
        """Free the room of connects which nobody makes any more."""
        for connects in self.opening, self.overdue:
            for reference in list(connects):
                if reference() is None:
                    del connects[reference]

    def _assign(self) -> None:
        """Give what there is to those who wait, in their order."""
        if self.opening or self.overdue:
            self._forget_lost_connects()
        if not self.paused:
            if self.idle:
                self._hand_over_idle()
            if self.waiters:
                self._seek_for_waiters()
        if self._impatient:
            self._refuse_impatient()
        if self.retired:
            self._keep_nothing()
        if self.opening:
            self._look_at_slow_connects()
        if self.asked and self.waiters:
            self._look_at_slow_pings()
        if self._watchers:
            self._tell_watchers()

    def _tell_watchers(self) -> None:
        for signal, condition in list(self._watchers.items()):
            if condition():
                del self._watchers[signal]
                signal.set()

    def _hand_over_idle(self) -> None:
        while self.waiters and self.idle:
            try:
                record = self.take()
            except IndexError:
                return  # a newcomer was faster
            if not self.hand_over(record):
                self.idle.append(record)
                self._todo.append(partial(self.recheck, record))

    def _keep_nothing(self) -> None:
        for record in self.resting():
            if self.seize(record):
                self._todo.append(partial(self._dismiss, record, "close"))

    def _give_up_on_the_database(self) -> None:
        """Serve those for whom ``reconnect_timeout`` has passed."""
        now = self._runtime.clock()
        while (waiter := self._in_line()) is not None:
            if waiter.error is None:
                return
            left = waiter.since + self.settings.reconnect_timeout - now
            if left > 0:
                self._look_again(left)
                return
            self._serve(waiter, waiter.error)

    def _seek_for_waiters(self) -> None:
        """Do what can be done for those for whom nothing is idle."""
        if self.backoff.failing:
            self._give_up_on_the_database()
        if self.room > 0 or self.aside:
            self._open_for_waiters()

    def _open_for_waiters(self) -> None:
        now = self._runtime.clock()
        while len(self.waiters) > (covered := self._covered()):
            if self.room <= 0:
                self._make_room(len(self.waiters) - covered)
                return
            delay = self._connect_delay(now)
            if delay > 0:
                if delay < math.inf:
                    self._look_again(delay)
                return
            if self._has_enough_under_way():
                return
            waiter = self._in_line(covered)
            if waiter is None:
                return
            self._grant(waiter, now)

    def _has_enough_under_way(self) -> bool:
        """Tell whether one more connect would be of no use; that is looked at
        anew when returns should have shown it."""
        if self.settings.max_connecting is not None or self._impatient:
            return False
        members, young = self.ledger.members, self.young()
        if not members or not young:
            return False
        if young >= self.pace.most(len(members)):
            return True
        waiting = len(self.waiters) - self._covered()
        if waiting <= 0:
            return False
        now = self._runtime.clock()
        expected = self.pace.returns_within(waiting, members, now)
        if expected < math.inf:
            # or they would wait for a connect when it turns out otherwise
            self._look_again(self.pace.look_in(expected))
        return expected < math.inf

    def _connect_delay(self, now: float) -> float:
        """Seconds until one more connect may begin; infinite: who knows."""
        if self.backoff.failing:
            # a stuck one must not keep the others from finding out that the
            # database is back
            return math.inf if self.young() else self.backoff.delay(now)
        limit = self.settings.max_connecting
        if limit is not None and len(self.opening) >= limit:
            return math.inf
        return 0.0

    def _grant(
        self, waiter: Waiter, now: float, background: bool = False
    ) -> None:
        context = waiter.context
        grant = Grant(now, context.copy() if context else None, background)
        self.opening[weakref.ref(grant)] = None
        self.backoff.begin(now)
        self.counts["connections_num"] += 1
        if background:
            served = waiter.serve(grant)
        elif self.inline:
            served = self._serve(waiter, grant)
        else:
            self._todo.append(lambda: self._connect(grant))
            served = True
        if not served:
            del self.opening[weakref.ref(grant)]

    def _make_room(self, wanted: int) -> None:
        """Cut connections that were set aside: nobody may have them, but
        they take the room of those that somebody waits for."""
        for _ in range(min(wanted, len(self.aside))):
            record = self.aside.popleft()
            self.tend(record)
            self._todo.append(partial(self._dismiss, record, "unhealthy"))

    def _look_at_slow_connects(self) -> None:
        """See to it that a slow connect is noticed, and then written off."""
        now = self._runtime.clock()
        limit = self.settings.connect_timeout
        for grant in self.grants:
            age = now - grant.begun
            if age >= limit:
                self.write_off(grant)
                self.look()
            else:
                self._look_again((_SOON if age < _SOON else limit) - age)

    def _look_at_slow_pings(self) -> None:
        """See to it that a slow ping is noticed by those who wait for it."""
        now = self._runtime.clock()
        for since in self.asked.copy().values():
            left = since + _MOMENT - now
            if left > 0:
                self._look_again(left)

    def _refuse_impatient(self) -> None:
        coming = len(self.opening) + self._pings()
        covered = set(islice(self.waiters.copy(), coming))
        for waiter in list(self._impatient):
            if waiter not in covered:
                self._serve(waiter, Refusal.TIMEOUT)
