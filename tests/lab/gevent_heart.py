"""Tells for how long nobody but one greenlet could run."""

from __future__ import annotations

import time
from typing import Any

import gevent
from gevent import monkey

_start_thread: Any = monkey.get_original("_thread", "start_new_thread")
_sleep: Any = monkey.get_original("time", "sleep")

_BEAT = 0.01


class Heart:
    """Beats as a greenlet, and beside it as a thread.

    Whoever blocks the hub stops the greenlet; a machine that is busy stops
    both.
    """

    def __init__(self) -> None:
        #: the most that lay between two beats, seconds
        self.longest_pause = 0.0
        #: the same, of the thread
        self.machines = 0.0
        self._beats = 0
        self._beating = True

    def __enter__(self) -> Heart:
        self._greenlet = gevent.spawn(self._beat)
        _start_thread(self._beat_beside, ())
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._beating = False
        self._greenlet.join()

    def wait(self) -> None:
        """Until it has beaten at all: a scene may be short."""
        while self._beats < 3:
            gevent.sleep(_BEAT)

    def _beat(self) -> None:
        before = time.monotonic()
        while self._beating:
            gevent.sleep(_BEAT)
            now = time.monotonic()
            self.longest_pause = max(self.longest_pause, now - before)
            before = now
            self._beats += 1

    def _beat_beside(self) -> None:
        before = time.monotonic()
        while self._beating:
            _sleep(_BEAT)
            now = time.monotonic()
            self.machines = max(self.machines, now - before)
            before = now
