"""Do what a page of the documentation tells to do, from top to end.

::

    python -m tests.lab.run_page docs/exhausted.rst

In this process, whose globals the page may change, and in the current folder.
The page's shell commands have this Python as ``python``; its SQL goes to
``DATABASE_URL``.
"""

from __future__ import annotations

import configparser
from contextlib import redirect_stdout
import doctest
import io
import json
import os
from pathlib import Path
import shlex
import subprocess
import sys
from typing import Any
from typing import Callable

from sqlalchemy import create_engine
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine
import yaml

from tests.lab.pages import Block
from tests.lab.pages import blocks
from tests.lab.pages import ROOT

#: what nobody runs, but what has to be written rightly
_READ: dict[str, Callable[[str], object]] = {
    "ini": lambda source: configparser.ConfigParser().read_string(source),
    "json": json.loads,
    "yaml": yaml.safe_load,
}
_COMMAND = ["python", "-m", "sqla_smartpool"]
_OUTPUT = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class PageError(Exception):
    """A page does not do what it says."""


def run(page: Path) -> None:
    """Do what a page tells to do.

    :raises Exception: whatever its programs raise.
    """
    names: dict[str, Any] = {"__name__": "page"}
    printed = io.StringIO()
    try:
        for block in blocks(page):
            if block.prints:
                _compare(block, printed.getvalue())
                printed = io.StringIO()
            else:
                _do(block, names, printed)
    finally:
        for value in names.values():
            if isinstance(value, AsyncEngine):
                value = value.sync_engine
            if isinstance(value, Engine):
                value.dispose()


def _do(block: Block, names: dict[str, Any], printed: io.StringIO) -> None:
    if block.language == "shell":
        for line in block.source.replace("\\\n", " ").splitlines():
            _read_command(line)
    if block.not_run:
        return
    if block.language == "python":
        with redirect_stdout(printed):
            block.run(names)
    elif block.language == "shell":
        printed.write(_run_shell(block))
    elif block.language == "sql":
        with create_engine(os.environ["DATABASE_URL"]).connect() as connection:
            connection.exec_driver_sql(block.source).all()
    elif block.language in _READ:
        _READ[block.language](block.source)
    else:
        raise PageError(
            f"{block.place}: say in a comment why this is not run, or what "
            f"language it is: {block.language or 'not said'}"
        )


def _read_command(line: str) -> None:
    """See whether our own command takes these arguments."""
    from sqla_smartpool.cli.main import _parser

    words = shlex.split(line, comments=True)
    for at in range(len(words)):
        if words[at : at + len(_COMMAND)] == _COMMAND:
            arguments = words[at + len(_COMMAND) :]
            if "&&" in arguments:
                arguments = arguments[: arguments.index("&&")]
            _parser().parse_args(arguments)


def _run_shell(block: Block) -> str:
    path = os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    )
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.source],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise PageError(
            f"{block.place}: status {done.returncode}\n{done.stdout}"
            f"{done.stderr}"
        )
    return done.stdout


def _compare(block: Block, printed: str) -> None:
    """See whether the programs have printed what the page says."""
    wanted = f"{block.source}\n"
    if not doctest.OutputChecker().check_output(wanted, printed, _OUTPUT):
        raise PageError(f"{block.place}: this was printed:\n{printed}")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        run(ROOT / name)
