"""An async pool serves one live event loop at a time, and says so when it is
asked to serve two."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
import threading
import time
from typing import Any
from typing import Callable
from typing import Coroutine
from typing import Iterator

import pytest
from sqlalchemy import event
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.ext.asyncio import create_async_engine

from sqla_smartpool import AsyncSmartPool
from sqla_smartpool import PoolLoopError
from tests.lab.waiting import eventually


class LiveLoop:
    """An event loop that runs in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def begin(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.begin(work).result(30)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(30)
        self.loop.close()


@pytest.fixture
def loops() -> Iterator[tuple[LiveLoop, LiveLoop]]:
    both = LiveLoop(), LiveLoop()
    yield both
    for each in both:
        each.close()


@pytest.fixture
def engine_of(postgresql: Any) -> Callable[..., AsyncEngine]:
    postgresql.terminate()

    def engine_of(**options: Any) -> AsyncEngine:
        return create_async_engine(
            postgresql.url("postgresql+asyncpg"),
            poolclass=AsyncSmartPool,
            **options,
        )

    return engine_of


async def ask(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        answer: int = await connection.scalar(text("SELECT 1"))
        return answer


def assert_is_told(loops: Any, work: Coroutine[Any, Any, Any]) -> None:
    """The second loop is told of both, and of the remedy."""
    with pytest.raises(PoolLoopError) as refused:
        loops[1].run(work)
    for each in loops:
        assert repr(each.loop)[:30] in str(refused.value)
    assert "await engine.dispose()" in str(refused.value)
    assert "one engine per loop" in str(refused.value)


@pytest.mark.pain("second event loop")
def test_a_second_live_loop_is_told_of_both_and_of_the_remedy(
    engine_of: Any, loops: Any
) -> None:
    engine = engine_of(min_size=2)
    pool = engine.pool
    assert loops[0].run(ask(engine)) == 1
    for work in (ask(engine), pool.start(), pool.check(), engine.dispose()):
        assert_is_told(loops, work)
        # and the first is served as before
        assert loops[0].run(ask(engine)) == 1
    assert pool.stats().requests_errors == 0
    # the remedy works
    loops[0].run(engine.dispose())
    assert loops[1].run(ask(engine)) == 1
    loops[1].run(engine.dispose())


def test_two_live_loops_that_race_for_a_pool_leave_it_to_one(
    engine_of: Any, loops: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    abandon = AsyncSmartPool.abandon

    def slowly(pool: AsyncSmartPool) -> None:
        time.sleep(0.1)  # so that the other loop is sure to come in between
        abandon(pool)

    monkeypatch.setattr(AsyncSmartPool, "abandon", slowly)
    engine = engine_of(max_size=2, pool_timeout=20)
    work = [each.begin(ask(engine)) for _ in range(20) for each in loops]
    outcomes = [each.exception(30) for each in work]
    refused = [error for error in outcomes if error is not None]
    assert {type(error) for error in refused} == {PoolLoopError}
    # all the requests of one loop were served, and none of the other's
    assert len(refused) == 20
    owner = loops[0] if outcomes[0] is None else loops[1]
    owner.run(engine.dispose())


def test_a_loop_whose_first_connect_is_under_way_keeps_its_pool(
    engine_of: Any, loops: Any
) -> None:
    engine = engine_of()
    go_on = threading.Event()

    def slowly(*_: Any) -> None:
        from sqla_smartpool._sqlalchemy import await_

        while not go_on.is_set():
            await_(asyncio.sleep(0.01))

    event.listen(engine.sync_engine, "do_connect", slowly)
    first = loops[0].begin(ask(engine))
    eventually(lambda: engine.pool.stats().pool_connecting == 1)
    assert_is_told(loops, ask(engine))
    go_on.set()
    assert first.result(30) == 1
    loops[0].run(engine.dispose())


def test_an_empty_pool_does_not_leave_a_loop_that_runs(
    engine_of: Any, loops: Any
) -> None:
    engine = engine_of(min_size=0, keep_alive=0.05, check_interval=0.05)
    assert loops[0].run(ask(engine)) == 1
    eventually(lambda: engine.pool.stats().pool_size == 0)
    assert_is_told(loops, ask(engine))
    loops[0].run(engine.dispose())


def test_a_stopped_pool_is_free_for_any_loop(
    engine_of: Any, loops: Any
) -> None:
    engine = engine_of(min_size=1)
    for each in (*loops, *loops):

        async def serve() -> int:
            async with engine.pool:
                return await ask(engine)

        assert each.run(serve()) == 1


def test_an_empty_pool_follows_from_a_loop_at_rest(engine_of: Any) -> None:
    engine = engine_of(min_size=0, keep_alive=0.05, check_interval=0.05)
    one, two = asyncio.new_event_loop(), asyncio.new_event_loop()

    async def until_empty() -> None:
        assert await ask(engine) == 1
        while engine.pool.stats().pool_size:
            await asyncio.sleep(0.01)

    for loop in (one, two, one):
        loop.run_until_complete(until_empty())
    one.close()
    two.close()


def test_an_engine_disposed_without_a_loop_ends_its_sessions(
    engine_of: Any, postgresql: Any
) -> None:
    engine = engine_of(min_size=2)
    asyncio.run(ask(engine))
    engine.sync_engine.dispose()
    eventually(lambda: not postgresql.sessions(), message="no sessions left")
