"""Engines for a PgBouncer in transaction mode, and for a planned pause."""

from __future__ import annotations

from typing import Any

from sqlalchemy import create_engine
from sqlalchemy import Engine
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.ext.asyncio import create_async_engine

from sqla_smartpool import AsyncSmartPool
from sqla_smartpool import SmartPool


def psycopg_engine(url: URL | str, **options: Any) -> Engine:
    return create_engine(
        url,
        poolclass=SmartPool,
        min_size=2,
        max_size=10,
        reconnect_timeout=10,  # rides out a restart of PgBouncer
        connect_args={"prepare_threshold": None},  # no prepared statements
        **options,
    )


def asyncpg_engine(url: URL | str, **options: Any) -> AsyncEngine:
    return create_async_engine(
        url,
        poolclass=AsyncSmartPool,
        min_size=2,
        max_size=10,
        reconnect_timeout=10,
        connect_args={
            "statement_cache_size": 0,  # asyncpg's own
            "prepared_statement_cache_size": 0,  # SQLAlchemy's
        },
        **options,
    )


def let_go(pool: SmartPool) -> None:
    """Before PAUSE in session mode: give all sessions back, and wait."""
    pool.pause()
    pool.drain()


async def let_go_async(pool: AsyncSmartPool) -> None:
    await pool.pause()
    await pool.drain()
