"""Who is taken for a caller who waits, in a pool of SQLAlchemy's own."""

from __future__ import annotations

import threading
import time
from typing import Any
from typing import Optional

import pytest
from sqlalchemy import event
from sqlalchemy.exc import TimeoutError as SATimeoutError

from sqla_smartpool import Cause
from tests.conftest import Database
from tests.conftest import Side
from tests.integrations.load import beside
from tests.test_explanations import hold_here
from tests.test_explanations import lines
from tests.test_explanations import made
from tests.test_explanations import pause


def test_who_opens_the_last_connection_does_not_wait(
    sqlite_database: Database, side: Side, caplog: pytest.LogCaptureFixture
) -> None:
    engine, observer = made("stock", side, sqlite_database)
    held = hold_here(engine, 1)
    looks: list[int] = []

    @event.listens_for(engine, "do_connect")
    def look(*_: Any) -> None:
        pause(side, 0.5)  # the observer looks by itself, too
        looks.append(observer.stats().requests_waiting)

    held += hold_here(engine, 1)
    assert looks == [0]
    for connection in held:
        connection.close()
    assert observer.stats().wait_time.count == 0
    assert not lines(caplog, engine, "waits")


def test_a_wait_ends_when_the_caller_is_served(
    sqlite_database: Database, side: Side
) -> None:
    """Not when the observer looks again; and it is no later checkout's."""
    engine, observer = made("stock", side, sqlite_database, pool_timeout=30)
    held = hold_here(engine, 2)
    waits: list[Optional[float]] = []

    def ask() -> None:
        for _ in range(3):
            with engine.connect() as connection:
                entry = connection.connection._connection_record
                waits.append(observer.waited(entry))

    began = time.monotonic()
    asked = beside(side, ask)
    side.eventually(lambda: observer.stats().requests_waiting == 1)
    pause(side, 0.5)
    held.pop().close()
    asked()
    took = time.monotonic() - began
    assert waits[0] is not None and 0.5 <= waits[0] <= took
    assert waits[1:] == [None, None]
    held.pop().close()
    assert observer.stats().wait_time.count == 1


def test_a_look_between_a_return_and_its_taking_up_costs_no_wait(
    sqlite_database: Database, side: Side
) -> None:
    engine, observer = made("stock", side, sqlite_database)
    held = hold_here(engine, 2)
    waits: list[Optional[float]] = []

    @event.listens_for(engine, "checkout", insert=True)
    def look(*_: Any) -> None:
        observer.stats()

    def ask() -> None:
        with engine.connect() as connection:
            entry = connection.connection._connection_record
            waits.append(observer.waited(entry))

    asked = beside(side, ask)
    side.eventually(lambda: observer.stats().requests_waiting == 1)
    held.pop().close()
    asked()
    held.pop().close()
    assert waits[0] is not None
    assert observer.stats().wait_time.count == 1


def test_a_holder_who_asks_is_in_a_deadlock_only_if_he_waited(
    sqlite_database: Database, side: Side
) -> None:
    engine, observer = made("stock", side, sqlite_database, pool_timeout=0.1)
    held = hold_here(engine, 2)
    assert observer.diagnosis().cause is not Cause.SELF_DEADLOCK
    pause(side, 1.1)  # a diagnosis is good for a second
    try:
        engine.connect()
    except SATimeoutError:
        assert observer.diagnosis().cause is Cause.SELF_DEADLOCK
    for connection in held:
        connection.close()


def test_whoever_asks_from_elsewhere_sees_the_same(
    sqlite_database: Database, side: Side
) -> None:
    """A thread that serves metrics is on no event loop."""
    engine, observer = made("stock", side, sqlite_database, pool_timeout=30)
    held = hold_here(engine, 2)
    asked = beside(side, lambda: engine.connect().close())
    side.eventually(lambda: observer.stats().requests_waiting == 1)
    found: list[Any] = []

    def ask() -> None:
        for _ in range(2):
            found.append(observer.diagnosis().cause)
            found.append(observer.stats().requests_waiting)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert found == [Cause.BACKLOG, 1] * 2
    for connection in held:
        connection.close()
    asked()
