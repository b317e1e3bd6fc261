"""Real servers, those of the tests, and a line to them that takes its time."""

from __future__ import annotations

from contextlib import contextmanager
import multiprocessing
import signal
import socket
from types import SimpleNamespace
from typing import Any
from typing import Iterator
from typing import Optional

import asyncpg
from sqlalchemy import create_engine
from sqlalchemy import Engine
from sqlalchemy import event
from sqlalchemy import Pool
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.lab.proxy import Proxy
from tests.lab.servers import MariaDB
from tests.lab.servers import PostgreSQL


def _delay(
    listener: socket.socket, port: int, seconds: float, ready: Any
) -> None:
    proxy = Proxy(SimpleNamespace(port=port), listener)
    proxy.delay(seconds)
    ready.set()
    signal.pause()


class _SlowLine:
    """A line with a delay, in a process of its own: in that of the callers
    it would wait for the interpreter, and they for it."""

    def __init__(self, server: Any, delay: float) -> None:
        spawning = multiprocessing.get_context("spawn")
        ready = spawning.Event()
        with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
            self.host, self.port = listener.getsockname()
            self._process = spawning.Process(
                target=_delay,
                args=(listener, server.port, delay, ready),
                daemon=True,
            )
            self._process.start()
            if not ready.wait(60):
                raise RuntimeError("the process of the slow line is not up")

    def close(self) -> None:
        self._process.terminate()
        self._process.join()


class Database:
    """The way to a server.

    :param delay: added to each message, there and back, seconds.
    :param tls: encrypted.
    """

    def __init__(
        self,
        server: Any,
        drivername: str,
        delay: float = 0.0,
        tls: bool = False,
    ) -> None:
        self._args = server.connect_args(drivername, tls=tls)
        self._url = server.url(drivername, tls=tls)
        self._line = _SlowLine(server, delay) if delay else None
        if self._line is not None:
            self._url = self._url.set(
                host=self._line.host, port=self._line.port
            )

    def engine(self, kind: type[Pool], **options: Any) -> Engine:
        """An engine; for ``AsyncEngine()``, if its driver is asynchronous."""
        return create_engine(
            self._url, connect_args=self._args, poolclass=kind, **options
        )

    def async_engine(self, kind: type[Pool], **options: Any) -> AsyncEngine:
        return AsyncEngine(self.engine(kind, **options))

    def close(self) -> None:
        if self._line is not None:
            self._line.close()


@contextmanager
def server(kind: str) -> Iterator[Any]:
    """A server of its own: "postgresql" or "mariadb"."""
    with {"postgresql": PostgreSQL, "mariadb": MariaDB}[kind](600) as made:
        yield made


def asyncpg_pool_of(started: Any, **options: Any) -> asyncpg.Pool:
    """asyncpg's own pool; to be entered by ``async with``."""
    # the driver whose URL says "no TLS" as asyncpg reads it
    url = started.url("postgresql+psycopg").set(drivername="postgresql")
    return asyncpg.create_pool(
        url.render_as_string(hide_password=False), **options
    )


class Opened:
    """How many connections an engine opens, or asyncpg's pool."""

    def __init__(self, engine: Optional[Engine] = None) -> None:
        self.number = 0
        if engine is not None:
            event.listen(engine, "connect", self._count)

    def _count(self, *arguments: object) -> None:
        self.number += 1

    async def init(self, connection: asyncpg.Connection) -> None:
        """For asyncpg's ``init``."""
        self.number += 1
