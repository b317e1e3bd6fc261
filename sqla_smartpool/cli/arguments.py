"""The arguments that commands have in common, and how they are read."""

from __future__ import annotations

import argparse
import math
from typing import Callable

#: in place of what a command sets up itself, where no URL is given
OR_A_FILE = ", or else a temporary SQLite file"


def add_database(
    parser: argparse.ArgumentParser, may_say: str = "", or_else: str = ""
) -> None:
    """Declare the database, and the driver's and the pool's kind.

    :param may_say: what the URL is read for besides.
    :param or_else: what is used where there is no URL.
    """
    parser.add_argument(
        "url",
        metavar="URL",
        nargs="?",
        help=f"SQLAlchemy database URL{may_say}; default: the environment"
        f" variable DATABASE_URL{or_else}. A password on the command line"
        " shows in ps: rather set DATABASE_URL",
    )
    parser.add_argument(
        "--async",
        action="store_true",
        dest="is_async",
        help="asyncio tasks instead of threads, with an async driver",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Declare that a program is to read the result."""
    parser.add_argument(
        "--json",
        action="store_true",
        help="print JSON, and no progress bar",
    )


def count(least: int) -> Callable[[str], int]:
    """Return a reader of an argument that is a whole number.

    :param least: the smallest that is accepted.
    """

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a whole number from {least} upwards"
            )
        return number

    return read


def seconds(text: str) -> float:
    """Read an argument that is a number of seconds.

    :raises argparse.ArgumentTypeError: for anything else.

    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of seconds above 0"
        )
    return number
