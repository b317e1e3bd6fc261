"""A front for a database server that sends TLS session tickets at will.

In TLS 1.3 a server may send a ticket at any time: bytes that come while a
connection is idle, and say nothing about it.  Servers of databases send theirs
with the handshake; so this ends the client's TLS itself, with the server's
certificate, and speaks TLS to the server on its own account.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import select
import socket
import ssl
import threading
from typing import Any
from typing import Optional

from tests.lab.fixtures import missing

_PEM = 1  # SSL_FILETYPE_PEM
_WANTS = (2, 3)  # SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE
_CHUNK = 65536


def _libssl() -> Any:
    """OpenSSL's library: Python's own module sends no tickets on demand."""
    name = ctypes.util.find_library("ssl")
    try:
        library = ctypes.CDLL(name or "libssl.so.3")
        library.SSL_new_session_ticket
    except (OSError, AttributeError):
        missing("OpenSSL's library, 3.0 or newer")
    for function in ("TLS_server_method", "SSL_CTX_new", "SSL_new"):
        getattr(library, function).restype = ctypes.c_void_p
    return library


class _Tls:
    """The server's end of a TLS connection, on a socket."""

    def __init__(self, library: Any, context: int, own: socket.socket) -> None:
        self._library, self._socket = library, own
        self._ssl = ctypes.c_void_p(library.SSL_new(ctypes.c_void_p(context)))
        library.SSL_set_fd(self._ssl, own.fileno())
        if library.SSL_accept(self._ssl) != 1:
            raise OSError("no TLS handshake")
        own.setblocking(False)

    def read(self) -> Optional[bytes]:
        """What has come; empty at the end, None when it was no data."""
        buffer = ctypes.create_string_buffer(_CHUNK)
        got = self._library.SSL_read(self._ssl, buffer, _CHUNK)
        if got > 0:
            return buffer.raw[:got]
        error = self._library.SSL_get_error(self._ssl, got)
        return None if error in _WANTS else b""

    def write(self, data: bytes) -> None:
        # the same call again, until the socket has taken it
        while (
            did := self._library.SSL_write(self._ssl, data, len(data))
        ) <= 0:
            if self._library.SSL_get_error(self._ssl, did) not in _WANTS:
                raise OSError("the client has gone")
            if not select.select([], [self._socket], [], 10)[1]:
                raise OSError("the client takes nothing")

    def send_ticket(self) -> None:
        for step in ("SSL_new_session_ticket", "SSL_do_handshake"):
            if getattr(self._library, step)(self._ssl) != 1:
                raise OSError(f"{step} failed")

    def free(self) -> None:
        self._library.SSL_free(self._ssl)


class _Relay(threading.Thread):
    """One client's connection, from its begin to its end."""

    def __init__(self, front: TicketFront, client: socket.socket) -> None:
        super().__init__(daemon=True)
        self._front, self._client = front, client
        self._wake, self._woken = socket.socketpair()
        self.sent = threading.Event()

    def ask_for_ticket(self) -> None:
        self.sent.clear()
        self._wake.send(b"!")

    def run(self) -> None:
        server = socket.create_connection(self._front.address)
        try:
            with self._client, server, self._wake, self._woken:
                self._front.greet(self._client, server)
                self._relay(server)
        except OSError:
            pass  # one of the two has gone
        finally:
            self._front.relays.discard(self)

    def _relay(self, server: socket.socket) -> None:
        front = self._front
        there = front.client_context.wrap_socket(
            server, server_hostname="127.0.0.1"
        )
        here = _Tls(front.library, front.context, self._client)
        front.relays.add(self)
        try:
            with there:
                while True:
                    ready, _, _ = select.select(
                        [self._client, there, self._woken], [], []
                    )
                    if self._woken in ready:
                        self._woken.recv(1)
                        here.send_ticket()
                        self.sent.set()
                    if self._client in ready:
                        data = here.read()
                        if data == b"":
                            return
                        there.sendall(data or b"")
                    if there in ready:
                        data = _received(there)
                        if data == b"":
                            return
                        if data:
                            here.write(data)
        finally:
            here.free()


def _received(server: ssl.SSLSocket) -> Optional[bytes]:
    """What has come; empty at the end, None when it was no data.

    Not to be waited for: after the server's own tickets it is the client's
    turn to speak.
    """
    server.setblocking(False)
    try:
        data = server.recv(_CHUNK)
        while server.pending():
            data += server.recv(_CHUNK)
        return data
    except ssl.SSLWantReadError:
        return None
    finally:
        server.setblocking(True)


class TicketFront:
    """Listens on a port of its own in front of a server.

    :param server: of :mod:`tests.lab.servers`, with TLS.
    """

    def __init__(self, server: Any) -> None:
        self.library = _libssl()
        self.address = ("127.0.0.1", server.port)
        self.greet = getattr(self, f"_greet_{server.name.lower()}")
        method = ctypes.c_void_p(self.library.TLS_server_method())
        self.context = self.library.SSL_CTX_new(method)
        context = ctypes.c_void_p(self.context)
        for use, file in (
            ("SSL_CTX_use_certificate_file", server.certificate),
            ("SSL_CTX_use_PrivateKey_file", server._key),
        ):
            call = getattr(self.library, use)
            assert call(context, str(file).encode(), _PEM) == 1, use
        self.client_context = ssl.create_default_context(
            cafile=str(server.certificate)
        )
        #: those whose TLS stands
        self.relays: set[_Relay] = set()
        self._door = socket.create_server(("127.0.0.1", 0))
        self.port = self._door.getsockname()[1]
        self._closed = False
        threading.Thread(target=self._welcome, daemon=True).start()

    def _welcome(self) -> None:
        while True:
            client, _ = self._door.accept()
            if self._closed:
                client.close()
                self._door.close()
                return
            _Relay(self, client).start()

    def close(self) -> None:
        self._closed = True
        socket.create_connection(("127.0.0.1", self.port)).close()

    def send_tickets(self) -> int:
        """Send one to each client, now; returns how many there are."""
        relays = self.relays.copy()
        for relay in relays:
            relay.ask_for_ticket()
        for relay in relays:
            assert relay.sent.wait(10), "a ticket was not sent"
        return len(relays)

    # What comes before TLS

    @staticmethod
    def _greet_postgresql(
        client: socket.socket, server: socket.socket
    ) -> None:
        server.sendall(_exactly(client, 8))  # SSLRequest
        client.sendall(_exactly(server, 1))  # yes

    @staticmethod
    def _greet_mariadb(client: socket.socket, server: socket.socket) -> None:
        client.sendall(_packet(server))  # the server's greeting
        server.sendall(_packet(client))  # the request for TLS


def _exactly(source: socket.socket, number: int) -> bytes:
    data = source.recv(number, socket.MSG_WAITALL)
    if len(data) < number:
        raise OSError("ended too soon")
    return data


def _packet(source: socket.socket) -> bytes:
    head = _exactly(source, 4)
    return head + _exactly(source, int.from_bytes(head[:3], "little"))
