"""The least that a fair asyncio pool can be: what others are measured by.

Idle connections, a queue of futures, and nothing else: no limits in time, no
health, no events, no recovery.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.pool import Pool
from sqlalchemy.util import await_only


class BareFifo(Pool):
    """Callers are served in the order in which they came."""

    _is_asyncio = True  # type: ignore[assignment]

    def __init__(self, creator: Any, pool_size: int = 5, **kw: Any) -> None:
        super().__init__(creator, **kw)
        self._room = pool_size
        self._idle: deque[ConnectionPoolEntry] = deque()
        self._waiting: deque[asyncio.Future[ConnectionPoolEntry]] = deque()

    def _do_get(self) -> ConnectionPoolEntry:
        if self._idle:
            return self._idle.pop()
        if self._room:
            self._room -= 1
            return self._create_connection()
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        return await_only(turn)

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        if self._waiting:
            self._waiting.popleft().set_result(record)
        else:
            self._idle.append(record)

    def dispose(self) -> None:
        self._idle.clear()

    def recreate(self) -> BareFifo:
        return BareFifo(self._creator, self._room, dialect=self._dialect)
