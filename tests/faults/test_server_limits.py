"""What the server itself limits: how long a session may be idle, and how many
there may be."""

from __future__ import annotations

from pathlib import Path
import time
from typing import Any
from typing import Callable
from typing import Iterator

import pytest
from sqlalchemy import Engine
from sqlalchemy import event
from sqlalchemy.pool import NullPool

from sqla_smartpool import idle_limit
from sqla_smartpool.aio import LoopRuntime
from sqla_smartpool.runtime import ThreadRuntime
from tests.faults.conftest import Durations
from tests.lab import matrix
from tests.lab.lanes import Lane
from tests.lab.lanes import Lanes
from tests.lab.matrix import Case
from tests.lab.matrix import Client

pytestmark = pytest.mark.slow

#: a bound may be missed by this factor on a slow machine
MARGIN = 5.0
#: how long the server lets a session be idle, in seconds
IDLE = 2
IDLE_LIMITS = {
    "postgresql": {"idle_session_timeout": f"{IDLE}s"},
    "mariadb": {"wait_timeout": IDLE},
}


def stats_of(engine: Engine) -> Any:
    return engine.pool.stats()  # type: ignore[attr-defined]


# Idle for too long


def live_with_idle_limits(
    lanes: Lanes, body: Callable[[Lane], object]
) -> None:
    """Run a lane for each case, on servers that end idle sessions."""
    cases = matrix.installed([*matrix.TCP, *matrix.TLS])
    servers = {str(case.server): lanes.server(case) for case in cases}
    for name, server in servers.items():
        server.configure(**IDLE_LIMITS[name])
    for case in cases:
        lanes.enter(case, body)
    lanes.end()


def test_idle_sessions_that_the_server_ends_cost_nobody_an_error(
    lanes: Lanes, durations: Durations
) -> None:
    def body(lane: Lane) -> None:
        # a look every 8 s replaces what the server has ended; the load comes
        # 5 s after a look, when the server has ended these as well: not in
        # that moment, however late a busy machine is, as then nobody can know
        plain = lane.started(min_size=3, check_interval=8.0)
        # pinged more often than the server would end them
        kept = lane.started(min_size=3, ping_after=0.4, check_interval=0.2)
        lane.sleep(durations.quiet)
        for engine in (plain, kept):
            ends = time.monotonic() + 0.5
            made = lane.load(engine, 3, lambda: time.monotonic() > ends)
            assert [each.error for each in made if each.error] == []
        assert stats_of(plain).connections_num > 3, "the server ended none"
        stats = stats_of(kept)
        # more may have been opened for callers who met with slow pings
        assert stats.connections_num == stats.pool_size, "some were ended"
        assert stats.returns_bad == 0

    live_with_idle_limits(lanes, body)


def test_how_long_the_server_lets_them_be_idle_is_learned(
    lanes: Lanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    # or it would take three times ten seconds
    monkeypatch.setattr(idle_limit, "_MOMENT", 0.5)

    def body(lane: Lane) -> None:
        engine = lane.started(min_size=3, check_interval=0.25)
        pool: Any = engine.pool
        lane.eventually(
            lambda: pool.settings.ping_after < 30.0, "it is learned"
        )
        assert pool.settings.ping_after > 0.4 * IDLE
        lost = pool.stats().connections_lost
        lane.sleep(3.0 * IDLE)
        # not as many as before: three in each IDLE
        assert pool.stats().connections_lost < lost + 9
        assert pool.stats().pool_size == 3

    live_with_idle_limits(lanes, body)


# Too many connections

ALLOWED, POOLED = 10, 3


@pytest.fixture(scope="module")
def small_servers() -> Iterator[dict[str, Any]]:
    """Servers that take few sessions, by name; started as needed."""
    servers: dict[str, Any] = {}
    yield servers
    for server in servers.values():
        server.close()


@pytest.fixture
def side(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    small_servers: dict[str, Any],
) -> Iterator[Client]:
    case: Case = request.param
    matrix.import_driver(case)
    name = str(case.server)
    if name not in small_servers:
        usual = request.getfixturevalue(name)
        small_servers[name] = type(usual)(max_connections=ALLOWED)
        small_servers[name].start()
    yield Client(case, small_servers[name], tmp_path)
    small_servers[name].terminate()


class EvenThreads(ThreadRuntime):
    """No chance: upkeep's pauses are half of what they may be."""

    chance = staticmethod(lambda: 0.5)


class EvenLoop(LoopRuntime):
    chance = staticmethod(lambda: 0.5)


def crowded(side: Client) -> tuple[Engine, list[Any]]:
    """A pool with three connections, and no more to be had; and the others."""
    engine = side.started(
        min_size=POOLED,
        max_size=8,
        check_interval=0.2,
        reconnect_timeout=matrix.LONG,
        _runtime=EvenLoop() if side.asynchronous else EvenThreads(),
    )
    others = side.create_engine(
        side.url(), connect_args=side.connect_args(), poolclass=NullPool
    )
    taken = [others.connect() for _ in range(ALLOWED - POOLED)]
    with pytest.raises(Exception, match="(?i)too many|slots are reserved"):
        others.connect()
    return engine, taken


@matrix.on(
    [
        Case("postgresql+psycopg", "postgresql"),
        Case("postgresql+asyncpg", "postgresql"),
        Case("mysql+pymysql", "mariadb"),
        Case("mysql+aiomysql", "mariadb"),
    ]
)
def test_with_too_many_connections_what_is_open_serves_and_upkeep_backs_off(
    side: Client,
) -> None:
    engine, others = crowded(side)
    pool: Any = engine.pool
    attempts: list[float] = []

    @event.listens_for(engine, "do_connect")
    def attempt(*args: Any) -> None:
        attempts.append(time.monotonic())

    side.wait(pool.resize(min_size=POOLED + 2))
    began = time.monotonic()
    while time.monotonic() < began + 2.0:
        side.use(engine, POOLED)
    # two at first, and then after 0.1, 0.2, 0.4 and 0.8 s
    assert 2 <= len(attempts) <= 6
    side.eventually(
        lambda: stats_of(engine).connections_errors == len(attempts),
        "each has failed, the last one as well",
    )
    assert stats_of(engine).requests_errors == 0
    # callers who wait get what comes back, and then what can be opened again
    held = side.hold(engine, POOLED)
    waiting = [side.begin(lambda: side.use(engine, 1)) for _ in range(2)]
    side.waiting(engine, 2)
    del attempts[:]
    came_back = time.monotonic()
    held.pop().close()
    for served in waiting:
        served()
    assert time.monotonic() - came_back < 0.3 * MARGIN
    for connection in [*held, *others]:
        connection.close()
    side.eventually(
        lambda: stats_of(engine).pool_available >= POOLED + 2, "the floor"
    )
    assert stats_of(engine).requests_errors == 0
