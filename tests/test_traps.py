"""The known traps that no other file has a test for, each by its name."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
import gc
import logging
import os
import socket
import sqlite3
import threading
from typing import Any
from unittest import mock
import warnings
import weakref

import pytest
from sqlalchemy import create_engine
from sqlalchemy import event
from sqlalchemy import text
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import QueuePool

from sqla_smartpool import PoolTimeoutError
from sqla_smartpool import SmartPool
from sqla_smartpool.sockets import Line
from sqla_smartpool.sockets import line_of
from tests.lab.fake_connections import FakeWithHealth
from tests.lab.fake_connections import FakeWithSocket
from tests.lab.fake_dbapi import FakeDatabase
from tests.lab.manual import ManualRuntime
from tests.lab.waiting import eventually


@pytest.fixture
def tcp() -> Any:
    """Two ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        peer, _ = server.accept()
    with client, peer:
        yield client, peer


def sqlite_engine(tmp_path: Any, **arguments: Any) -> Any:
    return create_engine(
        f"sqlite:///{tmp_path}/traps.db", poolclass=SmartPool, **arguments
    )


def test_trap_1_listeners_added_after_the_pool_hear_of_the_first_connect(
    tmp_path: Any,
) -> None:
    engine = sqlite_engine(tmp_path, min_size=2)
    assert engine.pool.stats().connections_num == 0
    heard: list[object] = []
    event.listen(engine, "connect", lambda *arguments: heard.append(arguments))
    engine.pool.start()
    assert len(heard) == 2
    with engine.connect() as connection:
        # the dialect's own listener gives SQLite its regular expressions
        assert connection.scalar(text("SELECT 'abc' REGEXP 'b'")) == 1
    engine.pool.stop()


def test_trap_5_no_reconnect_by_the_wall_clock(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = sqlite_engine(tmp_path, pool_recycle=3600)
    engine.connect().close()
    import time

    real = time.time
    for shift in (7200, -7200):
        monkeypatch.setattr(time, "time", lambda: real() + shift)
        engine.connect().close()
    assert engine.pool.stats().connections_num == 1


def test_trap_5_a_soft_invalidated_connection_is_replaced_at_its_return(
    tmp_path: Any,
) -> None:
    engine = sqlite_engine(tmp_path)
    connection = engine.raw_connection()
    first = connection.driver_connection
    connection.invalidate(soft=True)
    connection.close()
    again = engine.raw_connection()
    assert again.driver_connection is not first
    again.close()


def test_trap_11_a_look_that_comes_very_late_makes_connections_suspect() -> (
    None
):
    runtime = ManualRuntime()
    pool = SmartPool(mock.Mock(), _runtime=runtime)  # type: ignore[arg-type]
    pool.connect().close()
    (record,) = pool.inventory.idle
    runtime.advance(4.0)
    assert record.suspect_at < record.proven_at
    runtime.now += 60  # as if the process had been stopped
    runtime.advance(1.0)
    assert record.suspect_at > record.proven_at


def test_trap_15_an_in_memory_sqlite_is_warned_of_once() -> None:
    with pytest.warns(UserWarning, match="in memory.*use a file"):
        engine = create_engine("sqlite://", poolclass=SmartPool)
        engine.connect().close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engine.connect().close()


def test_trap_15_a_file_is_not_warned_of_whatever_its_rows_look_like(
    tmp_path: Any,
) -> None:
    engine = sqlite_engine(tmp_path)

    @event.listens_for(engine, "connect")
    def rows_are_dicts(connection: Any, record: Any) -> None:
        connection.row_factory = lambda cursor, row: {"all": row}

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engine.raw_connection().close()
    assert engine.pool.stats().pool_size == 1


def test_trap_15_a_warning_made_an_error_leaves_no_connection_behind() -> None:
    engine: Any = create_engine("sqlite://", poolclass=SmartPool)
    closed: list[object] = []
    event.listen(engine, "close", lambda *arguments: closed.append(arguments))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning):
            engine.connect()
    assert len(closed) == 1
    # upkeep's look may be at the books, and notes it a moment later
    eventually(
        lambda: engine.pool.stats().pool_connecting == 0,
        message="the connect has ended",
    )


def test_trap_17_whatever_is_opened_and_closed_is_told(tmp_path: Any) -> None:
    engine = sqlite_engine(
        tmp_path, min_size=1, keep_alive=0.05, check_interval=0.02
    )
    open_now: set[Any] = set()
    event.listen(engine, "connect", lambda c, r: open_now.add(c))
    event.listen(engine, "close", lambda c, r: open_now.remove(c))
    engine.pool.start()
    held = [engine.connect() for _ in range(5)]
    for connection in held:
        connection.close()
    assert len(open_now) == 5

    def agreed_on_one() -> bool:
        # the event comes before a connection is closed, the count after it
        return len(open_now) == engine.pool.stats().pool_size == 1

    eventually(agreed_on_one, message="the surplus is closed")
    (survivor,) = open_now
    engine.pool.drain()
    eventually(agreed_on_one, message="the last one is replaced")
    assert open_now != {survivor}
    engine.pool.stop()
    assert not open_now


def test_trap_18_the_pools_log_is_where_people_switch_it_on(
    tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "sqlalchemy.pool")
    sqlite_engine(tmp_path).connect().close()
    names = {record.name for record in caplog.records}
    assert "sqlalchemy.pool.smart.SmartPool" in names


def test_trap_23_a_checkout_listener_may_have_the_connection_replaced(
    tmp_path: Any,
) -> None:
    engine = sqlite_engine(tmp_path, max_size=1)
    refused: list[object] = []

    @event.listens_for(engine, "checkout")
    def refuse_once(connection: Any, record: Any, proxy: Any) -> None:
        if not refused:
            refused.append(connection)
            raise DisconnectionError()

    with engine.connect() as connection:
        assert connection.connection.dbapi_connection is not refused[0]
    assert engine.pool.stats().pool_size == 1
    engine.connect().close()


def test_trap_26_a_descriptor_that_was_reused_is_not_taken_for_the_old_one(
    tcp: Any,
) -> None:
    client, peer = tcp
    line = Line(client.fileno())
    assert line.quiet() and not line.dead()
    with socket.create_server(("127.0.0.1", 0)) as server:
        other = socket.create_connection(server.getsockname())
        third, _ = server.accept()
    with other, third:
        # the driver closes its socket, and the number is given to another
        os.dup2(other.fileno(), client.fileno())
        assert line.dead() and not line.quiet()
        assert line.hold() is None
        line.sever()
        line.bound_by(60)
        third.send(b"still there")
        assert other.recv(20) == b"still there"


def test_trap_27_a_mock_has_no_socket() -> None:
    for pretender in (mock.Mock(), mock.MagicMock()):
        assert line_of(pretender) is None
        assert not pretender.mock_calls
    pretender = FakeDatabase(kind=FakeWithSocket).connect()
    assert line_of(pretender) is not None
    own, pretender._usock = pretender._usock, mock.Mock()
    assert line_of(pretender) is None
    pretender._usock = own
    pretender.close()


def test_trap_28_a_detached_connection_can_vanish() -> None:
    database = FakeDatabase()
    pool = SmartPool(database.connect)
    connection = pool.connect()
    database.connections.clear()
    gone = weakref.ref(connection.dbapi_connection)
    connection.detach()
    del connection
    gc.collect()
    assert gone() is None


def test_trap_28_the_line_leaves_the_drivers_descriptor_open(tcp: Any) -> None:
    client, peer = tcp
    line = Line(client.fileno())
    del line
    gc.collect()
    client.send(b"open")
    assert peer.recv(4) == b"open"


@pytest.mark.parametrize("default", [None, 5.0])
def test_trap_28_the_line_does_not_change_how_the_driver_blocks(
    tcp: Any, default: Any
) -> None:
    client, _ = tcp
    socket.setdefaulttimeout(default)
    try:
        line = Line(client.fileno())
        assert os.get_blocking(client.fileno())
        held = line.hold()
        assert held is not None
        held.release()
        assert os.get_blocking(client.fileno())
    finally:
        socket.setdefaulttimeout(None)


def test_trap_29_errors_carry_no_foreign_context() -> None:
    def creator() -> Any:
        raise ValueError("no")

    def errors() -> list[BaseException]:
        pool = SmartPool(creator, max_size=1, timeout=0)
        with pytest.raises(ValueError) as failed:
            pool.connect()
        pool = SmartPool(FakeDatabase().connect, max_size=1, timeout=0)
        held = pool.connect()
        with pytest.raises(PoolTimeoutError) as refused:
            pool.connect()
        held.close()
        return [failed.value, refused.value]

    # In a thread that has seen nothing yet: an exception that a trace function
    # raises in an "except" clause leaves Python 3.11 handling it for good, and
    # there are tests that do so at every line.
    with ThreadPoolExecutor(1) as fresh:
        for error in fresh.submit(errors).result():
            assert error.__context__ is None


def test_trap_32_closing_what_was_cut_is_not_logged_as_an_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    database = FakeDatabase(kind=FakeWithSocket)
    database.always("close", OSError("the network is unreachable"))
    pool = SmartPool(database.connect)
    connection = pool.connect()
    connection.close()
    database.connections[0].kill()
    again = pool.connect()
    assert pool.stats().connections_lost == 1
    again.close()
    assert not [r for r in caplog.records if r.levelno >= logging.ERROR]


def test_listeners_on_queuepool_itself_hear_of_a_smart_pool(
    tmp_path: Any,
) -> None:
    heard: list[object] = []

    def opened(*arguments: Any) -> None:
        heard.append(arguments)

    event.listen(QueuePool, "connect", opened)
    try:
        sqlite_engine(tmp_path).connect().close()
    finally:
        event.remove(QueuePool, "connect", opened)
    assert len(heard) == 1


def test_connections_bound_to_their_thread_are_left_to_it() -> None:
    # sqlite3 refuses other threads, unless it is told otherwise
    pool = SmartPool(
        lambda: sqlite3.connect(":memory:"),
        keep_alive=0.01,
        check_interval=0.01,
    )
    looks = 0
    look = pool.upkeep._decide

    def counted(now: float) -> Any:
        nonlocal looks
        looks += 1
        return look(now)

    pool.upkeep._decide = counted  # type: ignore[method-assign]
    pool.connect().close()
    eventually(lambda: looks > 20, message="twenty looks")
    connection = pool.connect()
    connection.cursor().execute("SELECT 1")
    connection.close()
    assert pool.stats().connections_num == 1
    pool.dispose()


def test_threads_are_for_work_only(tmp_path: Any) -> None:
    engine = sqlite_engine(tmp_path, min_size=3, max_size=5)
    engine.pool.start()
    workers = [
        thread
        for thread in threading.enumerate()
        if thread.name == "sqla_smartpool-worker"
    ]
    for worker in workers:
        worker.join(10)

    def timekeepers() -> int:
        names = [thread.name for thread in threading.enumerate()]
        return names.count("sqla_smartpool")

    # other tests' own timekeepers end a second after their last call
    eventually(lambda: timekeepers() == 1, message="one thread is left")
    engine.dispose()


def test_a_driver_that_knows_its_health_is_asked_without_a_round_trip() -> (
    None
):
    pool = SmartPool(FakeDatabase(kind=FakeWithHealth).connect)
    connection = pool.connect()
    first = connection.dbapi_connection
    connection.close()
    again = pool.connect()
    assert again.dbapi_connection is first
    again.close()
    first.kill()
    other = pool.connect()
    assert other.dbapi_connection is not first
    assert pool.stats().closed_unhealthy == 1
    assert pool.stats().checks_num == 0
    other.close()
