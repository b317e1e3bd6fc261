"""A forked child works with connections of its own, and leaves its parent's
sessions alone: used, collected or at its exit."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.lab.scripts import run_script

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="this platform does not fork"
)

FORK = """
import gc, os, sys
from sqlalchemy import create_engine, text
from sqla_smartpool import SmartPool
from sqla_smartpool.tickets import Grip

ask = text(os.environ["QUESTION"])
engine = create_engine(
    os.environ["URL"], poolclass=SmartPool, min_size=3, max_size=5,
    connect_args=eval(os.environ["CONNECT_ARGS"]), check_interval=0.1,
)
engine.pool.start()
held = engine.connect()
mine = held.scalar(ask)
held.execute(text("CREATE TABLE IF NOT EXISTS forked (a int)"))
held.execute(text("INSERT INTO forked VALUES (1)"))
# a lock that some other thread holds at the moment of the fork
grip = Grip()
assert engine.pool.inventory._key.take(grip)
child = os.fork()
if child == 0:
    with engine.connect() as connection:
        assert connection.scalar(ask) != mine
    engine.pool.start()
    assert engine.pool.stats().pool_size >= 3
    held.close()
    del held
    gc.collect()
    sys.exit(0)
engine.pool.inventory._key.give_back(grip)
assert os.waitpid(child, 0)[1] == 0
assert held.scalar(ask) == mine
held.commit()
held.close()
with engine.connect() as connection:
    assert connection.scalar(text("SELECT count(*) FROM forked")) == 1
    connection.execute(text("DROP TABLE forked"))
    connection.commit()
print(engine.pool.stats().connections_num)
"""


@pytest.mark.parametrize("drivername", ["psycopg", "psycopg2", "pg8000"])
def test_the_parents_postgresql_sessions_survive_its_child(
    postgresql: Any, drivername: str
) -> None:
    check(postgresql, f"postgresql+{drivername}", "SELECT pg_backend_pid()")


@pytest.mark.parametrize("drivername", ["pymysql", "mysqldb"])
def test_the_parents_mariadb_sessions_survive_its_child(
    mariadb: Any, drivername: str
) -> None:
    if drivername == "mysqldb":
        pytest.importorskip("MySQLdb", reason="mysqlclient is not installed")
    check(mariadb, f"mysql+{drivername}", "SELECT connection_id()")


def check(server: Any, drivername: str, question: str) -> None:
    url = server.url(drivername).render_as_string(hide_password=False)
    ended = run_script(
        FORK,
        URL=url,
        QUESTION=question,
        CONNECT_ARGS=repr(server.connect_args(drivername)),
    )
    assert ended.status == 0, ended.stderr
    # the parent has opened no connection after its first three
    assert ended.stdout == "3\n"
    assert "Traceback" not in ended.stderr


POOL_IN_CHILD = """
import multiprocessing, os
from sqlalchemy import create_engine, text
from sqla_smartpool import SmartPool

engine = create_engine(
    os.environ["URL"], poolclass=SmartPool, min_size=1, max_size=2
)

def work(number):
    with engine.connect() as connection:
        return connection.scalar(text("SELECT pg_backend_pid()"))

if __name__ == "__main__":
    mine = work(0)
    context = multiprocessing.get_context("fork")
    with context.Pool(2) as processes:
        theirs = set(processes.map(work, range(20)))
    assert mine not in theirs, (mine, theirs)
    assert work(0) == mine
"""


def test_processes_of_multiprocessing_have_pools_of_their_own(
    postgresql: Any,
) -> None:
    url = postgresql.url("postgresql+psycopg")
    ended = run_script(
        POOL_IN_CHILD, URL=url.render_as_string(hide_password=False)
    )
    assert ended.status == 0, ended.stderr
