"""The command: ``python -m benchmarks [NAME…] [--quick] [--json FILE]``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Iterator
from typing import Optional
from typing import Sequence

from .kept import Kept
from .machine import described
from .measure import Benchmark
from .measure import Case
from .measure import measure
from .measure import Measured
from .suite import SUITE
from .tables import console
from .tables import progress_bar
from .tables import table_of
from .tables import targets_table

#: of each candidate
_ROUNDS, _QUICK_ROUNDS = 9, 1


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Run, and print a table for each case as soon as it is there."""
    arguments = _parser().parse_args(argv)
    rounds = _QUICK_ROUNDS if arguments.quick else arguments.rounds
    names = arguments.names or list(SUITE)
    to = console()
    machine = described()
    to.print(", ".join(f"{name} {value}" for name, value in machine.items()))
    results: list[Measured] = []
    with progress_bar(console(stderr=True)) as progress:
        for name in names:
            for case in _cases(SUITE[name], arguments):
                turns = min(rounds, case.most_rounds) * len(case.turns)
                bar = progress.add_task(f"{name}: {case.title}", total=turns)
                results.append(
                    measure(
                        name, case, rounds, lambda _: progress.advance(bar)
                    )
                )
                progress.remove_task(bar)
                to.print(table_of(results[-1]))
                targets = targets_table(results[-1:], machine)
                if targets.row_count:
                    to.print(targets)
                if arguments.json:  # now, as there are hours to come
                    kept = Kept(machine, rounds, arguments.quick, results)
                    kept.write(Path(arguments.json))


def _cases(
    benchmark: Benchmark, arguments: argparse.Namespace
) -> Iterator[Case]:
    yield from benchmark.cases(arguments.quick)
    if arguments.long:
        yield from benchmark.long_cases()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure SmartPool beside other pools. The candidates of"
        " a case take turns; printed are medians, the least and the most, and"
        " ratios, which hold where times do not.",
        epilog="Benchmarks: "
        + "; ".join(f"{each.name}: {each.about}" for each in SUITE.values())
        + ".",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        choices=[*SUITE, []],
        help="benchmarks to run; default: all",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="show that all runs: too short to go by",
    )
    parser.add_argument(
        "--long",
        action="store_true",
        help="with the cases that take long, such as an outage of 30 s",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=_ROUNDS,
        help="turns of each candidate, fewer where more say nothing more"
        " (default: %(default)s)",
    )
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="write every sample there, for python -m benchmarks.report",
    )
    return parser


if __name__ == "__main__":
    main()
