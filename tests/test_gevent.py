"""Greenlets in place of threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.lab.scripts import run_script

PROGRAM = (Path(__file__).parent / "lab" / "gevent_program.py").read_text()


@pytest.mark.parametrize("driver", ["pg8000", "pymysql"])
def test_under_gevent_nothing_is_lost_to_timeouts_and_kills(
    request: pytest.FixtureRequest, driver: str
) -> None:
    pytest.importorskip("gevent", reason="gevent is not installed")
    server: Any = request.getfixturevalue(
        "postgresql" if driver == "pg8000" else "mariadb"
    )
    name = ("postgresql+" if driver == "pg8000" else "mysql+") + driver
    ended = run_script(
        PROGRAM,
        timeout=120,
        URL=server.url(name).render_as_string(hide_password=False),
        CONNECT_ARGS=repr(server.connect_args(name)),
    )
    assert ended.status == 0, ended.stderr
    assert ended.stdout == "True\n0 0 0\n", ended.stderr
