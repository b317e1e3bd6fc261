"""``python -m benchmarks.against REVISION``: has a checkout become dearer?

Measures the package of this tree beside that of another revision, in
processes of their own that take turns.
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

from .measure import Case
from .measure import Figures
from .measure import measure
from .tables import console
from .tables import progress_bar
from .tables import table_of

_ROOT = Path(__file__).parents[1]
#: Prints the figures of one process: a checkout of SmartPool in parts of one
#: of StaticPool, which is the same in all revisions, as one process may be
#: faster than the next.
_PROGRAM = """
import json
from statistics import median
from benchmarks.checkout import cases

figures = {}
for case, way in zip(cases(True), ("alone", "engine")):
    turns = [
        [case.turns[name]()["us per checkout"] for name in names]
        for names in [("SmartPool", "StaticPool")] * 200
    ]
    ratio = median(smart / static for smart, static in turns)
    figures[f"SmartPool / StaticPool, {way}"] = ratio
print(json.dumps(figures))
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.against", description=__doc__
    )
    parser.add_argument("revision", metavar="REVISION")
    parser.add_argument(
        "--rounds",
        type=int,
        default=15,
        help="turns of each (default: %(default)s)",
    )
    arguments = parser.parse_args()
    with TemporaryDirectory(prefix="revision-") as folder:
        _extract(arguments.revision, folder)
        case = Case(
            f"this tree beside {arguments.revision}",
            {
                arguments.revision: partial(_turn, folder),
                "this tree": partial(_turn, str(_ROOT)),
            },
            (arguments.revision,),
        )
        with progress_bar(console(stderr=True)) as progress:
            bar = progress.add_task("", total=2 * arguments.rounds)
            measured = measure(
                "checkout",
                case,
                arguments.rounds,
                lambda _: progress.advance(bar),
            )
    console().print(table_of(measured))


def _extract(revision: str, folder: str) -> None:
    archive = subprocess.run(
        ["git", "archive", revision, "sqla_smartpool"],
        cwd=_ROOT,
        check=True,
        stdout=subprocess.PIPE,
    )
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(folder, filter="data")


def _turn(folder: str) -> Figures:
    path = os.pathsep.join([folder, str(_ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        check=True,
        stdout=subprocess.PIPE,
    )
    figures: Figures = json.loads(done.stdout)
    return figures


if __name__ == "__main__":
    main()
