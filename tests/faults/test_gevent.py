"""Greenlets in place of threads: nothing is lost to timeouts and kills, and
the hub, without which nobody runs, is never blocked."""

from __future__ import annotations

from typing import Any
from typing import Iterator

import pytest

from tests.lab.scripts import Program
from tests.lab.scripts import way_to
from tests.lab.waiting import eventually

pytest.importorskip("gevent", reason="gevent is not installed")

#: by driver: the fixture of its server
SERVERS = {
    "postgresql+pg8000": "postgresql",
    "mysql+pymysql": "mariadb",
}


class Gevent:
    """Programs under gevent, on an empty server."""

    def __init__(self, server: Any, drivername: str) -> None:
        self.server = server
        self._way = way_to(server, drivername)

    def start(self, mode: str, **env: str) -> Program:
        command = ["-m", "tests.lab.gevent_program", mode]
        return Program(command, **self._way, **env)

    def end(self, program: Program, timeout: float = 120.0) -> None:
        """It comes to its end, and nothing is left at the server; its
        heart has been beating all the time, or it would complain."""
        with program:
            program.hear("disposed", timeout)
            eventually(lambda: not self.server.sessions())
            program.tell("leave")
            ended = program.end()
        assert ended.status == 0, ended.stderr


@pytest.fixture(params=SERVERS, ids=lambda name: name.partition("+")[2])
def run(request: pytest.FixtureRequest) -> Iterator[Gevent]:
    server = request.getfixturevalue(SERVERS[request.param])
    server.terminate()
    yield Gevent(server, request.param)


@pytest.mark.slow
def test_under_gevent_nothing_is_lost_to_timeouts_and_kills(
    run: Gevent,
) -> None:
    run.end(run.start("storm"))


@pytest.mark.slow
def test_a_greenlet_killed_at_any_switch_loses_nothing(run: Gevent) -> None:
    run.end(run.start("kills"))


def test_a_dropped_connection_that_a_greenlet_resets_is_not_lost(
    run: Gevent,
) -> None:
    run.end(run.start("dropped"))


@pytest.mark.slow
@pytest.mark.parametrize("late", ["", "1"], ids=["patched", "patched late"])
def test_a_pool_that_waits_does_not_block_the_hub(
    run: Gevent, late: str
) -> None:
    run.end(run.start("quiet", LATE=late))


@pytest.mark.slow
def test_a_server_that_does_not_answer_blocks_neither_hub_nor_caller(
    run: Gevent,
) -> None:
    program = run.start("frozen")
    program.hear("freeze")
    run.server.freeze()
    program.tell("frozen")
    program.hear("thaw")
    run.server.thaw()
    program.tell("thawed")
    run.end(program)
