"""Put one load on a pool: workers that run a statement again and again.

Written once; on an event loop SQLAlchemy's greenlets carry it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from dataclasses import field
import time
from typing import Any
from typing import Callable
from typing import Optional
from typing import Protocol

from sqlalchemy import create_engine
from sqlalchemy import Engine
from sqlalchemy import text
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import create_async_engine

from .curve import Run
from .. import CommandError
from .. import threads
from ... import AsyncSmartPool
from ... import SmartPool
from ..._sqlalchemy import await_
from ..._sqlalchemy import greenlet_spawn

#: the part of a run that is not measured, for statements to be prepared
_WARM_UP = 0.1
#: how long it may take to open all connections, seconds
START_TIMEOUT = 15.0


class Workers(Protocol):
    """Threads, or tasks."""

    def engine(self, url: URL, **options: Any) -> Engine:
        """Make an engine with a smart pool."""

    def start(self, engine: Engine) -> None:
        """Open the floor of its pool."""

    def together(self, work: Callable[[], None], number: int) -> None:
        """Do the same work so many times at the same time."""


class Threads:
    """Workers that are threads."""

    def engine(self, url: URL, **options: Any) -> Engine:
        return create_engine(url, poolclass=SmartPool, **options)

    def start(self, engine: Engine) -> None:
        assert isinstance(engine.pool, SmartPool)
        engine.pool.start(timeout=START_TIMEOUT)

    def together(self, work: Callable[[], None], number: int) -> None:
        threads.together(work, number)


class Tasks:
    """Workers that are tasks; to be used in a greenlet of SQLAlchemy's."""

    def engine(self, url: URL, **options: Any) -> Engine:
        return create_async_engine(
            url, poolclass=AsyncSmartPool, **options
        ).sync_engine

    def start(self, engine: Engine) -> None:
        assert isinstance(engine.pool, AsyncSmartPool)
        await_(engine.pool.start(timeout=START_TIMEOUT))

    def together(self, work: Callable[[], None], number: int) -> None:
        async def gather() -> None:
            await asyncio.gather(
                *(greenlet_spawn(work) for _ in range(number))
            )

        await_(gather())


@dataclass
class _Shift:
    """What the workers have in common during one run."""

    engine: Engine
    sql: str
    begins: float
    ends: float
    #: of each statement: how long it waited, and how long it had its
    #: connection; all workers append
    done: list[tuple[float, float]] = field(default_factory=list)
    error: Optional[Exception] = None

    def work(self) -> None:
        statement = text(self.sql)
        try:
            while (asked := time.perf_counter()) < self.ends:
                with self.engine.connect() as connection:
                    got = time.perf_counter()
                    result = connection.execute(statement)
                    if result.returns_rows:
                        result.all()
                finished = time.perf_counter()
                if self.begins <= finished < self.ends:
                    self.done.append((got - asked, finished - got))
        except Exception as error:  # whichever: the run is worth nothing
            self.ends = 0.0
            self.error = error


def run(
    workers: Workers,
    url: URL,
    sql: str,
    size: int,
    number: int,
    seconds: float,
) -> Run:
    """Measure a pool of one size, with all of its connections open.

    :param sql: is rolled back.
    :param number: of workers.
    :raises Exception: whatever a worker met with.
    """
    engine = workers.engine(url, min_size=size, max_size=size)
    try:
        workers.start(engine)
        now = time.perf_counter()
        shift = _Shift(engine, sql, now + _WARM_UP * seconds, now + seconds)
        try:
            workers.together(shift.work, number)
        finally:
            shift.ends = 0.0  # after Ctrl-C they end with what they are at
        if shift.error is not None:
            raise shift.error
        assert isinstance(engine.pool, SmartPool)
        connects = engine.pool.stats().connect_time
    finally:
        engine.dispose()
    if not shift.done:
        raise CommandError(
            f"no statement ended within {seconds:.2g} s: give --seconds more"
        )
    waited, used = (sum(times) for times in zip(*shift.done))
    done = len(shift.done)
    return Run(
        size=size,
        throughput=done / ((1 - _WARM_UP) * seconds),
        use=used / done,
        wait=waited / done,
        connect=connects.sum / connects.count,
    )
