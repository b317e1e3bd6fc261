"""How large a pool should have been, from what was measured."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
import math
from typing import Callable
from typing import Iterable
from typing import NamedTuple
from typing import Optional

from .stats import PoolStats
from .watched import Watched

#: demand is averaged over so long, seconds
WINDOW = 60.0
#: so many windows are kept: a day
_KEPT = 24 * 60
#: of less than this nothing can be said, seconds
_LEAST = 1.0
#: How many square roots of the demand to have above it.  One caller in forty
#: waits with two, of any demand; with one, nearly every fourth does:
#: S. Halfin and W. Whitt, "Heavy-traffic limits for queues with many
#: exponential servers", Operations Research 29 (1981).
_SPARE = 2.0


class Totals(NamedTuple):
    """What has been counted since the pool was made; times in seconds."""

    at: float
    uses: int = 0
    used: float = 0.0
    waited: float = 0.0


class Window(NamedTuple):
    """What happened in a stretch of time; times in seconds."""

    seconds: float
    #: checkouts
    uses: int
    #: connections were in use for so long, in all
    used: float
    #: callers waited for so long, in all
    waited: float

    @property
    def demand(self) -> float:
        """How many callers had a connection or waited for one, on average.

        That is Little's law: arrivals per second, times how long each takes.
        """
        return (self.used + self.waited) / self.seconds


class Meter:
    """Cuts what happens in a pool into windows.

    :param stats: of the pool.
    """

    def __init__(self, watched: Watched, stats: Callable[[], PoolStats]):
        self._watched = watched
        self._stats = stats
        self._begun = Totals(watched.clock())
        self._windows: deque[Window] = deque(maxlen=_KEPT)

    def look(self) -> None:
        """End the window if it is over; to be called from time to time."""
        if self._watched.clock() - self._begun.at >= WINDOW:
            begun, self._begun = self._begun, self._totals()
            self._windows.append(_window(begun, self._begun))

    def advise(self) -> Advice:
        """Tell which sizes would have served in the last day."""
        windows = list(self._windows)
        if not windows:
            begun = _window(self._begun, self._totals())
            windows = [begun] if begun.seconds >= _LEAST else []
        stats = self._stats()
        return advise(windows, stats.pool_min, stats.pool_max or None)

    def _totals(self) -> Totals:
        now, stats, watched = (
            self._watched.clock(),
            self._stats(),
            self._watched,
        )
        # also of those that have not come to their end
        in_use = sum(now - each.held_since for each in watched.in_use())
        waits = sum(now - wait.since for wait in watched.waits())
        return Totals(
            now,
            stats.use_time.count,
            stats.use_time.sum + in_use,
            stats.wait_time.sum + waits,
        )


def _window(begun: Totals, ended: Totals) -> Window:
    return Window(
        ended.at - begun.at,
        ended.uses - begun.uses,
        ended.used - begun.used,
        ended.waited - begun.waited,
    )


@dataclass(frozen=True)
class Advice:
    """Which size would have served, and why.

    .. versionadded:: 0.1
    """

    #: the floor for the median minute; None: there is too little to go by
    min_size: Optional[int]
    #: the ceiling for the busiest minute; None as above
    max_size: Optional[int]
    #: a paragraph for a person
    text: str

    def __str__(self) -> str:
        return self.text


def waits(demand: float, size: int) -> float:
    """Return which part of the callers has to wait.

    Erlang's C formula: arrivals at random, uses of random length, first come
    first served.

    :param demand: connections in use on average, if there are enough.
    :param size: connections that there are.
    """
    if demand >= size:
        return 1.0
    blocked = 1.0  # Erlang's B, from none on
    for each in range(1, size + 1):
        blocked = demand * blocked / (each + demand * blocked)
    return blocked / (1.0 - demand / size * (1.0 - blocked))


def size_for(demand: float) -> int:
    """Return how many connections serve a demand with hardly any wait."""
    return max(1, math.ceil(demand + _SPARE * math.sqrt(demand)))


def advise(
    windows: Iterable[Window], min_size: int, max_size: Optional[int]
) -> Advice:
    """Tell which floor and which ceiling would have served.

    The ceiling is for the busiest window, the floor for the median one.

    :param min_size: as it is now.
    :param max_size: as it is now; None: there is no ceiling.
    """
    used = sorted((w for w in windows if w.uses), key=lambda w: w.demand)
    if not used:
        return Advice(
            None,
            None,
            "There is nothing to go by yet: the pool has to be in use for "
            f"some time, better for several windows of {WINDOW:.0f} s.",
        )
    busiest, middle = used[-1], used[(len(used) - 1) // 2]
    ceiling = size_for(busiest.demand)
    floor = min(size_for(middle.demand), ceiling)
    return Advice(
        floor, ceiling, _told(used, floor, ceiling, min_size, max_size)
    )


def _told(
    used: list[Window],
    floor: int,
    ceiling: int,
    min_size: int,
    max_size: Optional[int],
) -> str:
    busiest = used[-1]
    each = busiest.used / busiest.uses
    scarce = max(1, math.ceil(busiest.demand))
    now = "none" if max_size is None else max_size
    waited = ""
    if busiest.waited > each:  # not only the first ones, for their connects
        waited = (
            f", before which they waited {_ms(busiest.waited / busiest.uses)}"
        )
    text = (
        f"In the busiest of {len(used)} windows of {busiest.seconds:.0f} s "
        f"there were {busiest.uses / busiest.seconds:.3g} checkouts a second "
        f"of {_ms(each)} each{waited}: {busiest.demand:.3g} connections were "
        "wanted at a time, on average (Little's law). "
        f"min_size={floor}, max_size={ceiling} would have served: "
        f"{_cost(busiest, ceiling)}."
    )
    if scarce < ceiling:
        text += f" With {scarce}, {_cost(busiest, scarce)}."
    return text + (
        " More than that serves nobody sooner, and each costs a session of "
        f"the server, in every process. Now: min_size={min_size}, "
        f"max_size={now}."
    )


def _cost(window: Window, size: int) -> str:
    """Tell what callers would have met with, in the busiest window."""
    part = waits(window.demand, size)
    if part >= 1.0:
        return "all callers would have waited, longer and longer"
    each = (window.used + window.waited) / window.uses
    wait = part * each / (size - window.demand)
    return (
        f"{100 * part:.2g} % of its callers would have waited, which makes "
        f"{_ms(wait)} on average over all callers"
    )


def _ms(seconds: float) -> str:
    if seconds >= 1.0:
        return f"{seconds:.1f} s"
    return f"{1000 * seconds:.3g} ms"
