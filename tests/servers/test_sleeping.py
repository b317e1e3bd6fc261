"""A database that sleeps, and takes its time to wake."""

from __future__ import annotations

from functools import partial
import threading
import time
from typing import Any
from typing import Callable

import pytest

from tests.lab.lanes import Lane
from tests.lab.lanes import Lanes
from tests.lab.matrix import BOTH
from tests.lab.programs import program
from tests.lab.proxy import Proxy
from tests.lab.waiting import eventually

pytestmark = pytest.mark.slow

PAGE = program("servers/examples/sleeping.py")
#: a bound may be missed by this factor on a slow machine
MARGIN = 5.0
WAKING_TAKES = 5.0
CALLERS = 8


def body(proxy: Proxy, asleep: threading.Event, lane: Lane) -> None:
    lane.door = proxy
    made = PAGE.loop_engine if lane.asynchronous else PAGE.threads_engine
    engine = made(lane.url(), keep_alive=0.2, check_interval=0.1)
    engine = engine.sync_engine if lane.asynchronous else engine
    pool: Any = engine.pool
    lane.use(engine, CALLERS)
    # nothing stays open, so that it falls asleep
    lane.until(lambda: pool.stats().pool_size == 0)
    lane.ready()
    lane.until(asleep.is_set)
    served = lane.together(*[lambda: lane.request(engine)] * CALLERS)
    for each in served:
        assert each.error is None
        assert each.took < WAKING_TAKES + 1.0 * MARGIN
    stats = pool.stats()
    assert stats.requests_errors == stats.checks_num == 0
    engine.dispose()


def test_callers_wait_for_a_database_that_wakes_and_nothing_keeps_it_awake(
    lanes: Lanes, postgresql: Any, proxies: Callable[..., Proxy]
) -> None:
    proxy, asleep = proxies(postgresql), threading.Event()
    for case in BOTH:
        lanes.enter(case, partial(body, proxy, asleep))
    lanes.all_ready()
    eventually(lambda: not proxy.clients, message="nobody is connected")
    connects = len(proxy.attempts)
    proxy.stall()
    asleep.set()
    eventually(lambda: len(proxy.attempts) > connects, message="woken")
    time.sleep(WAKING_TAKES)
    proxy.heal()
    lanes.end()
