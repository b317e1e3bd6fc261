"""One of several processes that share the connections of a server."""

from __future__ import annotations

import time

from sqlalchemy import create_engine
from sqlalchemy import Engine

from sqla_smartpool import SmartPool


def share(limit: int, processes: int, spare: int = 3) -> int:
    """How many connections each process may open.

    :param limit: of the server, for this user.
    :param processes: the most there are at a time, a deployment included,
     during which old and new ones live side by side.
    :param spare: for migrations, monitoring, and whoever is on call.

    """
    each = (limit - spare) // processes
    if each < 1:
        raise ValueError(
            f"{limit} connections are too few for {processes} processes"
        )
    return each


def worker_engine(url: str, max_size: int) -> Engine:
    return create_engine(
        url,
        poolclass=SmartPool,
        min_size=1,  # who comes is served at once
        max_size=max_size,
        pool_timeout=30,
        # A connect that is refused is no caller's error: they go on waiting,
        # and get what others return.
        reconnect_timeout=30,
    )


def start_in_turn(engine: Engine, number: int, apart: float = 0.1) -> None:
    """Start the pool of process ``number``, which counts from 0."""
    time.sleep(number * apart)
    engine.pool.start()  # type: ignore[attr-defined]
