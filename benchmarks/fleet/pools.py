"""The pools of a simulated fleet.

SmartPool is the real one.  QueuePool and psycopg_pool block in threads, so
what they do is told again here, as far as it decides when they connect; what
is written beside it names the place in their source.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Any
from typing import Callable
from typing import Optional
from typing import Protocol

from sqlalchemy.pool.base import _ConnDialect

from sqla_smartpool import SmartPool
from .database import Connection
from .database import Database
from .database import Down
from .world import Signal
from .world import SimulatedRuntime

#: how long a caller waits for a connection, seconds: the default of all three
_TIMEOUT = 30.0


class FleetPool(Protocol):
    """A pool of one process."""

    def start(self) -> None:
        """The process starts."""

    def fill(self) -> None:
        """Have all connections open, if a start does not see to that."""

    def serve(self, hold: float) -> None:
        """Check a connection out, use it for so long, and return it.

        :raises Exception: the request has failed.
        """


class _Dialect(_ConnDialect):
    """With one that can ping, connects are made beside the callers."""

    name = "simulated"

    def do_ping(self, connection: Connection) -> bool:
        return connection.ping()

    _do_ping_w_event: Any = do_ping


class Smart:
    """SmartPool, with its defaults."""

    def __init__(self, database: Database, size: int, lifetime: float) -> None:
        creator: Any = database.connect
        self._pool = SmartPool(
            creator,
            min_size=size,
            max_size=size,
            max_lifetime=lifetime,
            dialect=_Dialect(),
            _runtime=SimulatedRuntime(database.world),
        )

    def start(self) -> None:
        self._pool.start(wait=False)

    def fill(self) -> None:
        """They are."""

    def serve(self, hold: float) -> None:
        proxy = self._pool.connect()
        connection: Any = proxy.dbapi_connection
        try:
            connection.use(hold)
        except Down as error:
            # as an engine does when a statement has met a disconnect
            self._pool._invalidate(proxy, error)
            raise
        finally:
            proxy.close()


class Queue:
    """QueuePool(size, 0), with ``pool_pre_ping`` and ``pool_recycle``.

    SQLAlchemy's ``pool/impl.py``, ``QueuePool._do_get``: opened is what is
    asked for, when it is asked for, by who asks; ``pool/base.py``,
    ``_ConnectionRecord.get_connection`` and ``_ConnectionFairy._checkout``:
    what is too old or does not answer is replaced by who finds that.  There
    is no memory of failures.
    """

    def __init__(self, database: Database, size: int, lifetime: float) -> None:
        self._database = database
        self._lifetime = lifetime
        self._room = size
        self._idle: deque[Optional[Connection]] = deque()
        self._waiting: deque[Signal] = deque()

    def start(self) -> None:
        """Nothing is opened before it is asked for."""

    def fill(self) -> None:
        for _ in range(self._room):
            self._database.world.begin(partial(self.serve, 0.0))

    def serve(self, hold: float) -> None:
        connection = self._checked_out()
        try:
            if connection is not None:
                age = self._database.world.now - connection.born
                if age > self._lifetime or not connection.ping():
                    connection.close()
                    connection = None
            if connection is None:
                connection = self._database.connect()
            connection.use(hold)
        except Down:
            connection = None
            raise
        finally:
            self._idle.append(connection)
            if self._waiting:
                self._waiting.popleft().set()

    def _checked_out(self) -> Optional[Connection]:
        """What is idle, a record whose connection has gone included."""
        while not self._idle:
            if self._room:
                self._room -= 1
                return None
            signal = Signal(self._database.world)
            self._waiting.append(signal)
            if not signal.wait(_TIMEOUT):
                self._waiting.remove(signal)
                raise TimeoutError
        return self._idle.popleft()


class OpenedByHand(Queue):
    """The same, by a program that has all connections open at its start, as
    the others do by themselves."""

    def start(self) -> None:
        self.fill()


class Psycopg:
    """psycopg_pool's ConnectionPool(size) with ``check_connection``.

    Its ``pool.py``: three workers connect (``num_workers``); a connection
    that is found dead or too old is replaced by a task of theirs
    (``_add_connection``), which tries again after 1 s +- 10 %, doubled each
    time (``base.py``, ``AttemptWithBackoff``), for 300 s
    (``reconnect_timeout``); callers wait in a queue meanwhile, and ages are
    up to 5 % shorter (``_set_connection_expiry_date``).
    """

    _WORKERS, _GIVE_UP = 3, 300.0

    def __init__(self, database: Database, size: int, lifetime: float) -> None:
        self._database = database
        self._size = size
        self._lifetime = lifetime
        self._idle: deque[tuple[Connection, float]] = deque()
        self._waiting: deque[Signal] = deque()
        self._tasks: deque[Callable[[], None]] = deque()
        self._free_workers = self._WORKERS

    def start(self) -> None:
        for _ in range(self._size):
            self._add()

    def fill(self) -> None:
        """They are."""

    def serve(self, hold: float) -> None:
        ends = self._database.world.now + _TIMEOUT
        delay = 0.0  # AttemptWithBackoff: none before the second check
        while True:
            connection, expires_at = self._checked_out(ends)
            if connection.ping():
                break
            self._add()
            self._database.world.sleep(delay)
            delay = 2.0 * delay or self._jitter(1.0, 0.9, 1.1)
        try:
            connection.use(hold)
        except Down:
            self._add()
            raise
        if self._database.world.now >= expires_at:
            connection.close()
            self._add()
        else:
            self._put(connection, expires_at)

    def _checked_out(self, ends: float) -> tuple[Connection, float]:
        while True:
            while not self._idle:
                signal = Signal(self._database.world)
                self._waiting.append(signal)
                if not signal.wait(ends - self._database.world.now):
                    self._waiting.remove(signal)
                    raise TimeoutError
            connection, expires_at = self._idle.popleft()
            if self._database.world.now < expires_at:
                return connection, expires_at
            connection.close()
            self._add()

    def _put(self, connection: Connection, expires_at: float) -> None:
        self._idle.append((connection, expires_at))
        if self._waiting:
            self._waiting.popleft().set()

    def _add(self, delay: float = 0.0, give_up_at: float = 0.0) -> None:
        self._tasks.append(partial(self._connect, delay, give_up_at))
        if self._free_workers:
            self._free_workers -= 1
            self._database.world.begin(self._work)

    def _work(self) -> None:
        while self._tasks:
            self._tasks.popleft()()
        self._free_workers += 1

    def _connect(self, delay: float, give_up_at: float) -> None:
        world = self._database.world
        try:
            connection = self._database.connect()
        except Down:
            if give_up_at and world.now >= give_up_at:
                return
            give_up_at = give_up_at or world.now + self._GIVE_UP
            delay = 2.0 * delay or self._jitter(1.0, 0.9, 1.1)
            delay = max(0.0, min(delay, give_up_at - world.now))
            world.call(partial(self._add, delay, give_up_at), delay)
        else:
            lifetime = self._jitter(self._lifetime, 0.95, 1.0)
            self._put(connection, world.now + lifetime)

    def _jitter(self, value: float, least: float, most: float) -> float:
        return value * self._database.world.chance.uniform(least, most)
