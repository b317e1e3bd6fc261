"""A connection that is on its way back for long, without anybody's holding
it any more, is not taken for one that was lost."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from sqlalchemy import event

from tests.lab import matrix
from tests.lab.matrix import Client
from tests.lab.matrix import QUIET
from tests.lab.stage import doomed

side = matrix.side

THREADS = [case for case in matrix.BOTH if not case.asynchronous]


def drop(held: list[Any]) -> None:
    held.clear()
    gc.collect()


class Return:
    """A return that is held up in a listener of the pool's.

    :param name: of the event.
    """

    def __init__(self, side: Client, name: str) -> None:
        self.side = side
        self.engine = side.started(min_size=1, max_size=1, **QUIET)
        self.pool: Any = self.engine.pool
        self._under_way = False
        self._gate = side.gate()
        event.listen(self.engine, name, self._hold_up)

    def _hold_up(self, *_: Any) -> None:
        self._under_way = True
        self._gate.wait()

    def outlasts_many_looks(self, job: Any) -> None:
        """Begin it, look again and again, and let it end."""
        returned = self.side.begin(job)
        self.side.eventually(lambda: self._under_way, "it is on its way")
        now = self.pool.runtime.clock()
        for seconds in (0.0, 2.0, 500.0, 1000.0):
            self.pool.upkeep._reclaim(now + seconds)
        self._gate.open()
        returned()
        self.side.use(self.engine, 1)
        stats = self.pool.stats()
        assert (stats.reclaimed, stats.connections_num) == (0, 1)


@matrix.on(matrix.BOTH)
def test_a_slow_listener_of_checkin_costs_no_connection(side: Client) -> None:
    returning = Return(side, "checkin")
    returning.outlasts_many_looks(returning.engine.connect().close)


@matrix.on(matrix.BOTH)
def test_a_slow_reset_costs_no_connection(side: Client) -> None:
    returning = Return(side, "reset")
    returning.outlasts_many_looks(returning.engine.connect().close)


# on an event loop, what is dropped is not reset but ended
@matrix.on(THREADS)
def test_a_slow_reset_of_a_dropped_connection_does_not_cost_it(
    side: Client,
) -> None:
    returning = Return(side, "reset")
    held = [doomed(returning.engine.connect())]
    returning.outlasts_many_looks(lambda: drop(held))


@pytest.mark.parametrize("name", ["checkin", "reset"])
@matrix.on(THREADS)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_one_that_was_interrupted_there_is_found(
    side: Client, name: str
) -> None:
    """As when Ctrl-C comes while a dropped connection is reset."""
    engine = side.started(min_size=1, max_size=1, check_interval=0.1)
    pool: Any = engine.pool

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    event.listen(engine, name, interrupt, once=True)
    held = [doomed(engine.connect())]
    drop(held)
    side.eventually(lambda: pool.stats().pool_in_use == 0, "it is found")
    side.use(engine, 1)
    side.eventually(side.has(1), "nothing else is left")
