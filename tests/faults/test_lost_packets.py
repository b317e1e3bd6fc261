"""Packets are lost in the middle of something: whoever waits for an answer is
told within ``network_timeout``."""

from __future__ import annotations

import time
from typing import Any
from typing import Callable

import pytest
from sqlalchemy import exc
from sqlalchemy import text

from tests.lab import matrix
from tests.lab.matrix import Client
from tests.lab.matrix import ONE
from tests.lab.matrix import QUIET
from tests.lab.silence import Lost

side = matrix.side

#: a bound may be missed by this factor on a slow machine
MARGIN = 5.0
NETWORK_TIMEOUT = 2.0
#: promised
BOUND = 1.25 * NETWORK_TIMEOUT
#: how to have a server think until long after that, and to see that it does
THINK = {
    "postgresql": text("SELECT pg_sleep(30)"),
    "mariadb": text("SELECT SLEEP(30)"),
}
THINKING = {
    "postgresql": "SELECT pid FROM pg_stat_activity"
    " WHERE wait_event = 'PgSleep'",
    "mariadb": "SELECT id FROM information_schema.processlist"
    " WHERE state = 'User sleep'",
}


@pytest.fixture
def lost(side: Client, proxies: Callable[..., Any], network: Any) -> Lost:
    found = Lost(proxies(side.server, network), network)
    side.door = found.proxy
    return found


@matrix.on([*matrix.TCP, *matrix.TLS])
def test_lost_packets_end_queries_rollbacks_and_closes_within_network_timeout(
    side: Client, lost: Lost
) -> None:
    engine = side.started(
        min_size=4, max_size=4, network_timeout=NETWORK_TIMEOUT, **QUIET
    )
    pool: Any = engine.pool
    think, thinking = THINK[side.case.server], THINKING[side.case.server]
    lost_at: list[float] = []
    # these three, and one that stays idle
    waits, asks, returns = [engine.connect() for _ in range(3)]
    returns.execute(ONE)

    def took(action: Callable[[], object]) -> float:
        """What an action takes from the loss on."""
        try:
            action()
        finally:
            ended = time.monotonic()
        return ended - lost_at[0]

    def once_lost(action: Callable[[], object]) -> Callable[[], float]:
        def act() -> float:
            side.eventually(lambda: lost_at, "packets are lost")
            return took(action)

        return act

    def fail(connection: Any, action: Callable[[], object]) -> None:
        with pytest.raises((exc.DBAPIError, OSError)):  # as the driver has it
            action()
        if not connection.closed:
            connection.invalidate()
        connection.close()

    def lose() -> float:
        side.eventually(lambda: side.server.execute(thinking), "it thinks")
        lost.everything()
        lost_at.append(time.monotonic())
        return 0.0

    for seconds in side.together(
        lambda: took(lambda: fail(waits, lambda: waits.execute(think))),
        once_lost(lambda: fail(asks, lambda: asks.execute(ONE))),
        # it rolls back first
        once_lost(lambda: fail(returns, returns.close)),
        once_lost(lambda: side.wait(pool.stop(timeout=0.0))),
        lose,
    ):
        assert seconds < BOUND * MARGIN
    side.eventually(lambda: not pool.stats().pool_size, "all are closed")
    lost.heal()
    for (session,) in side.server.execute(thinking):
        side.server.terminate([session])
    side.wait(pool.start())
    side.use(engine, 4)
