"""The pool that an engine has at this moment."""

from __future__ import annotations

from typing import Union

from sqlalchemy.engine import Engine
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncEngine

from ..pool import SmartPool

AnyEngine = Union[Engine, AsyncEngine]


def sync_engine_of(engine: AnyEngine) -> Engine:
    return engine.sync_engine if isinstance(engine, AsyncEngine) else engine


def pool_of(engine: AnyEngine) -> SmartPool:
    """Return the pool of an engine.

    :raises sqlalchemy.exc.InvalidRequestError: it is another's.
    """
    pool = sync_engine_of(engine).pool
    if not isinstance(pool, SmartPool):
        raise InvalidRequestError(
            f"the pool of this engine is a {type(pool).__name__}; "
            "sqla_smartpool.testing is for SmartPool and AsyncSmartPool"
        )
    return pool
