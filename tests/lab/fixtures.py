"""The laboratory as pytest fixtures.

The servers are ``postgresql`` and ``mariadb``; ``pooler`` shares the former,
``proxies`` makes ways to them that fail, and ``network`` loses packets.

Load it in the uppermost ``conftest.py``::

    pytest_plugins = ["tests.lab.fixtures"]

"""

from __future__ import annotations

from contextlib import ExitStack
import os
from typing import Any
from typing import Callable
from typing import Iterator
from typing import NoReturn
from typing import Optional
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.lab.network import Network
    from tests.lab.pgbouncer import PgBouncer
    from tests.lab.proxy import Proxy
    from tests.lab.servers import MariaDB
    from tests.lab.servers import PostgreSQL
    from tests.lab.servers import Server

_started: list[Server] = []


def missing(reason: str) -> NoReturn:
    """Skip the test on a developer's machine, fail it in CI.

    CI has all servers and drivers, so what is missing there is a mistake
    which a skipped test would hide.

    :param reason: what is missing, and how to get it.

    """
    if os.environ.get("CI"):
        pytest.fail(f"missing in CI: {reason}", pytrace=False)
    pytest.skip(reason, allow_module_level=True)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL server, the same for all tests of this process."""
    yield from _serve("PostgreSQL")


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    """A MariaDB server, the same for all tests of this process."""
    yield from _serve("MariaDB")


def _serve(kind: str) -> Iterator[Any]:
    try:
        from tests.lab import servers

        server = getattr(servers, kind)()
    except (ImportError, FileNotFoundError) as error:
        missing(str(error))
    with server:
        _started.append(server)
        yield server
        _started.remove(server)


@pytest.fixture(autouse=True)
def _servers_as_found() -> Iterator[None]:
    """A test may leave a server frozen, down or with other settings, and
    sessions that have not ended yet."""
    yield
    for server in _started:
        server.recover()
        server.terminate()


@pytest.fixture
def proxies() -> Iterator[Callable[..., Proxy]]:
    """Makes proxies: ``proxies(server)``, or ``proxies(server, network)``.

    The latter listens inside the network.
    """
    from tests.lab.proxy import Proxy

    with ExitStack() as made:

        def make(server: Server, network: Optional[Network] = None) -> Proxy:
            proxy = Proxy(server, network.listen() if network else None)
            made.callback(proxy.close)
            return proxy

        yield make


@pytest.fixture(params=["session", "transaction"])
def pooler(
    request: pytest.FixtureRequest, postgresql: PostgreSQL
) -> Iterator[PgBouncer]:
    """A PgBouncer in front of ``postgresql``, in either mode."""
    from tests.lab.pgbouncer import PgBouncer

    try:
        pooler = PgBouncer(postgresql, request.param)
    except FileNotFoundError as error:
        missing(str(error))
    with pooler:
        yield pooler
    postgresql.terminate()


@pytest.fixture
def network() -> Iterator[Network]:
    """A network of the test's own, which can lose packets."""
    from tests.lab.network import Network

    try:
        network = Network()
    except RuntimeError as error:
        missing(str(error))
    yield network
    network.close()
