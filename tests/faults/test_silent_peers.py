"""A peer falls silent: nobody waits for it longer than was agreed, and what
waited for it leaves nothing behind."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any
from typing import Callable

import pytest
from sqlalchemy import Engine
from sqlalchemy import exc

from sqla_smartpool import PoolTimeoutError
from tests.lab import matrix
from tests.lab.matrix import Case
from tests.lab.matrix import Client
from tests.lab.matrix import LONG
from tests.lab.matrix import ONE
from tests.lab.matrix import QUIET
from tests.lab.silence import Lost
from tests.lab.silence import Silence
from tests.lab.silence import Stalled

side = matrix.side

#: a bound may be missed by this factor on a slow machine
MARGIN = 5.0
PING_TIMEOUT = 0.3
#: a checkout that meets silence takes no longer, whatever its timeout
BOUND = PING_TIMEOUT + 1.0
#: connections that have been idle for long enough to be asked
POOL: dict[str, Any] = {
    "min_size": 6,
    "max_size": 8,
    "ping_after": 0.05,
    "ping_timeout": PING_TIMEOUT,
    "pool_timeout": LONG,
    **QUIET,
}

Falls = tuple[str, Case]
#: through a stalled proxy, or by lost packets; with every driver
TCP: list[Falls] = [
    (how, case) for how in ("stalled", "lost") for case in matrix.TCP
]
#: where a stall in the middle of a handshake makes a difference
STALLED_TLS: list[Falls] = [("stalled", case) for case in matrix.TLS]
TLS: list[Falls] = [*STALLED_TLS, *(("lost", case) for case in matrix.TLS)]
BOTH = [falls for falls in TCP if falls[1] in matrix.BOTH]


def on(falls: list[Falls]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "silence, side", falls, indirect=True, ids=str
    )


@pytest.fixture
def silence(
    request: pytest.FixtureRequest, side: Client, proxies: Callable[..., Any]
) -> Silence:
    """Falls between the server and its clients."""
    found: Silence
    if request.param == "stalled":
        found = Stalled(proxies(side.server))
    else:
        network = request.getfixturevalue("network")
        found = Lost(proxies(side.server, network), network)
    side.door = found.proxy
    return found


def grown_old(side: Client, **options: Any) -> Engine:
    """An engine whose connections have all been idle for long enough."""
    engine = side.started(**{**POOL, **options})
    pool: Any = engine.pool

    def old() -> bool:
        now = pool.runtime.clock()
        return all(r.needs_ping(now) for r in pool.inventory.members)

    side.eventually(old, "all have to be asked")
    return engine


def four_at_once(
    side: Client, engine: Engine
) -> list[tuple[float, Exception | None]]:
    """Check four connections out: how long each took, and its error."""

    def checkout() -> tuple[float, Exception | None]:
        began = time.monotonic()
        try:
            connection = engine.connect()
        except Exception as error:
            return time.monotonic() - began, error
        took = time.monotonic() - began
        with connection:
            assert connection.scalar(ONE) == 1
        return took, None

    return side.together(*[checkout] * 4)


def nothing_left_behind(side: Client) -> None:
    """No thread, no task of the pool's is still at work."""

    def left() -> list[Any]:
        if side.asynchronous:
            return [*asyncio.all_tasks() - {asyncio.current_task()}]
        name = "sqla_smartpool-worker"
        return [t for t in threading.enumerate() if t.name == name]

    side.eventually(lambda: not left(), "threads and tasks have ended")


def whole_again(side: Client, engine: Engine) -> None:
    """The floor is there, at rest, and whoever comes is served."""
    pool: Any = engine.pool
    # a short one was for the silence: now a busy machine may need longer
    pool._timeout = LONG

    def at_rest() -> bool:
        stats = pool.stats()
        return (
            stats.pool_available == stats.pool_size >= stats.pool_min
            and not stats.pool_connecting
        )

    side.eventually(at_rest, "the floor")
    side.use(engine, pool.stats().pool_max)
    side.eventually(at_rest, "all are back")


@on([*TCP, *TLS])
def test_silence_on_old_connections_costs_callers_one_ping_and_no_error(
    side: Client, silence: Silence
) -> None:
    engine = grown_old(side)
    pool: Any = engine.pool
    before = {r.dbapi_connection for r in pool.inventory.members}
    silence.old()
    for took, error in four_at_once(side, engine):
        assert error is None
        assert took < BOUND * MARGIN
    # the drivers were woken, although there still is no answer
    nothing_left_behind(side)
    whole_again(side, engine)
    assert not before & {r.dbapi_connection for r in pool.inventory.members}
    stats = pool.stats()
    assert (stats.requests_errors, stats.returns_bad) == (0, 0)
    # and, on a busy machine, new ones that take long to answer
    assert stats.closed_unhealthy >= len(before)


@on(BOTH)
def test_silence_and_no_way_to_connect_is_told_to_callers_after_one_ping(
    side: Client, silence: Silence
) -> None:
    engine = grown_old(side)
    silence.old()
    silence.proxy.refuse()
    for took, error in four_at_once(side, engine):
        assert isinstance(error, (exc.DBAPIError, OSError))
        assert took < BOUND * MARGIN
    silence.heal()
    whole_again(side, engine)
    nothing_left_behind(side)


@on([*TCP, *STALLED_TLS])
def test_silence_everywhere_costs_callers_no_more_than_their_timeout(
    side: Client, silence: Silence
) -> None:
    timeout = 2 * PING_TIMEOUT
    engine = grown_old(side, pool_timeout=timeout)
    silence.everything()
    for took, error in four_at_once(side, engine):
        assert isinstance(error, PoolTimeoutError)
        assert took < timeout * MARGIN
    silence.heal()
    whole_again(side, engine)
    nothing_left_behind(side)


@on(BOTH)
def test_connects_that_never_end_free_their_room_and_are_cleared_away(
    side: Client, silence: Silence
) -> None:
    engine = grown_old(side, min_size=0, max_size=2, pool_timeout=0.5)
    pool: Any = engine.pool
    silence.new()
    for took, error in four_at_once(side, engine):
        assert isinstance(error, PoolTimeoutError)
        assert took < 0.5 * MARGIN
    side.eventually(lambda: not pool.stats().pool_connecting, "written off")
    silence.heal()
    side.use(engine, 2)
    nothing_left_behind(side)
    whole_again(side, engine)
    side.eventually(side.has(pool.stats().pool_size), "no others are open")
