"""Engines for a database that sleeps when nobody is connected."""

from __future__ import annotations

from typing import Any

from sqlalchemy import create_engine
from sqlalchemy import Engine
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.ext.asyncio import create_async_engine

from sqla_smartpool import AsyncSmartPool
from sqla_smartpool import SmartPool

SLEEPING: dict[str, Any] = {
    "min_size": 0,  # nothing stays open, and nothing is pinged
    "max_size": 10,
    "keep_alive": 25,  # shorter than ping_after: not one ping
    "pool_timeout": 60,  # longer than waking takes
    "reconnect_timeout": 60,  # should it refuse until it is awake
}


def threads_engine(url: URL | str, **options: Any) -> Engine:
    return create_engine(url, poolclass=SmartPool, **{**SLEEPING, **options})


def loop_engine(url: URL | str, **options: Any) -> AsyncEngine:
    return create_async_engine(
        url, poolclass=AsyncSmartPool, **{**SLEEPING, **options}
    )
