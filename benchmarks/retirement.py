"""What callers notice when connections grow old and are replaced."""

from __future__ import annotations

from functools import partial
import threading
from typing import Any
from typing import Iterator

from sqlalchemy import Engine
from sqlalchemy import event
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
_ROOM = 5


class _Open:
    """How many connections an engine has open."""

    def __init__(self, engine: Engine) -> None:
        self._number = 0
        self.fewest = _THREADS
        self._lock = threading.Lock()
        event.listen(engine, "connect", lambda *_: self._change(1))
        event.listen(engine, "close", lambda *_: self._change(-1))

    def watch(self) -> None:
        self.fewest = self._number

    def _change(self, by: int) -> None:
        with self._lock:
            self._number += by
            self.fewest = min(self.fewest, self._number)


def _measured(
    database: Database,
    kind: type[Pool],
    options: dict[str, Any],
    seconds: float,
) -> tuple[list[float], int]:
    """The waits, and how many connections were open at the least."""
    engine = database.engine(kind, **options)
    opened = _Open(engine)
    if isinstance(engine.pool, SmartPool):
        engine.pool.start()
    Load(_THREADS, 0.2, 0.0).by_threads(engine)
    load = Load(_THREADS, seconds, 0.0)
    opened.watch()
    load.by_threads(engine)
    fewest = opened.fewest
    engine.dispose()
    return load.waits, fewest


def _turn(
    database: Database,
    kind: type[Pool],
    options: dict[str, Any],
    lifetime: str,
    seconds: float,
) -> Turn:
    """The same load without and with a lifetime."""
    parts = (0.99, 0.999)
    waits, _ = _measured(database, kind, options, seconds)
    without = quantiles(waits, *parts)
    limited = {**options, lifetime: _LIFETIME}
    waits, fewest = _measured(database, kind, limited, seconds)
    found = quantiles(waits, *parts)
    figures = dict(found)
    for name, value in found.items():
        figures[f"{name} / without"] = value / without[name]
    figures["fewest open"] = fewest
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
                    **{
                        f"SmartPool({_THREADS}..{most})": partial(
                            _turn,
                            database,
                            SmartPool,
                            {"min_size": _THREADS, "max_size": most},
                            "max_lifetime",
                            seconds,
                        )
                        # without, and with, room for successors
                        for most in (_THREADS, _THREADS + _ROOM)
                    },
                },
            )
            database.close()


RETIREMENT = Benchmark("retirement", "waits while connections grow old", cases)
