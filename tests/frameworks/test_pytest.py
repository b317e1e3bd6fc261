"""The fixtures that the page gives to users, in a pytest of their own."""

from __future__ import annotations

from typing import Any

import pytest

from tests.frameworks.serving import environment
from tests.frameworks.serving import EXAMPLES
from tests.lab.scripts import Program
from tests.lab.waiting import eventually


@pytest.mark.slow
def test_tests_share_engines_and_leave_nothing(postgresql: Any) -> None:
    postgresql.execute("DROP TABLE IF EXISTS fixture_orders")
    postgresql.execute("CREATE TABLE fixture_orders (id int)")
    postgresql.execute("ALTER TABLE fixture_orders OWNER TO smart")
    postgresql.terminate()
    folder = EXAMPLES / "fixtures"
    command = ["-m", "pytest", f"--config-file={folder / 'pytest.ini'}"]
    command += ["-p", "pytest_asyncio.plugin", "-p", "no:cacheprovider"]
    for warning in (
        "ResourceWarning",
        "pytest.PytestUnraisableExceptionWarning",
    ):
        command += ["-W", f"error::{warning}"]
    env = environment(postgresql, "postgresql+psycopg")
    other = environment(postgresql, "postgresql+asyncpg")
    env["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    env["ASYNC_DATABASE_URL"] = other["DATABASE_URL"]
    ended = Program([*command, str(folder)], **env).end()
    assert ended.status == 0, ended.stdout + ended.stderr
    assert "24 passed" in ended.stdout
    eventually(lambda: not postgresql.sessions(), message="none is left")
    assert postgresql.execute("SELECT count(*) FROM fixture_orders") == [(0,)]
