"""The status page as the tests ask for it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import Any
from typing import AsyncIterator
from typing import Callable

import httpx
import pytest
from sqlalchemy import create_engine
from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.pool import QueuePool
from starlette.applications import Starlette
from starlette.routing import Mount
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.wrappers import Response

from sqla_smartpool import AsyncSmartPool
from sqla_smartpool import observe
from sqla_smartpool import SmartPool
from sqla_smartpool.integrations.status import asgi_app
from sqla_smartpool.integrations.status import wsgi_app
from tests.conftest import Database

FACES = pytest.mark.parametrize("face", ["asgi", "wsgi"])
POOLS = pytest.mark.parametrize(
    "pool_class", [SmartPool, QueuePool], ids=["own", "stock"]
)
ASYNC_POOLS = pytest.mark.parametrize(
    "pool_class", [AsyncSmartPool, AsyncAdaptedQueuePool], ids=["own", "stock"]
)


def ask(
    face: str,
    engines: Any,
    path: str = "/pools/json",
    method: str = "GET",
    prefix: str = "/pools",
) -> httpx.Response:
    """Ask the application, mounted under a prefix."""
    if face == "wsgi":
        mounted: Any = DispatcherMiddleware(
            Response("other", 404), {prefix: wsgi_app(engines)}
        )
        if not prefix:
            mounted = wsgi_app(engines)
        with httpx.Client(
            transport=httpx.WSGITransport(mounted), base_url="http://app"
        ) as client:
            return client.request(method, path)
    app: Any = asgi_app(engines)
    if prefix:
        app = Starlette(routes=[Mount(prefix, app=app)])

    async def request() -> httpx.Response:
        async with asgi_client(app) as client:
            return await client.request(method, path)

    return asyncio.run(request())


@asynccontextmanager
async def asgi_client(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://app"
    ) as client:
        yield client


def told(face: str, engines: Any) -> Any:
    """What it says of the only pool there is."""
    answer = ask(face, engines)
    assert answer.status_code == 200
    (pool,) = answer.json()["pools"]
    return pool


def made(database: Database, pool_class: Any, **options: Any) -> Engine:
    """An engine for two connections at most."""
    sizes = (
        {"max_size": 2}
        if issubclass(pool_class, SmartPool)
        else {"pool_size": 2, "max_overflow": 0}
    )
    asynchronous = bool(pool_class._is_asyncio)
    create: Callable[..., Any] = (
        create_async_engine if asynchronous else create_engine
    )
    engine: Engine = create(
        database.url(asynchronous),
        connect_args=database.connect_args(asynchronous),
        poolclass=pool_class,
        **{"pool_timeout": 0.2, **sizes, **options},
    )
    observe(engine)  # before it is in use, as at a program's start
    return engine


def only_pool(app: Any) -> Any:
    with httpx.Client(
        transport=httpx.WSGITransport(app), base_url="http://app"
    ) as client:
        (pool,) = client.get("/json").json()["pools"]
    return pool
