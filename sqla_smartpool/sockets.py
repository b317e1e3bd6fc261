"""What the operating system knows of a connection, without asking the server.

A driver's socket is looked at through its descriptor.  The driver stays its
owner: nothing here closes it, and before each use the descriptor is shown to
be still the one of the connection's birth, as a driver that closes its
socket has the number given to the next one at once.
"""

from __future__ import annotations

import _socket
import os
import socket
import sys
import threading
from typing import Any
from typing import Callable
from typing import Optional
import weakref

#: Linux: a number that no other socket has until the next boot.  Unlike
#: ``fstat``, ``getsockopt`` holds on to the interpreter lock: letting go of it
#: costs up to 5 ms beside one busy thread.
_SO_COOKIE = 57
_TCP_INFO: Any = getattr(socket, "TCP_INFO", None)
_ESTABLISHED = 1  # TCP_ESTABLISHED in linux/tcp_states.h
#: where tcpi_last_data_recv stands in struct tcp_info (linux/tcp.h)
_LAST_DATA_RECV = slice(52, 56)
_TCP_USER_TIMEOUT = getattr(socket, "TCP_USER_TIMEOUT", None)
_DONTWAIT: int = getattr(socket, "MSG_DONTWAIT", 0)
_PEEK = socket.MSG_PEEK | _DONTWAIT
_UNIX = getattr(socket, "AF_UNIX", None)


def _fileno(connection: Any) -> Any:
    return connection.fileno()


#: How to reach the descriptor of each driver's connections, by the package
#: that the connection's class comes from.  To add a driver is to add a line.
#: A driver's methods are never called on a guess: what is not listed here is
#: asked by pings.
_DESCRIPTORS: dict[str, Callable[[Any], Any]] = {
    "psycopg": _fileno,
    "psycopg2": _fileno,
    "psycopg2cffi": _fileno,
    "MySQLdb": _fileno,
    "pg8000": lambda connection: connection._usock.fileno(),
    "redshift_connector": lambda connection: connection._usock.fileno(),
    "pymysql": lambda connection: connection._sock.fileno(),
    "mysql": lambda connection: connection._socket._sock.fileno(),
    # its property "socket" makes an object that closes the descriptor
    "mariadb": lambda connection: connection._get_socket(),
}

#: the same for drivers that are built on asyncio's transports
_TRANSPORTS: dict[str, Callable[[Any], Any]] = {
    "asyncpg": lambda connection: connection._transport,
    "aiomysql": lambda connection: connection._writer.transport,
    "asyncmy": lambda connection: connection._transport,
}

#: drivers that can tell by themselves whether a connection is alive, without
#: a round trip
_HEALTH: dict[str, Callable[[Any], bool]] = {
    "oracledb": lambda connection: bool(connection.is_healthy()),
}


class _View(_socket.socket):
    """A socket object on a descriptor that belongs to somebody else."""

    __slots__ = ()

    def __del__(self) -> None:
        # in place of the close() that a socket's finalizer would do
        self.detach()


class Line:
    """One connection's socket, as far as the pool has to do with it.

    :param descriptor: of an open socket.
    :raises OSError: when it is not a socket.
    """

    __slots__ = ("_view", "_tcp", "_identity")

    def __init__(self, descriptor: int) -> None:
        # SOCK_NONBLOCK only spares the descriptor from being changed by
        # socket.setdefaulttimeout(); it is not applied to it
        kind = socket.SOCK_STREAM | getattr(socket, "SOCK_NONBLOCK", 0)
        self._view = _View(-1, kind, 0, descriptor)
        self._tcp = self._view.family in (socket.AF_INET, socket.AF_INET6)
        self._identity = _identity(self._view)

    def quiet(self) -> bool:
        """Tell whether there is nothing to know: the connection stands, and,
        where the kernel cannot say that, no byte has come.

        In about a microsecond, and without a switch of threads, on TCP.
        """
        try:
            if self._tcp and _TCP_INFO is not None:
                return self._established()
            return self._unchanged() and self._peek() is None
        except OSError:
            return False

    def dead(self) -> bool:
        """Tell whether the connection is known to have ended.

        Bytes that nobody has read are no end: they may be a notice.
        """
        try:
            if self._tcp and _TCP_INFO is not None:
                return not self._established()
            if not self._unchanged():
                return True
            came = self._peek()
            return came == b"" or (came is not None and self._has_left())
        except OSError:
            return True

    def noisy(self) -> bool:
        """Tell whether bytes have come that nobody has read, where the kernel
        cannot say what that means."""
        if self._tcp and _TCP_INFO is not None:
            return False
        return not self.quiet()

    def _has_left(self) -> bool:
        """Tell whether the peer is gone, whatever it said before."""
        if self._view.family != _UNIX:
            return False
        try:
            self._view.send(b"", _DONTWAIT)
        except BrokenPipeError:
            return True  # whoever sends is told, be it nothing
        except BlockingIOError:
            pass  # it stands, and does not read
        return False

    def _established(self) -> bool:
        look = self._view.getsockopt
        return (
            look(socket.SOL_SOCKET, _SO_COOKIE, 8) == self._identity
            and look(socket.IPPROTO_TCP, _TCP_INFO, 1)[0] == _ESTABLISHED
        )

    def _unchanged(self) -> bool:
        return _identity(self._view) == self._identity

    def _peek(self) -> Optional[bytes]:
        if not hasattr(socket, "MSG_DONTWAIT"):  # Windows
            import select

            if not select.select([self._view.fileno()], [], [], 0)[0]:
                return None
        try:
            return self._view.recv(1, _PEEK)
        except BlockingIOError:
            return None

    def silence(self) -> Optional[float]:
        """Seconds since bytes last came from the server; None: unknown."""
        if not self._tcp or _TCP_INFO is None:
            return None
        try:
            if not self._unchanged():
                return None
            info = self._view.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 56)
        except OSError:
            return None
        return int.from_bytes(info[_LAST_DATA_RECV], sys.byteorder) / 1000

    def bound_by(self, seconds: float) -> None:
        """Have the kernel end whatever waits for a peer that is gone.

        Keepalive ends what waits for bytes, TCP_USER_TIMEOUT what waits for
        its own to be acknowledged.  Whatever is set already stays.

        :param seconds: for how long a lost peer may go unnoticed.
        """
        if not self._tcp:
            return
        fresh = socket.socket(self._view.family, socket.SOCK_STREAM)
        with fresh:
            for level, option, value in _kernel_limits(seconds):
                try:
                    if self._view.getsockopt(
                        level, option
                    ) == fresh.getsockopt(level, option):
                        self._view.setsockopt(level, option, value)
                except OSError:
                    continue  # this system does not let it be set

    def sever(self) -> None:
        """Shut the connection down, waking whoever is blocked on it."""
        line = self.hold()
        if line is not None:
            line.cut()
            line.release()

    def point_at(self, descriptor: int) -> None:
        """Have the driver's descriptor mean another file from now on."""
        try:
            if self._unchanged():
                os.dup2(descriptor, self._view.fileno(), inheritable=False)
        except OSError:
            pass  # the driver has closed it

    def hold(self) -> Optional[Held]:
        """Take hold of the connection itself, beside the driver.

        :return: None when the driver has closed it.
        """
        try:
            held = Held(self._view.family)
        except OSError:
            return None  # too many files are open
        try:
            held.copy(self._view.fileno())
            if held.identity() == self._identity:
                return held
        except OSError:
            pass  # the driver has closed it
        held.release()
        return None


def _identity(of: _socket.socket) -> object:
    try:
        return of.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8)
    except OSError:  # not Linux
        return os.fstat(of.fileno()).st_ino


class Held:
    """A descriptor of our own for a driver's socket.

    Shutting it down wakes a driver that is blocked in a system call, and
    cannot hit another socket, whatever the driver does in the meantime.

    :param family: of the socket; it is a new one before :meth:`copy`.
    """

    __slots__ = ("_socket", "_lock", "__weakref__")

    def __init__(self, family: int) -> None:
        self._socket = _socket.socket(family, socket.SOCK_STREAM)
        # cut and release are called by different threads
        self._lock = threading.Lock()
        # before it is the driver's: a child forked in between could not tell
        # whose copy it has, and would keep it for as long as it lives
        all_held.add(self)

    def copy(self, descriptor: int) -> None:
        """Be that socket from now on."""
        os.dup2(descriptor, self._socket.fileno(), inheritable=False)

    def identity(self) -> object:
        return _identity(self._socket)

    def cut(self) -> None:
        with self._lock:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # is no longer connected

    def release(self) -> None:
        with self._lock:
            self._socket.close()

    def release_in_child(self) -> None:
        """Let go of a parent's; who had the lock did not come along."""
        self._socket.close()


#: every one of this process, for :mod:`.fork`
all_held: weakref.WeakSet[Held] = weakref.WeakSet()


def _kernel_limits(seconds: float) -> list[tuple[int, int, int]]:
    whole = max(1, round(seconds))
    idle = max(1, whole // 2)
    interval = max(1, whole // 10)
    probes = max(1, -(-(whole - idle) // interval))
    tcp = socket.IPPROTO_TCP
    limits = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in (
        ("TCP_KEEPIDLE", idle),
        ("TCP_KEEPALIVE", idle),  # its name on macOS
        ("TCP_KEEPINTVL", interval),
        ("TCP_KEEPCNT", probes),
    ):
        option = getattr(socket, name, None)
        if option is not None:
            limits.append((tcp, option, value))
    if _TCP_USER_TIMEOUT is not None:
        limits.append((tcp, _TCP_USER_TIMEOUT, max(1, int(seconds * 1000))))
    return limits


def _listed(driver_connection: object, table: dict[str, Any]) -> Any:
    for kind in type(driver_connection).__mro__:
        found = table.get(kind.__module__.partition(".")[0])
        if found is not None:
            return found
    return None


def line_of(driver_connection: object) -> Optional[Line]:
    """Reach a connection's socket.

    :param driver_connection: as SQLAlchemy's ``driver_connection``.
    :return: None when it cannot be reached, or is none.
    """
    try:
        transport = transport_of(driver_connection)
        if transport is not None:
            descriptor = transport.get_extra_info("socket").fileno()
        else:
            reach = _listed(driver_connection, _DESCRIPTORS)
            descriptor = reach and reach(driver_connection)
        # a mock answers to every name, but with no number
        if type(descriptor) is not int or descriptor < 0:
            return None
        return Line(descriptor)
    except Exception:  # another release of the driver: pings still work
        return None


def transport_of(driver_connection: object) -> Any:
    """Return a connection's asyncio transport; None: it has none."""
    reach = _listed(driver_connection, _TRANSPORTS)
    return reach and reach(driver_connection)


def health_call_of(
    driver_connection: object,
) -> Optional[Callable[[Any], bool]]:
    """Return the driver's own health call; None: it has none."""
    found: Optional[Callable[[Any], bool]] = _listed(
        driver_connection, _HEALTH
    )
    return found
