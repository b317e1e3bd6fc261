"""DATABASE_URL=postgresql+asyncpg://… uvicorn starlette_app:app"""

from contextlib import asynccontextmanager
import os

from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from sqla_smartpool import AsyncSmartPool, PoolTimeoutError

engine = create_async_engine(
    os.environ["DATABASE_URL"],
    poolclass=AsyncSmartPool,
    min_size=2,
    max_size=5,
)
DOUBLE = text("SELECT 2 * :n FROM pg_sleep(0.01)")  # takes its time
EXPORT = text("SELECT n, pg_sleep(0.001) FROM generate_series(1, 500) n")


@asynccontextmanager
async def lifespan(app):
    async with engine.pool:  # start() before the first request, stop() at last
        yield


async def double(request):
    number = request.path_params["number"]
    async with engine.connect() as connection:
        answer = await connection.scalar(DOUBLE, {"n": number})
    return JSONResponse(answer)  # sent without a connection


async def export(request):
    async def lines():
        async with engine.connect() as connection:
            async with connection.stream(EXPORT) as rows:
                async for row in rows:
                    yield f"{row.n}\n"

    return StreamingResponse(lines())


async def pool(request):
    return JSONResponse(engine.pool.stats().as_dict())


async def busy(request, error):
    return JSONResponse("busy", 503, {"Retry-After": "1"})


app = Starlette(
    routes=[
        Route("/double/{number:int}", double),
        Route("/export", export),
        Route("/pool", pool),
    ],
    lifespan=lifespan,
    exception_handlers={PoolTimeoutError: busy},
)
