"""The wall clock is set, and the whole process is stopped for a while."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import textwrap
import time
from typing import Any
from typing import Callable
from typing import Iterator

import pytest
from sqlalchemy import Engine

from sqla_smartpool import deadline
from sqla_smartpool import PoolTimeoutError
from sqla_smartpool._sqlalchemy import await_
from sqla_smartpool.aio import LoopRuntime
from sqla_smartpool.runtime import Alarm
from sqla_smartpool.runtime import ThreadRuntime
from tests.lab import matrix
from tests.lab.fixtures import missing
from tests.lab.matrix import BUSY
from tests.lab.matrix import Client
from tests.lab.matrix import LONG
from tests.lab.matrix import QUIET
from tests.lab.scripts import ROOT

side = matrix.side

ON_LOOPS = [case for case in [*matrix.TCP, *matrix.TLS] if case.asynchronous]

TWO_HOURS = 7200.0
#: for how long a process is really stopped, seconds
STOPPED = 2.5


# The wall clock


@pytest.mark.pain("clock jump")
@matrix.on(matrix.BOTH)
@pytest.mark.parametrize("step", [TWO_HOURS, -TWO_HOURS])
def test_a_wall_clock_that_is_set_opens_and_closes_nothing(
    side: Client, step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = side.started(
        min_size=2, max_size=3, max_lifetime=3600, keep_alive=900, **BUSY
    )
    pool: Any = engine.pool
    side.use(engine, 3)
    before, wall_clock = side.sessions(), time.time
    readers: set[str] = set()

    def set_clock() -> float:
        readers.add(str(sys._getframe(1).f_globals.get("__name__")))
        return wall_clock() + step

    with monkeypatch.context() as patch:
        patch.setattr(time, "time", set_clock)
        held = side.hold(engine, 3)
        held[0].invalidate()  # and one is opened at the other time
        held[0].rollback()
        side.session(held[0])
        for connection in held:
            connection.close()
        new = side.sessions()
        assert len(new) == 3 and len(new & before) == 2
        side.pinged(engine)
        side.use(engine, 3)
    # set right again
    side.pinged(engine)
    side.use(engine, 3)
    assert side.sessions() == new
    assert pool.stats().connections_num == 4
    assert not [name for name in readers if name.startswith("sqla_smartpool")]


@matrix.on(matrix.BOTH)
@pytest.mark.parametrize("step", [TWO_HOURS, -TWO_HOURS])
def test_a_wall_clock_that_is_set_does_not_change_how_long_one_waits(
    side: Client, step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = side.smart(max_size=1)
    wall_clock = time.time
    held = engine.connect()

    def wait() -> float:
        began = time.monotonic()
        with deadline(0.5), pytest.raises(PoolTimeoutError):
            engine.connect()
        return time.monotonic() - began

    waited = side.begin(wait)
    side.waiting(engine)
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: wall_clock() + step)
        assert 0.45 < waited() < 0.5 * 5
    held.close()


# The process


class Stoppable:
    """A runtime whose process seems to be stopped for a while.

    Mixed in before a runtime; the time that the stop takes is a number.
    """

    def __init__(self) -> None:
        super().__init__()
        self._ahead = 0.0
        self._is_stopped = False
        self._overdue: list[Callable[[], object]] = []

    def clock(self) -> float:
        return time.monotonic() + self._ahead

    def call_later(self, delay: float, call: Callable[[], object]) -> Alarm:
        def ring() -> None:
            if self._is_stopped:
                self._overdue.append(call)
            else:
                call()

        alarm: Alarm = super().call_later(delay, ring)  # type: ignore[misc]
        return alarm

    def stop(self) -> None:
        self._is_stopped = True

    def go_on(self, seconds: float) -> None:
        self._ahead += seconds
        self._is_stopped = False
        overdue, self._overdue = self._overdue, []
        for call in overdue:
            self.call_later(0.0, call)


class StoppableThreads(Stoppable, ThreadRuntime):
    pass


class StoppableLoop(Stoppable, LoopRuntime):
    pass


def stoppable(side: Client) -> tuple[Engine, Any]:
    """An engine with four connections, none of which is due for a ping."""
    runtime: Any = StoppableLoop() if side.asynchronous else StoppableThreads()
    engine = side.started(
        min_size=4,
        max_size=8,
        check_interval=0.2,
        ping_after=600,
        _runtime=runtime,
    )
    return engine, runtime


@pytest.mark.pain("clock jump")
@matrix.on(matrix.TCP)
def test_after_a_stop_the_dead_are_not_handed_out_and_the_living_are_kept(
    side: Client,
) -> None:
    engine, runtime = stoppable(side)
    pool: Any = engine.pool
    for callers_come_first in (False, True):
        before, pings = side.sessions(), pool.stats().checks_num
        dead = set(sorted(before)[:2])
        runtime.stop()
        side.server.terminate(dead)
        runtime.go_on(60.0)
        if not callers_come_first:
            side.eventually(
                lambda: pool.stats().checks_num >= pings + 2, "they are asked"
            )
        side.use(engine, 4)
        side.eventually(side.has(4), "the floor")
        assert before - side.sessions() == dead
    stats = pool.stats()
    assert (stats.connections_num, stats.connections_lost) == (8, 4)
    assert (stats.checks_failed, stats.requests_errors) == (0, 0)
    assert (stats.returns_bad, stats.reclaimed) == (0, 0)


@matrix.on(ON_LOOPS)
def test_a_loop_that_stood_still_amid_a_ping_hears_the_answer_first(
    side: Client,
) -> None:
    engine = side.started(min_size=1, ping_timeout=0.3, **QUIET)
    pool: Any = engine.pool

    def stand_still() -> None:
        while not pool.inventory.tending:
            await_(asyncio.sleep(0))
        time.sleep(3 * pool.settings.ping_timeout)

    checked, _ = side.together(lambda: side.wait(pool.check()), stand_still)
    assert checked == (1, 0)


@matrix.on(matrix.BOTH)
def test_after_a_stop_one_that_is_out_of_reach_is_not_handed_out(
    side: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    # to the host they stand, but nobody is there any more
    engine, runtime = stoppable(side)
    pool: Any = engine.pool
    before = {record.dbapi_connection for record in pool.inventory.members}
    ping = pool._dialect._do_ping_w_event

    def lost(connection: Any) -> bool:
        return connection not in before and ping(connection)

    monkeypatch.setattr(pool._dialect, "_do_ping_w_event", lost)
    runtime.stop()
    looks = pool.upkeep.suspect_all
    suspected: list[float] = []

    def suspect_all() -> None:
        suspected.append(runtime.clock())
        looks()

    monkeypatch.setattr(pool.upkeep, "suspect_all", suspect_all)
    runtime.go_on(60.0)
    side.eventually(lambda: suspected, "the late look")
    for _ in range(3):
        with engine.connect() as connection:
            mine = connection.connection.dbapi_connection
            assert mine not in before
    side.eventually(
        lambda: pool.stats().pool_available == 4, "the floor is back"
    )


#: connects, and says who it is whenever it is asked; then it leaves
PROGRAM = """
import asyncio, json, logging, os, sys, time
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqla_smartpool import AsyncSmartPool, SmartPool, upkeep
from sqla_smartpool._sqlalchemy import await_, greenlet_spawn

logging.basicConfig()
logging.getLogger("sqlalchemy.pool").setLevel(logging.INFO)
upkeep._LATE = float(os.environ["LATE"])
SESSION = text("SELECT pg_backend_pid()")
options = dict(min_size=4, max_size=6, check_interval=0.2, ping_after=300)

def work(engine, say, hear):
    say("ready")
    while hear():
        held = [engine.connect() for _ in range(4)]
        sessions = [connection.scalar(SESSION) for connection in held]
        for connection in held:
            connection.close()
        stats = engine.pool.stats()
        say(json.dumps([sessions, stats.connections_num, time.time()]))

def say(words):
    print(words, flush=True)

async def tasks():
    engine = create_async_engine(
        os.environ["URL"], poolclass=AsyncSmartPool, **options
    )
    await engine.pool.start()
    hear = lambda: await_(asyncio.to_thread(sys.stdin.readline))
    await greenlet_spawn(work, engine.sync_engine, say, hear)
    await engine.dispose()

if os.environ["LOOP"]:
    asyncio.run(tasks())
else:
    engine = create_engine(os.environ["URL"], poolclass=SmartPool, **options)
    engine.pool.start()
    work(engine, say, sys.stdin.readline)
"""


class Program:
    """A process that has a pool of four connections."""

    def __init__(self, side: Client, folder: Path, **env: str) -> None:
        self._log = folder / "stderr"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(PROGRAM)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=ROOT,
                env={
                    **os.environ,
                    "URL": side.url().render_as_string(hide_password=False),
                    "LOOP": "yes" if side.asynchronous else "",
                    "LATE": "0.5",
                    **env,
                },
            )
        assert self._hear() == "ready", self.log

    @property
    def log(self) -> str:
        return self._log.read_text()

    def _hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def use_all(self) -> tuple[set[int], int, float]:
        """Have it use four at a time.

        :return: their sessions, how many it has opened so far, and what it
            takes the time to be.
        """
        assert self.process.stdin is not None
        self.process.stdin.write("again\n")
        self.process.stdin.flush()
        sessions, opened, now = json.loads(self._hear() or self.log)
        return set(sessions), opened, now

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def program(side: Client, tmp_path: Path) -> Iterator[Callable[..., Program]]:
    started: list[Program] = []

    def start(**env: str) -> Program:
        started.append(Program(side, tmp_path, **env))
        return started[-1]

    yield start
    for one in started:
        one.end()


@matrix.on(matrix.BOTH)
def test_a_process_that_was_really_stopped_loses_only_what_has_died(
    side: Client, program: Callable[..., Program]
) -> None:
    running = program()
    before, opened, _ = running.use_all()
    assert side.sessions() == before and opened == 4
    dead = set(sorted(before)[:2])
    os.kill(running.process.pid, signal.SIGSTOP)
    side.server.terminate(dead)
    time.sleep(STOPPED)
    os.kill(running.process.pid, signal.SIGCONT)
    after, opened, _ = running.use_all()
    assert before - after == dead
    assert opened == 6
    side.eventually(lambda: "upkeep was stopped for" in running.log)


@pytest.fixture
def faketime() -> dict[str, str]:
    """What gives a process a wall clock that can be set, and no other."""
    places = ("/usr/lib", "/usr/local/lib", "/opt/homebrew/lib")
    for place in places:
        for found in Path(place).glob("**/libfaketime.so.1"):
            return {
                "LD_PRELOAD": str(found),
                "DONT_FAKE_MONOTONIC": "1",
                "FAKETIME_NO_CACHE": "1",
            }
    missing("libfaketime (Debian: faketime)")


@pytest.mark.pain("clock jump")
@matrix.on(matrix.BOTH)
def test_a_process_whose_clock_is_set_keeps_every_connection(
    side: Client,
    program: Callable[..., Program],
    faketime: dict[str, str],
    tmp_path: Path,
) -> None:
    clock = tmp_path / "clock"
    clock.write_text("+0\n")
    # a busy machine may stop a process for a second
    running = program(
        **faketime, FAKETIME_TIMESTAMP_FILE=str(clock), LATE="60"
    )
    before, opened, now = running.use_all()
    assert abs(now - time.time()) < LONG
    for hours in (2, -2, 0):
        clock.write_text(f"{hours:+}h\n")
        after, opened, now = running.use_all()
        assert abs(now - time.time() - 3600 * hours) < LONG
        assert (after, opened) == (before, 4)
    assert "upkeep was stopped for" not in running.log
