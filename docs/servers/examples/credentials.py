"""A password that is another one tomorrow, or in a quarter of an hour."""

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

Token = Callable[[], str]


def ask_at_each_connect(engine: Engine, token: Token) -> None:
    """Log in with what ``token()`` returns at that moment."""

    @event.listens_for(engine, "do_connect")
    def give(
        dialect: Any, record: Any, args: Any, params: dict[str, Any]
    ) -> None:
        params["password"] = token()


def threads_engine(
    url: URL, token: Token, max_lifetime: float, **options: Any
) -> Engine:
    engine = create_engine(
        url,  # without a password
        poolclass=SmartPool,
        min_size=2,
        max_size=10,
        max_lifetime=max_lifetime,
        **options,
    )
    ask_at_each_connect(engine, token)
    return engine


def loop_engine(
    url: URL, token: Token, max_lifetime: float, **options: Any
) -> AsyncEngine:
    engine = create_async_engine(
        url,
        poolclass=AsyncSmartPool,
        min_size=2,
        max_size=10,
        max_lifetime=max_lifetime,
        **options,
    )
    ask_at_each_connect(engine.sync_engine, token)
    return engine
