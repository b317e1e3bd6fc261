"""Callers who ask again and again, whatever happens, and are watched."""

from __future__ import annotations

from collections import Counter
import threading
import time
from typing import Callable
from typing import Mapping

from tests.lab.waiting import eventually
from .measure import Timeline

#: what is counted together, seconds
_STEP = 0.1
#: between two requests of a caller, seconds
_THINK = 0.01
#: for a request to end, seconds; the candidates' own timeouts are 30
_LONGEST = 90.0


class Callers:
    """Threads that make requests, from their begin until their end.

    :param ask: makes a request; fails by raising.
    """

    def __init__(self, ask: Callable[[], object], number: int) -> None:
        self._ask = ask
        self._began = time.monotonic()
        self._go = threading.Event()
        self._over = threading.Event()
        #: what each began when; only of those that have not ended
        self._asking: dict[int, float] = {}
        self._served: list[tuple[float, int]] = []
        self._failed: list[float] = []
        self._took: list[float] = []
        self._threads = [
            threading.Thread(target=self._work, args=(each,), daemon=True)
            for each in range(number)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def now(self) -> float:
        return time.monotonic() - self._began

    def watch(self) -> None:
        """Count from here on."""
        self._began = time.monotonic()
        del self._served[:], self._failed[:], self._took[:]

    def go(self) -> None:
        self._go.set()

    def pause(self) -> None:
        """Have no request under way."""
        self._go.clear()
        eventually(lambda: not self._asking, message="no request under way")

    def end(self) -> None:
        self._over.set()
        self._go.set()
        for thread in self._threads:
            thread.join(_LONGEST)
            assert not thread.is_alive(), "a request does not end"

    def _work(self, number: int) -> None:
        while not self._over.is_set():
            self._asking[number] = since = time.monotonic()
            if not self._go.is_set():
                del self._asking[number]
                self._go.wait()
                continue
            try:
                self._ask()
            except Exception:  # whatever it is: the request has failed
                self._failed.append(self.now)
            else:
                self._served.append((self.now, number))
            self._took.append(time.monotonic() - since)
            del self._asking[number]
            self._over.wait(_THINK)

    # What came of it

    @property
    def failures(self) -> int:
        return len(self._failed)

    @property
    def hanging(self) -> int:
        """How many requests have been under way for more than a second."""
        late = time.monotonic() - 1.0
        return sum(since < late for since in self._asking.copy().values())

    def waits(self) -> list[float]:
        """How long requests took, seconds; those that hang took so long."""
        now = time.monotonic()
        asking = [now - since for since in self._asking.copy().values()]
        return [*self._took, *asking]

    def served_after(self, when: float) -> list[float]:
        """How much later than that each caller was served who was."""
        first: dict[int, float] = {}
        for ended, number in self._served.copy():
            if ended >= when:
                first.setdefault(number, ended - when)
        return list(first.values())

    def all_served_after(self, when: float) -> bool:
        return len(self.served_after(when)) == len(self._threads)

    def timeline(self, **marks: float) -> Timeline:
        steps = range(int(self.now / _STEP) + 1)
        served = Counter(int(ended / _STEP) for ended, _ in self._served)
        failed = Counter(int(ended / _STEP) for ended in self._failed)
        series: Mapping[str, list[float]] = {
            "served": [served[each] for each in steps],
            "failed": [failed[each] for each in steps],
        }
        return Timeline(_STEP, series, marks)
