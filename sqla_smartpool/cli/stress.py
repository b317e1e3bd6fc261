"""``stress``: the same program on SmartPool and on QueuePool.

Many workers share a few connections; each job takes one, asks the database
something small, and holds the connection for a while.
"""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter
from collections import deque
from dataclasses import dataclass
import heapq
import json
import math
import random
from threading import Lock
import time
from typing import Any
from typing import Callable
from typing import Optional
from typing import Sequence

from sqlalchemy import create_engine
from sqlalchemy import event
from sqlalchemy import literal_column
from sqlalchemy import Select
from sqlalchemy import select
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.pool import NullPool
from sqlalchemy.pool import Pool
from sqlalchemy.pool import QueuePool

from . import CommandError
from . import connecting
from . import database
from . import masked
from . import report
from . import threads
from . import words
from .arguments import add_database
from .arguments import add_json
from .arguments import count
from .arguments import OR_A_FILE
from .. import AsyncSmartPool
from .. import SmartPool

HELP = "measure SmartPool beside QueuePool"
DESCRIPTION = (
    "Run jobs that hold a connection for a while, on SmartPool and on"
    " QueuePool, and print what each took. Exit status: 0 when all jobs"
    " ran, 1 when some failed, 2 when the program could not run."
)

POOL_TIMEOUT = 60.0
CHECK_INTERVAL = 0.5

# With Oracle's FROM DUAL where it is needed, otherwise SELECT 1 AS a.
QUESTION: Select[Any] = select(literal_column("1").label("a"))


@dataclass(frozen=True)
class Program:
    """What every pool is put through.

    :param holds: for each job the seconds for which it holds its connection.

    """

    url: URL
    min_size: int
    max_size: int
    workers: int
    holds: Sequence[float]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``stress``."""
    add_database(parser, or_else=OR_A_FILE)
    parser.add_argument(
        "--pool",
        choices=("smart", "queue"),
        help="measure only this one (default: both, one after the other)",
    )
    for option, kind, default, meaning in (
        ("--min-size", count(0), 5, "connections kept open"),
        ("--max-size", count(1), 30, "most connections open at a time"),
        ("--requests", count(1), 1000, "jobs to do"),
        ("--workers", count(1), 50, "threads or tasks that do them"),
        ("--seed", int, 0, "draws the same hold times again"),
    ):
        parser.add_argument(
            option,
            metavar="N",
            type=kind,
            default=default,
            help=f"{meaning} (default: %(default)s)",
        )
    parser.add_argument(
        "--hold",
        metavar="A[:B]",
        type=hold_range,
        default="0.1:0.5",
        help="seconds for which a job holds its connection, drawn between A"
        " and B (default: %(default)s)",
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure the pools asked for and print the result.

    :return: 0, or 1 when jobs failed.
    :raises CommandError: when the program cannot run.

    """
    if arguments.min_size > arguments.max_size:
        raise CommandError(
            f"--min-size {arguments.min_size} is more than --max-size"
            f" {arguments.max_size}"
        )
    pools = [arguments.pool] if arguments.pool else ["smart", "queue"]
    shortest, longest = arguments.hold
    draw = random.Random(arguments.seed)
    with database(arguments.url, arguments.is_async) as url:
        program = Program(
            url=url,
            min_size=arguments.min_size,
            max_size=arguments.max_size,
            workers=arguments.workers,
            holds=[
                draw.uniform(shortest, longest)
                for _ in range(arguments.requests)
            ],
        )
        with report.progress_bar(shown=not arguments.json) as progress:
            measurements = {}
            for pool in pools:
                bar = progress.add_task(pool, total=arguments.requests)
                measurements[pool] = measure(
                    program,
                    pool,
                    arguments.is_async,
                    lambda: progress.advance(bar),
                )
    if arguments.json:
        document = {
            "command": "stress",
            "url": masked(url),
            "async": arguments.is_async,
            "requests": arguments.requests,
            "workers": arguments.workers,
            "hold_seconds": [shortest, longest],
            "seed": arguments.seed,
            "min_size": arguments.min_size,
            "max_size": arguments.max_size,
            "pools": {k: m.as_dict() for k, m in measurements.items()},
        }
        print(json.dumps(document, indent=2))
    else:
        workers = "tasks" if arguments.is_async else "threads"
        report.print_table(
            (
                masked(url),
                f"{arguments.requests} jobs, {arguments.workers} {workers},"
                f" hold {shortest:g} to {longest:g} s, {arguments.min_size}"
                f" to {arguments.max_size} connections",
            ),
            list(measurements.values()),
        )
    return 1 if any(m.failed for m in measurements.values()) else 0


def ideal_seconds(holds: Sequence[float], at_a_time: int) -> float:
    """Return how long the jobs take when nothing but the holding takes time.

    Callers are served in the order in which they ask, so jobs get their
    connections in the order in which they were drawn, and each begins when
    the first of those before it ends.

    :param holds: seconds, for each job.
    :param at_a_time: how many jobs can hold a connection at the same time:
        no more than there are connections, nor workers.

    """
    free_at = [0.0] * at_a_time
    for hold in holds:
        heapq.heapreplace(free_at, free_at[0] + hold)
    return max(free_at)


def measure(
    program: Program,
    pool: str,
    is_async: bool,
    advance: Callable[[], object],
) -> report.Measurement:
    """Run the program on one pool.

    :param pool: "smart" or "queue".
    :param advance: called after each job, in any thread.
    :raises CommandError: when the database cannot be reached.

    """
    if is_async:
        return asyncio.run(_measure_tasks(program, pool, advance))
    return _measure_threads(program, pool, advance)


class _Meter:
    """Counts what happens on one pool, from whichever thread it happens."""

    def __init__(self, program: Program, pool: Pool) -> None:
        self.program = program
        self.pool_name = type(pool).__name__
        self.waits: list[float] = []
        self.errors: Counter[str] = Counter()
        self.opened = 0
        self.open = 0
        self.most_open = 0
        self._lock = Lock()  # for everything but the waits
        event.listen(pool, "connect", self._connected)
        event.listen(pool, "close", self._closed)

    def _connected(self, *_: object) -> None:
        with self._lock:
            self.opened += 1
            self.open += 1
            self.most_open = max(self.most_open, self.open)

    def _closed(self, *_: object) -> None:
        with self._lock:
            self.open -= 1

    def failed(self, error: Exception) -> None:
        first_line, *_ = words(error, self.program.url).split("\n")
        with self._lock:
            self.errors[f"{type(error).__name__}: {first_line}"] += 1

    def result(
        self, seconds: float, start_seconds: Optional[float]
    ) -> report.Measurement:
        at_a_time = min(self.program.workers, self.program.max_size)
        return report.Measurement(
            pool=self.pool_name,
            ideal=ideal_seconds(self.program.holds, at_a_time),
            seconds=seconds,
            start_seconds=start_seconds,
            opened=self.opened,
            most_open=self.most_open,
            open_afterwards=self.open,
            waits=self.waits,
            errors=self.errors,
        )


def _measure_threads(
    program: Program, pool: str, advance: Callable[[], object]
) -> report.Measurement:
    with connecting(program.url):
        probe = create_engine(program.url, poolclass=NullPool)
        with probe.connect() as connection:
            connection.execute(QUESTION).scalar_one()
        engine = create_engine(
            program.url,
            **_pool_arguments(program, pool, SmartPool, QueuePool),
        )
    meter = _Meter(program, engine.pool)
    jobs = deque(program.holds)

    def work() -> None:
        while True:
            try:
                hold = jobs.popleft()
            except IndexError:
                return
            asked = time.perf_counter()
            try:
                with engine.connect() as connection:
                    meter.waits.append(time.perf_counter() - asked)
                    connection.execute(QUESTION).scalar_one()
                    time.sleep(hold)
            except Exception as error:
                meter.failed(error)
            advance()

    start_seconds = None
    try:
        if isinstance(engine.pool, SmartPool):
            begin = time.perf_counter()
            with connecting(program.url):
                engine.pool.start()
            start_seconds = time.perf_counter() - begin
        begin = time.perf_counter()
        threads.together(work, program.workers)
        seconds = time.perf_counter() - begin
    finally:
        jobs.clear()  # after Ctrl-C every worker ends with the job in hand
        if isinstance(engine.pool, SmartPool):
            engine.pool.stop()
        else:
            engine.dispose()
    return meter.result(seconds, start_seconds)


async def _measure_tasks(
    program: Program, pool: str, advance: Callable[[], object]
) -> report.Measurement:
    with connecting(program.url):
        probe = create_async_engine(program.url, poolclass=NullPool)
        async with probe.connect() as connection:
            (await connection.execute(QUESTION)).scalar_one()
        engine = create_async_engine(
            program.url,
            **_pool_arguments(
                program, pool, AsyncSmartPool, AsyncAdaptedQueuePool
            ),
        )
    meter = _Meter(program, engine.pool)
    jobs = deque(program.holds)

    async def work() -> None:
        while jobs:
            hold = jobs.popleft()
            asked = time.perf_counter()
            try:
                async with engine.connect() as connection:
                    meter.waits.append(time.perf_counter() - asked)
                    (await connection.execute(QUESTION)).scalar_one()
                    await asyncio.sleep(hold)
            except Exception as error:
                meter.failed(error)
            advance()

    start_seconds = None
    try:
        if isinstance(engine.pool, AsyncSmartPool):
            begin = time.perf_counter()
            with connecting(program.url):
                await engine.pool.start()
            start_seconds = time.perf_counter() - begin
        begin = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(program.workers)))
        seconds = time.perf_counter() - begin
    finally:
        if isinstance(engine.pool, AsyncSmartPool):
            await engine.pool.stop()
        else:
            await engine.dispose()
    return meter.result(seconds, start_seconds)


def _pool_arguments(
    program: Program, pool: str, smart: type[Pool], queue: type[Pool]
) -> dict[str, Any]:
    if pool == "smart":
        return {
            "poolclass": smart,
            "min_size": program.min_size,
            "max_size": program.max_size,
            "pool_timeout": POOL_TIMEOUT,
            "check_interval": CHECK_INTERVAL,
        }
    # To QueuePool a size of 0 means no limit at all.
    pool_size = max(program.min_size, 1)
    return {
        "poolclass": queue,
        "pool_size": pool_size,
        "max_overflow": program.max_size - pool_size,
        "pool_timeout": POOL_TIMEOUT,
    }


def hold_range(text: str) -> tuple[float, float]:
    """Read the argument ``--hold``: seconds, or a range of seconds.

    :raises argparse.ArgumentTypeError: for anything else.

    """
    first, colon, last = text.partition(":")
    try:
        shortest = float(first)
        longest = float(last) if colon else shortest
    except ValueError:
        shortest = longest = math.nan
    if not 0 < shortest <= longest < math.inf:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a number of seconds above 0 nor a range of"
            " them such as 0.1:0.5"
        )
    return shortest, longest
