"""Engines that leave a server which takes no writes any more."""

from __future__ import annotations

from typing import Any
from typing import Callable

from sqlalchemy import create_engine
from sqlalchemy import Engine
from sqlalchemy import event
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.ext.asyncio import create_async_engine

from sqla_smartpool import AsyncSmartPool
from sqla_smartpool import SmartPool

#: what a server that takes no writes says "on" to, or 1
POSTGRESQL = "SHOW transaction_read_only"
MARIADB = "SELECT @@GLOBAL.read_only"
AURORA_MYSQL = "SELECT @@innodb_read_only"

FOLLOWING: dict[str, Any] = {
    "min_size": 2,
    "max_size": 10,
    "ping_after": 5,  # the longest that an old writer is still used
    "network_timeout": 10,  # the longest wait for one that is gone
    "reconnect_timeout": 30,  # as long as there is no writer
}


class ReadOnly(Exception):
    """This server takes no writes."""


def refuse_readers(engine: Engine, question: str = POSTGRESQL) -> None:
    """Have connections to a server that is read-only replaced."""

    @event.listens_for(engine, "health_check")
    def refuse(connection: Any, record: Any) -> None:
        cursor = connection.cursor()
        try:
            cursor.execute(question)
            (answer,) = cursor.fetchone()
        finally:
            cursor.close()
        if answer in ("on", 1):
            raise ReadOnly(question)


def threads_engine(url: URL | str, **options: Any) -> Engine:
    engine = create_engine(
        url, poolclass=SmartPool, **{**FOLLOWING, **options}
    )
    refuse_readers(engine)
    return engine


def loop_engine(url: URL | str, **options: Any) -> AsyncEngine:
    engine = create_async_engine(
        url, poolclass=AsyncSmartPool, **{**FOLLOWING, **options}
    )
    refuse_readers(engine.sync_engine)
    return engine


def switch_over(engine: Engine, switch: Callable[[], None]) -> None:
    """Switch as planned: nobody uses the old one after that.

    :param switch: returns when the new one is there.
    """
    pool: Any = engine.pool
    pool.pause()  # checkouts wait, while their pool_timeout runs
    try:
        switch()
        pool.drain()  # every connection is replaced
    finally:
        pool.resume()
