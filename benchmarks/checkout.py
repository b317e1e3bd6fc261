"""What a checkout and its checkin cost, when nobody is in the way."""

from __future__ import annotations

from functools import partial
import time
import timeit
from typing import Any
from typing import Callable
from typing import Iterator

from .measure import Benchmark
from .measure import Case
from .measure import Figures
from .pools import dbutils_pool_of
from .pools import engine
from .pools import KINDS
from .pools import pool

#: connections in the pool
_SIZE = 5


def cpu_of(connect: Callable[[], Any], number: int) -> Figures:
    """What a checkout and its checkin take of the processor.

    Nothing is waited for, so that what other processes do is left out.
    """

    def work() -> None:
        connect().close()

    seconds = timeit.timeit(work, timer=time.thread_time, number=number)
    return {"us per checkout": 1e6 * seconds / number}


def cases(quick: bool) -> Iterator[Case]:
    number = 500 if quick else 20_000
    references = ("QueuePool", "StaticPool")
    alone = {
        name: partial(cpu_of, pool(kind, _SIZE).connect, number)
        for name, kind in KINDS.items()
    }
    dbutils = dbutils_pool_of(_SIZE)
    alone["DBUtils"] = partial(cpu_of, dbutils.connection, number)
    yield Case(
        f"the pool alone, {_SIZE} connections, one thread", alone, references
    )
    yield Case(
        f"through Engine.connect(), {_SIZE} connections, one thread",
        {
            name: partial(cpu_of, engine(kind, _SIZE).connect, number)
            for name, kind in KINDS.items()
        },
        references,
    )


CHECKOUT = Benchmark(
    "checkout", "checkout and checkin without I/O, one thread", cases
)
