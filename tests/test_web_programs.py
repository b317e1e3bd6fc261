"""Web applications start the pool, share it and stop it."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from contextlib import contextmanager
import threading
from typing import Any
from typing import AsyncIterator
from typing import Iterator
from urllib.error import HTTPError
from urllib.request import urlopen

import flask
import httpx
import pytest
from sqlalchemy import create_engine
from sqlalchemy import Engine
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.ext.asyncio import create_async_engine
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from werkzeug.serving import make_server

from sqla_smartpool import AsyncSmartPool
from sqla_smartpool import PoolTimeoutError
from sqla_smartpool import SmartPool
from tests.conftest import Database
from tests.lab.waiting import eventually

pytestmark = pytest.mark.parametrize(
    "database", ["sqlite", "postgresql"], indirect=True
)


def asgi_application(engine: AsyncEngine) -> Starlette:
    pool: Any = engine.pool

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with pool:
            yield

    async def answer(request: Any) -> Any:
        async with engine.connect() as connection:
            number = int(request.path_params["number"])
            doubled = await connection.scalar(text(f"SELECT {number} * 2"))
            await asyncio.sleep(0.01)
        return PlainTextResponse(str(doubled))

    async def exhausted(request: Any, error: Exception) -> Any:
        return PlainTextResponse("busy", 503, {"Retry-After": "1"})

    return Starlette(
        routes=[Route("/{number}", answer)],
        lifespan=lifespan,
        exception_handlers={PoolTimeoutError: exhausted},
    )


@asynccontextmanager
async def asgi_client(
    database: Database, **options: Any
) -> AsyncIterator[tuple[AsyncEngine, Any]]:
    engine = create_async_engine(
        database.url(asynchronous=True),
        connect_args=database.connect_args(asynchronous=True),
        poolclass=AsyncSmartPool,
        **options,
    )
    app = asgi_application(engine)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://a") as client,
    ):
        yield engine, client


def test_a_starlette_application_serves_concurrent_requests_from_its_pool(
    database: Database,
) -> None:
    async def program() -> None:
        async with asgi_client(database, min_size=2, max_size=20) as (
            engine,
            client,
        ):
            pool: Any = engine.pool
            assert pool.stats().pool_size == 2
            numbers = range(200)
            pages = await asyncio.gather(
                *[client.get(f"/{number}") for number in numbers]
            )
            assert [page.text for page in pages] == [
                str(number * 2) for number in numbers
            ]
            stats = pool.stats()
            assert 2 <= stats.pool_size <= 20
            assert (stats.requests_num, stats.requests_errors) == (200, 0)
        assert pool.stats().pool_size == 0

    asyncio.run(program())
    eventually(lambda: not database.sessions(), message="no session is left")


def test_a_starlette_application_answers_503_while_its_pool_is_exhausted(
    database: Database,
) -> None:
    async def program() -> None:
        options = {"min_size": 1, "max_size": 1, "pool_timeout": 0.05}
        async with asgi_client(database, **options) as (engine, client):
            async with engine.connect():
                page = await client.get("/1")
                assert (page.status_code, page.text) == (503, "busy")
            page = await client.get("/1")
            assert (page.status_code, page.text) == (200, "2")

    asyncio.run(program())


def wsgi_application(engine: Engine) -> Any:
    app = flask.Flask("programs")

    @app.get("/<int:number>")
    def answer(number: int) -> str:
        with engine.connect() as connection:
            return str(connection.scalar(text(f"SELECT {number} * 2")))

    @app.errorhandler(PoolTimeoutError)
    def exhausted(error: PoolTimeoutError) -> Any:
        return "busy", 503, {"Retry-After": "1"}

    return app


@contextmanager
def wsgi_server(
    database: Database, **options: Any
) -> Iterator[tuple[Engine, str]]:
    """Serve, a thread per request, on a port of this machine."""
    engine = create_engine(
        database.url(),
        connect_args=database.connect_args(),
        poolclass=SmartPool,
        **options,
    )
    pool: Any = engine.pool
    server = make_server(
        "127.0.0.1", 0, wsgi_application(engine), threaded=True
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    with pool:
        thread.start()
        try:
            yield engine, f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def get(url: str) -> tuple[int, str]:
    try:
        with urlopen(url, timeout=30) as page:
            return page.status, page.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_a_flask_application_serves_concurrent_requests_from_its_pool(
    database: Database,
) -> None:
    numbers = range(200)
    with wsgi_server(database, min_size=2, max_size=20) as (engine, address):
        pool: Any = engine.pool
        assert pool.stats().pool_size == 2
        with ThreadPoolExecutor(30) as browsers:
            urls = [f"{address}/{number}" for number in numbers]
            pages = list(browsers.map(get, urls))
        assert pages == [(200, str(number * 2)) for number in numbers]
        stats = pool.stats()
        assert 2 <= stats.pool_size <= 20
        assert (stats.requests_num, stats.requests_errors) == (200, 0)
    assert pool.stats().pool_size == 0
    eventually(lambda: not database.sessions(), message="no session is left")


def test_a_flask_application_answers_503_while_its_pool_is_exhausted(
    database: Database,
) -> None:
    # open before anyone asks, as a connect may take longer than that
    options = {"min_size": 1, "max_size": 1, "pool_timeout": 0.05}
    with wsgi_server(database, **options) as (engine, address):
        with engine.connect():
            assert get(f"{address}/1") == (503, "busy")
        assert get(f"{address}/1") == (200, "2")
