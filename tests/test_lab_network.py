"""The laboratory's network: packets are lost, really, and come back."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
import termios
import time
from typing import Any
from typing import Callable
from typing import Iterator

import pytest
from sqlalchemy import create_engine
from sqlalchemy import exc
from sqlalchemy import NullPool
from sqlalchemy import text

from tests.lab.network import ADDRESS
from tests.lab.network import Network
from tests.lab.waiting import eventually

#: nothing arrives within this time: it is lost
QUIET = 0.1
#: longer than anything takes here; seconds
LONG = 10.0


class Pair:
    """The two ends of a connection into the network."""

    def __init__(self, network: Network) -> None:
        with network.listen() as listener:
            self.client = socket.create_connection(
                listener.getsockname(), timeout=LONG
            )
            self.server, (_, self.port) = listener.accept()
        self.server.settimeout(LONG)

    def close(self) -> None:
        self.client.close()
        self.server.close()

    def reaches(self) -> bool:
        self.client.sendall(b"x")
        return self.server.recv(1) == b"x"

    def loses(self) -> bool:
        self.server.settimeout(QUIET)
        self.client.sendall(b"x")
        try:
            return not self.server.recv(1)
        except TimeoutError:
            return True
        finally:
            self.server.settimeout(LONG)


@pytest.fixture
def pairs(network: Network) -> Iterator[Callable[[], Pair]]:
    made: list[Pair] = []

    def make() -> Pair:
        made.append(Pair(network))
        return made[-1]

    yield make
    for pair in made:
        pair.close()


def try_connect(network: Network, timeout: float) -> None:
    with network.listen() as listener:
        address = listener.getsockname()
        socket.create_connection(address, timeout=timeout).close()


def unacknowledged(client: socket.socket) -> int:
    """How many bytes the kernel keeps, to send them again."""
    number = bytearray(4)
    fcntl.ioctl(client, termios.TIOCOUTQ, number)
    return int.from_bytes(number, sys.byteorder)


@pytest.mark.parametrize("fault", [Network.drop, Network.unplug])
def test_what_is_lost_is_not_acknowledged_and_comes_once_it_is_healed(
    network: Network,
    pairs: Callable[[], Pair],
    fault: Callable[[Network], None],
) -> None:
    pair = pairs()
    assert pair.reaches()
    fault(network)
    assert pair.loses()
    assert unacknowledged(pair.client)
    network.heal()
    assert pair.server.recv(1) == b"x"
    eventually(lambda: not unacknowledged(pair.client))


@pytest.mark.parametrize("fault", [Network.drop, Network.drop_new])
def test_a_connect_gets_no_answer(
    network: Network, fault: Callable[[Network], None]
) -> None:
    fault(network)
    with pytest.raises(TimeoutError):
        try_connect(network, QUIET)
    network.heal()
    try_connect(network, LONG)


def test_new_ones_can_be_lost_alone(
    network: Network, pairs: Callable[[], Pair]
) -> None:
    pair = pairs()
    network.drop_new()
    assert pair.reaches()


def test_single_connections_can_be_lost_alone(
    network: Network, pairs: Callable[[], Pair]
) -> None:
    one, other = pairs(), pairs()
    network.drop([one.port])
    assert one.loses()
    assert other.reaches()
    try_connect(network, LONG)


@pytest.mark.parametrize("fault", [Network.drop, Network.unplug])
def test_the_kernel_ends_a_lost_connection_after_tcp_user_timeout(
    network: Network,
    pairs: Callable[[], Pair],
    fault: Callable[[Network], None],
) -> None:
    pair = pairs()
    pair.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 500)
    fault(network)
    began = time.monotonic()
    pair.client.sendall(b"x")
    with pytest.raises(OSError, match="timed out|No route"):
        pair.client.recv(1)
    # by itself it takes a quarter of an hour; how often the kernel looks
    # depends on how long answers took before
    assert 0.4 < time.monotonic() - began < 30.0


def test_nothing_is_left_of_it(network: Network) -> None:
    def links() -> str:
        show = ["ip", "-oneline", "address"]
        done = subprocess.run(show, check=True, capture_output=True, text=True)
        return done.stdout

    # not the whole network: other processes have their four addresses
    near = f" {ADDRESS - 1}/"
    assert near in links()
    network.close()
    assert near not in links()
    again = Network()
    again.close()
    assert near not in links()


def test_a_process_that_is_killed_leaves_nothing(network: Network) -> None:
    network.close()
    program = (
        "import os, signal\n"
        "from tests.lab.network import Network\n"
        "network = Network()\n"
        "print(network._near, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True
    )
    link = done.stdout.strip()
    assert link.startswith("lab"), done.stderr

    def gone() -> bool:
        show = ["ip", "link", "show", link]
        return subprocess.run(show, capture_output=True).returncode != 0

    eventually(gone, message=f"{link} is gone")


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize(
    "drivername, kind",
    [("postgresql+psycopg", "postgresql"), ("mysql+pymysql", "mariadb")],
)
def test_a_driver_finds_its_server_behind_a_proxy_in_the_network(
    request: pytest.FixtureRequest,
    network: Network,
    proxies: Callable[..., Any],
    drivername: str,
    kind: str,
    tls: bool,
) -> None:
    server = request.getfixturevalue(kind)
    if tls and not server.tls:
        pytest.skip("this build has no TLS")
    proxy = proxies(server, network)
    assert proxy.host == str(ADDRESS)
    engine = create_engine(
        proxy.url(drivername, tls),
        connect_args=server.connect_args(drivername, tls),
        poolclass=NullPool,
    )
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
        network.drop(proxy.clients)
        raw: Any = connection.connection.dbapi_connection
        descriptor = raw._sock if kind == "mariadb" else raw
        with socket.socket(fileno=os.dup(descriptor.fileno())) as twin:
            twin.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 300)
        with pytest.raises(exc.DBAPIError):
            connection.execute(text("SELECT 1"))
