"""What the status page tells of one pool, as plain values for JSON."""

from __future__ import annotations

import asyncio
from asyncio import _get_running_loop
from collections import deque
from concurrent.futures import Future
import dataclasses
import threading
import time
from typing import Any
from typing import Callable
from typing import NamedTuple
from typing import Optional

from sqlalchemy.engine import Engine

from .status_errors import Errors
from .status_errors import hidden
from ..aiopool import AsyncSmartPool
from ..histogram import Histogram
from ..observe import observer_of
from ..pool import SmartPool
from ..stats import PoolStats
from ..stock import StockObserver
from ..watched import Watched
from ..watched import WatchedPool
from ..whereabouts import place_of

#: a pool is looked at no more often than that, seconds, however many ask
_FRESH = 0.5
#: so often a point of the chart is kept, seconds, and so many of them
_SAMPLED = 1.0
_SAMPLES = 400
#: what is said of recent times is said of so many seconds
_RECENT = 60.0


class Sample(NamedTuple):
    """A point of the chart."""

    at: float
    size: int
    in_use: int
    waiting: int
    connecting: int


class PoolView:
    """Looks at the pool of one engine when somebody asks, and keeps a little
    of what it saw: there is no thread that looks when nobody does.

    :param engine: with a SmartPool, or a pool that can be observed.
    :param clock: of the wall, for a person; seconds since 1970.
    :param ticks: for durations.
    :raises sqlalchemy.exc.InvalidRequestError: its pool does not queue.
    """

    def __init__(
        self,
        name: str,
        engine: Engine,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self._engine = engine
        self._observer = observer_of(engine)
        self._errors = Errors(engine, clock)
        self._clock = clock
        self._ticks = ticks
        self._samples: deque[Sample] = deque(maxlen=_SAMPLES)
        #: what was counted, when: a minute of it
        self._counted: deque[tuple[float, PoolStats]] = deque()
        self._told: dict[str, Any] = {"name": name, "blocked": None}
        self._told_at = float("-inf")
        #: where it was last looked at: uvloop does not tell where it runs
        self._thread: Optional[int] = None
        # held for the milliseconds of a look, by one thread or another
        self._looking = threading.Lock()

    # -- in the right place ------------------------------------------------

    def ask(self) -> Future[dict[str, Any]]:
        """Have the pool looked at where that is safe.

        The tasks of a loop that runs are looked at by that loop only.
        """
        answer: Future[dict[str, Any]] = Future()

        def look() -> None:
            if not answer.set_running_or_notify_cancel():
                return  # came too late
            self._thread = threading.get_ident()
            try:
                answer.set_result(self.look())
            except Exception as error:
                answer.set_exception(error)

        loop = self._loop
        if loop is None or loop is _get_running_loop() or not _runs(loop):
            look()
            return answer
        try:
            loop.call_soon_threadsafe(look)
        except RuntimeError:  # has just been closed: nothing moves any more
            look()
        return answer

    def told(
        self, answer: Future[dict[str, Any]], patience: float
    ) -> dict[str, Any]:
        """Return what :meth:`ask` gave, or what is known without it.

        :param patience: for how many seconds it has been waited for.
        """
        if answer.done() or not answer.cancel():
            return answer.result()
        # from here the thread of the loop can be seen, its tasks cannot
        thread = getattr(self._loop, "_thread_id", self._thread)
        place = None if thread is None else place_of(thread)
        blocked = {
            "seconds": patience,
            "thread": place.name if place else None,
            "where": list(place.lines) if place else [],
        }
        return {**self._told, "blocked": hidden(blocked, self._engine.url)}

    @property
    def _loop(self) -> Optional[asyncio.AbstractEventLoop]:
        pool = self._engine.pool
        if isinstance(pool, AsyncSmartPool):
            loop: Optional[asyncio.AbstractEventLoop] = pool.runtime.loop
            return loop
        if isinstance(self._observer, StockObserver):
            return self._observer.loop
        return None

    # -- looking -----------------------------------------------------------

    def look(self) -> dict[str, Any]:
        """Look at the pool now, if the last look is not fresh any more."""
        with self._looking:
            now = self._ticks()
            if now - self._told_at >= _FRESH:
                self._told = self._seen(now)
                self._told_at = now
            return self._told

    def _seen(self, now: float) -> dict[str, Any]:
        observer, watched = self._observer, self._watched
        stats = observer.stats()
        state = state_of(watched, stats, self._closed)
        self._keep(now, stats)
        # of a minute ago, or when it was last looked at before that
        since, before = self._counted[0]
        # without a wait or a fault there is nothing to explain
        diagnosis = (
            None
            if state in ("fine", "stopped")
            else observer.lookout.diagnosis()
        )
        # who has looked all stacks up for that need not do so again
        holders = diagnosis.holders if diagnosis else observer.holders()
        told = {
            "holders": [each.as_dict() for each in holders],
            "errors": self._errors.told(),
            "diagnosis": diagnosis and diagnosis.as_dict(),
        }
        return {
            "name": self.name,
            "pool": type(self._engine.pool).__name__,
            "at": self._clock(),
            "state": state,
            "blocked": None,
            "stats": stats.as_dict(),
            "recent_seconds": now - since,
            "times": {
                name: times(
                    getattr(stats, f"{name}_time"),
                    getattr(before, f"{name}_time"),
                )
                for name in ("wait", "use", "connect")
            },
            "connections": [each.as_dict() for each in observer.connections()],
            **hidden(told, self._engine.url),
            "samples": [list(each) for each in self._samples],
            "settings": self._settings(),
            "advice": dataclasses.asdict(observer.advise()),
        }

    @property
    def _closed(self) -> bool:
        pool = self._engine.pool
        return isinstance(pool, SmartPool) and pool.inventory.closed

    @property
    def _watched(self) -> Watched:
        if isinstance(self._observer, StockObserver):
            return self._observer
        pool = self._engine.pool
        assert isinstance(pool, SmartPool)
        return WatchedPool(pool)

    def _keep(self, now: float, stats: PoolStats) -> None:
        at = self._clock()
        if self._samples and at < self._samples[-1].at:
            self._samples.clear()  # the clock was set back
        if not self._samples or at - self._samples[-1].at >= _SAMPLED:
            self._samples.append(
                Sample(
                    at,
                    stats.pool_size,
                    stats.pool_in_use,
                    stats.requests_waiting,
                    stats.pool_connecting,
                )
            )
        counted = self._counted
        if counted and stats.requests_num < counted[-1][1].requests_num:
            counted.clear()  # another pool, after engine.dispose()
        counted.append((now, stats))
        while len(counted) > 1 and now - counted[1][0] >= _RECENT:
            counted.popleft()

    def _settings(self) -> dict[str, Any]:
        pool: Any = self._engine.pool
        if isinstance(pool, SmartPool):
            return dataclasses.asdict(pool.settings)
        return {
            "pool_size": pool.size(),
            "max_overflow": pool._max_overflow,
            "timeout": pool.timeout(),
            "recycle": pool._recycle,
            "pre_ping": pool._pre_ping,
        }


def _runs(loop: asyncio.AbstractEventLoop) -> bool:
    return loop.is_running() and not loop.is_closed()


def state_of(watched: Watched, stats: PoolStats, closed: bool) -> str:
    """Say in a word or two how a pool is."""
    if closed:
        return "stopped"
    if watched.paused:
        return "paused"
    if watched.error is not None:
        return "database unreachable"
    if stats.requests_waiting:
        return "exhausted" if watched.full else "callers wait"
    return "fine"


def times(now: Histogram, before: Histogram) -> dict[str, Any]:
    """Durations in seconds, since ever and of late.

    :param before: what had been counted some time ago.
    """
    recent = Histogram(
        tuple(max(a - b, 0) for a, b in zip(now.counts, before.counts)),
        now.sum - before.sum,
    )
    return {**_told(now), "recent": _told(recent)}


def _told(histogram: Histogram) -> dict[str, Any]:
    return {
        "count": histogram.count,
        "sum": histogram.sum,
        "p50": histogram.quantile(0.5),
        "p99": histogram.quantile(0.99),
        "counts": list(histogram.counts),
    }
