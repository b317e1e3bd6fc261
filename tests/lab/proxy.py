"""A way to a server which a test can make slow, stall, cut and block."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from dataclasses import replace
import math
import socket
import struct
import threading
import time
from typing import Any
from typing import Coroutine
from typing import Optional
from typing import TypeVar

from sqlalchemy import URL

from tests.lab.server import Server

T = TypeVar("T")

_CHUNK = 65536
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() throws away, sends RST


class Proxy:
    """Forwards to a server what it gets, or does not, as the test wishes.

    It has a thread and an event loop of its own. What its methods change is
    in effect when they return, for the connections there are (``existing``)
    or those that come from now on (``new``), until :meth:`heal`. The kernel
    goes on acknowledging whatever happens here: for packets that are lost
    see :mod:`tests.lab.network`.

    :param server: it may be down, and may come back.
    :param listener: a socket that listens already; by default one on
     127.0.0.1, at a port of the kernel's choice.

    """

    def __init__(
        self, server: Server, listener: Optional[socket.socket] = None
    ) -> None:
        self.server = server
        #: when somebody connected (``time.monotonic()``), in order, whatever
        #: became of it
        self.attempts: list[float] = []
        self._new = _Faults()
        #: whether new connections are closed at once; with RST, or with FIN
        self._refused: Optional[bool] = None
        self._links: set[_Link] = set()
        self._errors: list[BaseException] = []
        self._listener = listener or socket.create_server(
            ("127.0.0.1", 0), backlog=256
        )
        self._listener.setblocking(False)
        self.host, self.port = self._listener.getsockname()
        self._loop: asyncio.AbstractEventLoop = asyncio.SelectorEventLoop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="lab-proxy", daemon=True
        )
        self._thread.start()
        # Not sock_accept(): cancelled, it can lose a connection and complain.
        self._do(self._listen(True))

    def __repr__(self) -> str:
        return f"<Proxy {self.host}:{self.port} before {self.server!r}>"

    def close(self) -> None:
        """End it, and all connections through it.

        :raises Exception: what has gone wrong in here meanwhile.
        """
        if self._loop.is_closed():
            return
        self._do(self._listen(False))
        self.cut(reset=True)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._listener.close()
        for error in self._errors:
            raise error

    # For clients

    def url(self, drivername: str, tls: bool = False, **query: str) -> URL:
        """The server's URL, by way of this proxy.

        The server's ``connect_args()`` go with it, as always.
        """
        url = self.server.url(drivername, tls, **query)
        return url.set(host=self.host, port=self.port)

    # What can be seen

    @property
    def clients(self) -> list[int]:
        """The ports of the clients whose connections are open here."""
        return self._do(self._ports())

    # Faults

    def delay(
        self, seconds: float, *, existing: bool = True, new: bool = True
    ) -> None:
        """Hold every piece of data for so long, in both directions."""
        self._change(existing, new, delay=seconds)

    def throttle(
        self, rate: float, *, existing: bool = True, new: bool = True
    ) -> None:
        """Let through so many bytes per second, each way, per connection."""
        self._change(existing, new, rate=rate)

    def stall(self, *, existing: bool = True, new: bool = True) -> None:
        """Forward nothing, and leave the sockets open.

        The end of a connection is not passed on, either. New connections are
        accepted, and do not reach the server before :meth:`heal`.
        """
        self._change(existing, new, stalled=True)

    def refuse(self, *, reset: bool = True) -> None:
        """Close each new connection as soon as it is there.

        :param reset: with RST; else with FIN.
        """
        self._do(self._set_refused(reset))

    def cut(self, *, reset: bool = False) -> int:
        """Close the connections there are, towards both ends.

        :param reset: with RST; else with FIN.
        :return: how many there were.
        """
        return self._do(self._cut(reset))

    def heal(self) -> None:
        """Undo whatever of this can be undone.

        What a stall has held up goes its way now.
        """
        self._do(self._set_refused(None))
        self._change(True, True, **vars(_Faults()))

    # In the thread of the proxy

    def _do(self, job: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(job, self._loop).result(10.0)

    def _change(self, existing: bool, new: bool, **values: Any) -> None:
        async def change() -> None:
            if new:
                self._new = replace(self._new, **values)
            for link in self._links if existing else ():
                link.change(replace(link.faults, **values))

        self._do(change())

    async def _ports(self) -> list[int]:
        return [link.port for link in self._links]

    async def _set_refused(self, reset: Optional[bool]) -> None:
        self._refused = reset

    async def _cut(self, reset: bool) -> int:
        tasks = [link.end(reset) for link in self._links]
        if tasks:
            await asyncio.wait(tasks)
        return len(tasks)

    async def _listen(self, on: bool) -> None:
        if on:
            self._loop.add_reader(self._listener, self._accept)
        else:
            self._loop.remove_reader(self._listener)

    def _accept(self) -> None:
        try:
            client, peer = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return  # has left already
        self.attempts.append(time.monotonic())
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._refused is not None:
            _close(client, self._refused)
            return
        link = _Link(client, peer[1], self._new)
        self._links.add(link)
        link.task = self._loop.create_task(link.run(self.server.port))
        link.task.add_done_callback(lambda task: self._ended(link))

    def _ended(self, link: _Link) -> None:
        link.close()
        self._links.discard(link)
        if not link.task.cancelled() and (error := link.task.exception()):
            self._errors.append(error)


@dataclass(frozen=True)
class _Faults:
    """What a connection has to suffer."""

    delay: float = 0.0
    rate: float = math.inf
    stalled: bool = False


class _Link:
    """A client, and its way to the server."""

    task: asyncio.Task[None]

    def __init__(
        self, client: socket.socket, port: int, faults: _Faults
    ) -> None:
        self.port = port
        self.faults = faults
        self._client = client
        self._server = socket.socket()
        self._server.setblocking(False)
        self._server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._changed = asyncio.Event()
        self._reset = False

    def change(self, faults: _Faults) -> None:
        self.faults = faults
        self._changed.set()
        self._changed = asyncio.Event()

    def end(self, reset: bool) -> asyncio.Task[None]:
        self._reset = reset
        self.task.cancel()
        return self.task

    async def run(self, port: int) -> None:
        """Forward until both ends are done, one fails, or the test cuts."""
        loop = asyncio.get_running_loop()
        try:
            await self._pass(0)
            await loop.sock_connect(self._server, ("127.0.0.1", port))
            await self._forward()
        except OSError:
            self._reset = True  # what the one has met the other shall meet

    def close(self) -> None:
        _close(self._client, self._reset)
        _close(self._server, self._reset)

    async def _forward(self) -> None:
        pumps = [
            asyncio.ensure_future(self._pump(self._client, self._server)),
            asyncio.ensure_future(self._pump(self._server, self._client)),
        ]
        try:
            await asyncio.gather(*pumps)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.wait(pumps)

    async def _pump(
        self, source: socket.socket, target: socket.socket
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            size = max(1.0, min(_CHUNK, self.faults.rate / 20))
            data = await loop.sock_recv(source, int(size))
            await self._pass(len(data))
            if not data:
                return target.shutdown(socket.SHUT_WR)
            await loop.sock_sendall(target, data)

    async def _pass(self, size: int) -> None:
        """Hold up so many bytes for as long as the faults of now demand."""
        began = time.monotonic()
        while True:
            faults = self.faults
            due = began + faults.delay + size / faults.rate
            left = due - time.monotonic()
            if left <= 0 and not faults.stalled:
                return
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(
                    self._changed.wait(), None if faults.stalled else left
                )


def _close(end: socket.socket, reset: bool) -> None:
    if reset:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    else:
        with suppress(OSError):  # the other end has gone already
            # Says FIN even while unread data would make close() say RST, and
            # while a fork of this process has the socket, too.
            end.shutdown(socket.SHUT_RDWR)
    end.close()
