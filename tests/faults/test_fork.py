"""A forked child works with connections of its own, and leaves its parent's
sessions alone: used, collected or at its exit."""

from __future__ import annotations

import os
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy import NullPool
from sqlalchemy import text

from tests.lab.scripts import Program
from tests.lab.scripts import start_script
from tests.lab.scripts import way_to
from tests.lab.waiting import eventually

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="this platform does not fork"
)

#: a driver, and whether over TLS
WAYS = [
    pytest.param("postgresql+psycopg", False, id="psycopg"),
    pytest.param("postgresql+psycopg", True, id="psycopg-tls"),
    pytest.param("postgresql+psycopg2", False, id="psycopg2"),
    pytest.param("postgresql+psycopg2", True, id="psycopg2-tls"),
    pytest.param("postgresql+pg8000", False, id="pg8000"),
    pytest.param("mysql+mysqldb", False, id="mysqlclient"),
    pytest.param("mysql+mysqldb", True, id="mysqlclient-tls"),
    pytest.param("mysql+pymysql", False, id="pymysql"),
]
ASYNC_WAYS = [
    pytest.param("postgresql+asyncpg", True, id="asyncpg-tls"),
    pytest.param("postgresql+psycopg", False, id="psycopg"),
    pytest.param("mysql+aiomysql", False, id="aiomysql"),
    pytest.param("mysql+asyncmy", True, id="asyncmy-tls"),
]


def server_for(request: pytest.FixtureRequest, drivername: str) -> Any:
    if drivername == "mysql+mysqldb":
        pytest.importorskip("MySQLdb", reason="mysqlclient is not installed")
    name, driver = "postgresql", "postgresql+psycopg"
    if drivername.startswith("mysql"):
        name, driver = "mariadb", "mysql+pymysql"
    server: Any = request.getfixturevalue(name)
    server.terminate()
    engine = create_engine(server.url(driver), poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS forked"))
        connection.execute(text("CREATE TABLE forked (a int)"))
    return server


COMMON = """
import gc, os, sys, threading, time
from sqlalchemy import create_engine, text
from sqla_smartpool import SmartPool
from sqla_smartpool.record import Grip
from tests.lab.scripts import told
from tests.lab.waiting import eventually

mysql = os.environ["URL"].startswith("mysql")
ask = text("SELECT " + ("connection_id()" if mysql else "pg_backend_pid()"))
SIZES = dict(min_size=4, max_size=6, check_interval=0.1, ping_timeout=60)

def wait_for(word):
    assert sys.stdin.readline() == word + chr(10)

def end_of(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""

# One connection in use, with an open transaction; one that is being opened;
# one that is being pinged, and two idle ones: the test freezes the server
# between "ready" and "frozen", and thaws it after "forked".
BEGIN = COMMON + """
engine = create_engine(
    **told(), poolclass=SmartPool, num_workers=1, **SIZES
)
pool = engine.pool
pool.start()

def pids(number):
    connections = [engine.connect() for _ in range(number)]
    try:
        return {connection.scalar(ask) for connection in connections}
    finally:
        for connection in connections:
            connection.close()

first = pids(4)
held = engine.connect()
mine = held.scalar(ask)
held.execute(text("INSERT INTO forked VALUES (1)"))
print("ready")
wait_for("frozen")
pool.resize(min_size=5)
eventually(lambda: pool.stats().pool_connecting == 1)
checking = threading.Thread(target=pool.check, daemon=True)
checking.start()
eventually(lambda: len(pool.inventory.tending) == 1)
assert pool.stats().pool_available == 2
"""

FORK = BEGIN + """
# another thread may be at the books at the moment of the fork
grip = Grip()
assert pool.inventory._key.take(grip)
child = os.fork()
if child == 0:
    began = time.monotonic()
    print("forked")
    with engine.connect() as connection:
        assert connection.scalar(ask) not in first
    assert time.monotonic() - began < 5, "the child had to wait"
    pool.start()
    assert pool.stats().pool_size >= 5
    try:
        held.scalar(ask)
    except Exception:
        pass
    else:
        raise AssertionError("the child has used its parent's transaction")
    held.close()
    del held
    gc.collect()
    grandchild = os.fork()
    if grandchild == 0:
        with engine.connect() as connection:
            assert connection.scalar(ask) not in first
        sys.exit(0)
    assert end_of(grandchild) == 0
    gc.collect()
    sys.exit(0)
pool.inventory._key.give_back(grip)
assert end_of(child) == 0
checking.join()
assert held.scalar(ask) == mine
held.commit()
held.close()
eventually(lambda: pool.stats().pool_available == 5)
assert pids(5) > first
with engine.connect() as connection:
    assert connection.scalar(text("SELECT count(*) FROM forked")) == 1
stats = pool.stats()
assert stats.connections_num == 5, stats
assert stats.connections_lost == stats.connections_errors == 0, stats
print("done")
wait_for("leave")
"""


def assert_no_session_is_harmed(program: Program, server: Any) -> None:
    with program:
        program.hear("ready")
        server.freeze()
        program.tell("frozen")
        program.hear("forked")
        server.thaw()
        program.hear("done")
        # those of the children are gone, though the parent is there
        eventually(
            lambda: len(server.sessions()) == 5,
            message="the sessions of the parent are left",
        )
        program.tell("leave")
        ended = program.end()
    assert (ended.status, ended.stderr) == (0, "")
    eventually(lambda: not server.sessions(), message="no session is left")


@pytest.mark.pain("child collects", "fork with a lock held")
@pytest.mark.parametrize("drivername, tls", WAYS)
def test_fork_amid_pings_and_connects_leaves_the_parents_sessions_alone(
    request: pytest.FixtureRequest, drivername: str, tls: bool
) -> None:
    server = server_for(request, drivername)
    program = start_script(FORK, **way_to(server, drivername, tls))
    assert_no_session_is_harmed(program, server)


ORPHAN = BEGIN + """
child = os.fork()
if child == 0:
    print("forked")
    with engine.connect() as connection:
        theirs = connection.scalar(ask)
        assert theirs not in first
        print("served")
        wait_for("leave")
        assert connection.scalar(ask) == theirs
    engine.dispose()
    print("left")
    sys.exit(0)
time.sleep(60)
"""


@pytest.mark.parametrize("drivername", ["postgresql+psycopg", "mysql+mysqldb"])
def test_a_parent_killed_while_its_child_lives_leaves_no_session(
    request: pytest.FixtureRequest, drivername: str
) -> None:
    server = server_for(request, drivername)
    with start_script(ORPHAN, **way_to(server, drivername)) as program:
        program.hear("ready")
        first = set(server.sessions())
        server.freeze()
        program.tell("frozen")
        program.hear("forked")
        program.process.kill()
        server.thaw()
        program.hear("served")
        eventually(
            lambda: not first & set(server.sessions()),
            message="the sessions of the killed parent end",
        )
        program.tell("leave")
        program.hear("left")
        assert program.stderr == ""


# The pool looks after a connection through a descriptor of its own; at any
# step to it, the child must not be left with a copy that nobody knows of.
AT_ANY_STEP = COMMON + """
from tests.lab.steps import Steps

engine = create_engine(**told(), poolclass=SmartPool, min_size=1)
engine.pool.start()
(record,) = engine.pool.inventory.members

def opened():
    for number in os.listdir("/proc/self/fd"):
        try:
            yield os.readlink("/proc/self/fd/" + number)
        except FileNotFoundError:
            pass  # was that of the folder

(connection,) = {each for each in opened() if each.startswith("socket:")}

def fork():
    child = os.fork()
    if child == 0:
        os._exit(connection in opened())
    assert end_of(child) == 0, "the child has a copy of the connection"

at = 0
steps = None
while steps is None or steps.done:
    at += 1
    with Steps(at, fork, fine=True) as steps:
        record.line.hold().release()
assert at > 20
"""


@pytest.mark.pain("fork with a lock held")
@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="needs /proc")
def test_a_child_forked_at_any_step_to_a_ping_keeps_no_copy_of_the_connection(
    request: pytest.FixtureRequest,
) -> None:
    server = server_for(request, "postgresql+psycopg")
    with start_script(AT_ANY_STEP, **way_to(server, "postgresql+psycopg")) as (
        program
    ):
        ended = program.end()
    assert (ended.status, ended.stderr) == (0, "")


FIRST_CONNECT = COMMON + """
from sqlalchemy import event

engine = create_engine(**told(), poolclass=SmartPool, **SIZES)
pool = engine.pool
begun, go_on = threading.Event(), threading.Event()
initialize = engine.dialect.initialize

def slowly(connection):
    initialize(connection)
    begun.set()
    go_on.wait()

engine.dialect.initialize = slowly
pool.start(wait=False)
assert begun.wait(30)
engine.dialect.initialize = initialize
engine.dialect.server_version_info = None
child = os.fork()
if child == 0:
    began = time.monotonic()
    with engine.connect() as connection:
        connection.scalar(ask)
    assert time.monotonic() - began < 5, "the child had to wait"
    assert engine.dialect.server_version_info is not None
    pool.wait()
    sys.exit(0)
assert end_of(child) == 0
go_on.set()
pool.wait()
with engine.connect() as connection:
    connection.scalar(ask)
"""


@pytest.mark.parametrize("drivername", ["postgresql+psycopg", "mysql+pymysql"])
def test_fork_amid_the_very_first_connect_lets_the_child_make_its_own(
    request: pytest.FixtureRequest, drivername: str
) -> None:
    server = server_for(request, drivername)
    program = start_script(FIRST_CONNECT, **way_to(server, drivername))
    ended = program.end()
    assert (ended.status, ended.stderr) == (0, "")
    eventually(lambda: not server.sessions(), message="no session is left")


ASYNC_FORK = COMMON + """
import asyncio
from sqlalchemy.ext.asyncio import create_async_engine
from sqla_smartpool import AsyncSmartPool

engine = create_async_engine(
    **told(), poolclass=AsyncSmartPool, num_workers=1, **SIZES
)
pool = engine.pool

async def pids(number):
    connections = [await engine.connect() for _ in range(number)]
    found = {await connection.scalar(ask) for connection in connections}
    for connection in connections:
        await connection.close()
    return found

async def begin():
    await pool.start()
    first = await pids(4)
    held = await engine.connect()
    await held.execute(text("INSERT INTO forked VALUES (1)"))
    return first, held, await held.scalar(ask)

async def amid_connect_and_ping():
    await pool.resize(min_size=5)
    while pool.stats().pool_connecting < 1:
        await asyncio.sleep(0.01)
    checking = asyncio.create_task(pool.check())
    while len(pool.inventory.tending) < 1:
        await asyncio.sleep(0.01)
    return checking

async def in_child():
    async with engine.connect() as connection:
        assert await connection.scalar(ask) not in first
    await pool.start()
    assert pool.stats().pool_size >= 5

async def end():
    await checking
    assert await held.scalar(ask) == mine
    await held.commit()
    await held.close()
    while pool.stats().pool_available < 5:
        await asyncio.sleep(0.01)
    assert await pids(5) > first
    async with engine.connect() as connection:
        count = text("SELECT count(*) FROM forked")
        assert await connection.scalar(count) == 1
    stats = pool.stats()
    assert stats.connections_num == 5, stats
    assert stats.connections_lost == stats.connections_errors == 0, stats

loop = asyncio.new_event_loop()
first, held, mine = loop.run_until_complete(begin())
print("ready")
wait_for("frozen")
checking = loop.run_until_complete(amid_connect_and_ping())
child = os.fork()
if child == 0:
    print("forked")
    checking._log_destroy_pending = False  # it is the test's own
    for _ in range(2):
        began = time.monotonic()
        asyncio.run(in_child())
        assert time.monotonic() - began < 5, "the child had to wait"
    del held, checking, loop
    gc.collect()
    asyncio.run(engine.dispose())
    sys.exit(0)
assert end_of(child) == 0
loop.run_until_complete(end())
print("done")
wait_for("leave")
loop.run_until_complete(engine.dispose())
loop.close()
"""


@pytest.mark.pain("child collects")
@pytest.mark.parametrize("drivername, tls", ASYNC_WAYS)
def test_fork_of_a_loops_process_leaves_the_parents_sessions_alone(
    request: pytest.FixtureRequest, drivername: str, tls: bool
) -> None:
    server = server_for(request, drivername)
    program = start_script(ASYNC_FORK, **way_to(server, drivername, tls))
    assert_no_session_is_harmed(program, server)
