"""The engines of the page leave a server that takes no writes."""

from __future__ import annotations

from typing import Any

from tests.lab import matrix
from tests.lab.matrix import Client
from tests.lab.programs import program

side = matrix.side

PAGE = program("servers/examples/failover.py")


@matrix.on(matrix.BOTH)
def test_connections_to_a_demoted_writer_are_replaced(side: Client) -> None:
    made = PAGE.loop_engine if side.asynchronous else PAGE.threads_engine
    engine = made(side.url(), ping_after=0.2, check_interval=0.1)
    engine = engine.sync_engine if side.asynchronous else engine
    pool: Any = engine.pool
    side.wait(pool.start())
    before = side.sessions()
    assert len(before) == PAGE.FOLLOWING["min_size"]
    side.eventually(lambda: pool.stats().checks_num >= 4, "it is asked")
    assert pool.stats().checks_failed == 0
    assert side.sessions() == before
    side.server.configure(default_transaction_read_only=True)
    side.eventually(
        lambda: not before & side.sessions(), "the old ones are gone"
    )
    side.eventually(
        lambda: pool.stats().closed_unhealthy >= len(before), "it says why"
    )
    side.server.configure(default_transaction_read_only=None)
    side.use(engine, PAGE.FOLLOWING["min_size"])
    assert pool.stats().requests_errors == 0
    engine.dispose()


@matrix.on(matrix.BOTH[:1])
def test_a_planned_switch_leaves_nothing_on_the_old_one(side: Client) -> None:
    engine = PAGE.threads_engine(side.url())
    engine.pool.start()
    before = side.sessions()
    callers = []

    def switch() -> None:
        callers.append(side.begin(lambda: side.use(engine, 1)))
        side.waiting(engine)

    PAGE.switch_over(engine, switch)
    callers[0]()
    side.eventually(
        lambda: not before & side.sessions(), "all have been replaced"
    )
    assert engine.pool.stats().requests_errors == 0
    engine.dispose()
