"""SQLAlchemy's events fire as with its own pools, while upkeep pings in
between."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any
from typing import Callable
from typing import Iterator

import pytest
from sqlalchemy import Engine
from sqlalchemy import event
from sqlalchemy import exc as sa_exc
from sqlalchemy import text
from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.pool import Pool
from sqlalchemy.pool import QueuePool

from sqla_smartpool import SmartPool
from tests.conftest import Database
from tests.conftest import Side

OWN = ["health_check", "retire", "connect_failed", "checkout_timeout"]


def use(engine: Engine) -> None:
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1


@contextmanager
def listening(
    target: Any, name: str, listener: Callable[..., Any], **options: Any
) -> Iterator[None]:
    """Listen, and stop: listeners on classes outlive their tests."""
    event.listen(target, name, listener, **options)
    try:
        yield
    finally:
        event.remove(target, name, listener)


@pytest.mark.parametrize("on", ["engine", "pool"])
def test_pool_events_fire_in_their_order_and_none_for_a_ping(
    database: Database, side: Side, on: str
) -> None:
    engine = side.pinging_engine(database, min_size=0, max_size=1)
    target = engine if on == "engine" else engine.pool
    fired: list[str] = []
    for name in ("connect", "checkout", "reset", "checkin", "close"):
        event.listen(target, name, lambda *_, name=name: fired.append(name))
    event.listen(target, "first_connect", lambda *_: fired.append("first"))
    use(engine)
    once = ["first", "connect", "checkout", "reset", "checkin"]
    assert [name for name in fired if name != "reset"] == [
        name for name in once if name != "reset"
    ]
    side.pinged(engine)
    side.pinged(engine)
    del fired[:]
    use(engine)
    side.pinged(engine)
    assert fired == ["checkout", "reset", "checkin"]
    side.wait(target.pool.stop() if on == "engine" else engine.pool.stop())
    assert fired == ["checkout", "reset", "checkin", "close"]


def test_connect_and_close_fire_for_connections_of_the_background(
    database: Database, side: Side
) -> None:
    engine = side.pinging_engine(
        database, max_lifetime=0.5, min_size=3, keep_alive=300
    )
    there: set[object] = set()
    seen: set[object] = set()

    def opened(dbapi_connection: Any, record: Any) -> None:
        there.add(dbapi_connection)
        seen.add(dbapi_connection)

    event.listen(engine, "connect", opened)
    event.listen(engine, "close", lambda dbapi, record: there.remove(dbapi))
    pool = side.start(engine)
    assert len(there) == 3
    side.eventually(lambda: len(seen) >= 9, "two more generations")
    side.wait(pool.stop())
    assert there == set()


def test_a_listener_with_once_hears_of_the_first_only(
    database: Database, side: Side
) -> None:
    engine = side.pinging_engine(database)
    heard: list[object] = []
    event.listen(engine, "checkout", lambda *e: heard.append(e), once=True)
    event.listen(engine.pool, "connect", lambda *e: heard.append(e), once=True)
    side.start(engine)
    assert len(heard) == 1
    for _ in range(3):
        use(engine)
        side.pinged(engine)
    assert len(heard) == 2


def test_listeners_are_inserted_named_and_removed(
    database: Database, side: Side
) -> None:
    engine = side.pinging_engine(database)
    heard: list[str] = []

    def last(*arguments: Any) -> None:
        heard.append("last")

    def first(**arguments: Any) -> None:
        names = {"dbapi_connection", "connection_record", "connection_proxy"}
        assert arguments.keys() == names
        heard.append("first")

    event.listen(engine, "checkout", last)
    event.listen(engine, "checkout", first, insert=True, named=True)
    use(engine)
    side.pinged(engine)
    assert heard == ["first", "last"]
    assert event.contains(engine, "checkout", first)
    event.remove(engine, "checkout", first)
    assert not event.contains(engine, "checkout", first)
    use(engine)
    side.pinged(engine)
    assert heard == ["first", "last", "last"]


@pytest.mark.parametrize("kind", [QueuePool, SmartPool, Pool, Engine, "own"])
def test_listeners_on_classes_hear_of_every_pool(
    database: Database, side: Side, kind: Any
) -> None:
    target = kind
    options = {}
    if kind == "own":
        target = AsyncAdaptedQueuePool if side.asynchronous else QueuePool
        # SQLAlchemy's default for this class, True, is an AttributeError
        options = {"asyncio": False}
    heard: list[str] = []

    def opened(*arguments: Any) -> None:
        heard.append("connect")

    def taken(*arguments: Any) -> None:
        heard.append("checkout")

    # or a ping that takes long would have a second one opened beside it
    sizes = {"min_size": 0, "max_size": 1}
    before = side.pinging_engine(database, **sizes)
    with listening(target, "connect", opened, **options):
        with listening(target, "checkout", taken, **options):
            after = side.pinging_engine(database, **sizes)
            for engine in (before, after):
                for _ in range(2):
                    use(engine)
                    side.pinged(engine)
            assert heard == ["connect", "checkout", "checkout"] * 2
    use(before)
    assert len(heard) == 6


def test_engine_events_fire_between_pings(
    database: Database, side: Side
) -> None:
    engine = side.pinging_engine(database)
    fired: list[str] = []
    listeners = {
        "do_connect": lambda *_: fired.append("do_connect"),
        "engine_connect": lambda *_: fired.append("engine_connect"),
        "before_cursor_execute": lambda *_: fired.append("execute"),
        "handle_error": lambda context: fired.append("error"),
        "rollback": lambda *_: fired.append("rollback"),
    }
    for name, listener in listeners.items():
        event.listen(engine, name, listener)
    side.start(engine)
    use(engine)  # the first one asks the server for its version
    assert fired.count("do_connect") == 2
    side.pinged(engine)
    del fired[:]
    use(engine)
    side.pinged(engine)
    with engine.connect() as connection:
        with pytest.raises(sa_exc.DBAPIError):
            connection.execute(text("SELECT nothing FROM nowhere"))
    side.pinged(engine)
    use_of_one = ["engine_connect", "execute", "rollback"]
    assert fired == [
        *use_of_one,
        *(use_of_one[:2] + ["error"] + use_of_one[2:]),
    ]
