"""The servers of the tests' own laboratory keep their promises."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
import signal
import socket
import subprocess
import sys
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy import Engine
from sqlalchemy import exc
from sqlalchemy import NullPool
from sqlalchemy import text
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import create_async_engine

from tests.lab import processes
from tests.lab.fixtures import missing
from tests.lab.waiting import eventually

DRIVERS = {
    "PostgreSQL": [
        "postgresql+psycopg",
        "postgresql+psycopg2",
        "postgresql+pg8000",
        "postgresql+psycopg_async",
        "postgresql+asyncpg",
    ],
    "MariaDB": [
        "mysql+pymysql",
        "mysql+mysqldb",
        "mariadb+mariadbconnector",
        "mysql+aiomysql",
        "mysql+asyncmy",
    ],
}
CIPHER = {
    "PostgreSQL": "SELECT coalesce(cipher, '') FROM pg_stat_ssl"
    " WHERE pid = pg_backend_pid()",
    "MariaDB": "SELECT variable_value FROM information_schema.session_status"
    " WHERE variable_name = 'Ssl_cipher'",
}
SIMPLE = {"PostgreSQL": "postgresql+pg8000", "MariaDB": "mysql+pymysql"}

each_driver = pytest.mark.parametrize(
    ("server", "drivername"),
    [(kind, name) for kind, names in DRIVERS.items() for name in names],
    indirect=["server"],
)


@pytest.fixture(params=["PostgreSQL", "MariaDB"])
def server(request: pytest.FixtureRequest) -> Any:
    server = request.getfixturevalue(request.param.lower())
    server.terminate()
    return server


@pytest.fixture
def engine(server: Any) -> Engine:
    """A driver in pure Python; an answer must come within a second."""
    url = server.url(SIMPLE[server.name])
    timeout = "timeout" if is_postgresql(server) else "read_timeout"
    return create_engine(
        url,
        connect_args={
            **server.connect_args(SIMPLE[server.name]),
            timeout: 1,
        },
        poolclass=NullPool,
    )


def is_postgresql(server: Any) -> bool:
    return bool(server.name == "PostgreSQL")


def scalar(url: URL, sql: str, connect_args: dict[str, Any]) -> Any:
    """The answer to one query, through a sync or an async driver."""
    try:
        dialect = url.get_dialect()
        dialect.import_dbapi()
    except ImportError as error:
        if dialect.driver in ("mariadbconnector", "mysqldb"):
            pytest.skip(f"has to be compiled: {error}")
        missing(str(error))

    async def ask() -> Any:
        engine = create_async_engine(
            url, connect_args=connect_args, poolclass=NullPool
        )
        async with engine.connect() as connection:
            return await connection.scalar(text(sql))

    if dialect.is_async:
        return asyncio.run(ask())
    engine = create_engine(url, connect_args=connect_args, poolclass=NullPool)
    with engine.connect() as connection:
        return connection.scalar(text(sql))


def reachable(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=2).close()
    except OSError:
        return False
    return True


def running(pids: list[int]) -> list[int]:
    return processes.alive(pids)


# Logging in


@each_driver
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_url_is_encrypted_or_not_as_asked(
    server: Any, drivername: str, tls: bool
) -> None:
    if tls and not server.tls:
        missing("this build of PostgreSQL has no TLS")
    cipher = scalar(
        server.url(drivername, tls),
        CIPHER[server.name],
        server.connect_args(drivername, tls),
    )
    assert bool(cipher) == tls, cipher


@each_driver
def test_the_unix_socket_leads_to_the_server(
    server: Any, drivername: str
) -> None:
    sql = {
        "PostgreSQL": "SELECT inet_client_addr() IS NULL",
        "MariaDB": "SELECT user() = 'smart@localhost'",
    }
    assert scalar(server.unix_url(drivername), sql[server.name], {})


def test_a_wrong_password_is_refused(server: Any) -> None:
    url = server.url(SIMPLE[server.name]).set(password="wrong")
    with pytest.raises(exc.DBAPIError):
        scalar(url, "SELECT 1", {})


def test_admin_gets_in_through_the_folder_only(server: Any) -> None:
    assert server.folder.stat().st_mode & 0o077 == 0
    url = server.url(SIMPLE[server.name]).set(username="admin")
    with pytest.raises(exc.DBAPIError):
        scalar(url, "SELECT 1", {})


def test_only_this_machine_reaches_it(server: Any) -> None:
    assert reachable("127.0.0.1", server.port)
    assert not reachable("127.0.0.2", server.port)
    assert not reachable("::1", server.port)


def test_it_does_not_run_as_root(server: Any) -> None:
    path = Path("/proc", str(server.pids[0]))
    if not path.exists():
        pytest.skip("no /proc")
    assert path.stat().st_uid != 0


def test_it_is_our_own_child(server: Any) -> None:
    assert processes.table()[server.pids[0]][0] == os.getpid()


def test_nothing_shows_the_password(server: Any) -> None:
    shown = [repr(server), str(server), server.log_tail(10_000)]
    shown.append(str(server.url(SIMPLE[server.name])))
    assert not any(server.password in what for what in shown)


def test_max_connections_is_what_clients_get(server: Any) -> None:
    with type(server)(max_connections=10) as small:
        engine = create_engine(
            small.url(SIMPLE[small.name]), poolclass=NullPool
        )

        def connect() -> Any:
            try:
                return engine.connect()
            except exc.DBAPIError:
                return None

        # the sessions of who set the server up may be leaving still
        connections = [eventually(connect) for _ in range(10)]
        with pytest.raises(exc.DBAPIError):
            engine.connect()
        assert len(small.sessions()) == 10
        for connection in connections:
            connection.close()


# Sessions


def test_sessions_are_the_clients_alone(server: Any, engine: Engine) -> None:
    assert server.sessions() == []
    ask = {
        "PostgreSQL": "SELECT pg_backend_pid()",
        "MariaDB": "SELECT connection_id()",
    }[server.name]
    with engine.connect() as one, engine.connect() as two:
        seen = [one.scalar(text(ask)), two.scalar(text(ask))]
        assert server.sessions() == seen
    eventually(lambda: not server.sessions(), message="both are closed")


def test_sessions_by_application(postgresql: Any) -> None:
    url = postgresql.url("postgresql+pg8000", application_name="mine")
    engine = create_engine(url, poolclass=NullPool)
    other = create_engine(
        postgresql.url("postgresql+pg8000"), poolclass=NullPool
    )
    with engine.connect(), other.connect():
        assert len(postgresql.sessions()) == 2
        assert len(postgresql.sessions("mine")) == 1
        assert postgresql.sessions("nobody's") == []
    eventually(lambda: not postgresql.sessions(), message="both are closed")


def test_terminate_ends_the_sessions_it_is_told(
    server: Any, engine: Engine
) -> None:
    one, two, three = (engine.connect() for _ in range(3))
    first, *others = server.sessions()
    assert server.terminate([first, 999_999]) == 1
    assert server.sessions() == others
    with pytest.raises(exc.DBAPIError):
        one.scalar(text("SELECT 1"))
    assert two.scalar(text("SELECT 1")) == 1
    assert server.terminate() == 2
    assert server.sessions() == []
    assert server.terminate() == 0
    for connection in (one, two, three):
        connection.invalidate()


def test_a_terminated_connection_is_closed_already(
    server: Any, engine: Engine
) -> None:
    connection = engine.connect()
    driver = connection.connection.driver_connection
    sock = getattr(driver, "_usock", None) or getattr(driver, "_sock")
    server.terminate()
    sock.setblocking(False)
    while sock.recv(4096):  # BlockingIOError while it is open
        pass
    connection.invalidate()


# Settings


def test_settings_count_for_new_sessions_and_can_be_undone(
    server: Any,
) -> None:
    url = server.url(SIMPLE[server.name])
    name, value, shown = {
        "PostgreSQL": ("idle_session_timeout", "2s", "2s"),
        "MariaDB": ("wait_timeout", 2, 2),
    }[server.name]
    sql = f"SHOW {name}" if is_postgresql(server) else f"SELECT @@{name}"
    before = scalar(url, sql, {})
    server.configure(**{name: value})
    assert scalar(url, sql, {}) == shown
    server.restart()
    assert scalar(url, sql, {}) == shown
    server.configure(**{name: None})
    assert scalar(url, sql, {}) == before != shown
    server.restart()
    assert scalar(url, sql, {}) == before


def test_an_idle_session_is_ended_by_the_server(
    server: Any, engine: Engine
) -> None:
    if is_postgresql(server):
        server.configure(idle_session_timeout="1s")
    else:
        server.configure(wait_timeout=1)
    connection = engine.connect()
    connection.scalar(text("SELECT 1"))
    connection.rollback()
    assert len(server.sessions()) == 1
    eventually(lambda: not server.sessions(), message="it is ended")
    connection.invalidate()


def test_execute_returns_rows(server: Any) -> None:
    assert server.execute("SELECT 1, 'a'") == [(1, "a")]
    assert server.execute("CREATE TABLE of_execute (id int)") == []
    assert server.execute("DROP TABLE of_execute") == []


# Up and down


def test_a_restart_keeps_port_and_data(server: Any, engine: Engine) -> None:
    port, pids = server.port, server.pids
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE kept (id int)"))
    server.restart()
    assert server.running and server.port == port
    assert not running(pids)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE kept"))


def test_stopped_it_refuses(server: Any) -> None:
    pids = server.pids
    server.stop()
    assert not server.running and server.pids == [] and not running(pids)
    assert not reachable("127.0.0.1", server.port)
    server.stop()
    server.start()
    assert server.running and reachable("127.0.0.1", server.port)
    server.start()


def test_stop_does_not_wait_for_clients(server: Any, engine: Engine) -> None:
    with engine.connect() as connection:
        server.stop()
        connection.invalidate()
    assert not server.running


def test_kill_takes_the_backends_too(server: Any, engine: Engine) -> None:
    with engine.connect() as connection:
        pids = server.pids
        if is_postgresql(server):
            assert server.sessions()[0] in pids
        server.kill()
        assert not server.running and not running(pids)
        with pytest.raises(exc.DBAPIError):
            connection.scalar(text("SELECT 1"))
    assert not reachable("127.0.0.1", server.port)
    server.kill()
    server.start()
    assert scalar(server.url(SIMPLE[server.name]), "SELECT 1", {}) == 1


def test_a_frozen_server_accepts_but_does_not_answer(
    server: Any, engine: Engine
) -> None:
    with engine.connect() as connection:
        server.freeze()
        assert {processes.table()[pid][1] for pid in server.pids} == {"T"}
        assert server.running and reachable("127.0.0.1", server.port)
        with pytest.raises((exc.DBAPIError, OSError)):
            connection.scalar(text("SELECT 1"))
        connection.invalidate()
    with pytest.raises((exc.DBAPIError, OSError)):
        engine.connect()
    server.thaw()
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1


@pytest.mark.parametrize("how", ["stop", "kill", "restart"])
def test_a_frozen_server_goes_down_as_any(server: Any, how: str) -> None:
    pids = server.pids
    server.freeze()
    getattr(server, how)()
    assert not running(pids)
    assert server.running == (how == "restart")


def test_stop_kills_a_server_that_does_not_end(server: Any) -> None:
    pids = server.pids
    server.stop(timeout=0)
    assert not server.running and not running(pids)


def test_recover_undoes_what_a_test_has_left(server: Any) -> None:
    name, show = {
        "PostgreSQL": ("lock_timeout", "SHOW lock_timeout"),
        "MariaDB": ("lock_wait_timeout", "SELECT @@GLOBAL.lock_wait_timeout"),
    }[server.name]
    before = server.execute(show)
    server.configure(**{name: 7})
    server.kill()
    server.recover()
    assert server.execute(show) == before
    server.freeze()
    server.recover()
    assert server.execute("SELECT 1") == [(1,)]


def test_a_server_that_ended_by_itself_can_be_started(server: Any) -> None:
    os.kill(server.pids[0], signal.SIGTERM)
    eventually(lambda: not server.running, message="it ends")
    server.start()
    assert server.execute("SELECT 1") == [(1,)]


def test_a_taken_port_is_given_up_at_the_first_start(server: Any) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        new = type(server)()
        new.port = taken = other.getsockname()[1]
        with new:
            assert new.port != taken
            assert new.execute("SELECT 1") == [(1,)]


def test_a_start_that_fails_shows_the_log_and_leaves_nothing(
    server: Any,
) -> None:
    class Broken(type(server)):  # type: ignore[misc]
        def _command(self) -> list[Any]:
            return [*super()._command(), "--no-such-setting=1"]

    new = Broken()
    with pytest.raises(RuntimeError, match="no.such.setting") as e:
        new.start()
    assert new.password not in str(e.value)
    assert not new.running
    with pytest.raises(AssertionError, match="not started"):
        new.folder


# Nothing is left behind

SCRIPT = """
import os, signal, sys, tests.lab.servers as servers
server = getattr(servers, sys.argv[1])()
server.start()
print(server.folder, *server.pids, flush=True)
{end}
"""


def shared_memory() -> set[str]:
    try:
        lines = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    except OSError:
        return set()
    return {line.split()[1] for line in lines}


def ids_of(folder: Path) -> set[str]:
    pid_file = folder / "data" / "postmaster.pid"
    lines = pid_file.read_text().splitlines() if pid_file.exists() else []
    return {line.split()[1] for line in lines[6:7]}


def test_close_leaves_nothing(server: Any) -> None:
    for down in ("stop", "kill", "freeze"):
        with type(server)() as new:
            folder, pids, memory = new.folder, new.pids, ids_of(new.folder)
            assert memory <= shared_memory() and pids and folder.exists()
            getattr(new, down)()
        assert not folder.exists() and not running(pids)
        assert not memory & shared_memory()


@pytest.mark.slow
@pytest.mark.parametrize(
    "end",
    [
        "",
        "server.freeze()",
        "1 / 0",
        "os._exit(3)",
        "os.kill(os.getpid(), signal.SIGKILL)",
        "server.freeze(); os.kill(os.getpid(), signal.SIGTERM)",
    ],
)
def test_the_end_of_the_tests_leaves_nothing(server: Any, end: str) -> None:
    script = SCRIPT.format(end=end)
    ended = subprocess.run(
        [sys.executable, "-c", script, type(server).__name__],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=60,
    )
    folder, *pids = ended.stdout.split()
    eventually(
        lambda: not running([int(pid) for pid in pids]),
        message="its processes end",
    )
    eventually(lambda: not Path(folder).exists(), message="its folder goes")


def test_a_fork_of_the_tests_leaves_the_server_alone(server: Any) -> None:
    # What a forked child runs when it ends by sys.exit().
    script = SCRIPT.format(end="""
child = os.fork()
if not child:
    sys.exit()
os.waitpid(child, 0)
print(server.execute("SELECT 1"))
""")
    ended = subprocess.run(
        [sys.executable, "-c", script, type(server).__name__],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "[(1,)]" in ended.stdout, ended.stderr


# Where there is no server


def test_missing_skips_here_and_fails_in_ci(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no such server"):
        missing("no such server")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no such server"):
        missing("no such server")


def test_eventually_says_what_did_not_come() -> None:
    answers = iter([0, 0, 3])
    assert eventually(lambda: next(answers)) == 3
    with pytest.raises(AssertionError, match="rain .last answer: False"):
        eventually(lambda: False, timeout=0.05, message="rain")
