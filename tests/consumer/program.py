"""All of the public interface, as a program with types uses it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Callable
from typing import Union

from sqlalchemy import create_engine
from sqlalchemy import Engine
from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.pool import QueuePool

from sqla_smartpool import Advice
from sqla_smartpool import AsyncSmartPool
from sqla_smartpool import Cause
from sqla_smartpool import CheckResult
from sqla_smartpool import ConnectionInfo
from sqla_smartpool import deadline
from sqla_smartpool import Diagnosis
from sqla_smartpool import Histogram
from sqla_smartpool import Holder
from sqla_smartpool import observe
from sqla_smartpool import PoolClosedError
from sqla_smartpool import PoolLoopError
from sqla_smartpool import PoolOverloadedError
from sqla_smartpool import PoolStats
from sqla_smartpool import PoolTimeoutError
from sqla_smartpool import SmartPool
from sqla_smartpool.testing import AsyncClock
from sqla_smartpool.testing import Clock
from sqla_smartpool.testing import control_clock
from sqla_smartpool.testing import kill_idle
from sqla_smartpool.testing import simulate_outage
from sqla_smartpool.testing import slow_connects

engine: Engine = create_engine(
    "sqlite://", poolclass=SmartPool, min_size=5, max_size=30
)
async_engine: AsyncEngine = create_async_engine(
    "sqlite+aiosqlite://", poolclass=AsyncSmartPool, min_size=5
)


def connect() -> DBAPIConnection:
    raise ConnectionError


SmartPool(connect, min_size=2, max_size=None, keep_alive=None, pre_ping=True)
SmartPool(connect, min_size="two")  # type: ignore[arg-type]
SmartPool(connect, no_such_argument=1)  # type: ignore[call-arg]


def run(pool: SmartPool) -> None:
    as_queue_pool: QueuePool = pool
    with pool as entered:
        entered.start(wait=False, timeout=1.0)
    pool.wait(timeout=1.0)
    found: CheckResult = pool.check()
    checked, replaced = found
    numbers: int = checked + replaced + pool.size() + pool.overflow()
    pool.resize(min_size=1, max_size=numbers)
    pool.drain()
    pool.pause()
    pool.resume()
    pool.stop(timeout=1.0)
    as_queue_pool.dispose()
    stats: PoolStats = pool.stats()
    waits: Histogram = stats.wait_time
    wait: Union[float, None] = waits.quantile(0.99)
    as_dict: dict[str, Union[int, float]] = stats.as_dict()
    holders: list[Holder] = pool.holders()
    connections: list[ConnectionInfo] = pool.connections()
    print(wait, as_dict, [each.where for each in holders])
    print([each.age for each in connections])
    stats.pool_size = 3  # type: ignore[misc]


async def run_async(pool: AsyncSmartPool) -> None:
    async with pool as entered:
        await entered.start()
    found: CheckResult = await pool.check()
    print(found.checked, pool.stats().pool_size)
    await pool.resize(max_size=3)
    await pool.stop(timeout=1.0)


def ask() -> None:
    for watched in (observe(engine), observe(async_engine, leak_after=60)):
        diagnosis: Diagnosis = watched.diagnosis()
        advice: Advice = watched.advise()
        if diagnosis.cause is Cause.LEAK:
            print(diagnosis.remedy, advice.text)
    try:
        with deadline(0.5):
            engine.connect()
    except PoolOverloadedError as error:
        print(error.stats, error.holders)
    except PoolTimeoutError as error:
        cause: Union[BaseException, None] = error.last_connect_error
        print(cause, error.as_dict())
    except (PoolClosedError, PoolLoopError):
        pass


@event.listens_for(engine, "retire")
def on_retire(
    connection: DBAPIConnection, record: ConnectionPoolEntry, reason: str
) -> None:
    print(connection, record.info, reason)


def test_handling(smartpool_outage: Callable[..., ExitStack]) -> None:
    clock: Clock = control_clock(engine)
    clock.advance(900)
    with simulate_outage(engine), slow_connects(async_engine, 0.5):
        killed: int = kill_idle(async_engine)
    with smartpool_outage(engine, error=lambda: OSError(killed)):
        clock.stop_for(60.0)


async def test_handling_on_a_loop() -> None:
    clock: AsyncClock = control_clock(async_engine)
    await clock.advance(900)
    control_clock("engine")  # type: ignore[call-overload]
