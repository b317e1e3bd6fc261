"""What forks in the field: multiprocessing, gunicorn --preload and Celery's
prefork, each with a pool that its parent has started and uses."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
import json
import os
from pathlib import Path
import re
import signal
from typing import Any
from urllib.request import urlopen

from celery import Celery  # type: ignore[import-untyped]
import pytest
from sqlalchemy import create_engine
from sqlalchemy import NullPool
from sqlalchemy import text

from tests.lab import broker
from tests.lab.scripts import Ended
from tests.lab.scripts import listening_at
from tests.lab.scripts import Program
from tests.lab.scripts import way_to
from tests.lab.waiting import eventually

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="this platform does not fork"
)

DRIVERS = ["postgresql+psycopg", "postgresql+psycopg2", "mysql+mysqldb"]

# What is imported before the fork: the pool is full, and a transaction open.
SHOP = """
import os
from sqlalchemy import create_engine, text
from sqla_smartpool import SmartPool
from tests.lab.scripts import told

mysql = os.environ["URL"].startswith("mysql")
ask = text("SELECT " + ("connection_id()" if mysql else "pg_backend_pid()"))
engine = create_engine(
    **told(), poolclass=SmartPool, min_size=2, max_size=4, check_interval=0.1,
    ping_after=0.1, pool_timeout=20,
)
owner = os.getpid()
parents = set()

def begin():
    global held, mine
    engine.pool.start()
    held = engine.connect()
    mine = held.scalar(ask)
    parents.update((mine, work()[1]))
    held.execute(text("INSERT INTO preforked VALUES (1)"))

def work():
    with engine.connect() as connection:
        session = connection.scalar(ask)
    if os.getpid() != owner:
        assert session not in parents, "a child has its parent's session"
    return os.getpid(), session

def end():
    if os.getpid() == owner:
        assert held.scalar(ask) == mine
        held.commit()
        held.close()
        engine.dispose()
"""
MULTIPROCESSING = """
import gc, multiprocessing, os, sys
import shop

def work(number):
    gc.collect()
    return shop.work()

if __name__ == "__main__":
    method = os.environ["METHOD"]
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(["shop_open"])
    shop.begin()
    # each process is replaced by a new one several times
    with context.Pool(2, maxtasksperchild=5) as processes:
        answers = processes.map(work, range(20), chunksize=1)
    assert len({pid for pid, _ in answers}) >= 4, answers
    assert not shop.parents & {session for _, session in answers}, answers
    assert shop.work()[1] in shop.parents
    shop.end()
"""


@pytest.fixture(params=DRIVERS, ids=lambda name: name.partition("+")[2])
def server_and_way(
    request: pytest.FixtureRequest, tmp_path: Path
) -> tuple[Any, dict[str, str]]:
    """A server, and the environment of a program in ``tmp_path``."""
    if request.param == "mysql+mysqldb":
        pytest.importorskip("MySQLdb", reason="mysqlclient is not installed")
    name = "mariadb" if "mysql" in request.param else "postgresql"
    server: Any = request.getfixturevalue(name)
    server.terminate()
    engine = create_engine(server.url(request.param), poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE IF EXISTS preforked"))
        connection.execute(text("CREATE TABLE preforked (a int)"))
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "shop_open.py").write_text("import shop\nshop.begin()\n")
    way = way_to(server, request.param)
    return server, {**way, "PYTHONPATH": f"{tmp_path}:{Path.cwd()}"}


def assert_all_is_well(server: Any, ended: Ended, committed: int = 1) -> None:
    assert ended.status == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "ERROR" not in ended.stderr
    assert server.execute("SELECT count(*) FROM preforked") == [(committed,)]
    eventually(lambda: not server.sessions(), message="no session is left")


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_processes_of_multiprocessing_have_pools_of_their_own(
    server_and_way: Any, tmp_path: Path, method: str
) -> None:
    server, way = server_and_way
    (tmp_path / "main.py").write_text(MULTIPROCESSING)
    program = Program([str(tmp_path / "main.py")], **way, METHOD=method)
    assert_all_is_well(server, program.end())


GUNICORN = """
worker_class = "gthread"
workers = 2
threads = 4
# each worker is replaced by a new fork several times
max_requests = 20
bind = "127.0.0.1:0"
preload_app = True
# it would be one for all that run at the same time
control_socket_disable = True

def post_worker_init(worker):
    worker.log.info("Worker hears signals")

def on_exit(server):
    import shop
    shop.end()
"""
APPLICATION = """
import json
import shop

shop.begin()

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(shop.work()).encode()]
"""


def test_two_preloaded_workers_of_gunicorn_have_pools_of_their_own(
    server_and_way: Any, tmp_path: Path
) -> None:
    server, way = server_and_way
    (tmp_path / "gunicorn.conf.py").write_text(GUNICORN)
    (tmp_path / "application.py").write_text(APPLICATION)
    config = f"--config={tmp_path / 'gunicorn.conf.py'}"
    command = ["-m", "gunicorn", "--preload", config, "application:app"]
    with Program(command, **way) as program:
        url = listening_at(program)

        def ask(number: int) -> tuple[int, int]:
            with urlopen(url, timeout=30) as response:
                worker, session = json.load(response)
                return worker, session

        with ThreadPoolExecutor(4) as threads:
            answers = set(threads.map(ask, range(120)))

        def all_are_there() -> bool:
            # who is told to end just after it was forked takes that for its
            # parent's signal, and is killed by gunicorn in the end
            said = program.stderr
            ending = set(re.findall(r"\[(\d+)\] .* Autorestarting", said))
            return said.count("Worker hears signals") == 2 + len(ending)

        eventually(all_are_there, message="each has its successor")
        program.process.send_signal(signal.SIGTERM)
        ended = program.end()
    assert len({worker for worker, _ in answers}) > 2
    sessions = [session for _, session in answers]
    assert len(sessions) == len(set(sessions)), "two workers, one session"
    assert_all_is_well(server, ended)


TASKS = """
from celery import Celery, platforms, signals
import shop

# The kernel would kill a process at the end of the thread that forked it,
# perhaps while it has the lock that Celery waits for when it exits.
platforms.set_pdeathsig = lambda name: None

app = Celery("tasks")
app.config_from_object("celery_settings")
shop.begin()

@signals.worker_shutdown.connect
def end(**_):
    shop.end()

@app.task(name="work")
def work():
    return shop.work()
"""


def test_prefork_processes_of_celery_have_pools_of_their_own(
    server_and_way: Any, tmp_path: Path
) -> None:
    server, way = server_and_way
    settings = {
        **broker.settings(tmp_path / "celery"),
        "worker_concurrency": 2,
        # each process is replaced by a new fork several times
        "worker_max_tasks_per_child": 5,
    }
    (tmp_path / "tasks.py").write_text(TASKS)
    broker.write(settings, tmp_path / "celery_settings.py")
    client = Celery("client")
    client.config_from_object(settings)
    results = [client.send_task("work") for _ in range(30)]
    command = ["-m", "celery", "-A", "tasks", "worker", "--pool=prefork"]
    with Program(command, **way, C_FORCE_ROOT="1") as program:
        answers = {
            tuple(result.get(timeout=60, interval=0.05)) for result in results
        }
        program.process.send_signal(signal.SIGTERM)
        ended = program.end()
    assert len({worker for worker, _ in answers}) > 2
    sessions = [session for _, session in answers]
    assert len(sessions) == len(set(sessions)), "two processes, one session"
    assert_all_is_well(server, ended)
