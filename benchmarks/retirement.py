"""What callers notice when connections grow old and are replaced."""

from __future__ import annotations

from functools import partial
from typing import Any
from typing import Iterator

from sqlalchemy import Pool
from sqlalchemy.pool import QueuePool

from sqla_smartpool import SmartPool
from .load import Load
from .load import quantiles
from .measure import Benchmark
from .measure import Case
from .measure import Turn
from .servers import Database
from .servers import server
from .waits import recorded

_THREADS = 10
_LIFETIME = 2.0


def _waits(
    database: Database,
    kind: type[Pool],
    options: dict[str, Any],
    seconds: float,
) -> list[float]:
    engine = database.engine(kind, **options)
    if isinstance(engine.pool, SmartPool):
        engine.pool.start()
    Load(_THREADS, 0.2, 0.0).by_threads(engine)
    load = Load(_THREADS, seconds, 0.0)
    load.by_threads(engine)
    engine.dispose()
    return load.waits


def _turn(
    database: Database,
    kind: type[Pool],
    options: dict[str, Any],
    lifetime: str,
    seconds: float,
) -> Turn:
    """The same load without and with a lifetime."""
    parts = (0.99, 0.999)
    without = quantiles(_waits(database, kind, options, seconds), *parts)
    limited = {**options, lifetime: _LIFETIME}
    waits = _waits(database, kind, limited, seconds)
    found = quantiles(waits, *parts)
    figures = dict(found)
    for name, value in found.items():
        figures[f"{name} / without"] = value / without[name]
    return Turn(figures, recorded(waits))


def cases(quick: bool) -> Iterator[Case]:
    seconds = 0.3 if quick else 12.0
    with server("postgresql") as started:
        for delay in (0.0,) if quick else (0.0, 0.001):
            database = Database(started, "postgresql+psycopg", delay)
            yield Case(
                f"{_THREADS} threads, a lifetime of {_LIFETIME:g} s,"
                f" +{1e3 * delay:g} ms",
                {
                    "QueuePool": partial(
                        _turn,
                        database,
                        QueuePool,
                        {"pool_size": _THREADS, "max_overflow": 0},
                        "pool_recycle",
                        seconds,
                    ),
                    "SmartPool": partial(
                        _turn,
                        database,
                        SmartPool,
                        {"min_size": _THREADS, "max_size": _THREADS},
                        "max_lifetime",
                        seconds,
                    ),
                },
            )
            database.close()


RETIREMENT = Benchmark("retirement", "waits while connections grow old", cases)
