"""An async pool serves one event loop after the other, and leaves nothing
behind that asyncio, a driver or uvloop could complain of."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.lab.scripts import Program
from tests.lab.scripts import start_script
from tests.lab.scripts import way_to
from tests.lab.waiting import eventually

#: whatever is left behind is told on stderr. What others' code should not
#: call any more is not.
STRICT = ("-X", "dev", "-W", "ignore::DeprecationWarning")
STRICT += ("-W", "always::ResourceWarning")
#: a driver, and whether over TLS
WAYS = [
    pytest.param("postgresql+asyncpg", False, id="asyncpg"),
    pytest.param("postgresql+asyncpg", True, id="asyncpg-tls"),
    pytest.param("postgresql+psycopg", False, id="psycopg"),
    pytest.param("postgresql+psycopg", True, id="psycopg-tls"),
    pytest.param("mysql+aiomysql", False, id="aiomysql"),
    pytest.param("mysql+aiomysql", True, id="aiomysql-tls"),
    pytest.param("mysql+asyncmy", False, id="asyncmy"),
    pytest.param("mysql+asyncmy", True, id="asyncmy-tls"),
]
# What these do themselves when they are cancelled over TLS, asyncpg's request
# to cancel and the others' handshake, is left unfinished, and told.
PLAIN_WAYS = [way for way in WAYS if not way.values[1]]
#: no driver's, no database's: what asyncio says of two loops mixed up
NEVER_SAID = (
    "different loop",
    "different event loop",
    "Event loop is closed",
    "Task was destroyed",
)


@pytest.fixture
def start(request: pytest.FixtureRequest) -> Any:
    """Start a script with the way to an empty server, and return both."""

    def start(
        script: str,
        drivername: str,
        tls: bool = False,
        strict: tuple[str, ...] = STRICT,
        **env: str,
    ) -> tuple[Any, Program]:
        name = "mariadb" if drivername.startswith("mysql") else "postgresql"
        server: Any = request.getfixturevalue(name)
        server.terminate()
        way = way_to(server, drivername, tls)
        return server, start_script(
            script, *strict, **{"LOOP": "asyncio", **way, **env}
        )

    return start


COMMON = """
import asyncio, gc, logging, os, sys
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqla_smartpool import AsyncSmartPool
from tests.lab.scripts import told

if os.environ["LOOP"] == "uvloop":
    import uvloop
    run, new_loop = uvloop.run, uvloop.new_event_loop
else:
    run, new_loop = asyncio.run, asyncio.new_event_loop

engine = create_async_engine(
    **told(), poolclass=AsyncSmartPool, min_size=2, max_size=3,
    check_interval=0.05, ping_after=0.01, num_workers=1, ping_timeout=30,
)
pool = engine.pool
# or it would tell that a frozen server does not answer when it is cancelled
logging.getLogger("psycopg").setLevel(logging.ERROR)

def wait_for(word):
    assert sys.stdin.readline() == word + chr(10)

async def job():
    async with engine.connect() as connection:
        await asyncio.sleep(0.01)
        assert await connection.scalar(text("SELECT 1")) == 1

def be_patient():
    # or asyncio would tell of a busy machine
    asyncio.get_running_loop().slow_callback_duration = 60

async def leave():
    be_patient()
    await engine.dispose()

async def contend():
    be_patient()
    await asyncio.gather(*[job() for _ in range(20)])
"""
#: asyncpg cancels a query over a connection of its own, of whose end it does
#: not want to hear, when it is cancelled itself
ASYNCPGS = re.compile(
    r"Future exception was never retrieved\nfuture: .*?connection_lost\(\)"
    r" call'\).*?connect_utils\.py\", line \d+, in _cancel\n.*?"
    r"^ConnectionError: unexpected connection_lost\(\) call\n",
    re.DOTALL | re.MULTILINE,
)
IN_A_ROW = COMMON + """
for _ in range(3):
    run(contend())
    gc.collect()
for _ in range(2):
    loop = new_loop()
    loop.run_until_complete(contend())
    loop.close()
    gc.collect()
run(contend())
run(leave())
gc.collect()
"""


@pytest.mark.pain("second event loop")
@pytest.mark.parametrize("drivername, tls", WAYS)
def test_loops_in_a_row_and_loops_closed_without_dispose_leave_nothing(
    start: Any, drivername: str, tls: bool
) -> None:
    server, program = start(IN_A_ROW, drivername, tls)
    ended = program.end()
    assert (ended.status, ASYNCPGS.sub("", ended.stderr)) == (0, "")
    eventually(lambda: not server.sessions(), message="no session is left")


@pytest.mark.parametrize("drivername, tls", WAYS)
def test_loops_of_uvloop_in_a_row_leave_nothing(
    start: Any, drivername: str, tls: bool
) -> None:
    pytest.importorskip("uvloop", reason="uvloop is not installed")
    # uvloop warns of what is open while it closes; a pool hears of that later
    strict = (*STRICT, "-W", "ignore::ResourceWarning")
    server, program = start(
        IN_A_ROW, drivername, tls, strict=strict, LOOP="uvloop"
    )
    ended = program.end()
    assert (ended.status, ASYNCPGS.sub("", ended.stderr)) == (0, "")
    eventually(lambda: not server.sessions(), message="no session is left")


# The test freezes the server between "ready" and "frozen", and thaws it after
# "left".
AMID = COMMON + """
def tcp_is_there():
    # before that, drivers are in wait_for(), which loses cancellations before
    # Python 3.12; psycopg is not, and uses none of the loop's transports
    transports = len(asyncio.get_running_loop()._transports)
    return not transports or transports > len(pool.inventory.members)

async def linger():
    be_patient()
    await pool.start()
    # those that are new need no ping
    await asyncio.gather(job(), job())
    # there may be a third, if one of two was being pinged
    await pool.resize(max_size=pool.stats().connections_num + 1)
    print("ready")
    wait_for("frozen")
    tasks = [asyncio.create_task(pool.check())]
    tasks += [asyncio.create_task(job()) for _ in range(4)]
    while not (
        pool.inventory.tending
        and pool.stats().pool_connecting
        and pool.stats().requests_waiting
        and tcp_is_there()
    ):
        await asyncio.sleep(0.01)
    for turn in range(9):
        await asyncio.sleep(0)
    for task in tasks:
        # of those that are not ended, the test's own
        task._log_destroy_pending = False
    return tasks

if os.environ["END"] == "cancelled":
    run(linger())
else:
    loop = new_loop()
    tasks = loop.run_until_complete(linger())
    loop.close()
    del loop, tasks
gc.collect()
print("left")
wait_for("thawed")
run(contend())
run(leave())
gc.collect()
"""


def end_amid(start: Any, drivername: str, end: str) -> str:
    server, program = start(AMID, drivername, END=end)
    with program:
        program.hear("ready")
        server.freeze()
        program.tell("frozen")
        # asyncpg rolls back what a cancelled ping has begun, if it had come
        # that far, and is not answered before the ping's time is over
        program.hear("left", timeout=90.0)
        server.thaw()
        program.tell("thawed")
        ended = program.end()
    assert ended.status == 0, ended.stderr
    eventually(lambda: not server.sessions(), message="no session is left")
    stderr: str = ended.stderr
    return stderr


@pytest.mark.parametrize("drivername, tls", PLAIN_WAYS)
def test_a_loop_ended_amid_pings_connects_and_callers_leaves_nothing(
    start: Any, drivername: str, tls: bool
) -> None:
    assert end_amid(start, drivername, "cancelled") == ""


@pytest.mark.parametrize("drivername, tls", PLAIN_WAYS)
def test_a_loop_closed_over_unfinished_tasks_does_not_harm_the_next(
    start: Any, drivername: str, tls: bool
) -> None:
    # what is told is of the tasks that the test has left, and of drivers
    said = end_amid(start, drivername, "closed")
    assert not [words for words in NEVER_SAID if words in said], said


FIRST_CONNECT = COMMON + """
from sqla_smartpool._sqlalchemy import await_
initialize = engine.dialect.initialize
ways_out = asyncio.Event()

def never(connection):
    await_(ways_out.wait())

async def amid_the_first_connect():
    be_patient()
    await pool.start(wait=False)
    while len(engine.sync_engine.pool.inventory.opening) < 2:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.5)  # both are there: one initializes, one waits

def slowly(connection):
    initialize(connection)
    await_(asyncio.sleep(0.1))

engine.dialect.initialize = never
if os.environ["END"] == "cancelled":
    run(amid_the_first_connect())
else:
    loop = new_loop()
    loop.run_until_complete(amid_the_first_connect())
    loop.close()
    del loop
engine.dialect.initialize = slowly
run(contend())
assert engine.dialect.server_version_info is not None
run(leave())
"""


@pytest.mark.parametrize("end", ["cancelled", "closed"])
def test_a_loop_ended_amid_the_very_first_connect_does_not_harm_the_next(
    start: Any, end: str
) -> None:
    server, program = start(FIRST_CONNECT, "postgresql+asyncpg", END=end)
    ended = program.end()
    assert ended.status == 0, ended.stderr
    said = ended.stderr
    assert not [words for words in NEVER_SAID if words in said], said
    eventually(lambda: not server.sessions(), message="no session is left")


DROPPED = COMMON + """
async def hold():
    be_patient()
    connection = await engine.connect()
    await connection.execute(text("SELECT 1"))
    return connection

held = run(hold())
del held
gc.collect()
run(contend())
run(leave())
"""


@pytest.mark.parametrize("drivername, tls", WAYS)
def test_a_connection_dropped_after_its_loops_end_is_ended_without_it(
    start: Any, drivername: str, tls: bool
) -> None:
    server, program = start(DROPPED, drivername, tls)
    ended = program.end()
    assert ended.status == 0, ended.stderr
    # SQLAlchemy's word to the one who has dropped it
    assert "The garbage collector is trying to clean up" in ended.stderr
    said = ended.stderr
    assert not [words for words in NEVER_SAID if words in said], said
    assert "Traceback" not in said
    eventually(lambda: not server.sessions(), message="no session is left")
