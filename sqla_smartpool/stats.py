"""What the pool says of itself."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from dataclasses import field
from typing import NamedTuple
from typing import Union

from .histogram import Histogram


@dataclass(frozen=True)
class PoolStats:
    """The state of a pool and what it has done so far.

    The names are those of psycopg_pool where it has one.  Gauges tell of
    this moment, counters of the time since the pool was created, and never
    go back.  Times are in milliseconds, those of histograms in seconds.

    .. versionadded:: 0.1
    """

    #: the floor, ``min_size``
    pool_min: int = 0
    #: the ceiling, ``max_size``; 0: none
    pool_max: int = 0
    #: open connections: idle, in use, and in the hands of upkeep
    pool_size: int = 0
    #: connections that wait for a caller
    pool_available: int = 0
    #: connections in the hands of callers
    pool_in_use: int = 0
    #: connects under way
    pool_connecting: int = 0
    #: callers that wait for a connection
    requests_waiting: int = 0

    #: checkouts asked for, served or not
    requests_num: int = 0
    #: checkouts that had to wait
    requests_queued: int = 0
    #: time that checkouts waited, in all
    requests_wait_ms: int = 0
    #: checkouts that ended in an error
    requests_errors: int = 0
    #: of these, the ones that ended in a timeout
    requests_timeouts: int = 0
    #: time that connections were in use, in all
    usage_ms: int = 0
    #: connections that came back broken
    returns_bad: int = 0
    #: connects begun
    connections_num: int = 0
    #: time that connects took, in all
    connections_ms: int = 0
    #: connects that failed
    connections_errors: int = 0
    #: connections found dead while idle
    connections_lost: int = 0
    #: surplus connections closed after ``keep_alive``
    closed_idle: int = 0
    #: connections closed after ``max_lifetime``
    closed_lifetime: int = 0
    #: connections closed because they were dead or failed a check
    closed_unhealthy: int = 0
    #: connections closed by drain, resize, stop and dispose
    closed_other: int = 0
    #: pings sent
    checks_num: int = 0
    #: pings that failed
    checks_failed: int = 0
    #: connections that an exception such as Ctrl-C's had torn out, and found
    reclaimed: int = 0

    #: how long checkouts waited; those served at once are in its first bucket
    wait_time: Histogram = field(default=Histogram(), repr=False)
    #: how long connections were in use
    use_time: Histogram = field(default=Histogram(), repr=False)
    #: how long connects took that succeeded
    connect_time: Histogram = field(default=Histogram(), repr=False)

    def as_dict(self) -> dict[str, Union[int, float]]:
        """Return the numbers by their names, for logs and dashboards.

        Without the histograms, which are no numbers.
        """
        return {
            item.name: getattr(self, item.name)
            for item in dataclasses.fields(self)
            if not isinstance(getattr(self, item.name), Histogram)
        }


class CheckResult(NamedTuple):
    """What :meth:`.SmartPool.check` found.

    .. versionadded:: 0.1
    """

    #: how many idle connections were checked
    checked: int
    #: how many of them were unhealthy, and are replaced
    replaced: int
