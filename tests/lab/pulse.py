"""How long a busy machine keeps anybody waiting, whatever is tested on it."""

from __future__ import annotations

import threading
import time

_BEAT = 0.01


class Pulse:
    """Measures in a thread of its own, while a block lasts.

    ::

        with Pulse() as pulse:
            measure something
        assert it took < bound + pulse.longest_pause
    """

    def __init__(self) -> None:
        #: by how much a beat came late, at most; seconds
        self.longest_pause = 0.0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lab-pulse")

    def __enter__(self) -> Pulse:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _beat(self) -> None:
        before = time.monotonic()
        while not self._is_over.wait(_BEAT):
            now = time.monotonic()
            late = now - before - _BEAT
            self.longest_pause = max(self.longest_pause, late)
            before = now
