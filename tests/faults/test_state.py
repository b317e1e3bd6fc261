"""What a caller has changed in a session reaches the next one only as far as
SQLAlchemy's reset lets it, and what the pool does to it in between reaches
nobody."""

from __future__ import annotations

from itertools import product
from typing import Any
from typing import Iterator

import pytest
from sqlalchemy import Engine
from sqlalchemy import event
from sqlalchemy import text
from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.pool import QueuePool

from tests.lab import matrix
from tests.lab.matrix import BUSY
from tests.lab.matrix import Client
from tests.lab.matrix import QUIET

side = matrix.side

#: what a session is like, for those who come to it
LOOK = {
    "PostgreSQL": """
        SELECT current_setting('search_path'), current_user,
               current_setting('transaction_isolation'),
               current_setting('transaction_read_only'),
               current_setting('lock_timeout'),
               (SELECT count(*) FROM public.state)
        """,
    "MariaDB": """
        SELECT @@autocommit, @@session.tx_isolation, @@session.tx_read_only,
               @@in_transaction, @@session.sql_mode,
               (SELECT count(*) FROM state)
        """,
}
#: the states of sessions that are anything but idle
AT_WORK = {
    "PostgreSQL": "SELECT pid, state, query FROM pg_stat_activity"
    " WHERE usename = 'smart' AND state <> 'idle'",
    "MariaDB": "SELECT * FROM information_schema.innodb_trx",
}
#: what a caller does to it in a transaction, and leaves as it is
CHANGES = {
    "PostgreSQL": [
        "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "INSERT INTO state VALUES (1)",
        "SET search_path TO elsewhere",
        "SET ROLE another",
        "SET lock_timeout TO '3s'",
    ],
    "MariaDB": [
        "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        "INSERT INTO state VALUES (1)",
    ],
}
#: what outlives a rollback, as each of them is a transaction of its own or
#: none at all
LASTING = {
    "PostgreSQL": "SET search_path TO elsewhere",
    "MariaDB": "SET SESSION sql_mode = ''",
}
RESET = {
    "PostgreSQL": "RESET ALL",
    "MariaDB": "SET SESSION sql_mode = DEFAULT",
}


@pytest.fixture(autouse=True)
def state(side: Client) -> Iterator[None]:
    """A table to write to, and a role to take on."""
    name = side.server.name
    side.server.execute("CREATE TABLE state (a int)")
    if name == "PostgreSQL":
        side.server.execute("GRANT ALL ON state TO smart")
        side.server.execute("CREATE ROLE another")
        side.server.execute("GRANT another TO smart")
    yield
    side.server.terminate()
    side.server.execute("DROP TABLE state")
    if name == "PostgreSQL":
        side.server.execute("DROP ROLE another")


def look(side: Client, engine: Engine) -> tuple[Any, ...]:
    """Be the next caller, and look around."""
    with engine.connect() as connection:
        return tuple(connection.execute(text(LOOK[side.server.name])).one())


def nothing(side: Client, engine: Engine) -> None:
    """What happens between two callers: nothing."""


def pings(side: Client, engine: Engine) -> None:
    """What happens between two callers: pings."""
    pool: Any = engine.pool
    for _ in range(2):
        assert side.wait(pool.check()) == (1, 0)


@matrix.on(matrix.TCP)
def test_what_a_transaction_has_changed_does_not_reach_the_next_caller(
    side: Client,
) -> None:
    engine = side.started(min_size=1, max_size=1, **QUIET)
    before = look(side, engine)
    for between in (nothing, pings):
        # not by a Connection, which rolls back by itself
        connection = engine.raw_connection()
        cursor = connection.cursor()
        for change in CHANGES[side.server.name]:
            cursor.execute(change)
        cursor.close()
        connection.close()
        between(side, engine)
        assert look(side, engine) == before
    assert engine.pool.stats().connections_num == 1


@matrix.on(matrix.TCP)
def test_an_isolation_level_of_one_caller_does_not_reach_the_next(
    side: Client,
) -> None:
    engine = side.started(min_size=1, max_size=1, **QUIET)
    before = look(side, engine)
    cases = product(("SERIALIZABLE", "AUTOCOMMIT"), (nothing, pings))
    for level, between in cases:
        with engine.connect() as connection:
            connection.execution_options(isolation_level=level)
            connection.execute(text("SELECT * FROM state"))
        between(side, engine)
        assert look(side, engine) == before
    assert engine.pool.stats().connections_num == 1


@matrix.on(matrix.TCP)
def test_what_outlives_a_rollback_is_kept_as_by_queuepool(
    side: Client,
) -> None:
    stock = AsyncAdaptedQueuePool if side.asynchronous else QueuePool
    seen = []
    for poolclass in (side.pool_class, stock):
        side.pool_class = poolclass  # type: ignore[assignment]
        engine = side.smart(pool_size=1, max_overflow=0)
        before = look(side, engine)
        with engine.connect() as connection:
            connection.exec_driver_sql(LASTING[side.server.name])
            connection.commit()
        seen.append(look(side, engine))
        assert seen[-1] != before
        engine.dispose()
    assert seen[0] == seen[1]


@matrix.on(matrix.TCP)
def test_a_reset_of_the_programs_own_reaches_what_outlives_a_rollback(
    side: Client,
) -> None:
    engine = side.started(min_size=1, max_size=1, **QUIET)
    before = look(side, engine)

    @event.listens_for(engine, "reset")
    def reset(connection: Any, record: Any, state: Any) -> None:
        if not state.terminate_only:
            cursor = connection.cursor()
            cursor.execute(RESET[side.server.name])
            cursor.close()
            connection.commit()

    for between in (nothing, pings):
        with engine.connect() as connection:
            connection.exec_driver_sql(LASTING[side.server.name])
            connection.commit()
        between(side, engine)
        assert look(side, engine) == before


@pytest.mark.pain("check that leaves a trace")
@matrix.on(matrix.TCP)
def test_pings_leave_sessions_idle_and_as_they_were(side: Client) -> None:
    engine = side.started(min_size=2, max_size=2, **BUSY)
    pool: Any = engine.pool
    before = look(side, engine)
    for _ in range(2):
        side.pinged(engine)
    side.wait(pool.pause())  # or one may just be under way
    side.eventually(lambda: pool.stats().pool_available == 2, "its end")
    side.eventually(  # MariaDB shows what was true up to 0.1 s ago
        lambda: not side.server.execute(AT_WORK[side.server.name]), "idle"
    )
    side.wait(pool.resume())
    assert look(side, engine) == before


@matrix.on(matrix.TCP)
def test_a_ping_at_checkout_leaves_an_unused_session_idle(
    side: Client,
) -> None:
    engine = side.started(min_size=1, pool_pre_ping=True, **QUIET)
    before = look(side, engine)
    pings = engine.pool.stats().checks_num
    engine.connect().close()
    assert engine.pool.stats().checks_num == pings + 1
    side.eventually(
        lambda: not side.server.execute(AT_WORK[side.server.name]), "idle"
    )
    assert look(side, engine) == before
