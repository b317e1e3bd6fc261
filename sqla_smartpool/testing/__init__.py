"""For the tests of programs that use these pools: faults, and a clock.

::

    with simulate_outage(engine):
        ...  # every connection is dead, and no connect succeeds

    with slow_connects(engine, 3.0):
        ...

    kill_idle(engine)

    clock = control_clock(engine)
    clock.advance(900)

An :class:`~sqlalchemy.ext.asyncio.AsyncEngine` is passed as it is.  Nothing
here touches another engine than the one that was passed.
"""

from __future__ import annotations

from .clock import AsyncClock
from .clock import Clock
from .clock import control_clock
from .faults import kill_idle
from .faults import simulate_outage
from .faults import slow_connects

__all__ = (
    "AsyncClock",
    "Clock",
    "control_clock",
    "kill_idle",
    "simulate_outage",
    "slow_connects",
)
