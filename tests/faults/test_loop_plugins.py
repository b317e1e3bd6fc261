"""Tests that get an event loop each share one engine, as users' suites do."""

from __future__ import annotations

from pathlib import Path
import re
from typing import Any

import pytest

from tests.lab.scripts import Program
from tests.lab.scripts import way_to
from tests.lab.waiting import eventually

DRIVERS = ["postgresql+asyncpg", "postgresql+psycopg", "mysql+aiomysql"]

# What is left behind by one test fails another, or the whole run.
STRICT = """
[pytest]
addopts = -p no:randomly -p no:xdist -p no:cacheprovider -p no:cov
filterwarnings =
    error
    ignore::DeprecationWarning
"""
SAMPLE = """
import asyncio, os
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from sqla_smartpool import AsyncSmartPool
from tests.lab.scripts import told

engine = create_async_engine(
    **told(), poolclass=AsyncSmartPool, min_size=2, max_size=3,
    check_interval=0.05, ping_after=0.01,
)
loops = []

async def job():
    async with engine.connect() as connection:
        await asyncio.sleep(0.01)
        return await connection.scalar(text("SELECT 1"))

async def contend():
    loop = asyncio.get_running_loop()
    assert loop not in loops
    loops.append(loop)
    assert await asyncio.gather(*[job() for _ in range(20)]) == [1] * 20
"""
PYTEST_ASYNCIO = SAMPLE + """
import pytest_asyncio

@pytest_asyncio.fixture
async def connection():
    async with engine.connect() as connection:
        yield connection

@pytest.mark.asyncio
@pytest.mark.parametrize("number", range(4))
async def test_with_a_loop_of_its_own(number):
    await contend()

@pytest.mark.asyncio
async def test_with_a_fixture(connection):
    assert await connection.scalar(text("SELECT 1")) == 1
    await contend()

@pytest.mark.asyncio
async def test_last():
    await contend()
    await engine.dispose()
"""
ANYIO = SAMPLE + """
pytestmark = pytest.mark.anyio

@pytest.fixture
def anyio_backend():
    return "asyncio", {"use_uvloop": os.environ["LOOP"] == "uvloop"}

@pytest.fixture
async def connection(anyio_backend):
    async with engine.connect() as connection:
        yield connection

@pytest.mark.parametrize("number", range(4))
async def test_with_a_loop_of_its_own(number):
    await contend()

async def test_with_a_fixture(connection):
    assert await connection.scalar(text("SELECT 1")) == 1
    await contend()

async def test_last():
    await contend()
    await engine.dispose()
"""


def assert_passes(
    request: pytest.FixtureRequest,
    drivername: str,
    sample: str,
    filters: str = "",
    loop: str = "asyncio",
) -> None:
    name = "mariadb" if drivername.startswith("mysql") else "postgresql"
    server: Any = request.getfixturevalue(name)
    folder: Path = request.getfixturevalue("tmp_path")
    server.terminate()
    (folder / "pytest.ini").write_text(STRICT + filters)
    (folder / "test_sample.py").write_text(sample)
    command = ["-m", "pytest", "-q", str(folder), f"--rootdir={folder}"]
    ended = Program(command, **way_to(server, drivername), LOOP=loop).end()
    assert ended.status == 0, ended.stdout + ended.stderr
    assert re.search(r"\b6 passed in", ended.stdout), ended.stdout
    eventually(lambda: not server.sessions(), message="no session is left")


@pytest.mark.parametrize("drivername", DRIVERS)
def test_pytest_asyncio_with_a_loop_per_test_shares_one_engine(
    request: pytest.FixtureRequest, drivername: str
) -> None:
    pytest.importorskip("pytest_asyncio")
    assert_passes(request, drivername, PYTEST_ASYNCIO)


@pytest.mark.parametrize("drivername", DRIVERS)
def test_anyios_plugin_with_a_loop_per_test_shares_one_engine(
    request: pytest.FixtureRequest, drivername: str
) -> None:
    pytest.importorskip("anyio")
    assert_passes(request, drivername, ANYIO)


@pytest.mark.parametrize("drivername", DRIVERS)
def test_uvloop_with_a_loop_per_test_shares_one_engine(
    request: pytest.FixtureRequest, drivername: str
) -> None:
    pytest.importorskip("uvloop", reason="uvloop is not installed")
    # it warns of what is open while it closes, and never ends if that warning
    # is made an error; a pool hears of a loop's end only later
    filters = "    ignore::ResourceWarning\n"
    assert_passes(request, drivername, ANYIO, filters, "uvloop")
