"""The laboratory's proxy: what it does to a connection, and to a new one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
import socket
import threading
import time
from typing import Any
from typing import Callable
from typing import Iterator

import pytest
from sqlalchemy import create_engine
from sqlalchemy import exc
from sqlalchemy import NullPool
from sqlalchemy import text

from tests.lab.proxy import Proxy
from tests.lab.server import free_port
from tests.lab.waiting import eventually

MakeProxy = Callable[[Any], Proxy]

#: nothing arrives within this time: it is held up
QUIET = 0.1
#: longer than anything takes here; seconds
LONG = 10.0


class Echo:
    """In place of a database: says what it is told, and can be down."""

    def __init__(self) -> None:
        self.port = free_port()
        self.start()

    def start(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        # wakes accept(), which close() does not
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # stopped
            threading.Thread(
                target=self._answer, args=(client,), daemon=True
            ).start()

    def _answer(self, client: socket.socket) -> None:
        with client:
            try:
                while data := client.recv(65536):
                    client.sendall(data)
            except ConnectionError:
                return  # the proxy reset it


@pytest.fixture
def echo() -> Iterator[Echo]:
    echo = Echo()
    yield echo
    echo.stop()


@pytest.fixture
def proxy(proxies: MakeProxy, echo: Echo) -> Proxy:
    return proxies(echo)


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection((proxy.host, proxy.port), timeout=LONG)


def hears(client: socket.socket, word: bytes) -> bool:
    """Whether this word comes, in however many pieces."""
    heard = b""
    while len(heard) < len(word) and (piece := client.recv(65536)):
        heard += piece
    return heard == word


def says(client: socket.socket, word: bytes) -> bool:
    """Whether a word comes back."""
    client.sendall(word)
    return hears(client, word)


def silent(client: socket.socket, word: bytes) -> bool:
    """Whether no answer comes."""
    client.settimeout(QUIET)
    client.sendall(word)
    try:
        client.recv(1)
    except TimeoutError:
        return True
    finally:
        client.settimeout(LONG)
    return False


def end(client: socket.socket) -> str:
    """How a connection ends, as its client sees it."""
    try:
        return "FIN" if client.recv(1) == b"" else "data"
    except ConnectionResetError:
        return "RST"


def meets(proxy: Proxy) -> str:
    """How a connection that is refused ends, as its client sees it."""
    try:
        with connect(proxy) as client:
            return end(client)
    except ConnectionResetError:
        return "RST"  # before connect() has looked


def how_long(job: Callable[[], object]) -> float:
    began = time.monotonic()
    assert job()
    return time.monotonic() - began


def test_it_forwards_and_passes_on_the_end(proxy: Proxy) -> None:
    with connect(proxy) as client:
        assert says(client, b"word" * 50_000)
        assert proxy.clients == [client.getsockname()[1]]
        client.shutdown(socket.SHUT_WR)
        assert end(client) == "FIN"
    eventually(lambda: not proxy.clients, message="nothing is left open")


def test_fifty_connections_go_through_side_by_side(proxy: Proxy) -> None:
    clients = [connect(proxy) for _ in range(50)]
    with ThreadPoolExecutor(50) as threads:
        assert all(threads.map(lambda c: says(c, b"x" * 1000), clients))
    assert len(proxy.clients) == len(proxy.attempts) == 50
    for client in clients:
        client.close()


def test_a_proxy_with_nothing_to_do_uses_no_cpu(proxy: Proxy) -> None:
    with connect(proxy) as client:
        assert says(client, b"x")
        proxy.stall()
        (thread,) = (t for t in threading.enumerate() if t.name == "lab-proxy")
        clock = time.pthread_getcpuclockid(thread.ident or 0)
        before = time.clock_gettime(clock)
        assert silent(client, b"x") and silent(client, b"x")
        assert time.clock_gettime(clock) - before < QUIET / 10


@pytest.mark.parametrize("reset, how", [(False, "FIN"), (True, "RST")])
def test_cut_ends_what_is_open_and_nothing_else(
    proxy: Proxy, reset: bool, how: str
) -> None:
    with connect(proxy) as client:
        assert says(client, b"x")
        assert proxy.cut(reset=reset) == 1
        assert end(client) == how
    with connect(proxy) as client:
        assert says(client, b"x")


@pytest.mark.parametrize("reset, how", [(False, "FIN"), (True, "RST")])
def test_refuse_ends_what_comes_and_nothing_else(
    proxy: Proxy, reset: bool, how: str
) -> None:
    with connect(proxy) as client:
        assert says(client, b"x")
        proxy.refuse(reset=reset)
        assert meets(proxy) == how
        assert says(client, b"x")
    proxy.heal()
    with connect(proxy) as client:
        assert says(client, b"x")


@pytest.mark.parametrize("which", ["existing", "new"])
def test_a_stall_holds_up_only_those_it_is_for(
    proxy: Proxy, which: str
) -> None:
    with connect(proxy) as existing:
        assert says(existing, b"x")
        proxy.stall(existing=which == "existing", new=which == "new")
        with connect(proxy) as new:
            stalled = existing if which == "existing" else new
            free = new if which == "existing" else existing
            assert silent(stalled, b"held up")
            assert says(free, b"x")
            proxy.heal()
            assert hears(stalled, b"held up")
            assert says(stalled, b"x")


def test_a_stall_holds_up_the_end_too(proxy: Proxy, echo: Echo) -> None:
    with connect(proxy) as client:
        assert says(client, b"x")
        proxy.stall()
        client.shutdown(socket.SHUT_WR)
        client.settimeout(QUIET)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(LONG)
        proxy.heal()
        assert end(client) == "FIN"


def test_what_is_stalled_can_be_cut(proxy: Proxy) -> None:
    with connect(proxy) as client:
        proxy.stall()
        assert silent(client, b"x")
        proxy.cut(reset=True)
        assert end(client) == "RST"


def test_delay_is_added_in_each_direction_and_healed(proxy: Proxy) -> None:
    with connect(proxy) as client:
        assert says(client, b"x")
        proxy.delay(0.1)
        assert 0.2 <= how_long(lambda: says(client, b"x")) < 1.0
        proxy.delay(LONG)
        client.sendall(b"x")
        proxy.heal()
        assert how_long(lambda: hears(client, b"x")) < 1.0


def test_throttle_bounds_the_bytes_per_second(proxy: Proxy) -> None:
    word = b"x" * 2000
    with connect(proxy) as client, connect(proxy) as other:
        assert says(client, b"x") and says(other, b"x")
        proxy.throttle(5000)
        assert 0.4 <= how_long(lambda: says(client, word)) < 2.0
        proxy.heal()
        assert how_long(lambda: says(other, word)) < 0.4


def test_attempts_are_counted_also_while_the_server_is_down(
    proxy: Proxy, echo: Echo
) -> None:
    began = time.monotonic()
    echo.stop()
    for _ in range(2):
        assert meets(proxy) == "RST"
    echo.start()
    with connect(proxy) as client:
        assert says(client, b"x")
    assert len(proxy.attempts) == 3
    assert began < proxy.attempts[0] < proxy.attempts[2] < time.monotonic()


def test_close_ends_everything_of_it(echo: Echo) -> None:
    proxy = Proxy(echo)  # type: ignore[arg-type]
    with connect(proxy) as client:
        assert says(client, b"x")
        proxy.close()
        assert end(client) == "RST"
    assert "lab-proxy" not in {t.name for t in threading.enumerate()}
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize(
    "drivername, kind",
    [("postgresql+psycopg", "postgresql"), ("mysql+pymysql", "mariadb")],
)
def test_a_driver_finds_its_server_behind_the_proxy(
    request: pytest.FixtureRequest,
    proxies: MakeProxy,
    drivername: str,
    kind: str,
    tls: bool,
) -> None:
    server = request.getfixturevalue(kind)
    if tls and not server.tls:
        pytest.skip("this build has no TLS")
    proxy = proxies(server)
    engine = create_engine(
        proxy.url(drivername, tls),
        connect_args=server.connect_args(drivername, tls),
        poolclass=NullPool,
    )
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
        proxy.cut(reset=True)
        with pytest.raises(exc.DBAPIError):
            connection.execute(text("SELECT 1"))
    assert len(proxy.attempts) == 1
