"""Workers that are threads."""

from __future__ import annotations

from threading import Thread
from typing import Callable

from . import CommandError


def together(work: Callable[[], None], number: int) -> None:
    """Do the same work in so many threads, and wait for all of them.

    :raises CommandError: when there cannot be so many.
    """
    # daemons: after Ctrl-C nobody waits for one that hangs
    threads = [Thread(target=work, daemon=True) for _ in range(number)]
    try:
        for thread in threads:
            thread.start()
    except RuntimeError as error:
        raise CommandError(f"--workers {number}: {error}") from error
    for thread in threads:
        thread.join()
