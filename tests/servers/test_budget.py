"""Eight processes that share what a server has, and more than it has."""

from __future__ import annotations

from contextlib import closing
import json
import re
from typing import Any
from typing import Callable
from typing import Iterator

import pytest
from sqlalchemy import create_engine
from sqlalchemy import text
from sqlalchemy.pool import NullPool

from tests.lab.fixtures import missing
from tests.lab.programs import program
from tests.lab.scripts import Program
from tests.lab.waiting import eventually
from tests.servers import budget_program
from tests.servers.budget_program import PROCESSES

pytestmark = pytest.mark.slow

PAGE = program("servers/examples/budget.py")
LIMIT = 20
ENOUGH = budget_program.CALLERS * budget_program.AFTERWARDS
OTHERS = text(
    "SELECT count(*) FROM pg_stat_activity WHERE usename = 'smart'"
    " AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
)


@pytest.fixture(scope="module")
def small_server() -> Iterator[Any]:
    """A PostgreSQL with few connections."""
    try:
        from tests.lab.servers import PostgreSQL

        server = PostgreSQL(max_connections=LIMIT)
    except (ImportError, FileNotFoundError) as error:
        missing(str(error))
    with server:
        yield server


class Watch:
    """Counts sessions, in one of its own that was there before.

    While all are taken, none can be opened to look.
    """

    def __init__(self, server: Any) -> None:
        self._engine = create_engine(
            server.url("postgresql+psycopg"),
            poolclass=NullPool,
            isolation_level="AUTOCOMMIT",
        )
        self._connection = self._engine.connect()
        #: how many others there were at most
        self.peak = 0

    def look(self) -> int:
        others = self._connection.scalar(OTHERS)
        assert others is not None
        self.peak = max(self.peak, others)
        return self.peak

    def close(self) -> None:
        self._connection.close()


def refusals(server: Any) -> int:
    """How often the server said that it has no more."""
    log: str = server.log_tail(lines=100_000)
    return len(re.findall("FATAL: .*(?:too many clients|slots are res)", log))


def run(
    server: Any, max_size: int, enough: Callable[[Watch], bool]
) -> tuple[list[Any], int]:
    """Have them work until it is enough, and a little longer.

    :return: what each process tells, and how many were connected at most.
    """
    url = server.url("postgresql+psycopg")
    with (
        closing(Watch(server)) as watch,
        Program(
            ["-m", budget_program.__name__, str(max_size)],
            URL=url.render_as_string(hide_password=False),
        ) as running,
    ):
        running.hear("all started")
        eventually(lambda: enough(watch), message="all they can open")
        running.tell("end")
        eventually(
            lambda: watch.look() and running.process.poll() is not None,
            message="they end",
        )
        ended = running.end()
    assert ended.status == 0, ended.stderr
    told = json.loads(ended.stdout.splitlines()[-1])
    assert len(told) == PROCESSES
    return told, watch.peak


def test_processes_that_keep_the_budget_are_never_refused(
    small_server: Any,
) -> None:
    each: int = PAGE.share(LIMIT, PROCESSES)
    assert each == 2
    told, peak = run(
        small_server, each, lambda watch: watch.look() >= PROCESSES * each
    )
    assert peak == PROCESSES * each < LIMIT
    for process in told:
        assert process["errors"] == []
        assert process["connections_errors"] == 0
        assert process["requests_num"] >= ENOUGH


def test_processes_that_want_more_are_served_with_what_there_is(
    small_server: Any,
) -> None:
    before = refusals(small_server)
    told, peak = run(
        small_server,
        budget_program.CALLERS,
        lambda watch: refusals(small_server) > before,
    )
    assert peak < LIMIT < PROCESSES * budget_program.CALLERS
    assert any(process["connections_errors"] for process in told)
    for process in told:
        assert process["errors"] == []
        assert process["requests_num"] >= ENOUGH


def test_too_many_processes_are_told_so() -> None:
    with pytest.raises(ValueError, match="5 .* too few for 3 processes"):
        PAGE.share(5, 3)
