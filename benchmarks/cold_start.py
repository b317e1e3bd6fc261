"""The first requests of a process: twenty at once.

Each pool is a new one, over an engine that has found out nothing yet.
"""

from __future__ import annotations

from functools import partial
import threading
import time
from typing import Any
from typing import Callable
from typing import Iterator

from sqlalchemy import Engine
from sqlalchemy import event
from sqlalchemy import Pool
from sqlalchemy import text
from sqlalchemy.pool import QueuePool

from sqla_smartpool import SmartPool
from .measure import Benchmark
from .measure import Case
from .measure import Figures
from .servers import Database
from .servers import server

_FIRST = 20
_ASK = text("SELECT 1")


def _turn(
    database: Database,
    kind: type[Pool],
    options: dict[str, Any],
    prepare: Callable[[Engine], object],
) -> Figures:
    engine = database.engine(kind, **options)
    prepare(engine)
    took = at_once(engine, _FIRST)
    engine.dispose()
    return {"until all are served, ms": 1e3 * took}


def at_once(engine: Engine, number: int, hold: float = 0.0) -> float:
    """Have so many threads make a request each; returns how long all took.

    :param hold: for which each keeps its connection besides, seconds.
    """
    errors: list[BaseException] = []
    begin = threading.Barrier(number + 1)

    def work() -> None:
        try:
            begin.wait()
            with engine.connect() as connection:
                connection.execute(_ASK)
                if hold:
                    time.sleep(hold)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(number)]
    for thread in threads:
        thread.start()
    begin.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    for error in errors:
        raise error
    return time.perf_counter() - began


def _nothing(engine: Engine) -> None:
    pass


def _by_hand(engine: Engine) -> None:
    connections = [engine.connect() for _ in range(_FIRST)]
    for connection in connections:
        connection.close()


def _beside(engine: Engine) -> None:
    """Have each connect made by a thread of its own, which its caller could
    leave alone: the least that it costs to wait no longer than one wants."""

    @event.listens_for(engine, "do_connect")
    def connect(dialect: Any, record: Any, args: Any, options: Any) -> Any:
        made: list[Any] = []
        thread = threading.Thread(
            target=lambda: made.append(dialect.connect(*args, **options))
        )
        thread.start()
        thread.join()
        return made[0]


def _start(engine: Engine) -> None:
    assert isinstance(engine.pool, SmartPool)
    engine.pool.start()


def cases(quick: bool) -> Iterator[Case]:
    queue = {"pool_size": _FIRST, "max_overflow": 0}
    smart = {"min_size": _FIRST, "max_size": _FIRST}
    candidates: dict[str, Any] = {
        "QueuePool": (QueuePool, queue, _nothing),
        "QueuePool, a thread per connect": (QueuePool, queue, _beside),
        "QueuePool, opened by hand": (QueuePool, queue, _by_hand),
        "SmartPool, not started": (SmartPool, smart, _nothing),
        "SmartPool, started": (SmartPool, smart, _start),
    }
    with server("postgresql") as started:
        for delay in (0.0,) if quick else (0.0, 0.001, 0.02):
            database = Database(started, "postgresql+psycopg", delay)
            yield Case(
                f"{_FIRST} requests at once, +{1e3 * delay:g} ms",
                {
                    name: partial(_turn, database, *how)
                    for name, how in candidates.items()
                },
                ("QueuePool", "QueuePool, opened by hand"),
            )
            database.close()


COLD_START = Benchmark("cold-start", "the first requests of a process", cases)
