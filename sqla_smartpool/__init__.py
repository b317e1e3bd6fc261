"""A connection pool for SQLAlchemy, in QueuePool's place.

::

    create_engine(url, poolclass=SmartPool, min_size=5, max_size=30)
    create_async_engine(url, poolclass=AsyncSmartPool, min_size=5, max_size=30)
"""

from __future__ import annotations

from . import fork as _fork  # noqa: F401 - takes effect by being imported
from ._sqlalchemy import warn_if_unknown as _warn_if_unknown
from .aiopool import AsyncSmartPool
from .deadline import deadline
from .diagnosis import Cause
from .diagnosis import Diagnosis
from .events import SmartPoolEvents
from .exc import PoolClosedError
from .exc import PoolLoopError
from .exc import PoolOverloadedError
from .exc import PoolTimeoutError
from .histogram import Histogram
from .holders import ConnectionInfo
from .holders import Holder
from .observe import observe
from .pool import SmartPool
from .sizing import Advice
from .stats import CheckResult
from .stats import PoolStats

__version__ = "0.1.0"

__all__ = (
    "Advice",
    "AsyncSmartPool",
    "Cause",
    "CheckResult",
    "ConnectionInfo",
    "Diagnosis",
    "Histogram",
    "Holder",
    "PoolClosedError",
    "PoolLoopError",
    "PoolOverloadedError",
    "PoolStats",
    "PoolTimeoutError",
    "SmartPool",
    "SmartPoolEvents",
    "deadline",
    "observe",
)

_warn_if_unknown()
