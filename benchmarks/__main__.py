"""``python -m benchmarks``: what a checkout costs, beside SQLAlchemy's pools.

Without a database: the DBAPI connections do nothing, so that only the pools
are measured.  The candidates take turns, as the speed of a machine drifts;
what can be compared are the ratios.
"""

from __future__ import annotations

from statistics import median
import timeit
from typing import Any
from typing import Callable

from sqlalchemy.pool import QueuePool
from sqlalchemy.pool import StaticPool

from sqla_smartpool import SmartPool

CHECKOUTS = 20_000
ROUNDS = 9


class NoDatabase:
    """A DBAPI connection that does nothing."""

    def rollback(self) -> None:
        pass

    def close(self) -> None:
        pass


def checkout_and_checkin(pool: Any) -> Callable[[], None]:
    def work() -> None:
        pool.connect().close()

    return work


def main() -> None:
    creator: Any = NoDatabase
    candidates: dict[str, Callable[[], None]] = {
        "StaticPool": checkout_and_checkin(StaticPool(creator)),
        "QueuePool": checkout_and_checkin(QueuePool(creator)),
        "SmartPool": checkout_and_checkin(SmartPool(creator)),
    }
    times: dict[str, list[float]] = {name: [] for name in candidates}
    names = list(candidates)
    for turn in range(ROUNDS):
        for name in names[turn % 3 :] + names[: turn % 3]:
            took = timeit.timeit(candidates[name], number=CHECKOUTS)
            times[name].append(took / CHECKOUTS)
    print(f"checkout and checkin, one thread, median of {ROUNDS}")
    for name, took in times.items():
        ratios = {
            other: median(a / b for a, b in zip(took, times[other]))
            for other in ("StaticPool", "QueuePool")
        }
        print(
            f"{name:12} {median(took) * 1e6:6.2f} us  "
            f"{ratios['StaticPool']:.2f} x StaticPool  "
            f"{ratios['QueuePool']:.2f} x QueuePool"
        )


if __name__ == "__main__":
    main()
