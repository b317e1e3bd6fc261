"""Waiting for the pool to be full, or empty."""

from __future__ import annotations

from typing import Callable

from .backoff import is_hopeless as is_hopeless_error
from .core import PoolCore
from .exc import PoolTimeoutError
from .exc import without_traceback


def wait_until_full(pool: PoolCore, timeout: float) -> None:
    """Wait until the floor is there; raises what keeps it away.

    :param timeout: seconds.
    """
    inventory = pool.inventory

    def is_full() -> bool:
        return inventory.size >= pool.settings.min_size

    def is_hopeless() -> bool:
        error = inventory.backoff.error
        return error is not None and is_hopeless_error(error)

    _wait(pool, lambda: is_full() or is_hopeless(), timeout)
    if is_full():
        return
    error = inventory.backoff.error
    if error is not None and is_hopeless_error(error):
        raise without_traceback(error)
    text = (
        f"{inventory.size} of {pool.settings.min_size} connections "
        f"(min_size) were open after {timeout:.2f} s"
    )
    if error is not None:
        text += f"; connects fail: {type(error).__name__}: {error}"
    raise PoolTimeoutError(text, inventory.stats(), error) from error


def wait_until_empty(pool: PoolCore, timeout: float) -> None:
    """Wait until no connection is open any more, but not too long.

    What is still being opened is closed as it comes; a connect that is slow
    may hang, and is not waited for.
    """
    inventory = pool.inventory
    _wait(pool, lambda: not (inventory.members or inventory.young()), timeout)


def _wait(
    pool: PoolCore, condition: Callable[[], bool], timeout: float
) -> None:
    inventory = pool.inventory
    signal = pool.runtime.signal()
    inventory.post(inventory.watch, signal, condition)
    try:
        signal.wait(timeout)
    finally:
        inventory.post(inventory.unwatch, signal)
