"""PgBouncer restarts and pauses under the load of the page's engines."""

from __future__ import annotations

from functools import partial
import threading
import time
from typing import Callable

import pytest
from sqlalchemy import text

from tests.lab.lanes import Lane
from tests.lab.lanes import Lanes
from tests.lab.lanes import Request
from tests.lab.matrix import BOTH
from tests.lab.pgbouncer import PgBouncer
from tests.lab.programs import program

pytestmark = pytest.mark.slow

PAGE = program("servers/examples/pgbouncer_engines.py")
CALLERS = 4
#: so short that the pause and the restart outlast it
PING_TIMEOUT = 0.5
#: long enough for one to be in flight at any time
STATEMENT = text("SELECT :number, pg_sleep(0.02)").bindparams(number=1)


class Load:
    """Callers of one engine, who hardly pause, from ``begin`` to ``end``."""

    def __init__(self, lane: Lane, pooler: PgBouncer) -> None:
        options = {"ping_timeout": PING_TIMEOUT, "check_interval": 0.2}
        url = pooler.url(lane.case.drivername)
        if lane.asynchronous:
            engine = PAGE.asyncpg_engine(url, **options).sync_engine
        else:
            engine = PAGE.psycopg_engine(url, **options)
        self.lane = lane
        self.engine = engine
        self.pool = engine.pool
        self._is_over = False

    def begin(self) -> None:
        self.lane.wait(self.pool.start())
        self._made = self.lane.begin(
            lambda: self.lane.load(
                self.engine,
                CALLERS,
                lambda: self._is_over,
                STATEMENT,
                pause=0.005,
            )
        )
        self.goes_on()
        self.lane.ready()

    def goes_on(self) -> None:
        """Wait until each has asked and been served anew, several times."""
        enough = self.pool.stats().requests_num + 10 * CALLERS
        self.lane.until(lambda: self.pool.stats().requests_num > enough)

    def end(self) -> list[Request]:
        self._is_over = True
        made: list[Request] = self._made()
        self.engine.dispose()
        return made


class Fault:
    """What happens to the pooler, and when."""

    def __init__(self, lanes: Lanes, pooler: PgBouncer) -> None:
        self._lanes = lanes
        self._pooler = pooler
        self.at = self.all_lost_at = 0.0
        self.over = threading.Event()

    def befall(
        self, body: Callable[[Fault, Load], None], happen: Callable[[], None]
    ) -> None:
        for case in BOTH:
            self._lanes.enter(case, partial(self._live, body))
        self._lanes.all_ready()
        self.at = time.monotonic()
        happen()
        self.over.set()
        self._lanes.end()

    def _live(self, body: Callable[[Fault, Load], None], lane: Lane) -> None:
        load = Load(lane, self._pooler)
        load.begin()
        body(self, load)
        lane.until(self.over.is_set)
        load.goes_on()
        errors = [each for each in load.end() if each.error is not None]
        for each in errors:
            # a statement in flight
            assert each.got is not None, each
            # the clock is read a little after the checkout
            assert each.got <= self.all_lost_at + 0.1, each
            assert each.ended >= self.at, each


def nothing(fault: Fault, load: Load) -> None:
    """The application goes on as if nothing had happened."""


def test_a_restart_costs_statements_in_flight_only(
    lanes: Lanes, pooler: PgBouncer
) -> None:
    fault = Fault(lanes, pooler)

    def happen() -> None:
        pooler.stop()
        fault.all_lost_at = time.monotonic()
        time.sleep(2 * PING_TIMEOUT)
        pooler.start()

    fault.befall(nothing, happen)


@pytest.mark.parametrize("pooler", ["transaction"], indirect=True)
def test_a_pause_costs_nobody_an_error(
    lanes: Lanes, pooler: PgBouncer
) -> None:
    def happen() -> None:
        pooler.command("PAUSE")
        time.sleep(3 * PING_TIMEOUT)
        pooler.command("RESUME")

    Fault(lanes, pooler).befall(nothing, happen)


@pytest.mark.parametrize("pooler", ["session"], indirect=True)
def test_sessions_that_are_let_go_let_a_pause_begin(
    lanes: Lanes, pooler: PgBouncer
) -> None:
    fault = Fault(lanes, pooler)
    paused = threading.Event()
    wanted = threading.Event()

    def let_go(fault: Fault, load: Load) -> None:
        load.lane.until(wanted.is_set)
        if load.lane.asynchronous:
            load.lane.wait(PAGE.let_go_async(load.pool))
        else:
            PAGE.let_go(load.pool)
        load.lane.until(paused.is_set)
        # what was being closed as the pause began counts until it is closed
        load.lane.until(lambda: load.pool.stats().pool_size == 0)
        load.lane.until(fault.over.is_set)
        load.lane.wait(load.pool.resume())

    def happen() -> None:
        def pause() -> None:
            pooler.command("PAUSE")
            paused.set()

        pausing = threading.Thread(target=pause)
        pausing.start()
        # it waits for the pools, which are asked for their sessions now
        assert not paused.wait(0.3)
        wanted.set()
        pausing.join(30.0)
        assert paused.is_set()
        pooler.command("RESUME")

    fault.befall(let_go, happen)


def test_statements_of_many_callers_meet_each_others_sessions(
    lanes: Lanes, pooler: PgBouncer
) -> None:
    """Again and again the same, and always another one, in both drivers."""

    def body(lane: Lane) -> None:
        load = Load(lane, pooler)

        def caller() -> None:
            for number in range(30):
                with load.engine.connect() as connection:
                    for value in (0, number):
                        sql = text(f"SELECT {value} + :one")
                        got = connection.scalar(sql, {"one": 1})
                        assert got == value + 1
                        lane.sleep(0.001)

        lane.together(*[caller] * CALLERS)
        load.engine.dispose()

    for case in BOTH:
        lanes.enter(case, body)
    lanes.end()
