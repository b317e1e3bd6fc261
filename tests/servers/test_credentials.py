"""A password that changes while the pools of the page run."""

from __future__ import annotations

from functools import partial
import logging
import secrets
import threading
import time
from typing import Any
from typing import Iterator

import pytest
from sqlalchemy import event
from sqlalchemy import text

from tests.lab.lanes import Lane
from tests.lab.lanes import Lanes
from tests.lab.matrix import BOTH
from tests.lab.postgresql import PostgreSQL
from tests.lab.programs import program

pytestmark = pytest.mark.slow

PAGE = program("servers/examples/credentials.py")
MAX_LIFETIME = 1.0
CALLERS = 4


class Vault:
    """Knows the password of a user of the server's, and changes it.

    Not while somebody is logging in with the old one: the server knows one
    at a time only.
    """

    user = "rotating"

    def __init__(self, server: PostgreSQL) -> None:
        self._server = server
        self._changes = threading.Condition()
        self._logging_in = 0
        #: all there were
        self.passwords: list[str] = []
        self.at = 0.0
        server.execute(f"CREATE ROLE {self.user} LOGIN")
        self.rotate()

    def token(self) -> str:
        with self._changes:
            self._logging_in += 1
            return self.passwords[-1]

    def logged_in(self, *of_the_event: Any) -> None:
        with self._changes:
            self._logging_in -= 1
            self._changes.notify_all()

    def rotate(self) -> None:
        password = secrets.token_hex(16)
        with self._changes:
            assert self._changes.wait_for(lambda: not self._logging_in, 30.0)
            self._server.execute(
                f"ALTER ROLE {self.user} PASSWORD '{password}'"
            )
            self.passwords.append(password)
            self.at = time.monotonic()

    def close(self) -> None:
        self._server.execute(f"DROP ROLE {self.user}")


@pytest.fixture
def vault(postgresql: PostgreSQL) -> Iterator[Vault]:
    vault = Vault(postgresql)
    yield vault
    vault.close()


def body(vault: Vault, rotated: threading.Event, lane: Lane) -> None:
    url = lane.url().set(username=vault.user, password=None)
    made = PAGE.loop_engine if lane.asynchronous else PAGE.threads_engine
    engine = made(url, vault.token, MAX_LIFETIME)
    engine = engine.sync_engine if lane.asynchronous else engine
    pool: Any = engine.pool
    event.listen(engine, "connect", vault.logged_in)
    given: list[str] = []

    @event.listens_for(engine, "do_connect")
    def see(dialect: Any, record: Any, args: Any, params: Any) -> None:
        given.append(params["password"])

    lane.wait(pool.start())
    lane.ready()

    def all_are_new() -> bool:
        born = [record.born for record in pool.inventory.members.copy()]
        return rotated.is_set() and min(born, default=0.0) > vault.at

    requests = lane.load(engine, CALLERS, all_are_new, pause=0.02)
    assert [each.error for each in requests if each.error] == []
    lane.wait(pool.stop())  # or one might be under way
    stats = pool.stats()
    assert stats.connections_errors == stats.requests_errors == 0
    # each was given the one that was valid then
    assert len(given) == stats.connections_num
    assert given == sorted(given, key=vault.passwords.index)
    assert set(given) == set(vault.passwords)
    engine.dispose()


def test_a_password_that_changes_costs_nobody_an_error_and_is_not_logged(
    lanes: Lanes, vault: Vault, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "sqla_smartpool")
    caplog.set_level(logging.DEBUG, "sqlalchemy")
    rotated = threading.Event()
    for case in BOTH:
        lanes.enter(case, partial(body, vault, rotated))
    lanes.all_ready()
    vault.rotate()
    rotated.set()
    lanes.end()
    assert "opened" in caplog.text
    for password in vault.passwords:
        assert password not in caplog.text


@pytest.mark.parametrize("reconnect_timeout", [0, 30])
def test_a_token_that_cannot_be_had_is_a_connect_that_failed(
    postgresql: PostgreSQL, reconnect_timeout: float
) -> None:
    is_open = threading.Event()
    refused: list[float] = []

    def token() -> str:
        if is_open.is_set():
            return postgresql.password
        refused.append(time.monotonic())
        if reconnect_timeout and len(refused) >= 3:
            is_open.set()
        raise RuntimeError("sealed")

    engine = PAGE.threads_engine(
        postgresql.url("postgresql+psycopg").set(password=None),
        token,
        MAX_LIFETIME,
        reconnect_timeout=reconnect_timeout,
    )
    if not reconnect_timeout:
        with pytest.raises(RuntimeError, match="sealed"):
            engine.connect()
        is_open.set()
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
    assert engine.pool.stats().connections_errors == len(refused) > 0
    engine.dispose()
