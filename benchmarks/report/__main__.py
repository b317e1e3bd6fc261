"""The command: ``python -m benchmarks.report FILE… [--to FOLDER]``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Optional
from typing import Sequence

from . import __doc__ as ABOUT
from .page import write
from ..kept import read_all


def main(argv: Optional[Sequence[str]] = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report", description=ABOUT
    )
    parser.add_argument(
        "files",
        metavar="FILE",
        nargs="+",
        type=Path,
        help="from python -m benchmarks --json FILE, or benchmarks.against;"
        " the first one tells of the machine",
    )
    parser.add_argument(
        "--to",
        metavar="FOLDER",
        type=Path,
        default=Path(__file__).parent,
        help="default: %(default)s",
    )
    arguments = parser.parse_args(argv)
    print(write(read_all(arguments.files), arguments.to))


if __name__ == "__main__":
    main()
