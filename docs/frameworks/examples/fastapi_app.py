"""DATABASE_URL=postgresql+asyncpg://… uvicorn fastapi_app:app"""

from contextlib import asynccontextmanager
import os
from typing import Annotated

from fastapi import Depends, FastAPI
from fastapi.responses import JSONResponse, StreamingResponse
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
async def lifespan(app):
    async with engine.pool:  # start() before the first request, stop() at last
        yield


async def get_session():
    async with new_session() as session:
        yield session


# "function": ends before the response is sent
Session = Annotated[AsyncSession, Depends(get_session, scope="function")]
app = FastAPI(lifespan=lifespan)


@app.get("/double/{number}")
async def double(number: int, session: Session) -> int:
    return await session.scalar(DOUBLE, {"n": number})


@app.get("/export")
async def export():
    async def lines():
        async with new_session() as session:
            async for row in await session.stream(EXPORT):
                yield f"{row.n}\n"

    return StreamingResponse(lines())


@app.get("/pool")
async def pool():
    return engine.pool.stats().as_dict()


@app.exception_handler(PoolTimeoutError)
async def busy(request, error):
    return JSONResponse("busy", 503, {"Retry-After": "1"})
