"""The interpreter leaves at once, whatever the pool is doing, and quietly."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any
from typing import Sequence

import pytest

from tests.faults.conftest import DURATIONS
from tests.faults.conftest import LONG
from tests.lab.scripts import Program
from tests.lab.scripts import run_script
from tests.lab.scripts import start_script
from tests.lab.scripts import way_to

#: promised: 1; from the main thread's last line to the process's end, seconds
SOON = 5.0

DRIVERS = [
    pytest.param("postgresql+psycopg", id="psycopg"),
    pytest.param("postgresql+psycopg2", id="psycopg2"),
    pytest.param("postgresql+pg8000", id="pg8000"),
    pytest.param("mysql+mysqldb", id="mysqlclient"),
    pytest.param("mysql+pymysql", id="pymysql"),
]
#: not psycopg: when it is cancelled, it asks the server to cancel as well,
#: and waits for 5 s
ASYNC_DRIVERS = [
    pytest.param("postgresql+asyncpg", id="asyncpg"),
    pytest.param("mysql+aiomysql", id="aiomysql"),
    pytest.param("mysql+asyncmy", id="asyncmy"),
]


def server_for(request: pytest.FixtureRequest, drivername: str) -> Any:
    if drivername == "mysql+mysqldb":
        pytest.importorskip("MySQLdb", reason="mysqlclient is not installed")
    name = "mariadb" if drivername.startswith("mysql") else "postgresql"
    return request.getfixturevalue(name)


def assert_leave_soon(
    server: Any, drivername: str, scripts: Sequence[str], freeze: bool = False
) -> None:
    """Run scripts side by side, and have them leave.

    :param freeze: the server, once all of them are ready.
    """
    with ExitStack() as stack:
        programs: list[Program] = [
            stack.enter_context(
                start_script(script, **way_to(server, drivername))
            )
            for script in scripts
        ]
        for program in programs:
            program.hear("ready", 60)
        if freeze:
            server.freeze()
        for program in programs:
            program.tell("go")
        for script, program in zip(scripts, programs):
            ended, doing = program.end(), script.rpartition("# it")[2]
            assert (ended.status, ended.stderr) == (0, ""), doing
            assert "leaving\n" in ended.stdout, doing
            assert ended.exit_took < SOON, doing
        if freeze:
            server.thaw()


BEGIN = """
import atexit, os, sys, threading, time
from sqlalchemy import create_engine, text
from sqla_smartpool import SmartPool
from tests.lab.scripts import told
from tests.lab.waiting import eventually

engine = create_engine(
    **told(), poolclass=SmartPool, min_size=2, max_size=4, ping_timeout=60,
    check_interval=CHECK_INTERVAL, ping_after=PING_AFTER,
)
pool = engine.pool
pool.start()
ask = text("SELECT 1")

def work():
    with engine.connect() as connection:
        return connection.scalar(ask)

def for_ever():
    while True:
        work()

def beside(job, daemon=True):
    thread = threading.Thread(target=job, daemon=daemon)
    thread.start()
    return thread

work()  # one that is new needs no ping
print("ready")
assert sys.stdin.readline() == "go" + chr(10)
# it
"""
LEAVE = """
print("leaving")
"""
#: pings are due all the time, at each checkout only, never
ALL_THE_TIME, AT_CHECKOUT, NEVER = (0.05, 0.01), (60, 0), (60, 60)


def program_of(
    body: str, end: str = "", pings: tuple[float, float] = ALL_THE_TIME
) -> str:
    check_interval, ping_after = pings
    settings = f"CHECK_INTERVAL, PING_AFTER = {check_interval}, {ping_after}"
    return "\n".join([settings, BEGIN, body, end, LEAVE])


WAYS = {
    "idle": "work()",
    "busy": """
for _ in range(8):
    beside(for_ever)
work()
""",
    "in use": """
connection = engine.connect()
connection.execute(ask)
""",
    "callers waiting in daemon threads": """
held = [engine.connect() for _ in range(4)]
for _ in range(3):
    beside(work)
eventually(lambda: pool.stats().requests_waiting == 3)
""",
    "in use by a daemon thread": """
taken = threading.Event()

def hold():
    with engine.begin() as connection:
        connection.execute(ask)
        taken.set()
        threading.Event().wait()

beside(hold)
assert taken.wait(30)
""",
    "used and disposed from atexit": """
@atexit.register
def last():
    work()
    engine.dispose()
    work()
""",
    "used from atexit of a thread": """
@atexit.register
def last():
    thread = beside(work)
    thread.join()
    for_ever_left = beside(for_ever)
""",
    "disposed": "engine.dispose()",
    "stopped": "pool.stop()",
    "sys.exit in a worker thread": """
def leave():
    with engine.connect() as connection:
        connection.execute(ask)
        sys.exit(3)

beside(leave, daemon=False).join()
assert pool.stats().pool_in_use == 0
work()
""",
    "sys.exit in an executor's worker": """
from concurrent.futures import ThreadPoolExecutor

def leave():
    connection = engine.connect()
    connection.execute(ask)
    sys.exit(3)

executor = ThreadPoolExecutor(2)
leaving = executor.submit(leave)
assert type(leaving.exception()) is SystemExit
""",
    "sys.exit in a worker process": """
import multiprocessing

def leave():
    connection = engine.connect()
    connection.execute(ask)
    beside(for_ever)
    sys.exit(0)

if hasattr(os, "fork"):
    process = multiprocessing.get_context("fork").Process(target=leave)
    process.start()
    process.join()
    assert process.exitcode == 0
work()
""",
}


@pytest.mark.pain("slow exit")
@pytest.mark.parametrize(
    "some", [0, 1, 2], ids="a third of the ways {}".format
)
@pytest.mark.parametrize("drivername", DRIVERS[:1] + DRIVERS[3:4])
def test_the_process_leaves_at_once_with_a_pool_in_any_use(
    request: pytest.FixtureRequest, drivername: str, some: int
) -> None:
    server = server_for(request, drivername)
    scripts = [program_of(way) for way in list(WAYS.values())[some::3]]
    assert_leave_soon(server, drivername, scripts)


# What is under way when the server does not answer any more.
UNANSWERED: dict[str, Any] = {
    "ping": ("eventually(lambda: pool.inventory.tending)", ALL_THE_TIME),
    "ping of a caller": (
        "beside(work); eventually(lambda: pool.inventory.tending)",
        AT_CHECKOUT,
    ),
    "query": (
        "beside(work); eventually(lambda: pool.stats().pool_in_use)",
        NEVER,
    ),
    "connect": (
        "pool.resize(min_size=3);"
        "eventually(lambda: pool.stats().pool_connecting)",
        NEVER,
    ),
}
ENDS = {
    "none": "",
    "dispose": "engine.dispose()",
    "atexit": "atexit.register(engine.dispose)",
}
UNDER_WAY = [
    ("ping", "none"),
    ("ping", "dispose"),
    ("ping", "atexit"),
    ("ping of a caller", "none"),
    ("query", "none"),
    ("query", "atexit"),
    ("connect", "none"),
    ("connect", "dispose"),
    ("connect", "atexit"),
]


@pytest.mark.pain("slow exit")
@pytest.mark.parametrize(
    "drivername", DRIVERS if DURATIONS is LONG else DRIVERS[::3]
)
def test_the_process_leaves_at_once_amid_what_is_never_answered(
    request: pytest.FixtureRequest, drivername: str
) -> None:
    server = server_for(request, drivername)
    scripts = [
        program_of(UNANSWERED[amid][0], ENDS[end], UNANSWERED[amid][1])
        for amid, end in UNDER_WAY
    ]
    assert_leave_soon(server, drivername, scripts, freeze=True)


ASYNC = """
import asyncio, os, sys, threading
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqla_smartpool import AsyncSmartPool
from tests.lab.scripts import told

engine = create_async_engine(
    **told(), poolclass=AsyncSmartPool, min_size=2, max_size=4,
    check_interval=CHECK_INTERVAL, ping_after=PING_AFTER, ping_timeout=60,
)
pool = engine.pool

async def work():
    async with engine.connect() as connection:
        return await connection.scalar(text("SELECT 1"))

async def for_ever():
    while True:
        await work()

async def hold():
    async with engine.connect() as connection:
        await connection.scalar(text("SELECT 1"))
        await asyncio.sleep(60)

async def until(condition):
    while not condition():
        await asyncio.sleep(0.01)

async def main():
    await pool.start()
    print("ready")
    assert sys.stdin.readline() == "go" + chr(10)
    await do()
    print("leaving")

async def do():
    BODY

START
"""
IN_MAIN = "asyncio.run(main())"
IN_A_DAEMON_THREAD = """
done = threading.Event()

async def main_and_on():
    await main()
    done.set()
    await asyncio.sleep(60)

threading.Thread(
    target=asyncio.run, args=(main_and_on(),), daemon=True
).start()
assert done.wait(30)
"""
ASYNC_WAYS = {
    "idle": "await work()",
    "busy": "busy = [asyncio.create_task(for_ever()) for _ in range(8)]\n"
    "    await work()",
    "full": "held = [asyncio.create_task(hold()) for _ in range(8)]\n"
    "    await until(lambda: pool.stats().requests_waiting == 4)",
    "disposed": "await engine.dispose()",
    "stopped": "await pool.stop()",
}
ASYNC_UNANSWERED = {
    "ping": ("await until(lambda: pool.inventory.tending)", ALL_THE_TIME),
    "connect": (
        "await pool.resize(min_size=3)\n"
        "    await until(lambda: pool.stats().pool_connecting)\n"
        # TCP is there, and the server's word is awaited: before that drivers
        # are in wait_for(), which loses cancellations before Python 3.12
        "    await until(lambda: len(asyncio.get_running_loop()._transports)"
        " == 3)\n"
        "    for turn in range(9):\n"
        "        await asyncio.sleep(0)",
        NEVER,
    ),
}


def async_program_of(
    body: str, start: str, pings: tuple[float, float] = ALL_THE_TIME
) -> str:
    check_interval, ping_after = pings
    settings = f"CHECK_INTERVAL, PING_AFTER = {check_interval}, {ping_after}"
    script = ASYNC.replace("BODY", body).replace("START", start)
    return f"{settings}\n{script}"


@pytest.mark.pain("slow exit")
@pytest.mark.parametrize("drivername", ASYNC_DRIVERS)
def test_the_process_leaves_at_once_with_an_async_pool_in_any_use(
    request: pytest.FixtureRequest, drivername: str
) -> None:
    server = server_for(request, drivername)
    scripts = [async_program_of(way, IN_MAIN) for way in ASYNC_WAYS.values()]
    # Not busy, and without pings: an interpreter that ends unwinds its daemon
    # threads where they wait for its lock, and crashes when that is inside of
    # a greenlet, which may be any that computes, with any pool.
    scripts.append(
        async_program_of(ASYNC_WAYS["full"], IN_A_DAEMON_THREAD, NEVER)
    )
    assert_leave_soon(server, drivername, scripts)


@pytest.mark.pain("slow exit")
@pytest.mark.parametrize("drivername", ASYNC_DRIVERS)
def test_a_loops_process_leaves_at_once_amid_what_is_never_answered(
    request: pytest.FixtureRequest, drivername: str
) -> None:
    server = server_for(request, drivername)
    scripts = [
        async_program_of(body, start, pings)
        for body, pings in ASYNC_UNANSWERED.values()
        for start in (IN_MAIN, IN_A_DAEMON_THREAD)
    ]
    assert_leave_soon(server, drivername, scripts, freeze=True)


CLOSING = """
import asyncio, os, threading
from sqlalchemy.ext.asyncio import create_async_engine
from sqla_smartpool import AsyncSmartPool

may_end = threading.Event()

async def close_one():
    engine = create_async_engine(
        os.environ["URL"], poolclass=AsyncSmartPool, min_size=0
    )
    async with engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
    await driver.create_function("hold", 0, lambda: may_end.wait(30))
    # whatever is asked of the driver's thread next has to wait for this
    holding = asyncio.create_task(driver.execute("SELECT hold()"))
    closing, close = asyncio.Event(), driver.close

    async def tell_and_close():
        closing.set()
        await close()

    driver.close = tell_and_close
    disposing = asyncio.create_task(engine.dispose())
    await closing.wait()
    return holding, disposing

async def main():
    # it is a matter of chance which task is cancelled first
    tasks = [await close_one() for _ in range(10)]
    threading.Timer(0.5, may_end.set).start()
    print("leaving")

asyncio.run(main())
print("left")
"""


@pytest.mark.pain("slow exit")
def test_a_loop_can_end_amid_the_close_of_sqlite_connections(
    tmp_path: Path,
) -> None:
    # asyncio.run() cancels what is left: the close, and, if that is shielded,
    # the close that is behind the shield as well
    url = f"sqlite+aiosqlite:///{tmp_path / 'file.db'}"
    ended = run_script(CLOSING, URL=url)
    # SQLAlchemy logs that a close was cancelled
    assert ended.status == 0, ended.stderr
    assert ended.stdout.endswith("left\n")
    assert ended.exit_took < SOON
