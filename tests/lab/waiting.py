"""Wait for a condition instead of for a time."""

from __future__ import annotations

import time
from typing import Any
from typing import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(
    condition: Callable[[], T],
    timeout: float = 30.0,
    message: str = "",
    pause: float = 0.01,
) -> T:
    """Call ``condition`` until its answer is true, and return that answer.

    :param timeout: seconds after which to give up. The condition is called
     once more after that, so that a machine which slept is not blamed.
    :param message: what was waited for, for the reader of the failure.
    :param pause: seconds between two calls.
    :raises AssertionError: it did not come true in time.

    """
    deadline = time.monotonic() + timeout
    while True:
        late = time.monotonic() > deadline
        answer = condition()
        if answer:
            return answer
        assert not late, (
            f"not within {timeout} s: {message or repr(condition)}"
            f" (last answer: {answer!r})"
        )
        time.sleep(pause)


def at_rest(pool: Any) -> Callable[[], bool]:
    """A condition: its upkeep has nothing to do for half a minute."""
    return lambda: bool(pool.upkeep.due_at > pool.runtime.clock() + 30)
