"""A peer that takes bytes and says nothing: dead connections are told from a
pause of everything."""

from __future__ import annotations

from typing import Any
from typing import Callable

import pytest
from sqlalchemy import Engine

from tests.lab import matrix
from tests.lab.matrix import BUSY
from tests.lab.matrix import Case
from tests.lab.matrix import Client
from tests.lab.matrix import LONG
from tests.lab.matrix import QUIET
from tests.lab.proxy import Proxy

side = matrix.side

#: a bound may be missed by this factor on a slow machine
MARGIN = 5.0
THIRTY = 30
#: what a pause may cost: the pings that three workers have begun before the
#: second goes unanswered; twice as many, should a slow machine look like one
LOST = 2 * (3 + 1)
BOTH_TLS = [
    Case("postgresql+psycopg", "postgresql", "tls"),
    Case("mysql+aiomysql", "mariadb", "tls"),
]


@pytest.fixture
def proxy(side: Client, proxies: Callable[..., Proxy]) -> Proxy:
    side.door = proxies(side.server)
    return side.door


def connections(engine: Engine) -> set[object]:
    pool: Any = engine.pool
    return {record.dbapi_connection for record in pool.inventory.members}


def at_rest(engine: Engine) -> bool:
    stats: Any = engine.pool.stats()  # type: ignore[attr-defined]
    enough = stats.pool_available == stats.pool_size >= stats.pool_min
    return enough and not stats.pool_connecting


def suspected_later(side: Client, engine: Engine) -> None:
    """Wait until what was heard of each is older than a suspicion of now."""
    pool: Any = engine.pool

    def heard() -> float:
        return min(r.line.silence() for r in pool.inventory.members)

    side.eventually(lambda: heard() > 0.05, "some time has passed")


@matrix.on([*matrix.BOTH, *BOTH_TLS])
@pytest.mark.parametrize("num_workers", [1, 3])
@pytest.mark.parametrize("max_size", [THIRTY, THIRTY + 10])
def test_thirty_stalled_connections_are_replaced_in_the_time_of_three_pings(
    side: Client, proxy: Proxy, num_workers: int, max_size: int
) -> None:
    engine = side.started(
        min_size=THIRTY,
        max_size=max_size,
        num_workers=num_workers,
        ping_timeout=1.0,
        monitor_batch_size=5,
        **QUIET,
    )
    pool: Any = engine.pool
    before = connections(engine)
    suspected_later(side, engine)
    proxy.stall(new=False)
    pool.upkeep.suspect_all()  # as after a disconnect
    side.eventually(
        lambda: not before & connections(engine),
        "all are replaced",
        timeout=3 * pool.settings.ping_timeout * MARGIN,
    )
    # two that went unanswered, a third while connects succeeded, and those
    # that others were waiting for meanwhile
    most = 2 * num_workers + 1
    slowest = pool.stats().connect_time.quantile(1.0)
    if slowest >= pool.settings.ping_timeout:  # it may have been a pause
        most = THIRTY // 2
    assert 3 <= pool.stats().checks_failed <= most
    side.eventually(lambda: at_rest(engine), "the floor")
    side.use(engine, 5)


@matrix.on([*matrix.BOTH, *BOTH_TLS])
@pytest.mark.parametrize("max_size", [THIRTY, THIRTY + 10])
def test_a_pooler_that_pauses_keeps_its_connections(
    side: Client, proxy: Proxy, max_size: int
) -> None:
    engine = side.started(
        min_size=THIRTY,
        max_size=max_size,
        ping_timeout=0.5,
        pool_timeout=1.0,
        **BUSY,
    )
    pool: Any = engine.pool
    before = connections(engine)
    proxy.stall()
    side.eventually(
        lambda: pool.chores.silence.total, "connects stall as well"
    )
    attempts = len(proxy.attempts)
    side.eventually(
        lambda: len(proxy.attempts) >= attempts + 2, "it tries again"
    )
    kept = before & connections(engine)
    assert len(kept) >= THIRTY - LOST
    proxy.heal()
    side.eventually(lambda: not pool.chores.silence.total, "it has ended")
    side.eventually(lambda: at_rest(engine), "the floor")
    side.pinged(engine)
    assert kept <= connections(engine)


@matrix.on(matrix.BOTH)
def test_a_pause_that_ends_with_the_first_connect_costs_no_more(
    side: Client, proxy: Proxy
) -> None:
    engine = side.started(
        min_size=THIRTY, max_size=THIRTY + 10, ping_timeout=1.0, **QUIET
    )
    pool: Any = engine.pool
    before = connections(engine)
    suspected_later(side, engine)
    proxy.stall()
    pool.upkeep.suspect_all()
    side.eventually(
        lambda: pool.chores.silence.unanswered >= 2
        and pool.stats().pool_connecting,
        "a connect has begun",
    )
    proxy.heal()
    side.eventually(
        lambda: pool.stats().checks_num >= THIRTY, "all have been asked"
    )
    side.eventually(lambda: at_rest(engine), "the floor")
    kept = before & connections(engine)
    assert len(kept) >= THIRTY - LOST


@matrix.on(matrix.BOTH)
def test_a_pause_under_load_costs_callers_time_and_the_pool_little(
    side: Client, proxy: Proxy
) -> None:
    engine = side.started(
        min_size=THIRTY,
        max_size=THIRTY + 10,
        ping_timeout=0.5,
        pool_timeout=LONG,
        **BUSY,
    )
    pool: Any = engine.pool
    before = connections(engine)
    proxy.stall()
    side.eventually(
        lambda: pool.chores.silence.total, "connects stall as well"
    )
    side.eventually(
        # those that were never used are trusted for a second
        lambda: all(
            record.needs_ping(pool.runtime.clock())
            for record in pool.inventory.idle.copy()
        ),
        "callers have to ping",
    )
    callers = [side.begin(lambda: side.use(engine, 1)) for _ in range(4)]
    side.waiting(engine, 4)
    proxy.heal()
    for caller in callers:
        caller()
    side.eventually(lambda: not pool.chores.silence.total, "it has ended")
    side.eventually(lambda: at_rest(engine), "the floor")
    # each caller has found out by himself, at the cost of one connection
    kept = before & connections(engine)
    assert len(kept) >= THIRTY - LOST - len(callers)
    assert pool.stats().requests_errors == 0
