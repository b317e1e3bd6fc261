"""A thousand processes and one database: a simulation.

Nobody has the machines, so time is virtual and so is the database; SmartPool
is the real one.
"""

from __future__ import annotations

from functools import partial
from typing import Iterator

from .pools import OpenedByHand
from .pools import Psycopg
from .pools import Queue
from .pools import Smart
from .scenes import deploy
from .scenes import expiry
from .scenes import Extent
from .scenes import Kind
from .scenes import outage
from ..measure import Benchmark
from ..measure import Case
from ..quiet import quiet

_KINDS: dict[str, Kind] = {
    "QueuePool": Queue,
    "psycopg_pool": Psycopg,
    "SmartPool": Smart,
}


def cases(quick: bool) -> Iterator[Case]:
    many = Extent(1000, 20.0, 60.0, 600.0)
    busy = Extent(10, 400.0, 60.0, 600.0)
    if quick:
        many = Extent(10, 10.0, 3.0, 30.0)
        busy = Extent(2, 100.0, 3.0, 30.0)
    at_start = {"QueuePool, opened by hand": OpenedByHand, **_KINDS}
    for scene, extent, kinds in (
        (deploy, many, at_start),
        (outage, many, _KINDS),
        (outage, busy, _KINDS),
        (expiry, many, _KINDS),
    ):
        # hundreds of pools would say that the database is unreachable
        with quiet("sqla_smartpool"):
            yield Case(
                f"{scene.__name__}, {extent.processes} processes,"
                f" {extent.rate:g} requests/s each",
                {
                    name: partial(scene, kind, extent)
                    for name, kind in kinds.items()
                },
                # chance is drawn from the same seed: all would be alike
                most_rounds=1,
            )


FLEET = Benchmark(
    "fleet", "a thousand processes and one database, simulated", cases
)
