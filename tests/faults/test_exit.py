"""The interpreter leaves at once, whatever the pool is doing, and quietly."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from tests.lab.scripts import run_script

BEGIN = """
import os, sys, threading
from sqlalchemy import create_engine, text
from sqla_smartpool import SmartPool

engine = create_engine(
    os.environ["URL"], poolclass=SmartPool, min_size=2, max_size=4,
    check_interval=0.05, ping_after=0.01,
)
"""

WAYS = {
    "idle": "engine.pool.start()",
    "busy": """
def work():
    while True:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))

for _ in range(8):
    threading.Thread(target=work, daemon=True).start()
with engine.connect() as connection:
    connection.execute(text("SELECT 1"))
""",
    "with a connection in use": """
engine.pool.start()
connection = engine.connect()
connection.execute(text("SELECT 1"))
""",
    "with a checkout from atexit": """
import atexit
engine.pool.start()

def last():
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    engine.dispose()
    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))

atexit.register(last)
""",
    "disposed": """
engine.pool.start()
engine.dispose()
""",
    "stopped": """
with engine.pool:
    pass
""",
}
LEAVE = """
print("leaving")
sys.exit(0)
"""


@pytest.mark.parametrize("way", WAYS)
def test_the_process_leaves_at_once_with_a_pool(
    postgresql: Any, way: str
) -> None:
    url = postgresql.url("postgresql+psycopg")
    ended = run_script(
        BEGIN + WAYS[way] + LEAVE,
        URL=url.render_as_string(hide_password=False),
    )
    assert ended.status == 0, ended.stderr
    assert ended.stderr == ""
    assert ended.exit_took < 5  # promised: 1


@pytest.mark.parametrize("driver", ["psycopg", "pg8000"])
def test_the_process_leaves_at_once_in_the_middle_of_a_connect(
    driver: str,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
        script = BEGIN + "engine.pool.start(wait=False)" + LEAVE
        ended = run_script(
            script, URL=f"postgresql+{driver}://u:p@127.0.0.1:{port}/d"
        )
    assert ended.status == 0, ended.stderr
    assert ended.stderr == ""
    assert ended.exit_took < 5


def test_the_process_leaves_at_once_in_the_middle_of_a_ping(
    postgresql: Any,
) -> None:
    script = """
engine.pool.start()
pinging = threading.Event()
ping = engine.dialect.do_ping

def do_ping(connection):
    pinging.set()
    threading.Event().wait()

engine.dialect.do_ping = do_ping
assert pinging.wait(30)
"""
    url = postgresql.url("postgresql+psycopg")
    ended = run_script(
        BEGIN + script + LEAVE, URL=url.render_as_string(hide_password=False)
    )
    assert ended.status == 0, ended.stderr
    assert ended.stderr == ""
    assert ended.exit_took < 5
