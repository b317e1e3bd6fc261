"""From the first connect to the last close: who is opened, reused, asked,
replaced and closed, and when."""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest
from sqlalchemy import event

from tests.lab import matrix
from tests.lab.matrix import BUSY
from tests.lab.matrix import Client
from tests.lab.matrix import Diary
from tests.lab.matrix import Passes
from tests.lab.matrix import QUIET

side = matrix.side


# Reuse


@matrix.on(matrix.BOTH)
@pytest.mark.parametrize("lifo", [True, False])
def test_idle_ones_are_reused_newest_or_oldest_first(
    side: Client, lifo: bool
) -> None:
    engine = side.smart(pool_use_lifo=lifo, max_size=3, **QUIET)
    held = side.hold(engine, 3)
    order = [side.session(connection) for connection in held]
    for connection in held:
        connection.close()
    expected = order[::-1] if lifo else order
    again = side.hold(engine, 3)
    assert [side.session(connection) for connection in again] == expected
    for connection in again:
        connection.close()
    stats = engine.pool.stats()
    assert stats.connections_num == 3


@matrix.on(matrix.TCP)
def test_pre_ping_asks_at_each_checkout_but_not_when_just_opened(
    side: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = side.smart(pool_pre_ping=True, max_size=1, **QUIET)
    pings = []
    ping = engine.dialect.do_ping

    def counted(connection: Any) -> bool:
        pings.append(connection)
        return ping(connection)

    monkeypatch.setattr(engine.dialect, "do_ping", counted)
    for expected in range(4):
        side.use(engine, 1)
        assert len(pings) == expected
        assert engine.pool.stats().checks_num == expected


@matrix.on(matrix.TCP)
def test_without_pre_ping_a_busy_connection_is_never_asked(
    side: Client,
) -> None:
    engine = side.started(min_size=1, **QUIET)
    for _ in range(20):
        side.use(engine, 1)
    assert engine.pool.stats().checks_num == 0


# keep_alive


@matrix.on(matrix.BOTH)
def test_surplus_is_closed_after_keep_alive_and_the_floor_is_not(
    side: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = Passes(monkeypatch)
    engine = side.started(min_size=2, max_size=5, keep_alive=0.3, **BUSY)
    diary = Diary(engine)
    began = time.monotonic()
    side.use(engine, 5)
    side.eventually(side.has(2), "the floor is left")
    assert time.monotonic() - began >= 0.3
    passes.let(side, 20)
    assert engine.pool.stats().closed_idle == 3
    assert sorted(diary.entries) == sorted(["opened", "idle", "closed"] * 3)
    assert side.has(2)()


@matrix.on(matrix.BOTH)
def test_what_is_used_is_not_surplus_and_pings_are_no_use(
    side: Client,
) -> None:
    engine = side.smart(
        max_size=3, keep_alive=1.0, check_interval=0.05, ping_after=0.2
    )
    side.use(engine, 2)

    def one_is_left() -> bool:
        side.use(engine, 1)
        return engine.pool.stats().closed_idle == 1

    side.eventually(one_is_left, "the other one is closed")
    side.eventually(side.has(1), "one is left")
    stats = engine.pool.stats()
    assert (stats.closed_idle, stats.connections_num) == (1, 2)
    assert stats.checks_num


# max_lifetime


@matrix.on(matrix.BOTH)
def test_the_replacement_is_open_before_the_old_one_is_closed(
    side: Client,
) -> None:
    engine = side.smart(min_size=1, max_size=2, max_lifetime=0.5, **BUSY)
    diary = Diary(engine)
    pool: Any = engine.pool
    side.wait(pool.start())
    before = side.sessions()
    side.eventually(
        lambda: pool.stats().closed_lifetime >= 3, "three replacements"
    )
    assert diary.entries[:1] == ["opened"]
    assert diary.entries[1:10] == ["opened", "lifetime", "closed"] * 3
    side.eventually(side.has(1), "one is open")
    assert not before & side.sessions()


@pytest.mark.pain("closed in use")
@matrix.on(matrix.BOTH)
def test_one_in_use_is_replaced_when_it_comes_home(side: Client) -> None:
    engine = side.started(min_size=1, max_size=2, max_lifetime=0.5, **BUSY)
    diary = Diary(engine)
    (held,) = side.hold(engine, 1)
    mine = side.session(held)
    side.eventually(lambda: diary.entries, "its successor is there")
    assert diary.entries[0] == "opened"
    assert side.session(held) == mine  # its user keeps it
    held.close()
    side.eventually(lambda: mine not in side.sessions(), "it is closed")
    assert "lifetime" in diary.entries
    with engine.connect() as connection:
        assert side.session(connection) != mine


@pytest.mark.pain("no lifetime under load")
@matrix.on(matrix.BOTH)
def test_no_connection_handed_out_has_reached_max_lifetime(
    side: Client,
) -> None:
    lifetime = 0.3
    engine = side.started(
        min_size=2, max_size=4, max_lifetime=lifetime, **BUSY
    )
    ages = []

    @event.listens_for(engine, "checkout")
    def checkout(connection: Any, record: Any, fairy: Any) -> None:
        ages.append(record.taken_at - record.born)

    def replaced() -> bool:
        for _ in range(50):
            side.use(engine, 2)
        return bool(engine.pool.stats().closed_lifetime >= 6)

    side.eventually(replaced, "six have grown old")
    assert max(ages) < lifetime
    assert engine.pool.stats().requests_errors == 0


@matrix.on(matrix.BOTH)
def test_those_that_grow_old_together_do_not_go_together(side: Client) -> None:
    number, workers = 10, 2
    engine = side.started(
        min_size=number,
        max_size=number,
        num_workers=workers,
        **{**BUSY, "ping_after": 30.0},
    )
    pool: Any = engine.pool
    old = list(pool.inventory.members)
    held = side.hold(engine, number)
    there: set[Any] = {record.dbapi_connection for record in old}
    fewest = [number]

    @event.listens_for(engine, "connect")
    def connect(connection: Any, record: Any) -> None:
        there.add(connection)

    @event.listens_for(engine, "close")
    def close(connection: Any, record: Any) -> None:
        there.remove(connection)
        fewest.append(len(there))

    for record in old:
        record.early = 20.0  # now
    side.eventually(
        lambda: all(record.going == "lifetime" for record in old),
        "upkeep finds that they are old",
    )
    for connection in held:
        connection.close()
    side.eventually(
        lambda: pool.stats().closed_lifetime == number
        and len(there) == number,
        "all are replaced",
    )
    # so many as they come home, and so many by upkeep
    assert min(fewest) >= number - 2 * workers


@pytest.mark.pain("jitter redrawn")
@matrix.on(matrix.BOTH)
def test_jitter_is_drawn_once_at_birth(
    side: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = Passes(monkeypatch)
    engine = side.smart(min_size=4, max_size=6, max_lifetime=100.0, **BUSY)
    pool: Any = engine.pool
    drawn = itertools.count()
    luck = [0.0, 0.25, 0.5, 0.75]
    # of the class, as an async pool makes itself another for its loop
    monkeypatch.setattr(
        type(pool.runtime), "chance", lambda *_: luck[next(drawn)]
    )
    side.wait(pool.start())
    passes.let(side, 20)
    retired_at = sorted(
        record.retire_at - record.born for record in pool.inventory.members
    )
    assert retired_at == pytest.approx([92.25, 94.5, 96.75, 99.0])
    assert next(drawn) == 4
