"""What servers allow, asked of the server itself."""

from __future__ import annotations

from typing import Any
from typing import Callable

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from .findings import Limits
from .. import reason

_POSTGRESQL_SETTINGS = """
SELECT name, setting, unit FROM pg_catalog.pg_settings WHERE name IN (
    'max_connections', 'superuser_reserved_connections',
    'reserved_connections', 'idle_session_timeout',
    'idle_in_transaction_session_timeout', 'tcp_keepalives_idle',
    'tcp_keepalives_interval', 'tcp_keepalives_count')
ORDER BY name
"""

# Its backend_type, of sessions of others, is hidden from who is no monitor.
_POSTGRESQL_SESSIONS = """
SELECT count(*),
    count(CASE WHEN usename = current_user THEN 1 END),
    count(CASE WHEN datname = current_database() THEN 1 END)
FROM pg_catalog.pg_stat_activity
WHERE datid IS NOT NULL AND usesysid IS NOT NULL
"""

_POSTGRESQL_OWN_LIMITS = """
SELECT
    (SELECT rolconnlimit FROM pg_catalog.pg_roles
        WHERE rolname = current_user),
    (SELECT datconnlimit FROM pg_catalog.pg_database
        WHERE datname = current_database())
"""

_SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0}


def limits(connection: Connection, ours: int) -> Limits:
    """Ask the server what it allows.

    :param connection: its transaction is used, and may be rolled back.
    :param ours: how many sessions this examination has.
    """
    ask = _BY_DIALECT.get(connection.dialect.name)
    refusal = ""
    if ask is not None:
        try:
            return ask(connection, ours)
        except DBAPIError as error:
            # No right to look, or one that only speaks the protocol.
            refusal = reason(error, connection.engine.url)
    version = connection.dialect.server_version_info or ()
    product = f"{connection.dialect.name} {'.'.join(map(str, version))}"
    return Limits(product.strip(), refusal=refusal)


def _postgresql(connection: Connection, ours: int) -> Limits:
    rows = connection.exec_driver_sql(_POSTGRESQL_SETTINGS).all()
    found = {
        name: float(setting) * _SECONDS.get(unit, 1.0)
        for name, setting, unit in rows
    }
    version = connection.exec_driver_sql("SHOW server_version").scalar_one()
    sessions = connection.exec_driver_sql(_POSTGRESQL_SESSIONS).one()
    own = connection.exec_driver_sql(_POSTGRESQL_OWN_LIMITS).one()
    reserved = found.get("superuser_reserved_connections", 0.0) + found.get(
        "reserved_connections", 0.0
    )
    ceilings = [
        (int(found.get("max_connections", 0) - reserved), sessions[0]),
        *((own[i], sessions[i + 1]) for i in (0, 1)),
    ]
    settings: dict[str, Any] = {
        name: int(value) if value.is_integer() else value
        for name, value in found.items()
    }
    for name, value in zip(("role's limit", "database's limit"), own):
        if value is not None and value >= 0:
            settings[name] = value
    # the one that is reached first; below 0 there is none
    connections, used = min(
        (pair for pair in ceilings if pair[0] is not None and pair[0] >= 0),
        key=lambda pair: pair[0] - pair[1],
    )
    idle = found.get("idle_session_timeout", 0.0)
    return Limits(
        product=f"PostgreSQL {version}",
        known=True,
        connections=connections,
        used=max(0, used - ours),
        idle={"idle_session_timeout": idle} if idle else {},
        settings=settings,
    )


def _mysql(connection: Connection, ours: int) -> Limits:
    version = connection.exec_driver_sql("SELECT VERSION()").scalar_one()
    name = "MariaDB" if "mariadb" in version.lower() else "MySQL"
    settings: dict[str, Any] = {
        setting: int(
            connection.exec_driver_sql(f"SELECT @@{setting}").scalar_one()
        )
        for setting in (
            "max_connections",
            "max_user_connections",
            "wait_timeout",
            "interactive_timeout",
        )
    }
    row = connection.exec_driver_sql(
        "SHOW GLOBAL STATUS LIKE 'Threads_connected'"
    ).one()
    used = max(0, int(row[1]) - ours)
    # Sessions of other users are not ours to count: the user's own limit is
    # taken as a ceiling only.
    ceiling = settings["max_connections"]
    own = settings["max_user_connections"]
    if 0 < own < ceiling - used:
        ceiling, used = own, 0
    return Limits(
        product=f"{name} {version}",
        known=True,
        connections=ceiling,
        used=used,
        idle={"wait_timeout": float(settings["wait_timeout"])},
        settings={**settings, "Threads_connected": int(row[1])},
    )


_BY_DIALECT: dict[str, Callable[[Connection, int], Limits]] = {
    "postgresql": _postgresql,
    "mysql": _mysql,
    "mariadb": _mysql,
}
