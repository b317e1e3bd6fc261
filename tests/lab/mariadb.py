"""A MariaDB server of the tests' own."""

from __future__ import annotations

import os
from pathlib import Path
import shutil
import signal
import socket
import time
from typing import Any

import pymysql  # type: ignore[import-untyped]
from pymysql.constants import ER  # type: ignore[import-untyped]

from tests.lab import processes
from tests.lab.server import literal
from tests.lab.server import Server
from tests.lab.server import Setting


class MariaDB(Server):
    """A MariaDB server, from PATH or the folders for system programs."""

    name = "MariaDB"
    _stop_signal = signal.SIGTERM
    _quit_signal = signal.SIGKILL

    def __init__(self, max_connections: int = 120) -> None:
        if max_connections < 10:
            raise ValueError("MariaDB takes no max_connections below 10")
        super().__init__(max_connections)
        self._server = _program("mariadbd")
        self._installer = _program("mariadb-install-db")
        self._before: dict[str, Setting] = {}

    def sessions(self, application: str | None = None) -> list[int]:
        # MariaDB does not know applications by name, but databases.
        rows = self.execute(
            "SELECT id, db FROM information_schema.processlist"
            " WHERE user = 'smart' ORDER BY id"
        )
        return [id for id, name in rows if application in (None, name)]

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        with self._login() as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    def _login(self) -> Any:
        ends = time.monotonic() + 10.0
        while True:
            try:
                return pymysql.connect(
                    user="admin",
                    database="test",
                    unix_socket=str(self._socket),
                    autocommit=True,
                    connect_timeout=10,
                    read_timeout=10,
                    ssl_disabled=True,
                )
            except pymysql.OperationalError as error:
                # There is one place beyond max_connections for admin, which
                # the session of the last call may not have left yet.
                full = error.args[0] == ER.CON_COUNT_ERROR
                if not full or time.monotonic() > ends:
                    raise
                time.sleep(0.01)

    @property
    def _socket(self) -> Path:
        return self.folder / "server.sock"

    def _initialise(self) -> list[str | Path]:
        return [
            self._installer,
            "--no-defaults",
            f"--datadir={self.folder / 'data'}",
            "--skip-test-db",
            *self._small(),
        ]

    def _small(self) -> list[str]:
        return [
            "--innodb-buffer-pool-size=16M",
            "--innodb-log-file-size=8M",
            "--innodb-doublewrite=0",
            "--innodb-flush-log-at-trx-commit=0",
            "--loose-innodb-flush-method=nosync",
            "--loose-innodb-use-native-aio=0",
            "--skip-log-bin",
            "--skip-name-resolve",
            # a server that starts clears away what others have in /tmp
            f"--tmpdir={self.folder}",
        ]

    def _create(self) -> None:
        super()._create()
        # Read by the server at each start, before it accepts logins.
        # Nobody else enters the folder, so who gets to the socket is trusted
        # to be admin.
        setup = self.folder / "setup.sql"
        setup.touch(mode=0o600)
        setup.write_text(
            "CREATE DATABASE IF NOT EXISTS test;\n"
            "CREATE USER IF NOT EXISTS admin@localhost;\n"
            "GRANT ALL ON *.* TO admin@localhost;\n"
            "CREATE USER IF NOT EXISTS smart IDENTIFIED VIA"
            f" mysql_native_password USING PASSWORD('{self.password}');\n"
            "GRANT ALL ON `test%`.* TO smart;\n"
        )
        processes.own(setup)

    def _command(self) -> list[str | Path]:
        settings: dict[str, object] = {
            "datadir": self.folder / "data",
            "init_file": self.folder / "setup.sql",
            "bind_address": "127.0.0.1",
            "port": self.port,
            "socket": self._socket,
            "pid_file": self.folder / "server.pid",
            "ssl_cert": self.certificate,
            "ssl_key": self._key,
            "max_connections": self.max_connections,
            "key_buffer_size": "1M",
            "aria_pagecache_buffer_size": "1M",
            "performance_schema": "OFF",
            # SET GLOBAL does not outlive the server
            **self._settings,
        }
        given = (f"--{name}={value}" for name, value in settings.items())
        return [self._server, "--no-defaults", *self._small(), *given]

    def _ready(self) -> bool:
        # First without PyMySQL, which leaks the socket of a refused connect.
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(self._socket)):
                return False
        try:
            self.execute("SELECT 1")
        except (pymysql.Error, OSError):
            return False
        return True

    def _populate(self) -> None:
        """Done by the file that the server reads when it starts."""

    def _end(self, sessions: set[int]) -> None:
        for session in sessions:
            try:
                self.execute(f"KILL CONNECTION {session}")
            except pymysql.OperationalError as error:
                if error.args[0] != ER.NO_SUCH_THREAD:
                    raise

    def _remaining(self, sessions: set[int]) -> list[int]:
        return [session for session in self.sessions() if session in sessions]

    def _set(self, name: str, value: Setting) -> None:
        # DEFAULT would be the program's, not that of our command line.
        if name not in self._before:
            now = self.execute(f"SELECT @@GLOBAL.{name}")
            self._before[name] = now[0][0]
        new = self._before[name] if value is None else value
        self.execute(f"SET GLOBAL {name} = {literal(new)}")


def _program(name: str) -> str:
    """A program's path, also if only root has its folder on PATH."""
    places = [
        os.environ.get("PATH", os.defpath),
        "/usr/sbin",
        "/usr/local/sbin",
    ]
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        raise FileNotFoundError(
            f"no {name} on PATH or in {places[1:]}. Install the MariaDB server"
        )
    return found
