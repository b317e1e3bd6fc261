"""What is meant to happen needs no word in the log."""

from __future__ import annotations

from contextlib import contextmanager
import logging
from typing import Iterator


@contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Have these loggers say nothing."""
    logs = [logging.getLogger(name) for name in names]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for log, level in zip(logs, levels):
            log.setLevel(level)
