"""What one failure says of the other connections, and what silence says."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tests.conftest import Database
from tests.conftest import Side


def sessions_of(pool: Any) -> set[object]:
    return {record.dbapi_connection for record in pool.inventory.members}


def test_a_disconnect_in_a_query_has_the_others_pinged_before_their_use(
    postgresql_database: Database, side: Side
) -> None:
    engine = side.engine(
        postgresql_database, min_size=3, max_size=3, check_interval=300
    )
    pool: Any = engine.pool
    side.wait(pool.start())
    connection = engine.connect()
    mine = connection.scalar(text("SELECT pg_backend_pid()"))
    pings = pool.stats().checks_num
    postgresql_database.server.terminate([mine])
    with pytest.raises(DBAPIError) as failed:
        connection.execute(text("SELECT 1"))
    assert failed.value.connection_invalidated
    connection.close()
    for _ in range(3):
        with engine.connect() as again:
            assert again.scalar(text("SELECT 1")) == 1
    side.eventually(lambda: pool.stats().checks_num >= pings + 2, "pings")
    stats = pool.stats()
    # one dead connection costs one reconnect
    assert stats.closed_unhealthy + stats.connections_lost == 0
    assert stats.returns_bad == 1
    side.eventually(lambda: pool.stats().pool_size == 3, "the floor")
    assert pool.stats().connections_num == 4
    assert pool._invalidate_time == 0


def test_the_engine_may_forbid_to_suspect_the_others(
    postgresql_database: Database, side: Side
) -> None:
    engine = side.engine(
        postgresql_database, min_size=2, max_size=2, check_interval=300
    )
    pool: Any = engine.pool
    side.wait(pool.start())

    @event.listens_for(engine, "handle_error")
    def leave_the_others(context: Any) -> None:
        context.invalidate_pool_on_disconnect = False

    connection = engine.connect()
    mine = connection.scalar(text("SELECT pg_backend_pid()"))
    postgresql_database.server.terminate([mine])
    with pytest.raises(DBAPIError):
        connection.execute(text("SELECT 1"))
    connection.close()
    assert pool.stats().checks_num == 0
    for record in pool.inventory.members:
        assert record.suspect_at < record.proven_at


def test_a_server_that_is_silent_for_a_while_does_not_get_its_pool_emptied(
    postgresql_database: Database, side: Side
) -> None:
    engine = side.engine(
        postgresql_database,
        min_size=8,
        max_size=40,  # room for each connect that is tried meanwhile
        check_interval=0.1,
        ping_after=0.05,
        ping_timeout=0.3,
    )
    pool: Any = engine.pool
    side.wait(pool.start())
    before = sessions_of(pool)
    server = postgresql_database.server
    server.freeze()
    side.eventually(
        lambda: pool.chores.silence.total, "connects stall as well"
    )
    looks = pool.stats().connections_num
    side.eventually(
        lambda: pool.stats().connections_num >= looks + 2, "more looks"
    )
    # those under way when the second went unanswered were cut, and no more
    kept = before & sessions_of(pool)
    assert len(kept) >= len(before) - pool.settings.num_workers - 1
    server.thaw()
    side.eventually(lambda: not pool.chores.silence.total, "it has ended")
    side.eventually(lambda: pool.stats().pool_available >= 8, "the floor")
    assert kept <= sessions_of(pool)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1


def test_suspects_are_replaced_first_when_new_connects_succeed(
    postgresql_database: Database, side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = side.engine(
        postgresql_database,
        min_size=6,
        max_size=8,
        check_interval=0.1,
        ping_after=0.05,
        ping_timeout=0.2,
    )
    pool: Any = engine.pool
    side.wait(pool.start())
    before = sessions_of(pool)
    from sqla_smartpool.liveness import Answer
    from sqla_smartpool.liveness import Liveness

    ping = Liveness.ping

    def silent(self: Any, record: Any, seconds: float, idle: bool) -> Answer:
        if record.dbapi_connection in before:
            return Answer.SILENT
        return ping(self, record, seconds, idle)

    monkeypatch.setattr(Liveness, "ping", silent)
    side.eventually(lambda: not before & sessions_of(pool), "all are replaced")
    side.eventually(lambda: pool.stats().pool_available >= 6, "the floor")
    assert not pool.chores.silence.total
