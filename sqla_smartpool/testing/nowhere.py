"""A server that is not there, to which a driver connects in vain."""

from __future__ import annotations

from contextlib import closing
from contextlib import contextmanager
import os
import socket
from typing import Any
from typing import Callable
from typing import Iterator

from sqlalchemy.engine import Engine
from sqlalchemy.engine import URL

#: the places where URLs name other ways to a server than host and port
_OTHER_WAYS = (
    "host",
    "hostaddr",
    "port",
    "service",
    "service_name",
    "unix_sock",
    "unix_socket",
)


@contextmanager
def nowhere(
    engine: Engine, in_process: bool
) -> Iterator[Callable[[], object]]:
    """Give a call that connects to nobody, with the engine's own driver.

    It raises what this driver raises while a server is down.

    :param in_process: the database is a file.
    """
    with closing(socket.socket()) as reserved:
        # bound, but not listening: nobody else gets this port, and whoever
        # connects to it is refused
        reserved.bind(("127.0.0.1", 0))
        url = engine.url
        if in_process:
            url = url.set(database=os.path.join(os.devnull, "away"))
        else:
            url = url.difference_update_query(_OTHER_WAYS).set(
                host="127.0.0.1", port=reserved.getsockname()[1]
            )
        yield lambda: _connect_in_vain(engine.dialect, url)


def _connect_in_vain(dialect: Any, url: URL) -> None:
    """:raises Exception: always; the driver's own."""
    dbapi = dialect.loaded_dbapi
    try:
        args, options = dialect.create_connect_args(url)
        connection = dialect.connect(*args, **options)
    except (dbapi.Error, OSError):
        raise
    except Exception as error:  # this driver cannot be led astray by a URL
        raise _refused(dbapi) from error
    # the driver has gone its own way, by its configuration
    dialect.do_close(connection)
    raise _refused(dbapi)


def _refused(dbapi: Any) -> Exception:
    error: Exception = dbapi.OperationalError(
        "connection refused: an outage is simulated"
    )
    return error
