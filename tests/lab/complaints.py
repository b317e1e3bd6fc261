"""What the pool logs as an error ends an explorer's run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.lab.schedule import Run

_LOGGERS = [
    logging.getLogger(name) for name in ("sqla_smartpool", "sqlalchemy.pool")
]


class Complaints(logging.Handler):
    """Has a run fail with what is logged."""

    def __init__(self, run: Run) -> None:
        super().__init__(logging.ERROR)
        self._run = run

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self._run.must(False, f"{record.getMessage()}: {error!r}")


@contextmanager
def to(run: Run) -> Iterator[None]:
    """Listen to the pool's loggers for one run."""
    handler = Complaints(run)
    for logger in _LOGGERS:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in _LOGGERS:
            logger.removeHandler(handler)
