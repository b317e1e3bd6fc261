"""Who holds what, and why nobody gets a connection: on our pools, and on
SQLAlchemy's, which are observed."""

from __future__ import annotations

import asyncio
import gc
from itertools import count
import json
import logging
from pathlib import Path
import pickle
import re
import threading
import time
from typing import Any
from typing import Callable
import weakref

import pytest
from sqlalchemy import create_engine
from sqlalchemy import Engine
from sqlalchemy import event
from sqlalchemy import text
from sqlalchemy.exc import ArgumentError
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as SATimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.pool import NullPool
from sqlalchemy.pool import QueuePool

from sqla_smartpool import AsyncSmartPool
from sqla_smartpool import Cause
from sqla_smartpool import Diagnosis
from sqla_smartpool import Holder
from sqla_smartpool import observe
from sqla_smartpool import PoolOverloadedError
from sqla_smartpool import PoolTimeoutError
from sqla_smartpool import SmartPool
from sqla_smartpool._sqlalchemy import await_
from sqla_smartpool._sqlalchemy import greenlet_spawn
from tests.conftest import Database
from tests.conftest import Side
from tests.lab.waiting import eventually

DATABASES = pytest.mark.parametrize(
    "database", ["sqlite", "postgresql"], indirect=True
)
ONE = text("SELECT 1")
_numbers = count()


@pytest.fixture(params=["own", "stock"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def made(kind: str, side: Side, database: Database, **options: Any) -> Any:
    """Return an engine for two connections at most, and its observer."""
    watch = {
        name: options.pop(name)
        for name in ("leak_after", "trace_checkouts")
        if name in options
    }
    options.setdefault("pool_timeout", 1.0)
    # pools of earlier tests may still have something to tell
    options["pool_logging_name"] = f"pool {next(_numbers)}"
    if kind == "own":
        options = {"max_size": 2, "check_interval": 0.1, **options, **watch}
        engine = side.engine(database, **options)
        return engine, observe(engine)
    stock = AsyncAdaptedQueuePool if side.asynchronous else QueuePool
    options.update(pool_size=2, max_overflow=0, poolclass=stock)
    engine = side.engine(database, **options)
    return engine, observe(engine, **watch)


def lines(
    caplog: pytest.LogCaptureFixture, engine: Engine, logger: str
) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == f"sqla_smartpool.{logger}"
        and vars(record)["pool"] == engine.pool.logging_name
    ]


def hold_here(engine: Engine, number: int) -> list[Any]:
    return [engine.connect() for _ in range(number)]


def pause(side: Side, seconds: float) -> None:
    if side.asynchronous:
        await_(asyncio.sleep(seconds))
    else:
        time.sleep(seconds)


def beside(side: Side, job: Callable[[], Any]) -> Any:
    """Do a job in a thread or task that nobody waits for."""
    outcome: list[Any] = []

    def work() -> None:
        outcome.append(job())

    if side.asynchronous:
        task = asyncio.ensure_future(greenlet_spawn(work))
        side.eventually(lambda: outcome or task.done())
        task.result()
    else:
        thread = threading.Thread(target=work)
        thread.start()
        side.eventually(lambda: outcome or not thread.is_alive())
        thread.join()
    return outcome[0]


@DATABASES
def test_a_timeout_names_the_holders_and_a_leak(
    database: Database, side: Side, kind: str
) -> None:
    engine, observer = made(kind, side, database, pool_timeout=0.5)
    for _ in range(50):
        engine.connect().close()  # what a use takes usually
    held = hold_here(engine, 2)
    pause(side, 1.1)  # far longer

    def ask() -> Diagnosis:
        with pytest.raises(SATimeoutError, match="^QueuePool limit of size 2"):
            engine.connect()
        found: Diagnosis = observer.diagnosis()
        return found

    found = beside(side, ask)
    assert found.cause is Cause.LEAK
    assert len(found.holders) == 2
    assert all(holder.seconds >= 1.1 for holder in found.holders)
    for holder in found.holders:
        assert any("test_explanations" in line for line in holder.where)
    for connection in held:
        connection.close()
    assert observer.holders() == []


def test_the_error_carries_what_it_says(
    sqlite_database: Database, side: Side
) -> None:
    engine = side.engine(sqlite_database, max_size=2, max_waiting=0)
    held = hold_here(engine, 2)
    with pytest.raises(PoolOverloadedError) as overloaded:
        engine.connect()
    pool: Any = engine.pool
    pool._timeout = 0
    with pytest.raises(PoolTimeoutError) as timed_out:
        engine.connect()
    for connection in held:
        connection.close()
    for caught in (overloaded, timed_out):
        error = caught.value
        assert isinstance(error.diagnosis, Diagnosis)
        assert [type(holder) for holder in error.holders] == [Holder] * 2
        assert str(error.diagnosis) in str(error)
        assert len(str(error).splitlines()) < 60
        told = json.loads(json.dumps(error.as_dict()))
        assert told["stats"]["pool_in_use"] == 2
        assert told["diagnosis"]["cause"] == error.diagnosis.cause.value
        assert len(told["holders"]) == 2
        copy = pickle.loads(pickle.dumps(error))
        assert str(copy) == str(error)
        assert copy.as_dict() == error.as_dict()


def test_connects_that_fail_are_named_as_the_cause(
    sqlite_database: Database, side: Side, kind: str
) -> None:
    engine, observer = made(kind, side, sqlite_database)
    (held,) = hold_here(engine, 1)
    url = sqlite_database.url(side.asynchronous)

    @event.listens_for(engine, "do_connect")
    def refuse(dialect: Any, record: Any, args: Any, params: Any) -> Any:
        args[:] = [str(url.database) + "/nowhere/at.all"]

    with pytest.raises(OperationalError):
        engine.connect()
    found = observer.diagnosis()
    assert found.cause is Cause.DATABASE
    assert "unable to open database file" in found.finding
    event.remove(engine, "do_connect", refuse)
    engine.connect().close()
    held.close()


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_connect_that_takes_too_long_is_named_as_the_cause(
    database: Database, side: Side
) -> None:
    engine = side.engine(database, max_size=1, pool_timeout=0.05)

    @event.listens_for(engine, "do_connect")
    def take_long(dialect: Any, record: Any, args: Any, params: Any) -> None:
        pause(side, 0.5)

    with pytest.raises(PoolTimeoutError) as caught:
        engine.connect()
    # its room is another's by now, but it is why the caller got nothing
    found = caught.value.diagnosis
    assert found is not None and found.cause is Cause.DATABASE
    assert "have been under way" in found.finding
    # or listeners on classes, in other tests, would hear of them
    side.wait(engine.pool.stop())
    side.eventually(lambda: not engine.pool.inventory.under_way)


@DATABASES
def test_callers_who_wait_for_themselves_are_told_at_once(
    database: Database,
    side: Side,
    kind: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "sqla_smartpool")
    engine, observer = made(kind, side, database, pool_timeout=30.0)
    arrived: list[Any] = []

    def nested() -> None:
        with engine.connect() as outer:
            outer.execute(ONE)
            arrived.append(outer)
            side.eventually(lambda: len(arrived) == 2)
            with pytest.raises(OperationalError):
                # until the test takes the other's connection away
                with engine.connect():
                    raise OperationalError("served", {}, Exception())

    def until_told() -> None:
        side.eventually(lambda: "self-deadlock" in caplog.text)
        found = observer.diagnosis()
        assert found.cause is Cause.SELF_DEADLOCK
        assert len(found.holders) == 2
        arrived[0].detach()  # makes room

    side.together(nested, nested, until_told)
    told = lines(caplog, engine, "waits")
    assert len([line for line in told if "self-deadlock" in line]) == 1
    # where they hold, and where they wait
    assert len(re.findall(r"test_explanations.py:\d+ in nested", told[0])) >= 4
    arrived[0].close()


def test_who_asks_again_at_once_does_not_wait_for_itself(
    sqlite_database: Database,
) -> None:
    """What it had is another's, who has not come to it yet."""
    found: list[Diagnosis] = []

    async def main() -> None:
        engine = create_async_engine(
            sqlite_database.url(asynchronous=True),
            poolclass=AsyncSmartPool,
            max_size=1,
        )
        pool = engine.pool
        assert isinstance(pool, AsyncSmartPool)

        async def visit() -> None:
            async with engine.connect():
                pass

        first = await engine.connect()
        second = asyncio.create_task(visit())
        while not pool.stats().requests_waiting:
            await asyncio.sleep(0)
        call_soon = asyncio.get_running_loop().call_soon

        @event.listens_for(pool, "checkin")
        def look(*_: object) -> None:
            # before the second one wakes, when this one waits again
            call_soon(lambda: found.append(pool.diagnosis()))

        await first.close()
        await visit()
        await second
        await engine.dispose()

    asyncio.run(main())
    assert found[0].cause is not Cause.SELF_DEADLOCK


def test_a_task_that_awaits_children_who_wait_is_a_deadlock(
    sqlite_database: Database, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "sqla_smartpool")
    side = Side(asynchronous=True)
    told: list[str] = []

    async def main() -> None:
        inner, observer = made(kind, side, sqlite_database, pool_timeout=2.0)
        engine = AsyncEngine(inner)

        async def child() -> None:
            async with engine.connect():
                pass

        async def parent() -> None:
            async with engine.connect():
                await asyncio.sleep(0.1)
                await asyncio.gather(child(), child())

        found = await asyncio.gather(
            parent(), parent(), return_exceptions=True
        )
        # when the first gives up, another may be served at its last moment
        assert any(isinstance(error, SATimeoutError) for error in found)
        await engine.dispose()

        told.extend(lines(caplog, inner, "waits"))

    asyncio.run(main())
    assert "self-deadlock" in told[0]
    assert "in parent" in told[0] and "in child" in told[0]


@DATABASES
def test_a_leak_is_reported_once_and_again_when_it_comes_home(
    database: Database,
    side: Side,
    kind: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, "sqla_smartpool")
    engine, observer = made(kind, side, database, leak_after=0.3)
    heard: list[Any] = []
    if kind == "own":
        event.listen(engine, "leak", lambda *told: heard.append(told))
    (held,) = hold_here(engine, 1)
    side.eventually(lambda: "has been out" in caplog.text)
    pause(side, 0.5)  # several looks
    (told,) = lines(caplog, engine, "leaks")
    assert "in hold_here" in told.partition("taken at")[2]
    assert "test_explanations.py" in told.partition("now at")[2]
    if kind == "own":
        ((pool, holder),) = heard
        assert pool is engine.pool
        assert "in hold_here" in "".join(holder.taken)
    held.close()
    side.eventually(lambda: "has come home" in caplog.text)
    (held,) = hold_here(engine, 1)
    side.eventually(lambda: caplog.text.count("has been out") == 2)
    held.close()


def test_what_is_on_its_way_to_its_user_has_not_been_out_for_hours(
    sqlite_database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """Its record does not tell yet since when it is in use."""
    caplog.set_level(logging.WARNING, "sqla_smartpool.leaks")
    pools: list[Any] = []
    told: list[float] = []

    def look(*_: Any) -> bool:
        pool = pools[0]
        pool.lookout.look_for_leaks()
        told.extend(holder.seconds for holder in pool.holders())
        return True

    class Look(logging.Handler):
        emit = look  # type: ignore[assignment]

    engine = create_engine(
        sqlite_database.url(), poolclass=SmartPool, max_size=1, leak_after=5.0
    )
    pools.append(engine.pool)
    journal, handler = logging.getLogger("sqla_smartpool"), Look(logging.DEBUG)
    journal.addHandler(handler)
    level = journal.level
    journal.setLevel(logging.DEBUG)
    try:
        engine.connect().close()  # is looked at as it has just been opened
    finally:
        journal.removeHandler(handler)
        journal.setLevel(level)
    (record,) = pools[0].inventory.members
    record.taken_at -= 3600.0  # and had been in use an hour before
    looked = len(told)
    record.peek = look
    engine.connect().close()
    assert len(told) > looked > 0
    assert max(told) < 5.0
    assert not caplog.text
    engine.dispose()


def test_a_stock_pool_without_a_name_keeps_what_it_is_called_by(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/names.db", pool_size=1)
    observe(engine, leak_after=0.1)
    connection = engine.connect()
    eventually(lambda: "has been out" in caplog.text)
    connection.close()
    engine.dispose()
    eventually(lambda: "has come home" in caplog.text)
    names = {vars(record).get("pool") for record in caplog.records}
    assert len(names) == 1 and None not in names


def test_checkouts_are_traced_on_request_only(
    sqlite_database: Database, side: Side, kind: str
) -> None:
    for traces in (False, True):
        if kind == "stock" or traces:
            engine, observer = made(
                kind, side, sqlite_database, trace_checkouts=traces
            )
        else:
            engine, observer = made(kind, side, sqlite_database)
        (held,) = hold_here(engine, 1)
        (holder,) = observer.holders()
        assert any("in hold_here" in line for line in holder.taken) is traces
        held.close()


def test_connections_are_told_with_their_state(
    sqlite_database: Database, side: Side, kind: str
) -> None:
    engine, observer = made(kind, side, sqlite_database)
    held = hold_here(engine, 2)
    held[1].close()
    first, second = observer.connections()
    assert (first.id, second.id) == (1, 2)
    assert (first.state, second.state) == ("in use", "idle")
    assert (first.uses, second.uses) == (1, 1)
    assert first.idle == 0 <= second.idle <= second.age
    assert json.dumps(first.as_dict())
    held[0].close()
    stats = observer.stats()
    assert stats.use_time.count == 2
    assert stats.connect_time.count == 2
    assert stats.use_time.sum >= 0


def test_a_pool_in_which_nobody_waits_cannot_be_observed() -> None:
    engine = create_engine("sqlite://", poolclass=NullPool)
    with pytest.raises(InvalidRequestError, match="NullPool"):
        observe(engine)


def test_who_passes_a_pool_to_observe_is_told_to_pass_its_engine() -> None:
    engine: Any = create_engine("sqlite:///:memory:", poolclass=QueuePool)
    with pytest.raises(ArgumentError, match="Engine .* not a QueuePool"):
        observe(engine.pool)


def test_an_observer_outlives_a_dispose(
    sqlite_database: Database, side: Side, kind: str
) -> None:
    engine, observer = made(kind, side, sqlite_database)
    engine.connect().close()
    engine.dispose()
    (held,) = hold_here(engine, 1)
    assert len(observer.holders()) == 1
    assert observer.stats().pool_in_use == 1
    held.close()


def test_observing_leaves_nothing_behind() -> None:
    engine = create_engine("sqlite://", poolclass=QueuePool)
    observe(engine)
    engine.connect().close()
    gone = weakref.ref(engine)
    engine.dispose()
    del engine
    gc.collect()
    assert gone() is None


def test_statistics_tell_how_long_things_took(
    sqlite_database: Database, side: Side
) -> None:
    engine = side.engine(sqlite_database, max_size=1, pool_timeout=10)
    assert isinstance(engine.pool, SmartPool)

    pool = engine.pool
    came: list[None] = []

    def use() -> None:
        with engine.connect():
            came.append(None)
            if len(came) == 1:
                side.eventually(lambda: pool.stats().requests_waiting == 4)
            pause(side, 0.03)

    side.together(*[use] * 5)
    stats = pool.stats()
    assert stats.use_time.count == stats.wait_time.count == 5
    assert stats.use_time.counts[0] == 0, "each took longer than 1 ms"
    assert stats.use_time.sum >= 5 * 0.03
    quickest = stats.use_time.quantile(0.01)
    assert quickest is not None and quickest >= 0.03
    assert stats.wait_time.sum >= (1 + 2 + 3 + 4) * 0.03 * 0.9
    assert sum(stats.wait_time.counts[3:]) >= 4, "all but the first waited"
    assert stats.connect_time.count == 1
