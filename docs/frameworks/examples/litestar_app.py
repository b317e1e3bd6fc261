"""DATABASE_URL=postgresql+asyncpg://… uvicorn litestar_app:app"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
import os
from typing import Any

from litestar import get, Litestar, Response
from litestar.response import Stream
from sqlalchemy import text
from sqlalchemy.ext.asyncio import (
    async_sessionmaker,
    AsyncSession,
    create_async_engine,
)

from sqla_smartpool import AsyncSmartPool, PoolTimeoutError

engine = create_async_engine(
    os.environ["DATABASE_URL"],
    poolclass=AsyncSmartPool,
    min_size=2,
    max_size=5,
)
new_session = async_sessionmaker(engine)

DOUBLE = text("SELECT 2 * :n FROM pg_sleep(0.01)")  # takes its time
EXPORT = text("SELECT n, pg_sleep(0.001) FROM generate_series(1, 500) n")


@asynccontextmanager
async def lifespan(app: Litestar) -> AsyncIterator[None]:
    async with engine.pool:  # start() before the first request, stop() at last
        yield


async def get_session() -> AsyncIterator[AsyncSession]:
    async with new_session() as session:
        yield session


@get("/double/{number:int}")
async def double(number: int, session: AsyncSession) -> int:
    return await session.scalar(DOUBLE, {"n": number})


@get("/export")
async def export() -> Stream:
    async def lines() -> AsyncIterator[str]:
        async with new_session() as session:
            async for row in await session.stream(EXPORT):
                yield f"{row.n}\n"

    return Stream(lines())


@get("/pool")
async def pool() -> dict[str, Any]:
    return engine.pool.stats().as_dict()


def busy(request: Any, error: PoolTimeoutError) -> Response[str]:
    return Response("busy", status_code=503, headers={"Retry-After": "1"})


app = Litestar(
    route_handlers=[double, export, pool],
    dependencies={"session": get_session},
    lifespan=[lifespan],
    exception_handlers={PoolTimeoutError: busy},
)
