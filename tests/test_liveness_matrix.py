"""With every driver: nobody is handed a dead connection, and nobody waits for
a server that does not answer longer than was agreed."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy import exc

from sqla_smartpool import record as record_module
from sqla_smartpool import sockets
from tests.lab import matrix
from tests.lab.matrix import BUSY
from tests.lab.matrix import Client
from tests.lab.matrix import QUIET

side = matrix.side

#: a bound may be missed by this factor on a slow machine
MARGIN = 5.0
FROZEN: dict[str, Any] = {
    "min_size": 2,
    "max_size": 3,
    "ping_timeout": 0.5,
    "pool_timeout": 2.0,
}

needs_user_timeout = pytest.mark.skipif(
    not hasattr(socket, "TCP_USER_TIMEOUT"),
    reason="only Linux has TCP_USER_TIMEOUT",
)


def records(engine: Engine) -> list[Any]:
    pool: Any = engine.pool
    return list(pool.inventory.members)


@pytest.fixture
def no_driver_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if nobody had told how to reach the driver's sockets."""
    monkeypatch.setattr(sockets, "_DESCRIPTORS", {})
    monkeypatch.setattr(sockets, "_TRANSPORTS", {})


# Heard from


@matrix.on(matrix.TCP)
def test_the_servers_last_bytes_are_never_taken_for_younger_than_they_are(
    side: Client,
) -> None:
    engine = side.started(min_size=1, max_size=1, **QUIET)
    (record,) = records(engine)
    clock = record.pool.runtime.clock
    for number in range(20):
        with engine.connect() as connection:
            connection.execute(matrix.ONE)
        answered = clock()
        # not in step with the kernel's ticks
        time.sleep(0.001 * (1 + number % 7))
        record.heard_from(clock())
        assert record.proven_at <= answered


# Killed by the server


@matrix.on(matrix.NETWORKED)
def test_a_peek_reaches_the_socket_and_sees_that_it_was_closed(
    side: Client,
) -> None:
    engine = side.started(min_size=2, max_size=4, **QUIET)
    for record in records(engine):
        assert record.line is not None
        assert record.peek() and not record.is_dead()
    dead = records(engine)
    side.server.terminate()
    # an async driver may hear of it first, and close the socket
    assert not any(record.peek() for record in dead)
    side.use(engine, 2)
    stats = engine.pool.stats()
    assert stats.requests_errors == 0
    if side.case.way != "unix":
        # there the kernel tells only of bytes, which may be a mere notice
        assert stats.checks_num == 0


@matrix.on(matrix.IN_PROCESS)
def test_a_database_in_this_process_has_nothing_to_peek_at(
    side: Client,
) -> None:
    engine = side.started(min_size=2, max_size=2, **QUIET)
    for record in records(engine):
        assert record.line is None and record.peek is None
        assert not record.is_dead()
    side.use(engine, 2)
    assert engine.pool.stats().checks_num == 0


@matrix.on(matrix.TCP)
def test_an_unknown_driver_is_pinged_at_checkout(
    side: Client, no_driver_is_known: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_module, "_BLIND_TRUST", 3600.0)
    engine = side.started(min_size=3, max_size=5, **QUIET)
    assert all(record.line is None for record in records(engine))
    # just opened: trusted, as there is no cheaper way than a ping
    side.use(engine, 3)
    assert engine.pool.stats().checks_num == 0
    monkeypatch.setattr(record_module, "_BLIND_TRUST", 0.0)
    side.server.terminate()
    side.use(engine, 3)
    stats = engine.pool.stats()
    assert stats.checks_failed >= 1
    assert (stats.requests_errors, stats.returns_bad) == (0, 0)
    side.use(engine, 3)
    assert engine.pool.stats().checks_num > stats.checks_num


# Frozen


def is_whole_again(side: Client, engine: Engine) -> None:
    """After an outage: the floor stands, in the pool and at the server."""
    pool: Any = engine.pool

    def at_rest() -> bool:
        stats = pool.stats()
        return (
            stats.pool_available == stats.pool_size >= pool.settings.min_size
            and not stats.pool_connecting
        )

    side.eventually(at_rest, "the floor in the pool")
    side.use(engine, FROZEN["max_size"])
    side.eventually(
        lambda: len(side.sessions()) == pool.stats().pool_size,
        "the server has no session that the pool does not know",
    )


def checkout_of_a_frozen_server(side: Client, engine: Engine) -> None:
    began = time.monotonic()
    try:
        engine.connect().close()
    except (exc.TimeoutError, exc.DBAPIError):
        pass
    assert time.monotonic() - began < FROZEN["pool_timeout"] * MARGIN


@matrix.on(matrix.NETWORKED)
def test_a_checkout_from_a_frozen_server_ends(side: Client) -> None:
    engine = side.started(pool_pre_ping=True, **FROZEN, **QUIET)
    side.use(engine, 2)
    side.server.freeze()
    checkout_of_a_frozen_server(side, engine)
    assert engine.pool.stats().checks_failed >= 1
    side.server.thaw()
    is_whole_again(side, engine)


@matrix.on(matrix.NETWORKED)
def test_a_background_ping_of_a_frozen_server_ends(side: Client) -> None:
    engine = side.started(**FROZEN, **BUSY)
    side.pinged(engine)
    began = time.monotonic()
    side.server.freeze()
    side.eventually(
        lambda: engine.pool.stats().checks_failed, "a ping has failed"
    )
    assert time.monotonic() - began < FROZEN["ping_timeout"] * MARGIN
    side.server.thaw()
    is_whole_again(side, engine)


@matrix.on(matrix.TCP)
def test_a_checkout_ends_even_if_nothing_can_wake_the_driver(
    side: Client, no_driver_is_known: None
) -> None:
    engine = side.started(pool_pre_ping=True, **FROZEN, **QUIET)
    side.use(engine, 2)
    side.server.freeze()
    checkout_of_a_frozen_server(side, engine)
    assert engine.pool.stats().checks_failed >= 1
    side.server.thaw()
    is_whole_again(side, engine)


@matrix.on(matrix.NETWORKED)
def test_a_frozen_server_keeps_nobody_from_stopping(side: Client) -> None:
    engine = side.started(**FROZEN, **QUIET)
    pool: Any = engine.pool
    side.server.freeze()
    began = time.monotonic()
    side.wait(pool.stop(timeout=2.0))
    assert time.monotonic() - began < 2.0 * MARGIN
    assert pool.stats().pool_size == 0
    side.server.thaw()
    side.eventually(side.has(0), "the server has seen them go")


# network_timeout


def option(record: Any, level: int, name: str) -> int:
    """What the kernel has for this connection's socket."""
    held = record.line.hold()
    try:
        number: int = held._socket.getsockopt(level, getattr(socket, name))
    finally:
        held.release()
    return number


def tcp(record: Any, name: str) -> int:
    return option(record, socket.IPPROTO_TCP, name)


@needs_user_timeout
@matrix.on([*matrix.TCP, *matrix.TLS])
def test_network_timeout_bounds_how_long_a_lost_peer_goes_unnoticed(
    side: Client,
) -> None:
    engine = side.started(min_size=2, network_timeout=20, **QUIET)
    for record in records(engine):
        assert option(record, socket.SOL_SOCKET, "SO_KEEPALIVE") == 1
        assert tcp(record, "TCP_USER_TIMEOUT") == 20_000
        probing = tcp(record, "TCP_KEEPINTVL") * tcp(record, "TCP_KEEPCNT")
        assert tcp(record, "TCP_KEEPIDLE") + probing == 20


@needs_user_timeout
@matrix.on([*matrix.TCP, *matrix.TLS])
def test_without_network_timeout_sockets_are_left_alone(side: Client) -> None:
    engine = side.started(min_size=1, network_timeout=None, **QUIET)
    (record,) = records(engine)
    with socket.socket() as fresh:
        for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT"):
            default = fresh.getsockopt(
                socket.IPPROTO_TCP, getattr(socket, name)
            )
            assert tcp(record, name) == default
    assert tcp(record, "TCP_USER_TIMEOUT") == 0


@needs_user_timeout
@matrix.on([case for case in matrix.TCP if "psycopg" in case.drivername])
def test_what_the_driver_has_set_on_its_socket_stays(side: Client) -> None:
    url = side.url(keepalives_idle="77")
    engine = side.started(url, min_size=1, network_timeout=20, **QUIET)
    (record,) = records(engine)
    assert tcp(record, "TCP_KEEPIDLE") == 77
    assert tcp(record, "TCP_USER_TIMEOUT") == 20_000


@matrix.on(matrix.UNIX)
def test_network_timeout_leaves_unix_sockets_alone(side: Client) -> None:
    seen = []
    for network_timeout in (20, None):
        engine = side.started(
            min_size=1, network_timeout=network_timeout, **QUIET
        )
        (record,) = records(engine)
        seen.append(option(record, socket.SOL_SOCKET, "SO_KEEPALIVE"))
        side.use(engine, 1)
    assert seen[0] == seen[1]
