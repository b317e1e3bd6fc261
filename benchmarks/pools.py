"""Pools of connections that do nothing: what is measured is the pool."""

from __future__ import annotations

from typing import Any

from dbutils.pooled_db import PooledDB
from psycopg.pq import TransactionStatus
import psycopg_pool
from sqlalchemy import create_engine
from sqlalchemy import Engine
from sqlalchemy import Pool
from sqlalchemy.pool import NullPool
from sqlalchemy.pool import QueuePool
from sqlalchemy.pool import StaticPool

from sqla_smartpool import SmartPool
from .floor import ThreadFifo


class NoDatabase:
    """A DBAPI connection that does nothing."""

    def rollback(self) -> None:
        pass

    def close(self) -> None:
        pass

    def terminate(self) -> None:
        pass

    def create_function(self, *args: Any, **kw: Any) -> None:
        pass

    await_ = staticmethod(lambda awaitable: None)

    @property
    def _connection(self) -> NoDatabase:
        return self


class Module:
    """Its DBAPI."""

    paramstyle = "qmark"
    threadsafety = 1
    Error = Exception
    OperationalError = InterfaceError = InternalError = Error
    sqlite_version_info = (3, 40, 0)
    has_stop = True

    @staticmethod
    def connect(*args: Any, **kw: Any) -> NoDatabase:
        return NoDatabase()


def pool(kind: type[Pool], size: int, **options: Any) -> Pool:
    """A pool with so many connections at most, all of them open."""
    creator: Any = NoDatabase
    if issubclass(kind, QueuePool):
        options["max_overflow"] = 0
    elif not issubclass(kind, ThreadFifo):
        return kind(creator)
    return filled(kind(creator, pool_size=size, **options), size)


def filled(made: Pool, size: int) -> Pool:
    for connection in [made.connect() for _ in range(size)]:
        connection.close()
    return made


def engine(
    kind: type[Pool], size: int, is_async: bool = False, **options: Any
) -> Engine:
    """An engine over such a pool.  Its dialect has nothing to find out."""
    sizes: dict[str, Any] = {}
    if issubclass(kind, QueuePool):
        sizes["max_overflow"] = 0
        sizes.update({f"pool_{name}": options[name] for name in options})
    if kind not in (NullPool, StaticPool):
        sizes["pool_size"] = size
    made = create_engine(
        "sqlite+aiosqlite://" if is_async else "sqlite://",
        module=Module,
        creator=NoDatabase,
        poolclass=kind,
        _initialize=False,
        **sizes,
    )
    if not is_async:  # or it would belong to no loop
        filled(made.pool, size if sizes else 1)
    return made


class _Idle:
    """What psycopg_pool asks a connection of psycopg for."""

    transaction_status = TransactionStatus.IDLE


class NoPostgreSQL:
    """A connection of psycopg that does nothing."""

    pgconn = _Idle()
    closed = False
    broken = False
    _pool: Any = None

    @classmethod
    def connect(cls, *args: Any, **kw: Any) -> NoPostgreSQL:
        return cls()

    def close(self) -> None:
        self.closed = True


def psycopg_pool_of(
    size: int, **options: Any
) -> psycopg_pool.ConnectionPool[Any]:
    kind: Any = NoPostgreSQL
    made = psycopg_pool.ConnectionPool(
        connection_class=kind,
        min_size=size,
        max_size=size,
        open=True,
        **options,
    )
    made.wait()
    return made


def dbutils_pool_of(size: int) -> PooledDB:
    """DBUtils' pool for DBAPI modules, whose callers wait for ever."""
    return PooledDB(
        Module,
        mincached=size,
        maxcached=size,
        maxconnections=size,
        blocking=True,
        ping=0,  # as nobody else asks
    )


#: SQLAlchemy's pools and ours; StaticPool, which is no pool, is what the
#: machinery around a pool costs
KINDS: dict[str, type[Pool]] = {
    "QueuePool": QueuePool,
    "StaticPool": StaticPool,
    "NullPool": NullPool,
    "SmartPool": SmartPool,
}
