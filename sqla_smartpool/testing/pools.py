"""The pool that an engine has at this moment."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Union

from sqlalchemy.engine import Engine
from sqlalchemy.exc import InvalidRequestError

from ..observe import sync_engine_of
from ..pool import SmartPool

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

AnyEngine = Union[Engine, "AsyncEngine"]


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
