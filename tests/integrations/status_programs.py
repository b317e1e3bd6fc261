"""Programs under load that have a status page."""

from __future__ import annotations

import asyncio
import random
import threading
from typing import Any

from sqlalchemy import create_engine
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from starlette.applications import Starlette
from starlette.routing import Mount
import uvicorn
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.serving import make_server
from werkzeug.wrappers import Response

from sqla_smartpool import AsyncSmartPool
from sqla_smartpool import SmartPool
from sqla_smartpool.integrations.status import asgi_app
from sqla_smartpool.integrations.status import wsgi_app
from tests.conftest import Database
from tests.lab.waiting import eventually

EVIL = "<script>alert(1)</script>"
ONE = text("SELECT 1")
#: more than the four workers need
_OPTIONS: dict[str, Any] = {"max_size": 6, "pool_timeout": 300}


class Threads:
    """A WSGI application whose threads use a pool."""

    def __init__(self, database: Database) -> None:
        self.engine = create_engine(
            database.url(),
            connect_args=database.connect_args(),
            poolclass=SmartPool,
            **_OPTIONS,
        )
        mounted: Any = DispatcherMiddleware(
            Response("other", 404),
            {"/pools": wsgi_app({"a & b": self.engine})},
        )
        self._server = make_server("127.0.0.1", 0, mounted, threaded=True)
        self.address = f"http://127.0.0.1:{self._server.server_port}/pools/"
        self._ended = threading.Event()
        self._held = threading.Event()
        self._threads = [
            threading.Thread(target=self._server.serve_forever, args=(0.01,)),
            *(threading.Thread(target=self._use) for _ in range(4)),
        ]

    def __enter__(self) -> Threads:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._held.set()
        self._server.shutdown()
        for thread in self._threads:
            thread.join()
        self._server.server_close()
        self.engine.dispose()

    def hold_all(self) -> None:
        """Have all connections held by threads of a special name."""
        for _ in range(_OPTIONS["max_size"]):
            holder = threading.Thread(target=self._hold, name=EVIL)
            self._threads.append(holder)
            holder.start()

    def let_go(self) -> None:
        self._held.set()

    def _use(self) -> None:
        while not self._ended.is_set():
            with self.engine.connect() as connection:
                connection.scalar(ONE)
                self._ended.wait(random.uniform(0.0, 0.05))

    def _hold(self) -> None:
        with self.engine.connect():
            self._held.wait()


class Tasks:
    """An ASGI application whose tasks use a pool."""

    def __init__(self, database: Database) -> None:
        self.engine = create_async_engine(
            database.url(asynchronous=True),
            connect_args=database.connect_args(asynchronous=True),
            poolclass=AsyncSmartPool,
            **_OPTIONS,
        )
        mounted = Starlette(
            routes=[Mount("/pools", app=asgi_app({"a & b": self.engine}))]
        )
        config = uvicorn.Config(mounted, port=0, log_level="warning")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=asyncio.run, args=[self._run()])
        self._tasks: list[asyncio.Task[None]] = []

    def __enter__(self) -> Tasks:
        self._thread.start()
        eventually(lambda: self._server.started)
        (listening,) = self._server.servers[0].sockets
        port = listening.getsockname()[1]
        self.address = f"http://127.0.0.1:{port}/pools/"
        return self

    def __exit__(self, *error: object) -> None:
        self._server.should_exit = True
        self._thread.join()

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._held = asyncio.Event()
        self._tasks = [asyncio.create_task(self._use()) for _ in range(4)]
        await self._server.serve()
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        await self.engine.dispose()

    def hold_all(self) -> None:
        self._loop.call_soon_threadsafe(self._hold_all)

    def _hold_all(self) -> None:
        for _ in range(_OPTIONS["max_size"]):
            holder = asyncio.create_task(self._hold(), name=EVIL)
            self._tasks.append(holder)

    def let_go(self) -> None:
        self._loop.call_soon_threadsafe(self._held.set)

    async def _use(self) -> None:
        while True:
            async with self.engine.connect() as connection:
                await connection.scalar(ONE)
                await asyncio.sleep(random.uniform(0.0, 0.05))

    async def _hold(self) -> None:
        async with self.engine.connect():
            await self._held.wait()
