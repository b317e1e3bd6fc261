"""The least that a fair pool can be: what others are measured by.

Idle connections, a queue of futures or of locks, and nothing else: no limits
in time, no health, no events, no recovery.  Beside it the least that
SQLAlchemy's users can do with: nobody waits for ever, and who is cancelled
loses nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
import threading
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
        return self._wait_for(turn)

    def _wait_for(
        self, turn: asyncio.Future[ConnectionPoolEntry]
    ) -> ConnectionPoolEntry:
        return await_only(turn)

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        if self._waiting:
            self._waiting.popleft().set_result(record)
        else:
            self._idle.append(record)

    def dispose(self) -> None:
        while self._idle:
            self._idle.pop().close()  # type: ignore[attr-defined]

    def recreate(self) -> BareFifo:
        return type(self)(self._creator, self._room, dialect=self._dialect)


class FifoWithTimeout(BareFifo):
    """Waits end, by time or by a cancellation."""

    _timeout = 30.0

    def _wait_for(
        self, turn: asyncio.Future[ConnectionPoolEntry]
    ) -> ConnectionPoolEntry:
        alarm = turn.get_loop().call_later(self._timeout, self._end, turn)
        try:
            return await_only(turn)
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._do_return_conn(turn.result())
            raise
        finally:
            alarm.cancel()

    def _end(self, turn: asyncio.Future[ConnectionPoolEntry]) -> None:
        if not turn.done():
            turn.set_exception(TimeoutError())

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(record)
                return
        self._idle.append(record)


class ThreadFifo(Pool):
    """The bare FIFO of threads."""

    def __init__(self, creator: Any, pool_size: int = 5, **kw: Any) -> None:
        super().__init__(creator, **kw)
        self._room = pool_size
        self._idle: deque[ConnectionPoolEntry] = deque()
        self._waiting: deque[_Turn] = deque()
        self._lock = threading.Lock()

    def _do_get(self) -> ConnectionPoolEntry:
        with self._lock:
            if self._idle:
                return self._idle.pop()
            if self._room:
                self._room -= 1
                return self._create_connection()
            turn = _Turn()
            self._waiting.append(turn)
        turn.lock.acquire()
        return turn.record

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        with self._lock:
            if self._waiting:
                turn = self._waiting.popleft()
                turn.record = record
                turn.lock.release()
            else:
                self._idle.append(record)


class _Turn:
    """Whose lock is released when the record is there."""

    __slots__ = ("lock", "record")

    record: ConnectionPoolEntry

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.lock.acquire()


class WithoutLock(ThreadFifo):
    """The least of all, where there is one for everybody: nobody waits, and
    a thread goes on for as long as the interpreter lets it."""

    def _do_get(self) -> ConnectionPoolEntry:
        try:
            return self._idle.pop()
        except IndexError:
            return self._create_connection()

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        self._idle.append(record)
