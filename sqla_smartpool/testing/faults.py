"""A database that goes away, is slow to connect to, or drops connections."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import Any
from typing import Callable
from typing import Iterator
from typing import Optional

from .nowhere import nowhere
from .pools import AnyEngine
from .pools import pool_of
from ..aio import apart
from ..aio import end
from ..aiopool import AsyncSmartPool
from ..observe import sync_engine_of
from ..pool import SmartPool
from ..record import Record
from ..runtime import Signal


@contextmanager
def simulate_outage(
    engine: AnyEngine, error: Optional[Callable[[], Exception]] = None
) -> Iterator[None]:
    """Have the database be away, as far as this engine is concerned.

    Every connection is dead, those in use too, and the next use of one fails
    as it does when the server has gone; connects fail with what the engine's
    own driver raises when nobody listens.  It ends with the block, also when
    this raises.

    :param engine: with a :class:`.SmartPool` or :class:`.AsyncSmartPool`.
    :param error: returns what connects fail with instead, such as a wrong
        password.
    :raises sqlalchemy.exc.InvalidRequestError: the engine has another pool.

    .. versionadded:: 0.1
    """
    pool = pool_of(engine)
    with nowhere(sync_engine_of(engine), pool.in_process) as connect:

        def fail(record: Record) -> None:
            if error is not None:
                raise error()
            connect()

        with _before_connects(engine, fail):
            pool.inventory.disown_connects()  # they may yet succeed
            for record in pool.inventory.members:
                _kill(pool, record)
            yield


@contextmanager
def slow_connects(engine: AnyEngine, seconds: float) -> Iterator[None]:
    """Have every connect that begins take longer.

    When the block ends, those that are being held up go on at once.

    :param engine: with a :class:`.SmartPool` or :class:`.AsyncSmartPool`.
    :param seconds: how much longer; of the pool's clock, which
        :func:`.control_clock` can put forward.
    :raises sqlalchemy.exc.InvalidRequestError: the engine has another pool.

    .. versionadded:: 0.1
    """
    held_up: set[Signal] = set()
    over = False

    def hold_up(record: Any) -> None:
        signal = record.pool.runtime.signal()
        held_up.add(signal)
        try:
            if not over:
                signal.wait(seconds)
        finally:
            held_up.discard(signal)

    with _before_connects(engine, hold_up):
        try:
            yield
        finally:
            over = True
            for signal in held_up.copy():
                signal.set()


def kill_idle(engine: AnyEngine) -> int:
    """Cut the connections that nobody has in use, as a server or a firewall
    does that ends idle ones.

    Nobody is told: the pool finds out as it would then.  A connection whose
    socket cannot be reached, such as SQLite's, is closed in its driver.

    :param engine: with a :class:`.SmartPool` or :class:`.AsyncSmartPool`.
    :return: how many there were.
    :raises sqlalchemy.exc.InvalidRequestError: the engine has another pool.

    .. versionadded:: 0.1
    """
    pool = pool_of(engine)
    idle = list(pool.inventory.resting())
    for record in idle:
        _kill(pool, record)
    return len(idle)


def _kill(pool: SmartPool, record: Record) -> None:
    if record.line is not None:
        record.line.sever()
    elif record.dbapi_connection is not None:
        _close_in_driver(pool, record.dbapi_connection)
        # there is no socket that would show it
        record.suspect(pool.runtime.clock())


def _close_in_driver(pool: SmartPool, connection: Any) -> None:
    dialect: Any = pool._dialect
    if not isinstance(pool, AsyncSmartPool):
        dialect.do_close(connection)
        return
    driver_connection = dialect.get_driver_connection(connection)
    if type(driver_connection).__module__.startswith("aiosqlite"):
        # by its own thread, before whatever is asked of it next; ended as a
        # whole, it would have its next close wait for that thread for ever
        close = driver_connection._conn.close
        driver_connection._tx.put_nowait((None, close))
    else:
        apart(partial(end, dialect, connection))


@contextmanager
def _before_connects(
    engine: AnyEngine, call: Callable[[Record], object]
) -> Iterator[None]:
    """Have a call made before each connect; if it raises, in its place.

    Also in pools that follow this one by ``dispose()``.
    """
    first = pool_of(engine)
    creator, connect = first._creator, first._invoke_creator
    over = False

    # SQLAlchemy looks at the name of the argument
    def interposed(connection_record: Any = None) -> Any:
        if not over:
            call(connection_record)
        return connect(connection_record)

    first._creator = interposed
    try:
        yield
    finally:
        over = True
        for pool in (first, sync_engine_of(engine).pool):
            # another fault may have come upon it, and may outlast this one
            if pool._creator is interposed:
                pool._creator = creator
