"""A burst on a small pool: how many connections it opens for that, and when
the last request is done.

To open one for everybody who waits is of no use when connections come back
sooner; to open too few keeps callers waiting.
"""

from __future__ import annotations

from functools import partial
import time
from typing import Any
from typing import Iterator

from sqlalchemy import Pool
from sqlalchemy.pool import QueuePool

from sqla_smartpool import SmartPool
from .cold_start import at_once
from .measure import Benchmark
from .measure import Case
from .measure import Figures
from .servers import Database
from .servers import Opened
from .servers import server

_BURST, _IDLE, _MOST = 50, 5, 50
#: how many requests each of these has served before
_BEFORE = 10
#: for how long each request keeps its connection, seconds
_HOLD = 0.002


def _turn(
    database: Database, kind: type[Pool], options: dict[str, Any]
) -> Figures:
    engine = database.engine(kind, **options)
    for _ in range(_BEFORE):
        at_once(engine, _IDLE, _HOLD)
    opened = Opened(engine)
    took = at_once(engine, _BURST, _HOLD)
    if isinstance(engine.pool, SmartPool):
        _wait_for_connects(engine.pool)
    engine.dispose()
    return {
        "until all are served, ms": 1e3 * took,
        "connections opened": opened.number,
    }


def _wait_for_connects(pool: SmartPool) -> None:
    """Those under way count as well."""
    while pool.stats().pool_connecting:
        time.sleep(0.001)


def cases(quick: bool) -> Iterator[Case]:
    smart = {"min_size": _IDLE, "max_size": _MOST}
    candidates: dict[str, Any] = {
        "QueuePool": (
            QueuePool,
            {"pool_size": _IDLE, "max_overflow": _MOST - _IDLE},
        ),
        "SmartPool": (SmartPool, smart),
        **{
            f"SmartPool(max_connecting={number})": (
                SmartPool,
                {**smart, "max_connecting": number},
            )
            for number in (1, 3, 10)
        },
    }
    with server("postgresql") as started:
        for delay in (0.0,) if quick else (0.0, 0.001, 0.02):
            database = Database(started, "postgresql+psycopg", delay)
            yield Case(
                f"{_BURST} requests of {1e3 * _HOLD:g} ms at once on {_IDLE}"
                f" idle connections, at most {_MOST}, +{1e3 * delay:g} ms",
                {
                    name: partial(_turn, database, *how)
                    for name, how in candidates.items()
                },
            )
            database.close()


SPIKE = Benchmark("spike", "a burst on a small pool", cases)
