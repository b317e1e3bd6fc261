"""A server is killed, or restarted, and comes back."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
import threading
import time
from typing import Any
from typing import Callable
from typing import Iterator

import pytest
from sqlalchemy import Engine
from sqlalchemy import event
from sqlalchemy import exc
from sqlalchemy import text

from sqla_smartpool import PoolTimeoutError
from tests.faults.conftest import DURATIONS
from tests.lab import matrix
from tests.lab.lanes import Lane
from tests.lab.lanes import Lanes
from tests.lab.lanes import Request
from tests.lab.matrix import Case
from tests.lab.proxy import Proxy
from tests.lab.pulse import Pulse

pytestmark = pytest.mark.slow

#: a bound may be missed by this factor on a slow machine
MARGIN = 5.0
#: threads and tasks that make requests, with pauses; the lanes share one
#: interpreter, whose lock is not to be what is measured
THREADS, TASKS = 8, 50
THREADS_PAUSE, TASKS_PAUSE = 0.2, 0.5
SIZES: dict[str, Any] = {"min_size": 5, "max_size": 10}
PATIENCE = 15.0

SLEEP = {
    "postgresql": text("SELECT pg_sleep(0.02)"),
    "mariadb": text("SELECT SLEEP(0.02)"),
}
CASES = [
    Case("postgresql+psycopg", "postgresql"),
    Case("postgresql+asyncpg", "postgresql"),
    Case("postgresql+psycopg", "postgresql", "tls"),
    Case("mysql+pymysql", "mariadb"),
    Case("mysql+aiomysql", "mariadb"),
]


class Outage:
    """When a server was killed, and when it was back.

    :param pulse: of the machine, on which all others are at it as well.
    """

    def __init__(self, server: Any, pulse: Pulse) -> None:
        self.server = server
        self._pulse = pulse
        self.began = self.was_down = self.ended = 0.0
        self._over = threading.Event()

    def begin(self, politely: bool = False) -> None:
        self.began = time.monotonic()
        if politely:
            self.server.stop()
        else:
            self.server.kill()
        self.was_down = time.monotonic()

    def end(self) -> None:
        self.server.start()
        self.ended = time.monotonic()
        self._over.set()

    @property
    def over(self) -> bool:
        return self._over.is_set()

    def bound(self, seconds: float) -> float:
        """What may take so many seconds, on this machine."""
        return (seconds + self._pulse.longest_pause) * MARGIN


@pytest.fixture
def pulse() -> Iterator[Pulse]:
    with Pulse() as pulse:
        yield pulse


def take_down(
    outages: list[Outage], seconds: float, politely: bool = False
) -> None:
    """Have servers go, and come back after so long, side by side."""
    for outage in outages:
        outage.begin(politely)
    time.sleep(seconds)
    starting = [threading.Thread(target=outage.end) for outage in outages]
    for thread in starting:
        thread.start()
    for thread in starting:
        thread.join()


def is_understood(error: Exception) -> bool:
    """It is the driver's own, or says what the driver said."""
    if isinstance(error, PoolTimeoutError):
        return error.__cause__ is not None
    module = type(error).__module__.partition(".")[0]
    # SQLAlchemy does not wrap what asyncpg raises while it connects
    return isinstance(error, (exc.DBAPIError, OSError)) or module == "asyncpg"


def has_its_floor(engine: Engine, outage: Outage) -> bool:
    """The floor is open, and none of it is of before the outage."""
    pool: Any = engine.pool
    births = [record.born for record in pool.inventory.members.copy()]
    new = [birth for birth in births if birth > outage.was_down]
    return len(new) == len(births) >= SIZES["min_size"]


def connects_of(engine: Engine) -> list[float]:
    """When connections have been made, from now on."""
    made: list[float] = []
    event.listen(
        engine, "connect", lambda *arguments: made.append(time.monotonic())
    )
    return made


def assert_attempts_stayed_within_the_bucket(
    proxy: Proxy, outage: Outage, connects: list[float], side_by_side: int
) -> None:
    """Five, and then ten per second, from the first failure on.

    Until a connect succeeds, which may be before the server is known to be
    back: from then on as many are made as are wanted.

    :param side_by_side: how many may have been under way when it came.
    """
    succeeded = min(when for when in connects if when > outage.was_down)
    made = [
        when
        for when in proxy.attempts
        if outage.was_down <= when <= min(outage.ended, succeeded)
    ]
    assert made, "it did not try"
    within = made[-1] - made[0]
    assert len(made) <= side_by_side + 5 + 10 * within + 1, made


def load(
    lane: Lane, engine: Engine, over: Callable[[], bool]
) -> list[Request]:
    """Requests all the time, some of which are being executed at any time."""
    callers, pause = THREADS, THREADS_PAUSE
    if lane.asynchronous:
        callers, pause = TASKS, TASKS_PAUSE
    statement = SLEEP[str(lane.case.server)]
    return lane.load(engine, callers, over, statement, pause)


def under_load(outage: Outage, proxy: Proxy, lane: Lane) -> None:
    """Callers all the time, who are told at once."""
    engine = lane.started(
        proxy.url(lane.case.drivername, lane.case.way == "tls"), **SIZES
    )
    floor_at: list[float] = []
    made: list[Request] = []
    done = threading.Event()

    def watch() -> None:
        lane.until(lambda: outage.over)
        limit = outage.ended + 1.0 * MARGIN
        floor_at.append(lane.until(lambda: has_its_floor(engine, outage)))
        lane.until(lambda: time.monotonic() > min(limit, floor_at[0] + 0.5))
        done.set()

    def work() -> None:
        made.extend(load(lane, engine, done.is_set))

    connects = connects_of(engine)
    lane.ready()
    lane.together(watch, work)
    assert floor_at[0] - outage.ended < outage.bound(1.0)
    judge_requests(made, outage)
    assert_attempts_stayed_within_the_bucket(
        proxy, outage, connects, SIZES["max_size"]
    )


def judge_requests(made: list[Request], outage: Outage) -> None:
    served = [each.ended for each in made if each.error is None]
    served_again = min(when for when in served if when > outage.ended)
    assert served_again - outage.ended < outage.bound(0.3)
    failed = [each for each in made if each.error is not None]
    assert failed, "nobody noticed"
    for request in failed:
        assert request.error is not None and is_understood(request.error)
        assert outage.began < request.ended
        assert request.asked < served_again, "an error after all was well"
        # the timeout is 30 s
        assert request.took < outage.bound(1.0), "it waited for nothing"


def at_rest(outage: Outage, proxy: Proxy, lane: Lane) -> None:
    """Nobody asks for anything; upkeep notices while the server is down."""
    url = proxy.url(lane.case.drivername, lane.case.way == "tls")
    engine = lane.started(url, check_interval=0.3, **SIZES)
    connects = connects_of(engine)
    lane.ready()
    lane.until(lambda: outage.over)
    floor_at = lane.until(lambda: has_its_floor(engine, outage))
    # upkeep holds back for up to 5 s; the rest is the machine's
    assert floor_at - outage.ended < 5.0 + outage.bound(1.0)
    stats = engine.pool.stats()  # type: ignore[attr-defined]
    assert (stats.requests_num, stats.pool_size) == (0, SIZES["min_size"])
    assert_attempts_stayed_within_the_bucket(
        proxy, outage, connects, SIZES["min_size"]
    )


def patiently(outage: Outage, lane: Lane) -> None:
    """Callers all the time, who would rather wait than be told."""
    engine = lane.started(reconnect_timeout=PATIENCE, **SIZES)
    lane.ready()
    made = load(
        lane,
        engine,
        lambda: outage.over and time.monotonic() > outage.ended + 1.0,
    )
    assert outage.ended - outage.began < PATIENCE, "this machine is too slow"
    for request in made:
        if request.error is not None:
            assert is_understood(request.error)
            assert request.got is not None and request.got < outage.was_down
            assert request.ended > outage.began
    # it may accept again for a while before that is known here
    rode_it_out = [
        request.ended - outage.ended
        for request in made
        if request.asked < outage.ended
        and request.got is not None
        and request.got > outage.was_down
        and request.error is None
    ]
    assert min(rode_it_out) < outage.bound(0.3)
    assert max(rode_it_out) < outage.bound(1.0)


@pytest.mark.parametrize("seconds", DURATIONS.outages)
def test_a_killed_server_costs_errors_only_while_it_is_down(
    lanes: Lanes, pulse: Pulse, seconds: float
) -> None:
    outages: dict[str, Outage] = {}
    with ExitStack() as stack:
        for case in matrix.installed(CASES):
            server = lanes.server(case)
            outage = outages.setdefault(
                str(case.server), Outage(server, pulse)
            )
            for body in (under_load, at_rest):
                proxy = Proxy(server)
                stack.callback(proxy.close)
                lane = partial(body, outage, proxy)
                lanes.enter(case, lane, body.__name__)
            if seconds < PATIENCE / 2:
                lane = partial(patiently, outage)
                lanes.enter(case, lane, "patiently")
        lanes.all_ready()
        take_down(list(outages.values()), seconds)
        lanes.end()


def left_alone(outage: Outage, lane: Lane) -> None:
    """Nobody asks for anything, and the defaults hold."""
    engine = lane.started(**SIZES)
    lane.ready()
    lane.until(lambda: outage.over)
    floor_at = lane.until(lambda: has_its_floor(engine, outage))
    # a look every 5 s; the rest is the machine's
    assert floor_at - outage.ended < 5.0 + outage.bound(1.0)
    stats = engine.pool.stats()  # type: ignore[attr-defined]
    assert (stats.requests_num, stats.pool_size) == (0, SIZES["min_size"])


def test_after_a_restart_an_idle_pool_has_its_floor_again_without_traffic(
    lanes: Lanes, pulse: Pulse
) -> None:
    outages: dict[str, Outage] = {}
    for case in matrix.installed([*matrix.TCP, *matrix.TLS]):
        server = lanes.server(case)
        outage = outages.setdefault(str(case.server), Outage(server, pulse))
        lanes.enter(case, partial(left_alone, outage))
    lanes.all_ready()
    take_down(list(outages.values()), 0.0, politely=True)
    lanes.end()
