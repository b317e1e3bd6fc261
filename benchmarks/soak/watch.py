"""Looking on: at the pools, at the logs, and at what the process takes."""

from __future__ import annotations

from array import array
import gc
import logging
import statistics
import sys
import threading
import time
from typing import Any
from typing import Callable
from typing import Optional
import warnings

import psutil

from sqla_smartpool import PoolStats
from .invariants import Judge
from .lanes import Lane
from .lanes import SIZES
from .load import MARGIN
from .stage import Stage

#: between two looks, seconds
_PAUSE = 0.2
#: no visit lasts longer, whatever happens to the server, seconds
_LONGEST_VISIT = 40.0
#: a fault, or what was dropped, may have kept callers waiting since, seconds
_WAITED = 5.0
_GAUGES = ("pool_min", "pool_max", "pool_size", "pool_available")
_GAUGES += ("pool_in_use", "pool_connecting", "requests_waiting")
_DELETED = "was deleted while still open"
_RESET = "Exception during reset or similar"
_COLLECTED = "The garbage collector is trying to clean up"
#: psycopg's word for two cancellations, one upon the other
_TWICE = "query cancellation interrupted"
_LOST = "found a connection that was lost"
#: what callers who wait for long are told of; what was dropped counts as in
#: use by its last user, who comes again
_WAITS = ("a checkout has been waiting", "Likely cause: ")
#: what nothing excuses, in a log or a warning
_NEVER = (
    "was destroyed but it is pending",
    "never retrieved",
    "never awaited",
    "unclosed",
    "upkeep failed",
    "upkeep of a connection failed",
    "closing a connection failed",
    "timed call failed",
    "a pool's task failed",
    "has not ended in",
    "attached to a different loop",
    "Event loop is closed",
)


class Collector:
    """Collects garbage, in a thread of its own; elsewhere that is disabled.

    Python would do it in any thread, also in that of a proxy, which then
    waited for itself: for the rollback of a connection that was dropped.
    """

    def __init__(self) -> None:
        self._thread: Optional[threading.Thread] = None
        #: when the last collection of everything began: what was garbage by
        #: then is gone
        self._since = time.monotonic()

    def run(self, is_over: Callable[[], bool]) -> None:
        self._thread = threading.current_thread()
        turn = 0
        while not is_over():
            turn += 1
            everything = turn % 20 == 0
            began = time.monotonic()
            gc.collect(2 if everything else 0)
            if everything:
                self._since = began
            time.sleep(0.05)

    @property
    def late(self) -> float:
        """For how long what the caller collects may have been garbage,
        seconds: it may have had to wait for the rollback of another."""
        if threading.current_thread() is not self._thread:
            return 0.0
        return time.monotonic() - self._since


class Logs(logging.Handler):
    """Judges whatever is logged from WARNING on, and whatever is warned of
    or raised where nobody could catch it."""

    def __init__(
        self, judge: Judge, lanes: list[Lane], collector: Collector
    ) -> None:
        super().__init__(logging.WARNING)
        self._judge = judge
        self._collector = collector
        self._lanes = {lane.name: lane for lane in lanes}
        self._saved: Any = None
        self._left_open = 0

    def install(self) -> None:
        self._saved = (
            warnings.showwarning,
            sys.unraisablehook,
            threading.excepthook,
        )
        logging.getLogger().addHandler(self)
        warnings.simplefilter("always")
        warnings.showwarning = self._warned
        sys.unraisablehook = self._raised
        threading.excepthook = self._raised

    def uninstall(self) -> None:
        logging.getLogger().removeHandler(self)
        warnings.showwarning, sys.unraisablehook, threading.excepthook = (
            self._saved
        )
        warnings.resetwarnings()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            text += f": {record.exc_info[1]!r}"
        # the pool's own logs, and those of SQLAlchemy's pools
        name = getattr(record, "pool", "")
        if record.name.startswith("sqlalchemy.pool."):
            name = record.name.rpartition(".")[2]
        self._judge_text(text, name if name in self._lanes else "")
        if text.startswith(_COLLECTED):
            self._judge_collected(self._lanes[name])

    def _judge_text(self, text: str, name: str) -> None:
        """Errors may be logged when a server is hit, and no others."""
        excused = text.startswith(_COLLECTED)
        if not any(words in text for words in _NEVER):
            excused = excused or self._is_excused(text, name)
        self._judge.check("logs", excused, "{} {}", name, text)

    def _is_excused(self, text: str, name: str) -> bool:
        # sessions that were opened under a limit of the server's keep it
        seconds = _WAITED if _RESET in text else 2.0
        recent = self._judge.recent(seconds + self._collector.late, name)
        if any("query" in window.allows for window in recent):
            return True
        now = time.monotonic()
        lanes = [self._lanes[name]] if name else [*self._lanes.values()]
        if _RESET in text or _TWICE in text:
            # cancelled on its return, or unfit for use since
            return any(now < lane.cancelled_at + 2.0 for lane in lanes)
        if _LOST in text:
            return any(lane.left for lane in lanes)
        if any(words in text for words in _WAITS):
            return bool(self._judge.recent(_WAITED, name)) or any(
                now < lane.dropped_at + _WAITED for lane in lanes
            )
        return False

    def _judge_collected(self, lane: Lane) -> None:
        lane.collected += 1
        self._judge.check(
            "logs",
            lane.collected <= lane.dropped,
            "{}: {} connections were collected, {} had been dropped",
            lane.name,
            lane.collected,
            lane.dropped,
        )

    def _warned(
        self, message: Any, category: Any, *args: Any, **kw: Any
    ) -> None:
        # what was dropped is complained of, in the log as well
        text = str(message)
        dropped = _COLLECTED in text or (
            _DELETED in text
            and any(lane.dropped for lane in self._lanes.values())
        )
        ours = issubclass(category, (ResourceWarning, RuntimeWarning))
        if ours and not dropped:
            left = text.startswith("unclosed <socket.") and self._pg8000_did()
            self._judge.check("logs", left, "{}", text)

    def _pg8000_did(self) -> bool:
        """pg8000 leaves its socket open when the peer cuts the connection
        before the first message is sent."""
        lane = self._lanes.get("pg8000")
        self._left_open += 1
        return lane is not None and self._left_open <= sum(
            pool.stats().connections_errors for pool in lane.pools
        )

    def _raised(self, unraisable: Any) -> None:
        self._judge.check(
            "logs",
            False,
            "unraisable: {!r} in {!r}",
            unraisable.exc_value,
            getattr(unraisable, "object", None)
            or getattr(unraisable, "thread", None),
        )


class Resources:
    """What the process takes, over time."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self.memory = array("d")
        self.threads = array("i")
        self.descriptors = array("i")

    def look(self) -> None:
        self.memory.append(self._process.memory_info().rss / 2**20)
        self.threads.append(self._process.num_threads())
        self.descriptors.append(self._process.num_fds())

    def growth(self, samples: Any) -> tuple[float, float, float]:
        """Medians of an early and of the last fifth, and the maximum."""
        fifth = max(1, len(samples) // 5)
        early = samples[fifth : 2 * fifth] or samples
        last = samples[-fifth:]
        return (
            statistics.median(early),
            statistics.median(last),
            max(samples),
        )


class Watch:
    """Looks again and again, in a thread of its own."""

    def __init__(
        self, stages: list[Stage], judge: Judge, resources: Resources
    ) -> None:
        self._stages = stages
        self._judge = judge
        self._resources = resources
        self._before: dict[int, PoolStats] = {}
        self._too_many: dict[Lane, int] = {}
        self._reported: set[Any] = set()

    def look(self, turn: int) -> None:
        """Have one look at everything that can be seen from outside.

        :param turn: the number of the look; what costs is not looked at in
            each.
        """
        for stage in self._stages:
            for lane in stage.lanes:
                self._look_at_pool(lane)
                self._look_for_stuck_visits(lane)
            if turn % 3 == 0:
                self._count_sessions(stage)
        if turn % 5 == 0:
            self._resources.look()

    def run(self, is_over: Any) -> None:
        turn = 0
        while not is_over():
            turn += 1
            try:
                self.look(turn)
            except Exception as error:  # a look that fails is a finding too
                self._judge.check("looks succeed", False, "{!r}", error)
            time.sleep(_PAUSE)

    def _look_at_pool(self, lane: Lane) -> None:
        pool = lane.pool
        stats = pool.stats()
        before = self._before.get(id(pool), PoolStats())
        self._before[id(pool)] = stats
        now, then = stats.as_dict(), before.as_dict()
        check = self._judge.check
        check(
            "stats are never negative",
            min(now.values()) >= 0,
            "{}: {}",
            lane.name,
            stats,
        )
        check(
            "stats add up",
            all(now[x] >= then[x] for x in now if x not in _GAUGES)
            and stats.requests_errors >= stats.requests_timeouts
            and stats.checks_num >= stats.checks_failed
            and stats.connections_num >= stats.connections_errors,
            "{}: {} after {}",
            lane.name,
            stats,
            before,
        )
        check(
            "nothing is reclaimed",
            # what was dropped may be, when a rollback of what was collected
            # together with it takes long
            stats.reclaimed <= lane.left,
            "{}: {}",
            lane.name,
            stats,
        )
        check(
            "no more connections than max_size",
            lane.books.most <= lane.ceiling,
            "{} had {} open at a time, of {}",
            lane.name,
            lane.books.most,
            lane.ceiling,
        )

    def _look_for_stuck_visits(self, lane: Lane) -> None:
        now = time.monotonic()
        for visit in lane.visits.copy():
            lasts = now - visit.begun
            stuck = lasts > _LONGEST_VISIT or (
                visit.phase == "checkout" and lasts > visit.timeout + MARGIN
            )
            if stuck and visit not in self._reported:
                self._reported.add(visit)
                self._judge.check(
                    "every checkout ends in time",
                    False,
                    "{} is in its {} for {:.1f} s",
                    visit.token,
                    visit.phase,
                    lasts,
                )

    def _count_sessions(self, stage: Stage) -> None:
        """A client that left a moment ago may still be there, but not in
        three looks in a row."""
        if not stage.busy.acquire(False):
            return
        try:
            for lane in stage.lanes:
                if self._judge.recent(3.0, lane.name):
                    self._too_many.pop(lane, None)
                    continue
                number = lane.sessions()
                if number <= SIZES["max_size"]:
                    self._too_many.pop(lane, None)
                else:
                    self._too_many[lane] = self._too_many.get(lane, 0) + 1
                self._judge.check(
                    "no more sessions than max_size",
                    self._too_many.get(lane, 0) < 3,
                    "{} has {}",
                    lane.name,
                    number,
                )
        finally:
            stage.busy.release()
