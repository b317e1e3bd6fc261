"""The command line: arguments, dispatch and errors."""

from __future__ import annotations

import argparse
import os
import sys
from typing import NoReturn
from typing import Optional
from typing import Sequence

from . import CommandError
from . import redact


class _Parser(argparse.ArgumentParser):
    """A parser whose errors take one line and quote no password."""

    def error(self, message: str) -> NoReturn:
        line = " ".join(redact(message).split())
        self.exit(2, f"sqla_smartpool: {line} (see --help)\n")


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run one command and return its exit status.

    0: all went well.  1: the command found errors.  2: it could not run.
    130: interrupted.

    :param argv: the arguments; those of the process by default.
    :raises SystemExit: after ``--help``, and with status 2 after a wrong
        option, as :mod:`argparse` does.

    """
    try:
        parser = _parser()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "rich":
            raise
        return _fail("rich is missing: pip install 'sqla_smartpool[cli]'")
    arguments = parser.parse_args(argv)
    try:
        with arguments.logs(arguments):
            status: int = arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # whoever reads has read enough; at exit Python would flush once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except CommandError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return _fail("interrupted", status=130)
    return status


def _parser() -> argparse.ArgumentParser:
    # Imported here because it needs rich, which is an optional dependency.
    from . import check
    from . import logs
    from . import stress
    from . import tune

    parser = _Parser(
        prog="python -m sqla_smartpool",
        description="Tools for the SmartPool connection pool of SQLAlchemy.",
    )
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True
    )
    for command in (check, stress, tune):
        subparser = commands.add_parser(
            command.__name__.rpartition(".")[2],
            help=command.HELP,
            description=command.DESCRIPTION,
        )
        command.add_arguments(subparser)
        logs.add_arguments(subparser)
        subparser.set_defaults(run=command.run, logs=logs.written)
    return parser


def _fail(message: str, status: int = 2) -> int:
    print(f"sqla_smartpool: {message}", file=sys.stderr)
    return status
