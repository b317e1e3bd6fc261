"""The events that the pool adds to SQLAlchemy's fire as they say."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy import event
from sqlalchemy import exc as sa_exc
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool
from sqlalchemy.pool import StaticPool

from sqla_smartpool import AsyncSmartPool
from sqla_smartpool import PoolTimeoutError
from sqla_smartpool import SmartPool
from tests.conftest import Database
from tests.conftest import Side

OWN = ["health_check", "retire", "connect_failed", "checkout_timeout"]


def use(engine: Engine) -> None:
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1


def test_own_events_take_once_insert_named_and_remove_as_well(
    database: Database, side: Side
) -> None:
    engine = side.pinging_engine(database, check_interval=300)
    pool = side.start(engine)
    heard: list[str] = []

    def last(*arguments: Any) -> None:
        heard.append("last")

    def first(**arguments: Any) -> None:
        assert arguments.keys() == {"dbapi_connection", "connection_record"}
        heard.append("first")

    event.listen(engine, "health_check", last)
    event.listen(engine, "health_check", first, insert=True, named=True)
    event.listen(
        engine, "health_check", lambda *_: heard.append("once"), once=True
    )
    side.wait(pool.resize(min_size=1, max_size=1))
    side.eventually(lambda: pool.stats().pool_size == 1, "a single one")
    side.wait(pool.check())
    assert heard == ["first", "last", "once"]
    event.remove(engine, "health_check", first)
    side.wait(pool.check())
    assert heard == ["first", "last", "once", "last"]


@pytest.mark.parametrize("target", [SmartPool, Engine, "own"])
def test_own_events_are_heard_of_through_classes(
    database: Database, side: Side, target: Any
) -> None:
    heard: list[str] = []

    def goes(connection: Any, record: Any, reason: str) -> None:
        heard.append(reason)

    engine = side.pinging_engine(database)
    target = side.pool_class if target == "own" else target
    event.listen(target, "retire", goes)
    try:
        side.wait(side.start(engine).stop())
    finally:  # or it outlives the test
        event.remove(target, "retire", goes)
    assert heard == ["close", "close"]


def test_health_check_takes_the_place_of_the_ping(
    database: Database, side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = side.pinging_engine(database)
    side.start(engine)
    side.pinged(engine)
    ping = engine.dialect.do_ping
    pings: list[object] = []
    checked: list[object] = []

    def do_ping(dbapi_connection: Any) -> bool:
        pings.append(dbapi_connection)
        return ping(dbapi_connection)

    monkeypatch.setattr(engine.dialect, "do_ping", do_ping)
    side.eventually(lambda: pings, "the dialect's")

    def check(dbapi_connection: Any, connection_record: Any) -> None:
        assert connection_record.dbapi_connection is dbapi_connection
        cursor = dbapi_connection.cursor()
        cursor.execute("SELECT 1")
        assert tuple(cursor.fetchone()) == (1,)
        cursor.close()
        checked.append(dbapi_connection)

    event.listen(engine, "health_check", check)
    side.pinged(engine)
    del pings[:], checked[:]
    side.pinged(engine)
    side.pinged(engine)
    assert not pings
    assert len(set(map(id, checked))) == 2
    use(engine)


def test_a_connection_in_use_is_due_for_its_health_check_as_well(
    database: Database, side: Side
) -> None:
    engine = side.pinging_engine(database, min_size=0, max_size=1)
    checks: list[object] = []
    event.listen(engine, "health_check", lambda *e: checks.append(e))
    pool: Any = engine.pool

    def use_and_see() -> bool:
        use(engine)  # bytes of the server are no proof of health now
        return len(checks) >= 5

    side.eventually(use_and_see, "checks of what is used all the time")
    assert pool.stats().checks_num >= 5


def test_an_unhealthy_connection_is_replaced(
    database: Database, side: Side
) -> None:
    engine = side.pinging_engine(database)
    pool = side.start(engine)
    demoted: set[object] = set()
    retired: list[tuple[object, str]] = []

    def check(dbapi_connection: Any, connection_record: Any) -> None:
        if dbapi_connection in demoted:
            raise LookupError("no longer a writer")

    def retire(dbapi_connection: Any, record: Any, reason: str) -> None:
        assert record.dbapi_connection is dbapi_connection
        retired.append((dbapi_connection, reason))

    event.listen(engine, "health_check", check)
    event.listen(engine, "retire", retire)
    with engine.connect() as one, engine.connect() as two:
        for connection in (one, two):
            demoted.add(connection.connection.dbapi_connection)
    side.eventually(lambda: len(retired) == 2, "both are retired")
    assert {connection for connection, _ in retired} == demoted
    assert {reason for _, reason in retired} == {"unhealthy"}
    side.eventually(lambda: pool.stats().pool_available == 2, "new ones")
    with engine.connect() as connection:
        assert connection.connection.dbapi_connection not in demoted
    assert pool.stats().checks_failed == pool.stats().closed_unhealthy == 2


RETIRED = ["idle", "lifetime", "drain", "resize", "close", "dispose"]


@pytest.mark.parametrize("why", RETIRED)
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "in-use"])
def test_retire_tells_why_before_the_connection_is_closed(
    database: Database, side: Side, why: str, busy: bool
) -> None:
    limits = {"idle": {"keep_alive": 0.2}, "lifetime": {"max_lifetime": 0.5}}
    engine = side.pinging_engine(database, min_size=0, **limits.get(why, {}))
    pool: Any = engine.pool
    reasons: list[str] = []
    closed: list[object] = []

    def retire(dbapi_connection: Any, record: Any, reason: str) -> None:
        assert dbapi_connection not in closed
        dbapi_connection.cursor().close()
        reasons.append(reason)

    event.listen(engine, "retire", retire)
    event.listen(engine, "close", lambda dbapi, record: closed.append(dbapi))
    connections = side.together(*[engine.connect] * 3)
    three = [one.connection.dbapi_connection for one in connections]

    def bring_back() -> None:
        for connection in connections:
            connection.close()

    if not busy:
        bring_back()
    if why == "drain":
        side.wait(pool.drain())
    elif why == "resize":
        side.wait(pool.resize(max_size=1))
    elif why == "close":
        side.wait(pool.stop(timeout=0.05))
    elif why == "dispose":
        engine.dispose()
    elif busy and why == "lifetime":
        side.eventually(lambda: pool.stats().connections_num > 3, "new ones")
    if busy:
        assert not closed
        bring_back()
    number = 2 if why == "resize" else 3
    side.eventually(
        lambda: len([one for one in three if one in closed]) == number,
        "they are closed",
    )
    reason = "close" if why == "dispose" else why
    assert reasons[:number] == [reason] * number


@pytest.mark.parametrize("database", ["postgresql", "mariadb"], indirect=True)
def test_connect_failed_counts_attempts_until_one_succeeds(
    database: Database, side: Side
) -> None:
    engine = side.pinging_engine(database)
    pool = side.start(engine)
    away = True
    failures: list[tuple[Any, ...]] = []

    def connect(*arguments: Any) -> None:
        if away:
            raise engine.dialect.dbapi.OperationalError(  # type: ignore
                "the database is away"
            )

    event.listen(engine, "do_connect", connect)
    event.listen(engine, "connect_failed", lambda *e: failures.append(e))
    database.server.terminate()
    side.eventually(lambda: len(failures) >= 3, "it is tried again")
    away = False
    side.eventually(lambda: pool.stats().pool_available == 2, "the floor")
    number = len(failures)
    # those side by side may be told in either order
    attempts = sorted(attempt for _, _, attempt, _ in failures)
    assert attempts == [*range(1, number + 1)]
    for fired_for, exception, _, retry_in in failures:
        assert fired_for is pool
        assert "the database is away" in str(exception)
        assert 0 <= retry_in <= 5
    assert pool.stats().connections_errors == number
    del failures[:]
    use(engine)
    side.pinged(engine)
    assert not failures


def test_checkout_timeout_fires_before_the_caller_hears_of_it(
    database: Database, side: Side
) -> None:
    engine = side.pinging_engine(database, max_size=2, max_waiting=0)
    pool = side.start(engine)
    heard: list[Any] = []
    event.listen(engine, "checkout_timeout", lambda *e: heard.append(e))
    use(engine)
    assert not heard
    taken = [engine.connect(), engine.connect()]
    with pytest.raises(PoolTimeoutError) as overloaded:
        engine.connect()
    pool._timeout = 0
    with pytest.raises(PoolTimeoutError) as timed_out:
        engine.connect()
    for connection in taken:
        connection.close()
    assert heard == [(pool, overloaded.value), (pool, timed_out.value)]
    side.pinged(engine)
    use(engine)
    assert len(heard) == 2


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("pool_class", [NullPool, StaticPool, None])
def test_own_events_on_an_engine_with_another_pool_get_a_clear_error(
    sqlite_database: Database, side: Side, pool_class: Any, name: str
) -> None:
    url = sqlite_database.url(side.asynchronous)
    engine = side.create_engine(url, poolclass=pool_class)
    for target in (engine, engine.pool, type(engine.pool)):
        with pytest.raises(
            sa_exc.InvalidRequestError,
            match=f"{name}.*SmartPool.*{type(engine.pool).__name__}"
            ".*poolclass=SmartPool",
        ):
            event.listen(target, name, lambda *_: None)
    heard: list[object] = []
    event.listen(engine, "checkout", lambda *e: heard.append(e))
    use(engine)
    assert len(heard) == 1


def test_listening_on_the_asynchronous_engine_itself_names_the_remedy(
    sqlite_database: Database,
) -> None:
    engine = create_async_engine(
        sqlite_database.url(asynchronous=True), poolclass=AsyncSmartPool
    )
    for name in ("checkout", "retire"):
        with pytest.raises(NotImplementedError, match="sync_engine"):
            event.listen(engine, name, lambda *_: None)
