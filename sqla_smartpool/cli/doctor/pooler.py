"""Whether another pooler sits between this client and PostgreSQL.

PostgreSQL tells each client at its login the process that serves it, for
requests to cancel.  A pooler has to make something up instead, as a client
has no process of its own: when it is not what ``pg_backend_pid()`` says,
there is a pooler.  And two clients that are connected at the same time and
are served by the same process share sessions.
"""

from __future__ import annotations

from typing import Any
from typing import Callable
from typing import Optional

from sqlalchemy import Connection

from .findings import Pooler

#: how often two clients are compared: beside other load, one may be given
#: another's session
_ROUNDS = 5

#: the process that the driver was told of at its login, by the package of
#: the connection's class
_TOLD: dict[str, Callable[[Any], int]] = {
    "psycopg": lambda connection: connection.info.backend_pid,
    "psycopg2": lambda connection: connection.info.backend_pid,
    "asyncpg": lambda connection: connection.get_server_pid(),
    "pg8000": lambda connection: int.from_bytes(
        connection._backend_key_data[:4], "big"
    ),
}

#: whether the driver, as it is set, prepares statements that it goes on using
#: in later transactions
_PREPARES: dict[str, Callable[[Any], bool]] = {
    "psycopg": lambda connection: connection.prepare_threshold is not None,
    "asyncpg": lambda connection: connection._config.statement_cache_size > 0,
}


def pooler(one: Connection, other: Connection) -> Optional[Pooler]:
    """Look for a pooler; None: there is none, or it hides.

    :param one: a connection that is in no transaction.
    :param other: another one.
    """
    if one.dialect.name != "postgresql":
        return None
    driver_connection = one.connection.driver_connection
    process = _process(one)
    if any(_process(one) == _process(other) for _ in range(_ROUNDS)):
        # psycopg 3 may be AsyncConnection; both have the attribute
        prepares = _listed(driver_connection, _PREPARES)
        return Pooler(
            "transaction",
            prepares=bool(prepares and prepares(driver_connection)),
        )
    told = _listed(driver_connection, _TOLD)
    # What speaks PostgreSQL's protocol and has no processes says -1 or 0.
    if told is None or process <= 0 or told(driver_connection) == process:
        return None
    return Pooler("session")


def _process(connection: Connection) -> int:
    """Return who serves a transaction of this connection, and end it."""
    found = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
    connection.rollback()
    return int(found)


def _listed(driver_connection: Any, table: dict[str, Any]) -> Any:
    package = type(driver_connection).__module__.partition(".")[0]
    return table.get(package)
