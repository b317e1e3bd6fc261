"""The programs of the pages do the same with the old pool and with ours."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any
from typing import Iterator

import pytest

from tests.lab.fixtures import missing
from tests.lab.pages import DOCS
from tests.lab.scripts import Program
from tests.lab.waiting import eventually

pytestmark = pytest.mark.slow

EXAMPLES = DOCS / "migration" / "examples"
#: by the name of a pair of programs: what the old one imports
OLD = {
    "asyncpg": "asyncpg",
    "piccolo": "piccolo",
    "psycopg_pool": "psycopg_pool",
    "pycopg": "pycopg",
    "pysqlx": "pysqlx_engine",
    "queuepool": "sqlalchemy",
}
SIDES = ("before", "after")


@pytest.fixture
def databases(postgresql: Any) -> Iterator[dict[str, str]]:
    """An empty one for each side, which run at the same time."""
    urls = {}
    postgresql.terminate()
    for side in SIDES:
        postgresql.execute(f"CREATE DATABASE {side} OWNER smart")
        url = postgresql.url("postgresql+psycopg").set(
            drivername="postgresql", database=side, query={}
        )
        urls[side] = url.render_as_string(hide_password=False)
    yield urls
    for side in SIDES:
        postgresql.execute(f"DROP DATABASE {side} WITH (FORCE)")


@pytest.mark.parametrize("name", OLD)
def test_both_programs_say_the_same(
    name: str, databases: dict[str, str], postgresql: Any
) -> None:
    programs = {
        side: Program(
            [str(EXAMPLES / f"{name}_{side}.py")], DATABASE_URL=databases[side]
        )
        for side in SIDES
        if side == "after" or find_spec(OLD[name])
    }
    said = {}
    for side, program in programs.items():
        ended = program.end()
        assert ended.status == 0, ended.stderr
        said[side] = ended.stdout
        if side == "after":
            # but the pool's word on callers who wait for themselves
            assert "Traceback" not in ended.stderr, ended.stderr
    assert len(said["after"].splitlines()) >= 4
    eventually(lambda: not postgresql.sessions(), message="nothing is left")
    if "before" not in said:
        missing(f"{OLD[name]}: pip install 'sqla_smartpool[migration]'")
    assert said["before"] == said["after"]


def test_every_program_is_run() -> None:
    there = {path.stem for path in EXAMPLES.glob("*.py")}
    assert there == {f"{name}_{side}" for name in OLD for side in SIDES}
