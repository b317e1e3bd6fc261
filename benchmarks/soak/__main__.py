"""The command: ``python -m benchmarks.soak --minutes N``."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
import random
import sys
from typing import Optional
from typing import Sequence

from .invariants import Judge
from .lanes import installed
from .lanes import KINDS
from .report import print_report
from .run import Run
from ..tables import console
from ..tables import progress_bar


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run, print the report, and return the exit status."""
    arguments = _parser().parse_args(argv)
    seed = arguments.seed
    if seed is None:
        seed = random.SystemRandom().randrange(1_000_000)
    to = console()
    to.print(f"seed {seed}; for the same faults again: --seed {seed}")
    with ExitStack() as stack:
        progress = stack.enter_context(progress_bar(console(stderr=True)))
        judge = Judge(seed, progress.console.print)
        run = Run(judge, arguments.drivers, arguments.workers, stack)
        run.begin()
        run.go_on(60.0 * arguments.minutes, progress)
        run.end()
    print_report(to, run.seconds, run.stages, judge, run.resources)
    return 1 if judge.violations else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak",
        description="Random load and random faults on PostgreSQL and MariaDB"
        " servers started for that, on every driver at once. Exit status: 0"
        " when all invariants held, 1 when one did not.",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=1.0,
        help="of load; one is enough for each fault (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, help="makes the plan of faults; default: any"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=6,
        help="threads or tasks of each driver (default: %(default)s)",
    )
    parser.add_argument(
        "--drivers",
        nargs="+",
        metavar="DRIVER",
        choices=list(KINDS),
        default=installed(),
        help=f"some of {', '.join(KINDS)}; default: all that are installed",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
