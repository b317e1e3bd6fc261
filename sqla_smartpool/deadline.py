"""A timeout for the checkouts inside a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Optional

from .settings import Settings

_timeout: ContextVar[Optional[float]] = ContextVar("sqla_smartpool_timeout")


@contextmanager
def deadline(timeout: Optional[float]) -> Iterator[None]:
    """Set another timeout for the checkouts inside a ``with`` block.

    It holds for every pool, for this thread or task and for the tasks that
    are created inside, and is looked at only by a caller who has to wait.

    :param timeout: seconds, as ``pool_timeout``: 0 does not queue, None
        waits for ever.
    :raises sqlalchemy.exc.ArgumentError: it is negative or no number.

    .. versionadded:: 0.1
    """
    token = _timeout.set(Settings(timeout=timeout).timeout)
    try:
        yield
    finally:
        _timeout.reset(token)


def checkout_timeout(settings: Settings) -> Optional[float]:
    """Seconds that a checkout may take, here and now."""
    return _timeout.get(settings.timeout)
