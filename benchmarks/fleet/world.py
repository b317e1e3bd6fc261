"""A simulated world: SimPy keeps the time, and callers are greenlets, so that
code which blocks, such as a pool's, runs in it as it is."""

from __future__ import annotations

from contextvars import Context
import random
from typing import Callable
from typing import Optional

from greenlet import getcurrent
from greenlet import greenlet
import simpy


class World:
    def __init__(self, seed: int = 0) -> None:
        # not 0, which some take for never
        self.env = simpy.Environment(initial_time=1000.0)
        self.chance = random.Random(seed)

    @property
    def now(self) -> float:
        return float(self.env.now)

    def begin(self, job: Callable[[], object], delay: float = 0.0) -> None:
        """Have somebody do a job, who may wait."""
        self.call(lambda: greenlet(job).switch(), delay)

    def call(self, call: Callable[[], object], delay: float = 0.0) -> None:
        """Make a call that does not wait."""
        self.env.timeout(delay).callbacks.append(lambda _: call())

    def wait(self, event: simpy.Event) -> None:
        me = getcurrent()
        assert me.parent is not None, "outside of the simulation"
        event.callbacks.append(lambda _: me.switch())
        me.parent.switch()

    def sleep(self, seconds: float) -> None:
        self.wait(self.env.timeout(seconds))


class Alarm:
    def __init__(self, call: Callable[[], object]) -> None:
        self._call: Optional[Callable[[], object]] = call

    def __call__(self) -> None:
        if self._call is not None:
            self._call()

    def cancel(self) -> None:
        self._call = None


class Signal:
    """What one caller waits on, once."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._event = world.env.event()
        self._is_set = False

    def set(self) -> None:
        self._is_set = True
        self._wake()

    def wait(self, timeout: Optional[float] = None) -> bool:
        if not self._is_set and (timeout is None or timeout > 0.0):
            late = Alarm(self._wake)
            if timeout is not None:
                self._world.call(late, timeout)
            self._world.wait(self._event)
            late.cancel()
        return self._is_set

    def _wake(self) -> None:
        if not self._event.triggered:
            self._event.succeed()


class SimulatedRuntime:
    """What the pool needs of the world around it, as ``Runtime`` says."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.clock = lambda: world.now
        self.chance = world.chance.random

    def who(self) -> None:
        """Nobody who could be looked up, as callers are no threads."""

    def signal(self) -> Signal:
        return Signal(self._world)

    def spawn(
        self, job: Callable[[], object], context: Optional[Context] = None
    ) -> None:
        self._world.begin(job)

    def call_later(self, delay: float, call: Callable[[], object]) -> Alarm:
        alarm = Alarm(call)
        self._world.call(alarm, delay)
        return alarm

    def on_books(self, call: Callable[[], object]) -> None:
        call()
