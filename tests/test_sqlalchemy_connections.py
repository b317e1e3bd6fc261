"""What programs do with single connections goes on working while upkeep
pings in between."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy import text

from sqla_smartpool import PoolTimeoutError
from tests.conftest import Database
from tests.conftest import Side


def test_info_stays_with_the_connection_through_pings(
    database: Database, side: Side
) -> None:
    engine = side.pinging_engine(database, min_size=0, max_size=1)
    with engine.connect() as connection:
        connection.info["mine"] = 1
        connection.connection.record_info["also"] = 2  # type: ignore[index]
    for _ in range(3):
        side.pinged(engine)
        with engine.connect() as connection:
            assert connection.info == {"mine": 1}
    with engine.connect() as connection:
        connection.invalidate()
        assert "mine" not in connection.info
        assert connection.connection.record_info == {"also": 2}


def test_a_detached_connection_leaves_its_room_to_others(
    database: Database, side: Side
) -> None:
    engine = side.pinging_engine(
        database, min_size=0, max_size=1, pool_timeout=5
    )
    closed: list[object] = []
    event.listen(engine, "close_detached", closed.append)
    detached = [engine.connect() for _ in range(1)]
    detached[0].detach()
    for _ in range(2):  # beyond max_size
        detached.append(engine.connect())
        detached[-1].detach()
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
        assert database.sessions() in (None, 4)
    side.pinged(engine)
    for one in detached:
        assert one.scalar(text("SELECT 1")) == 1
        one.close()
    assert len(closed) == 3
    pool: Any = engine.pool
    assert pool.stats().pool_size == 1
    if database.server is not None:
        side.eventually(lambda: database.sessions() == 1, "the pool's own")


def test_a_softly_invalidated_connection_is_not_handed_out_again(
    database: Database, side: Side
) -> None:
    engine = side.pinging_engine(database, min_size=0, max_size=1)
    raw = engine.raw_connection()
    first = raw.dbapi_connection
    raw.invalidate(soft=True)
    cursor = raw.cursor()
    cursor.execute("SELECT 1")  # still usable, as it says
    assert tuple(cursor.fetchone()) == (1,)  # type: ignore[arg-type]
    cursor.close()
    raw.close()
    with engine.connect() as connection:
        assert connection.connection.dbapi_connection is not first
        assert connection.scalar(text("SELECT 1")) == 1


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_held_connection_is_notified_while_others_are_pinged(
    database: Database, side: Side
) -> None:
    engine = side.pinging_engine(database, isolation_level="AUTOCOMMIT")
    heard: list[str] = []

    def hear(*said: Any) -> None:
        heard.append(said[-1])

    with engine.connect() as listener:
        driver: Any = listener.connection.driver_connection
        if side.asynchronous:
            side.wait(driver.add_listener("news", hear))
        else:
            listener.exec_driver_sql("LISTEN news")
        for number in range(3):
            side.pinged(engine)
            with engine.connect() as speaker:
                speaker.exec_driver_sql(f"NOTIFY news, 'no. {number}'")
            if not side.asynchronous:
                for notice in driver.notifies(timeout=10, stop_after=1):
                    heard.append(notice.payload)
            side.eventually(lambda: len(heard) > number, "the notice")
        assert listener.scalar(text("SELECT 1")) == 1
        if side.asynchronous:
            side.wait(driver.remove_listener("news", hear))
    assert heard == ["no. 0", "no. 1", "no. 2"]


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
@pytest.mark.parametrize("side", ["threads"], indirect=True)
def test_a_notice_that_waits_to_be_read_is_not_taken_for_an_end(
    database: Database, side: Side
) -> None:
    engine = side.pinging_engine(database, min_size=0, max_size=1)
    with engine.connect() as listener:
        listener.exec_driver_sql("LISTEN news")
        listener.commit()
        first = listener.connection.dbapi_connection
    for number in range(3):
        database.server.execute("NOTIFY news, 'unread'")
        with engine.connect() as connection:
            assert connection.connection.dbapi_connection is first
            assert connection.scalar(text("SELECT 1")) == 1
    pool: Any = engine.pool
    assert pool.stats().connections_lost == 0


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_pings_leave_sessions_idle_and_not_in_a_transaction(
    database: Database, side: Side
) -> None:
    engine = side.pinging_engine(database, min_size=3)
    pool = side.start(engine)
    side.pinged(engine)
    side.wait(pool.pause())  # or a ping may just be under way
    side.eventually(lambda: pool.stats().pool_available == 3, "its end")
    states = database.server.execute(
        "SELECT state FROM pg_stat_activity WHERE usename = 'smart'"
    )
    assert states == [("idle",)] * 3
    side.wait(pool.resume())


def test_a_checkout_beyond_the_ceiling_fails_while_pings_go_on(
    database: Database, side: Side
) -> None:
    engine = side.pinging_engine(database, pool_timeout=0.2)
    taken = [engine.connect() for _ in range(4)]
    with pytest.raises(PoolTimeoutError):
        engine.connect()
    for connection in taken:
        connection.close()
    side.pinged(engine)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
