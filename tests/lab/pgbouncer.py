"""A PgBouncer of the tests' own, in front of a PostgreSQL server."""

from __future__ import annotations

import os
from pathlib import Path
import shutil
import signal
import socket
from typing import Any

import pg8000.native  # type: ignore[import-untyped]
from sqlalchemy import URL

from tests.lab import processes
from tests.lab.postgresql import PostgreSQL
from tests.lab.server import free_port
from tests.lab.waiting import eventually


class PgBouncer:
    """A PgBouncer, from PATH or the folders for system programs::

        with PgBouncer(server, "transaction") as pooler:
            engine = create_engine(pooler.url("postgresql+psycopg"))

    :param server: that runs.
    :param mode: its ``pool_mode``.
    :raises FileNotFoundError: this machine has none.
    """

    def __init__(self, server: PostgreSQL, mode: str) -> None:
        places = [os.environ.get("PATH", os.defpath), "/usr/sbin"]
        found = shutil.which("pgbouncer", path=os.pathsep.join(places))
        if found is None:
            raise FileNotFoundError("no pgbouncer: install PgBouncer")
        self._program = found
        self._server = server
        self._mode = mode

    def __enter__(self) -> PgBouncer:
        self._folder = processes.new_folder()
        self._port = free_port()
        self._file = self._write("pgbouncer.ini", self._settings())
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        shutil.rmtree(self._folder)

    def start(self) -> None:
        """Start it, on the same port as ever; returns when it listens."""
        self._process = processes.ServerProcess(
            [self._program, self._file],
            self._folder,
            self._folder / "pgbouncer.log",
            signal.SIGQUIT,
        )
        eventually(self._listens, message="pgbouncer listens")

    def stop(self) -> None:
        """End it at once, with whatever is going on."""
        # SIGTERM waits for the clients, from 1.23 on
        if not self._process.stop(signal.SIGQUIT, 10.0):
            self._process.kill()

    def command(self, sql: str) -> list[list[Any]]:
        """Say something to its console, such as ``PAUSE``.

        :return: rows, where it answers with some.
        """
        console = pg8000.native.Connection(
            "smart",
            password=self._server.password,
            database="pgbouncer",
            host="127.0.0.1",
            port=self._port,
            ssl_context=False,
        )
        try:
            return console.run(sql) or []
        finally:
            console.close()

    def url(self, drivername: str, tls: bool = False, **query: str) -> URL:
        """The way through it, without TLS."""
        assert not tls
        return self._server.url(drivername, False, **query).set(
            port=self._port
        )

    def _settings(self) -> str:
        server = self._server
        # The password as such: it has to log in at the server with it.
        users = self._write("users.txt", f'"smart" "{server.password}"\n')
        return (
            "[databases]\n"
            f"test = host=127.0.0.1 port={server.port}\n"
            "[pgbouncer]\n"
            "listen_addr = 127.0.0.1\n"
            f"listen_port = {self._port}\n"
            "unix_socket_dir =\n"
            "admin_users = smart\n"
            "auth_type = scram-sha-256\n"
            f"auth_file = {users}\n"
            f"pool_mode = {self._mode}\n"
        )

    def _write(self, name: str, text: str) -> Path:
        file = self._folder / name
        file.touch(mode=0o600)
        file.write_text(text)
        processes.own(file)
        return file

    def _listens(self) -> bool:
        assert self._process.running, (
            self._folder / "pgbouncer.log"
        ).read_text()
        with socket.socket() as probe:
            return not probe.connect_ex(("127.0.0.1", self._port))
