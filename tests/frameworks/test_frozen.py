"""Processes that are stopped and go on, as cloud functions are, while the
server has closed their connections."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from tests.frameworks.serving import environment
from tests.frameworks.serving import serving
from tests.lab.processes import table
from tests.lab.scripts import Program
from tests.lab.waiting import eventually

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not hasattr(signal, "SIGSTOP"), reason="processes cannot be stopped"
    ),
]

RUNTIME = """
from function import engine, handler

for line in iter(input, "end"):
    print(handler({"number": int(line)}, None))
stats = engine.pool.stats()
assert stats.requests_errors == stats.pool_in_use == stats.reclaimed == 0
assert stats.pool_size == 1
"""


def sleep_through_the_end_of_all_sessions(
    program: Program, server: Any
) -> None:
    pid = program.process.pid
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: table()[pid][1] in "Tt", message="it is frozen")
    assert server.terminate() > 0
    os.kill(pid, signal.SIGCONT)


def test_a_thawed_function_answers_though_its_connection_is_gone(
    postgresql: Any,
) -> None:
    postgresql.terminate()
    env = environment(postgresql, "postgresql+psycopg")
    with Program(["-c", RUNTIME], **env) as program:
        for number in range(3):
            program.tell(str(number))
            program.hear(str(2 * number))
            assert len(postgresql.sessions()) == 1
            sleep_through_the_end_of_all_sessions(program, postgresql)
        program.tell("21")
        program.hear("42")
        program.tell("end")
        ended = program.end()
    assert ended.status == 0, ended.stderr
    eventually(lambda: not postgresql.sessions(), message="none is left")


def test_a_thawed_container_answers_though_its_connections_are_gone(
    postgresql: Any,
) -> None:
    command = ["-m", "uvicorn", "--port=0", "starlette_app:app"]
    with serving(command, postgresql, "postgresql+asyncpg") as site:
        for _ in range(2):
            site.doubles(40)
            sleep_through_the_end_of_all_sessions(site.program, postgresql)
        assert site.doubles(40) <= 5
        stats = site.pool()
        assert stats["requests_errors"] == stats["reclaimed"] == 0
        site.stop()
