"""Whether a driver is there, and what it must be told for TLS, for no TLS, for
a unix socket."""

from __future__ import annotations

from pathlib import Path
import ssl
from typing import Any

from sqlalchemy import exc
from sqlalchemy import URL

# Plain has to be said: libpq, asyncpg, pg8000 and PyMySQL (since 1.2) take
# TLS unasked when the server offers it.
_PLAIN: dict[str, dict[str, str]] = {
    "psycopg": {"sslmode": "disable"},
    "psycopg2": {"sslmode": "disable"},
    "asyncpg": {"ssl": "disable"},
    "pg8000": {},
    "pymysql": {"ssl_disabled": "true"},
    "mysqldb": {"ssl_mode": "DISABLED"},
    "mariadbconnector": {"ssl": "false"},
    "aiomysql": {},
    "asyncmy": {},
}

# ``{}`` stands for the certificate's file. All but asyncpg verify it; that
# one cannot be given the file through a URL.
_TLS: dict[str, dict[str, str]] = {
    "psycopg": {"sslmode": "verify-full", "sslrootcert": "{}"},
    "psycopg2": {"sslmode": "verify-full", "sslrootcert": "{}"},
    "asyncpg": {"ssl": "require"},
    "pymysql": {"ssl_ca": "{}"},
    "mysqldb": {"ssl_ca": "{}"},
    "mariadbconnector": {"ssl": "true", "ssl_ca": "{}"},
}

# The argument of ``connect()`` which takes an ``ssl.SSLContext``, of the
# drivers that want one.
_CONTEXT = {"pg8000": "ssl_context", "aiomysql": "ssl", "asyncmy": "ssl"}


def import_error(drivername: str) -> Exception | None:
    """Tell why SQLAlchemy cannot import a driver; None: it can.

    :param drivername: with the database, such as ``"mysql+pymysql"``.
    """
    try:
        URL.create(drivername).get_dialect().import_dbapi()
    except (ImportError, exc.NoSuchModuleError) as error:
        return error
    return None


def query(driver: str, certificate: Path | None) -> dict[str, str]:
    """The URL query with which a driver uses TLS, or surely does not.

    :param driver: as :meth:`sqlalchemy.URL.get_driver_name` says it.
    :param certificate: of the server; None for a plain connection.
    :raises ValueError: a driver this laboratory does not know.

    """
    driver = driver.removesuffix("_async")
    if driver not in _PLAIN:
        raise ValueError(f"unknown driver {driver!r}, not in {[*_PLAIN]}")
    if certificate is None:
        return dict(_PLAIN[driver])
    return {
        key: value.format(certificate)
        for key, value in _TLS.get(driver, {}).items()
    }


def connect_args(driver: str, certificate: Path | None) -> dict[str, Any]:
    """What a driver needs besides the URL, for ``create_engine()``.

    :param certificate: of the server; None for a plain connection.

    """
    if driver not in _CONTEXT:
        return {}
    if certificate is None:
        return {"ssl_context": False} if driver == "pg8000" else {}
    context = ssl.create_default_context(cafile=str(certificate))
    return {_CONTEXT[driver]: context}


def socket_query(driver: str, socket: Path) -> dict[str, str]:
    """The URL query which leads a driver to a server's unix socket.

    :param socket: the file; PostgreSQL's is named ``.s.PGSQL.<port>``.

    """
    if driver == "pg8000":
        return {"unix_sock": str(socket)}
    if socket.name.startswith(".s.PGSQL."):
        return {"host": str(socket.parent), "port": socket.suffix[1:]}
    return {"unix_socket": str(socket)}
