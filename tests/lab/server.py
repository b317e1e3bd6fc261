"""What all servers of the laboratory have in common."""

from __future__ import annotations

from abc import ABC
from abc import abstractmethod
import atexit
import os
from pathlib import Path
import secrets
import shutil
import signal
import socket
import time
from typing import Any
from typing import ClassVar
from typing import Iterable
from typing import Union

from sqlalchemy import URL

from tests.lab import drivers
from tests.lab import processes
from tests.lab.certificates import self_signed
from tests.lab.waiting import eventually

Setting = Union[str, int, float, bool, None]


class Server(ABC):
    """A database server of the tests' own.

    Clients log in as user ``smart``, to database ``test``, with a password
    made at random for each server; the harness itself as user ``admin``,
    through the unix socket only.

    :param max_connections: how many sessions of user ``smart`` the server
     takes. It keeps one more for the harness.
    :raises FileNotFoundError: this machine has no such server.

    """

    #: the name of this kind of server
    name: ClassVar[str]
    _stop_signal: ClassVar[signal.Signals]
    _quit_signal: ClassVar[signal.Signals]

    def __init__(self, max_connections: int = 120) -> None:
        self.max_connections = max_connections
        #: stays the same over restarts
        self.port = free_port()
        self.password = secrets.token_hex(16)
        #: whether it speaks TLS (one build of PostgreSQL does not); known
        #: once it was started
        self.tls = True
        #: PEM, for a client that wants to verify the server
        self.certificate = Path()
        self._key = Path()
        self._folder: Path | None = None
        self._process: processes.ServerProcess | None = None
        self._settings: dict[str, Setting] = {}
        self._owner = os.getpid()

    def __repr__(self) -> str:
        state = "running" if self.running else "down"
        return f"<{self.name} 127.0.0.1:{self.port} {state}>"

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # Up and down

    @property
    def running(self) -> bool:
        """Whether the process is there; a frozen one is, too."""
        return self._process is not None and self._process.running

    @property
    def pids(self) -> list[int]:
        """The server's processes, the main one first."""
        return self._process.pids() if self._process else []

    @property
    def folder(self) -> Path:
        """Where the server has its data, log and socket."""
        assert self._folder is not None, f"{self!r} was not started"
        return self._folder

    def start(self, timeout: float = 30.0) -> None:
        """Start the server; returns when it accepts logins.

        Does nothing when it is running.

        :param timeout: seconds until it must accept logins.
        :raises RuntimeError: it does not; with the end of its log.

        """
        if self.running:
            return
        first = self._folder is None
        try:
            if first:
                self._create()
            self._launch(time.monotonic() + timeout, may_move=first)
            if first:
                self._populate()
        except BaseException:
            if first:
                self.close()
            else:
                self.kill()
            raise

    def stop(self, timeout: float = 10.0) -> None:
        """Shut the server down cleanly; its data stays for :meth:`start`.

        Sessions are closed by the server, with a word of goodbye where the
        protocol has one.

        :param timeout: seconds after which it is killed.

        """
        if self._process and not self._process.stop(
            self._stop_signal, timeout
        ):
            self.kill()

    def kill(self) -> None:
        """SIGKILL to all of its processes, as when the machine fails.

        The data stays for :meth:`start`.
        """
        if self._process:
            self._process.kill()

    def restart(self) -> None:
        """Stop and start again, on the same port."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """SIGSTOP to all of its processes: a server that does not answer.

        The kernel goes on accepting connections and bytes for it.
        """
        if self._process:
            self._process.freeze()

    def thaw(self) -> None:
        """Undo :meth:`freeze`."""
        if self._process:
            self._process.thaw()

    def recover(self) -> None:
        """Running, not frozen, settings as at first: fit for the next test.

        Data is left alone; sessions too, unless settings have to be undone.
        """
        self.thaw()
        self.start()
        if self._settings:
            self.configure(**dict.fromkeys(self._settings))
            self.restart()  # some settings count from a start only

    def close(self) -> None:
        """Stop the server and remove all that it has left."""
        if os.getpid() != self._owner:
            return  # a fork of the tests ends, and runs our atexit
        self.stop()
        if self._folder is not None:
            shutil.rmtree(self._folder)
            self._folder = self._process = None
        atexit.unregister(self.close)

    # For clients

    def url(self, drivername: str, tls: bool = False, **query: str) -> URL:
        """Where the server is, for a driver.

        Some drivers are told about TLS through :meth:`connect_args` only;
        pg8000 then takes it unasked. Give both to ``create_engine()``.

        :param drivername: as in ``postgresql+asyncpg``.
        :param tls: encrypted, or surely not.
        :param query: more of the URL's query.

        """
        url = self._url(drivername).set(host="127.0.0.1", port=self.port)
        return url.update_query_dict(
            drivers.query(url.get_driver_name(), self._trusted(tls))
        ).update_query_dict(query)

    def connect_args(
        self, drivername: str, tls: bool = False
    ) -> dict[str, Any]:
        """What the driver needs besides :meth:`url`."""
        driver = self._url(drivername).get_driver_name()
        return drivers.connect_args(driver, self._trusted(tls))

    def unix_url(self, drivername: str) -> URL:
        """The way through the unix socket, for a driver."""
        url = self._url(drivername)
        return url.update_query_dict(
            drivers.socket_query(url.get_driver_name(), self._socket)
        )

    # What the server sees

    @abstractmethod
    def sessions(self, application: str | None = None) -> list[int]:
        """The sessions of user ``smart`` as the server sees them.

        :param application: only those with this ``application_name``
         (PostgreSQL), in this database (MariaDB).
        :return: process ids of backends (PostgreSQL), connection ids.

        """

    def terminate(self, ids: Iterable[int] | None = None) -> int:
        """End sessions of user ``smart`` and wait until they are gone.

        :param ids: which, from :meth:`sessions`; by default all.
        :return: how many there were to end.

        """
        there = set(self.sessions())
        chosen = there if ids is None else there & set(ids)
        if chosen:
            self._end(chosen)
        eventually(
            lambda: not self._remaining(chosen),
            message=f"{self!r} drops sessions {sorted(chosen)}",
        )
        return len(chosen)

    def configure(self, **settings: Setting) -> None:
        """Change settings of the running server, as in ``wait_timeout=2``.

        They count for sessions opened from now on, and over restarts. One
        which PostgreSQL takes only at its start counts from the next;
        MariaDB refuses it.

        :param settings: values by name; None is the value before.

        """
        for name, value in settings.items():
            self._set(name, value)
            if value is None:
                self._settings.pop(name, None)
            else:
                self._settings[name] = value

    @abstractmethod
    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        """Run one statement as admin in database ``test``, autocommitted.

        Each call logs in anew.

        :return: the rows.

        """

    def log_tail(self, lines: int = 20) -> str:
        """The end of the server's log, without the password."""
        text = (self.folder / "server.log").read_text(errors="replace")
        text = text.replace(self.password, "***")
        return "\n".join(text.splitlines()[-lines:])

    # What a kind of server must say about itself

    @property
    @abstractmethod
    def _socket(self) -> Path:
        """The file of the unix socket."""

    @abstractmethod
    def _initialise(self) -> list[str | Path]:
        """The command which fills the data folder."""

    @abstractmethod
    def _command(self) -> list[str | Path]:
        """The command which is the server."""

    @abstractmethod
    def _ready(self) -> bool:
        """Whether admin can log in."""

    @abstractmethod
    def _populate(self) -> None:
        """Make user and database, after the first start."""

    @abstractmethod
    def _end(self, sessions: set[int]) -> None:
        """Tell the server to end sessions, which may have ended."""

    @abstractmethod
    def _remaining(self, sessions: set[int]) -> list[int]:
        """Those of the ended sessions whose connection is still there."""

    @abstractmethod
    def _set(self, name: str, value: Setting) -> None:
        """Change one setting; None is the value before."""

    # How all of them start

    def _create(self) -> None:
        self._folder = folder = processes.new_folder()
        atexit.register(self.close)
        self.certificate, self._key = self_signed(folder)
        processes.own(self.certificate)
        processes.own(self._key)
        made = processes.run(self._initialise(), folder)
        if made.returncode:
            raise RuntimeError(f"cannot set up {self!r}:\n{made.stdout}")

    def _launch(self, deadline: float, may_move: bool) -> None:
        self.stop()  # one that ended by itself still has its guard
        while True:
            log = self.folder / "server.log"
            self._process = processes.ServerProcess(
                self._command(), self.folder, log, self._quit_signal
            )
            while self.running and time.monotonic() < deadline:
                if self._ready():
                    return
                time.sleep(0.01)
            tail = self.log_tail()
            taken = "Address already in use" in tail
            if not (taken and may_move) or time.monotonic() > deadline:
                raise RuntimeError(
                    f"{self!r} accepts no logins. The end of its log:\n{tail}"
                )
            self.stop()
            log.unlink()
            self.port = free_port()

    def _url(self, drivername: str) -> URL:
        return URL.create(drivername, "smart", self.password, database="test")

    def _trusted(self, tls: bool) -> Path | None:
        assert self.tls or not tls, f"{self!r} was built without TLS"
        return self.certificate if tls else None


def free_port() -> int:
    """A port of 127.0.0.1 on which nobody listens.

    Not from the range which the kernel gives to clients (Linux: from 32768
    on, macOS: from 49152 on). There, while the server is down, a client of
    anything may be given its port; and one that tries to reconnect may be
    connected to itself.
    """
    while True:
        port = 20000 + secrets.randbelow(12000)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def literal(value: object) -> str:
    """A setting's value in SQL."""
    if value is None:
        return "DEFAULT"
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return str(value)
