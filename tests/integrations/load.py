"""Load for pools, whose numbers are then read back."""

from __future__ import annotations

import asyncio
from itertools import count
import subprocess
import sys
import threading
from typing import Any
from typing import Callable

from sqlalchemy import Engine
from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.pool import QueuePool

from sqla_smartpool._sqlalchemy import await_
from sqla_smartpool._sqlalchemy import greenlet_spawn
from tests.conftest import Database
from tests.conftest import Side

_numbers = count()


def made(
    kind: str, side: Side, database: Database, size: int, **options: Any
) -> Engine:
    """Make an engine with a pool of our own, or of SQLAlchemy's, for at most
    so many connections."""
    # pools of earlier tests may still be there
    options["pool_logging_name"] = f"pool-{next(_numbers)}"
    if kind == "own":
        return side.engine(database, max_size=size, **options)
    stock = AsyncAdaptedQueuePool if side.asynchronous else QueuePool
    options.update(pool_size=size, max_overflow=0, poolclass=stock)
    return side.engine(database, **options)


def beside(side: Side, job: Callable[[], Any]) -> Callable[[], None]:
    """Begin a job in a thread or task; the answer waits for its end."""
    if side.asynchronous:
        task = asyncio.ensure_future(greenlet_spawn(job))
        return lambda: await_(task)
    thread = threading.Thread(target=job)
    thread.start()
    return thread.join


def run(program: str) -> subprocess.CompletedProcess[str]:
    """Run a program of its own to its end."""
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
    )
