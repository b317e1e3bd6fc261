"""The status page looks at pools where that is safe, from whatever thread or
loop it is served, and keeps a little of what it saw."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
import sys
import threading
from typing import Any
from typing import Iterator

import pytest
from sqlalchemy import text
from sqlalchemy.pool import QueuePool

from sqla_smartpool import AsyncSmartPool
from sqla_smartpool import Histogram
from sqla_smartpool import observe
from sqla_smartpool import SmartPool
from sqla_smartpool.histogram import bucket_of
from sqla_smartpool.histogram import summed
from sqla_smartpool.integrations import status
from sqla_smartpool.integrations.status import wsgi_app
from sqla_smartpool.integrations.status_view import PoolView
from sqla_smartpool.integrations.status_view import times
from tests.conftest import Database
from tests.integrations.status_pages import ASYNC_POOLS
from tests.integrations.status_pages import FACES
from tests.integrations.status_pages import made
from tests.integrations.status_pages import only_pool
from tests.integrations.status_pages import POOLS
from tests.integrations.status_pages import told

# -- from elsewhere ----------------------------------------------------------


@ASYNC_POOLS
@FACES
def test_tasks_are_looked_at_by_their_own_loop(
    sqlite_database: Database,
    face: str,
    pool_class: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also when the page is served by a thread, or by another loop."""
    monkeypatch.setattr(status, "_PATIENCE", 30.0)
    engine: Any = made(sqlite_database, pool_class)
    looked: list[int] = []

    async def program() -> Any:
        loop = asyncio.get_running_loop()
        async with engine.connect():
            view = PoolView("orders", engine.sync_engine)
            own = view.look
            view.look = (
                lambda: looked.append(threading.get_ident())  # type: ignore
                or own()
            )
            here = view.ask()
            assert here.done()
            ask_elsewhere = loop.run_in_executor(None, view.ask)
            answer = await asyncio.wrap_future(await ask_elsewhere)
            assert looked == 2 * [threading.get_ident()]
            served = await loop.run_in_executor(
                None, told, face, {"orders": engine}
            )
            return answer, served

    async def whole() -> Any:
        try:
            return await asyncio.create_task(program(), name="the holder")
        finally:
            await engine.dispose()

    for pool in asyncio.run(whole()):
        (holder,) = pool["holders"]
        assert holder["name"] == "the holder"
        assert "in program" in "".join(holder["where"])


@ASYNC_POOLS
@FACES
def test_a_loop_that_is_blocked_is_told(
    sqlite_database: Database, face: str, pool_class: Any
) -> None:
    engine: Any = made(sqlite_database, pool_class)
    answers: list[Any] = []
    gone_on = threading.Event()

    def ask_meanwhile() -> None:
        answers.append(told(face, {"orders": engine}))
        gone_on.set()

    def block() -> None:
        threading.Thread(target=ask_meanwhile).start()
        assert gone_on.wait(30)

    async def program() -> None:
        async with engine.connect():
            block()
        await engine.dispose()

    asyncio.run(program())
    (pool,) = answers
    assert pool["name"] == "orders"
    assert pool["blocked"]["seconds"] >= 1
    assert "in block" in "".join(pool["blocked"]["where"])


def test_where_a_loop_of_uvloop_is_blocked_is_known_once_it_was_looked_at(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    uvloop = pytest.importorskip("uvloop", reason="not for Windows")
    engine: Any = made(sqlite_database, AsyncSmartPool)
    app = wsgi_app([engine])
    answers: list[Any] = []

    def ask_meanwhile() -> None:
        answers.append(only_pool(app))

    def block() -> None:
        thread = threading.Thread(target=ask_meanwhile)
        thread.start()
        thread.join(30)

    async def program() -> None:
        async with engine.connect():
            monkeypatch.setattr(status, "_PATIENCE", 30.0)
            await asyncio.to_thread(ask_meanwhile)
            monkeypatch.setattr(status, "_PATIENCE", 0.2)
            block()
        await engine.dispose()

    uvloop.run(program())
    before, blocked = answers
    assert before["blocked"] is None
    assert "in block" in "".join(blocked["blocked"]["where"])
    assert blocked["stats"] == before["stats"], "as it was"


@FACES
def test_the_pool_of_a_closed_loop_can_be_looked_at(
    sqlite_database: Database, face: str
) -> None:
    engine: Any = made(sqlite_database, AsyncSmartPool)

    async def program() -> None:
        async with engine.connect():
            pass

    asyncio.run(program())
    pool = told(face, {"orders": engine})
    assert pool["blocked"] is None
    assert pool["stats"]["requests_num"] == 1
    asyncio.run(engine.dispose())


@POOLS
def test_many_may_ask_at_once_while_the_pool_is_in_use(
    sqlite_database: Database, pool_class: Any, hasty: None
) -> None:
    engine = made(sqlite_database, pool_class, pool_timeout=30)
    view = PoolView("orders", engine, ticks=_Ticks())
    uses, lookers = 100, 4

    def use() -> None:
        for _ in range(uses):
            with engine.connect() as connection:
                connection.execute(text("SELECT 1"))

    def look() -> int:
        while True:
            last = done.is_set()
            count: int = view.ask().result()["times"]["use"]["count"]
            if last:
                return count

    done = threading.Event()
    with ThreadPoolExecutor(4 + lookers) as threads:
        looking = [threads.submit(look) for _ in range(lookers)]
        using = [threads.submit(use) for _ in range(4)]
        try:
            for each in using:
                each.result()
        finally:
            done.set()
        assert all(each.result() > 0 for each in looking)
    assert view.look()["times"]["use"]["count"] == 4 * uses
    engine.dispose()


def test_each_use_is_counted_once_whoever_asks(
    sqlite_database: Database, hasty: None
) -> None:
    """A stock pool's uses are added up when somebody asks."""
    engine = made(sqlite_database, QueuePool)
    observer, uses, lookers = observe(engine), 2000, 4
    together = threading.Barrier(lookers)

    def look() -> int:
        together.wait(30)
        return observer.stats().use_time.count

    for _ in range(uses):
        engine.connect().close()
    with ThreadPoolExecutor(lookers) as threads:
        for each in [threads.submit(look) for _ in range(lookers)]:
            assert each.result() <= uses
    assert observer.stats().use_time.count == uses
    engine.dispose()


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads take turns after every few instructions."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class _Ticks:
    """A clock by which every look is late enough to be made anew."""

    def __init__(self, step: float = 1.0) -> None:
        self.now = 0.0
        self.step = step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


# -- what is kept ------------------------------------------------------------


def test_a_hundred_pages_cost_one_look(sqlite_database: Database) -> None:
    engine = made(sqlite_database, SmartPool)
    ticks = _Ticks(0.0)
    view = PoolView("orders", engine, ticks=ticks)
    first = view.look()
    with engine.connect():
        assert all(view.look() is first for _ in range(100))
        ticks.now += 0.6
        assert view.look()["stats"]["pool_in_use"] == 1
    engine.dispose()


def test_the_chart_is_kept_in_bounds(sqlite_database: Database) -> None:
    engine = made(sqlite_database, SmartPool)
    wall = _Ticks(0.4)
    view = PoolView("orders", engine, clock=wall, ticks=_Ticks())
    for _ in range(3000):
        pool = view.look()
    samples = [at for at, *_ in pool["samples"]]
    assert len(samples) == 400
    steps = {round(b - a, 3) for a, b in zip(samples, samples[1:])}
    assert min(steps) >= 1.0
    wall.now = 5.0  # the clock is set back
    assert len(view.look()["samples"]) == 1
    engine.dispose()


def test_recent_durations_are_those_of_the_last_minute(
    sqlite_database: Database,
) -> None:
    engine = made(sqlite_database, SmartPool)
    ticks = _Ticks(0.0)
    view = PoolView("orders", engine, ticks=ticks)
    counts = []
    for _ in range(100):
        engine.connect().close()
        ticks.now += 2.0
        pool = view.look()
        recent = pool["times"]["use"]["recent"]["count"]
        counts.append((pool["recent_seconds"], recent))
    assert counts[0] == (0.0, 0)
    assert counts[5] == (10.0, 5)
    assert counts[-1] == (60.0, 30)
    assert pool["times"]["use"]["count"] == 100
    engine.dispose()
    engine.connect().close()
    ticks.now += 2.0
    assert view.look()["recent_seconds"] == 0, "it is another pool"
    engine.dispose()


def test_quantiles_are_of_the_durations_between_two_looks() -> None:
    def histogram(*durations: float) -> Histogram:
        tally = summed([])
        for seconds in durations:
            tally[bucket_of(seconds)] += 1
        return Histogram(tuple(tally), sum(durations))

    slow = [5.0] * 10
    found = times(histogram(*slow, 0.01, 500.0), histogram(*slow))
    assert (found["count"], found["p50"]) == (12, 5.0)
    recent = found["recent"]
    assert (recent["count"], recent["p50"]) == (2, 0.01)
    assert recent["p99"] is None, "beyond all bounds"
    assert recent["sum"] == pytest.approx(500.01)
