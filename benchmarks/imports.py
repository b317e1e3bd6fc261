"""``python -m benchmarks.imports``: what importing the package costs.

In fresh interpreters that take turns: SQLAlchemy by itself, and with the
pool.  CPU time, as other work on the machine is no part of it.
"""

from __future__ import annotations

import argparse
from functools import partial
import os
import statistics
import subprocess
import sys

from .measure import Case
from .measure import Figures
from .measure import measure

_PROGRAM = """
import time
began = time.process_time()
import {}
print(1000 * (time.process_time() - began))
"""
_FIGURE = "ms of CPU time"


def _import(modules: str) -> Figures:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(modules)],
        # compiled once, as an installed package is
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": ""},
        check=True,
        stdout=subprocess.PIPE,
    )
    return {_FIGURE: float(done.stdout)}


def measured(rounds: int) -> tuple[float, float]:
    """Return what SQLAlchemy costs, and the pool beyond it, in ms."""
    names = ("sqlalchemy", "sqlalchemy, sqla_smartpool")
    case = Case("", {name: partial(_import, name) for name in names})
    _import(names[-1])  # which compiles what is not yet
    found = measure("imports", case, rounds)
    alone, with_pool = (found.values(name, _FIGURE) for name in names)
    beyond = [more - less for more, less in zip(with_pool, alone)]
    return statistics.median(alone), statistics.median(beyond)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.imports", description=__doc__
    )
    parser.add_argument(
        "--rounds", type=int, default=25, help="default: %(default)s"
    )
    alone, beyond = measured(parser.parse_args().rounds)
    print(f"import sqlalchemy:     {alone:6.1f} ms")
    print(f"import sqla_smartpool: {beyond:6.1f} ms beyond that")


if __name__ == "__main__":
    main()
