"""A runtime that a test holds in its hands: clock, chance, and who runs."""

from __future__ import annotations

from contextvars import Context
import threading
from typing import Callable
from typing import Optional

from sqla_smartpool.testing.alarms import Alarms
from sqla_smartpool.testing.alarms import TimedCall


class ManualSignal:
    """Waits by letting jobs and time go on."""

    def __init__(self, runtime: ManualRuntime) -> None:
        self._runtime = runtime
        self.is_set = False

    def set(self) -> None:
        self.is_set = True

    def wait(self, timeout: Optional[float] = None) -> bool:
        ends = float("inf") if timeout is None else timeout
        ends += self._runtime.now
        while not self.is_set and self._runtime.step(ends):
            pass
        return self.is_set


class ManualRuntime:
    """Nothing happens, and no time passes, unless the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.luck = 0.5
        self.jobs: list[Callable[[], object]] = []
        self._alarms = Alarms()

    def clock(self) -> float:
        return self.now

    def ago(self, now: float, seconds: float) -> float:
        return now - seconds

    def chance(self) -> float:
        return self.luck

    def who(self) -> int:
        return threading.get_ident()

    def signal(self) -> ManualSignal:
        return ManualSignal(self)

    def spawn(
        self, job: Callable[[], object], context: Optional[Context] = None
    ) -> None:
        self.jobs.append(job)

    def call_later(
        self, delay: float, call: Callable[[], object]
    ) -> TimedCall:
        alarm = TimedCall(call)
        self._alarms.add(self.now + delay, alarm)
        return alarm

    def on_books(self, call: Callable[[], object]) -> None:
        call()

    def run_jobs(self) -> None:
        """Do what was spawned, and what that spawns."""
        while self.jobs:
            self.jobs.pop(0)()

    def step(self, ends: float) -> bool:
        """Do the next thing there is to do until then; False: nothing."""
        if self.jobs:
            self.jobs.pop(0)()
            return True
        due = self._alarms.take_due(ends)
        if due is not None:
            when, alarm = due
            self.now = max(self.now, when)
            alarm.ring()
            return True
        if ends < float("inf"):
            self.now = max(self.now, ends)
        return False

    def advance(self, seconds: float) -> None:
        """Let time pass, with all that happens in it."""
        ends = self.now + seconds
        while self.step(ends):
            pass
