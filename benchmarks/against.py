"""``python -m benchmarks.against REVISION``: has a checkout become dearer?

Measures the package of this tree beside that of another revision, or beside
itself on another interpreter, in processes of their own that take turns.
"""

from __future__ import annotations

import argparse
from functools import partial
import io
import json
import os
from pathlib import Path
import subprocess
import sys
import tarfile
from tempfile import TemporaryDirectory
from typing import Optional
from typing import Sequence

from .kept import Kept
from .machine import described
from .measure import Case
from .measure import Figures
from .measure import measure
from .tables import console
from .tables import progress_bar
from .tables import table_of

#: how often each pool has a turn in a process
_NUMBER, _QUICK_NUMBER = 200, 2
_ROOT = Path(__file__).parents[1]
#: Prints the figures of one process: a checkout of each pool, and SmartPool's
#: in parts of StaticPool's, which is the same in all revisions, as one process
#: may be faster than the next.
_PROGRAM = """
import json
import sys
from statistics import median
from benchmarks.checkout import cases

kinds = ("SmartPool", "StaticPool", "QueuePool")
figures = {}
for case, way in zip(cases(True), ("alone", "engine")):
    turns = [
        {kind: case.turns[kind]()["us per checkout"] for kind in kinds}
        for _ in range(int(sys.argv[1]))
    ]
    ratio = median(turn["SmartPool"] / turn["StaticPool"] for turn in turns)
    figures[f"SmartPool / StaticPool, {way}"] = ratio
    for kind in kinds:
        us = median(turn[kind] for turn in turns)
        figures[f"{kind}, {way}, us per checkout"] = us
print(json.dumps(figures))
"""


def main(argv: Optional[Sequence[str]] = None) -> None:
    arguments = _arguments(argv)
    with TemporaryDirectory(prefix="revision-") as folder:
        number = _QUICK_NUMBER if arguments.quick else _NUMBER
        here = partial(_turn, number, sys.executable)
        turns = {"this tree": partial(here, str(_ROOT))}
        if arguments.revision:
            _extract(arguments.revision, folder)
            turns[arguments.revision] = partial(here, folder)
        if arguments.python:
            turns[_versions(arguments.python)] = partial(
                _turn, number, arguments.python, str(_ROOT)
            )
        # what is asked about is compared with what it was, or is elsewhere
        case = Case(_versions(sys.executable), turns, list(turns)[1:])
        with progress_bar(console(stderr=True)) as progress:
            bar = progress.add_task("", total=len(turns) * arguments.rounds)
            measured = measure(
                "checkout",
                case,
                arguments.rounds,
                lambda _: progress.advance(bar),
            )
    console().print(table_of(measured))
    if arguments.json:
        kept = Kept(described(), arguments.rounds, arguments.quick, [measured])
        kept.write(Path(arguments.json))


def _arguments(argv: Optional[Sequence[str]]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.against", description=__doc__
    )
    parser.add_argument("revision", metavar="REVISION", nargs="?")
    parser.add_argument(
        "--python",
        metavar="FILE",
        help="another interpreter, with another SQLAlchemy or of another"
        " version, that has this tree's extras test and benchmarks installed",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=15,
        help="turns of each (default: %(default)s)",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="show that it runs: too short to go by",
    )
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="write every sample there, for python -m benchmarks.report",
    )
    arguments = parser.parse_args(argv)
    if not (arguments.revision or arguments.python):
        parser.error("beside what? Pass REVISION, --python or both")
    return arguments


def _versions(python: str) -> str:
    return _output(
        python,
        "import platform, sqlalchemy; print('SQLAlchemy',"
        " sqlalchemy.__version__, 'on Python', platform.python_version())",
        str(_ROOT),
    ).strip()


def _extract(revision: str, folder: str) -> None:
    archive = subprocess.run(
        ["git", "archive", revision, "sqla_smartpool"],
        cwd=_ROOT,
        check=True,
        stdout=subprocess.PIPE,
    )
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(folder, filter="data")


def _turn(number: int, python: str, folder: str) -> Figures:
    output = _output(python, _PROGRAM, folder, str(number))
    figures: Figures = json.loads(output)
    return figures


def _output(python: str, program: str, folder: str, *arguments: str) -> str:
    """What a program prints that imports the package from a folder."""
    path = os.pathsep.join([folder, str(_ROOT)])
    done = subprocess.run(
        [python, "-c", program, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return done.stdout


if __name__ == "__main__":
    main()
