"""What the pools log, on stderr while a command runs.

Nothing, unless ``--log-level`` or ``--log-format`` asks for it.
"""

from __future__ import annotations

import argparse
from contextlib import contextmanager
import logging
import os
import sys
from typing import Callable
from typing import Iterator
from typing import Optional

from rich.console import Console
from rich.logging import RichHandler
from sqlalchemy.engine import make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError

from . import CommandError
from . import redact

LEVELS = ("debug", "info", "warning", "error")

_LOGGER = logging.getLogger("sqla_smartpool")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments that all commands share."""
    parser.add_argument(
        "--log-format",
        choices=tuple(_HANDLERS),
        help="how the pools' logs are written to stderr (default: plain)",
    )
    parser.add_argument(
        "--log-level",
        choices=LEVELS,
        help="what is logged (default: info with --log-format, else nothing)",
    )


@contextmanager
def written(arguments: argparse.Namespace) -> Iterator[None]:
    """Write logs as the arguments say, for as long as the context lasts.

    :raises CommandError: when what is needed for it is not installed.
    """
    handler, level = _chosen(arguments.log_format, arguments.log_level)
    handler.addFilter(_Discreet(arguments.url))
    before = _LOGGER.level
    _LOGGER.addHandler(handler)
    if level is not None:
        _LOGGER.setLevel(level)
    try:
        yield
    finally:
        _LOGGER.setLevel(before)
        _LOGGER.removeHandler(handler)


def _chosen(
    format_: Optional[str], level: Optional[str]
) -> tuple[logging.Handler, Optional[str]]:
    if format_ is None and level is None:
        # keeps logging's last resort from writing warnings
        return logging.NullHandler(), None
    return _HANDLERS[format_ or "plain"](), (level or "info").upper()


class _Stderr(logging.Handler):
    """Writes to what stderr is at that moment: a progress bar moves it."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(self.format(record), file=sys.stderr, flush=True)
        except Exception:
            self.handleError(record)  # as the handlers of logging do


def _plain() -> logging.Handler:
    handler = _Stderr()
    handler.setFormatter(
        logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    )
    return handler


def _color() -> logging.Handler:
    return RichHandler(console=Console(stderr=True), show_path=False)


def _json() -> logging.Handler:
    try:
        from pythonjsonlogger.json import JsonFormatter
    except ModuleNotFoundError:
        raise CommandError(
            "python-json-logger is missing: pip install 'sqla_smartpool[cli]'"
        ) from None
    handler = _Stderr()
    # and whatever fields a record has besides
    handler.setFormatter(
        JsonFormatter(
            ["levelname", "name", "message"],
            rename_fields={"levelname": "level", "name": "logger"},
            timestamp=True,
        )
    )
    return handler


_HANDLERS: dict[str, Callable[[], logging.Handler]] = {
    "plain": _plain,
    "color": _color,
    "json": _json,
}


class _Discreet(logging.Filter):
    """Takes passwords out of a driver's words.

    :param given: the command's URL.
    """

    def __init__(self, given: Optional[str]) -> None:
        super().__init__()
        self._url = _read(given or os.environ.get("DATABASE_URL", ""))

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redact(record.getMessage(), self._url), None
        error = vars(record).get("error")
        if isinstance(error, str):
            vars(record)["error"] = redact(error, self._url)
        return True


def _read(given: str) -> Optional[URL]:
    try:
        return make_url(given)
    except (ArgumentError, ValueError):
        return None  # the command itself tells
