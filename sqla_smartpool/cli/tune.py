"""``tune``: how large a pool should be, by trying."""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import dataclass
import importlib.util
import json
from pathlib import Path
from typing import Callable
from typing import Sequence

from rich.console import Console
from rich.table import Table
from sqlalchemy.engine import URL

from . import CommandError
from . import connecting
from . import database
from . import masked
from . import reason
from . import report
from .arguments import add_database
from .arguments import add_json
from .arguments import count
from .arguments import OR_A_FILE
from .arguments import seconds
from .tuning.curve import judge
from .tuning.curve import Point
from .tuning.curve import points
from .tuning.curve import Run
from .tuning.curve import sizes
from .tuning.curve import Verdict
from .tuning.load import run as run_load
from .tuning.load import Tasks
from .tuning.load import Threads
from .tuning.load import Workers
from .._sqlalchemy import greenlet_spawn

HELP = "find the size of the pool that serves a statement best"
DESCRIPTION = (
    "Run a statement with pools of several sizes, each several times, and say"
    " which size serves best and what it costs to be wrong. The statement is"
    " rolled back each time. Exit status: 0, or 2 when the program could not"
    " run."
)

#: how often each size is measured
ROUNDS = 3
FORMATS = (".png", ".svg")


@dataclass(frozen=True)
class Trial:
    """What is to be measured."""

    url: URL
    sql: str
    workers: int
    seconds: float

    @property
    def sizes(self) -> list[int]:
        return sizes(self.workers)

    @property
    def seconds_each(self) -> float:
        return self.seconds / (ROUNDS * len(self.sizes))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``tune``."""
    add_database(parser, or_else=OR_A_FILE)
    parser.add_argument(
        "--sql", required=True, help="the statement, without parameters"
    )
    parser.add_argument(
        "--workers",
        metavar="N",
        type=count(1),
        required=True,
        help="threads or tasks of a process that run statements at a time",
    )
    parser.add_argument(
        "--seconds",
        metavar="S",
        type=seconds,
        default=20.0,
        help="how long to measure in all (default: %(default)g)",
    )
    parser.add_argument(
        "--plot",
        metavar="FILE",
        type=_picture,
        help="draw the curve, as .png or .svg",
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Measure, and print which size serves.

    :return: 0.
    :raises CommandError: when the program cannot run.

    """
    if arguments.plot and importlib.util.find_spec("matplotlib") is None:
        raise CommandError(
            "matplotlib is missing: pip install 'sqla_smartpool[tune]'"
        )
    with database(arguments.url, arguments.is_async) as url:
        trial = Trial(url, arguments.sql, arguments.workers, arguments.seconds)
        runs = len(trial.sizes) * ROUNDS
        with report.progress_bar(shown=not arguments.json) as progress:
            bar = progress.add_task("tune", total=runs)
            curve = points(
                measure(
                    trial, arguments.is_async, lambda: progress.advance(bar)
                )
            )
    verdict = judge(curve, trial.workers)
    if arguments.plot:
        _draw(arguments.plot, url, curve, verdict)
    if arguments.json:
        document = {
            "command": "tune",
            "url": masked(url),
            "async": arguments.is_async,
            "sql": trial.sql,
            "workers": trial.workers,
            "seconds": trial.seconds,
            "points": [point.as_dict() for point in curve],
            "knee": verdict.knee,
            "min_size": verdict.min_size,
            "max_size": verdict.max_size,
            "advice": verdict.text,
        }
        print(json.dumps(document, indent=2))
    else:
        _print(url, curve, verdict)
    return 0


def measure(
    trial: Trial, is_async: bool, advance: Callable[[], object]
) -> list[Run]:
    """Measure every size several times.

    :param advance: called after each run.
    :raises CommandError: when the database cannot be reached, or does not
        take the statement.

    """
    if not is_async:
        return _measure(Threads(), trial, advance)
    return asyncio.run(greenlet_spawn(_measure, Tasks(), trial, advance))


def _measure(
    workers: Workers, trial: Trial, advance: Callable[[], object]
) -> list[Run]:
    runs = []
    with connecting(trial.url):
        engine = workers.engine(trial.url, max_size=1)
        try:
            engine.connect().close()
        finally:
            engine.dispose()
    # Down and up in turns, or what changes with time would look like a matter
    # of size; down first, as the server may not have so many.
    order = trial.sizes[::-1]
    for _ in range(ROUNDS):
        for size in order:
            runs.append(_one(workers, trial, size))
            advance()
        order = order[::-1]
    return runs


def _one(workers: Workers, trial: Trial, size: int) -> Run:
    try:
        return run_load(
            workers,
            trial.url,
            trial.sql,
            size,
            trial.workers,
            trial.seconds_each,
        )
    except CommandError:
        raise
    except Exception as error:
        # Drivers raise errors of their own, which have no class in common.
        raise CommandError(
            f"with a pool of {size}: {reason(error, trial.url)}"
        ) from error


def _print(url: URL, curve: Sequence[Point], verdict: Verdict) -> None:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(masked(url))
    table = Table()
    for name in ("connections", "a second", "in use", "waited", "opened in"):
        table.add_column(name, justify="right")
    for point in curve:
        run = point.run
        table.add_row(
            f"{run.size}{' *' if run.size == verdict.max_size else '  '}",
            f"{run.throughput:.1f}",
            *(
                f"{1000 * time:.2f} ms"
                for time in (run.use, run.wait, run.connect)
            ),
        )
    console.print(table)
    console.print(verdict.text)


def _draw(
    file: Path, url: URL, curve: Sequence[Point], verdict: Verdict
) -> None:
    from .tuning import plot

    try:
        plot.draw(str(file), masked(url), curve, verdict)
    except OSError as error:
        raise CommandError(f"--plot {file}: {error.strerror}") from error


def _picture(text: str) -> Path:
    file = Path(text)
    if file.suffix.lower() not in FORMATS:
        raise argparse.ArgumentTypeError(
            f"{text!r} does not end with {' or '.join(FORMATS)}"
        )
    return file
