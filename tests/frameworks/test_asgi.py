"""Applications on an event loop, served by uvicorn."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.frameworks.serving import serving
from tests.lab.waiting import eventually

pytestmark = pytest.mark.slow

#: of all examples
MIN_SIZE, MAX_SIZE = 2, 5


@pytest.mark.parametrize("name", ["fastapi", "litestar", "starlette"])
def test_requests_share_the_pool_and_who_leaves_takes_nothing_along(
    name: str, postgresql: Any
) -> None:
    command = ["-m", "uvicorn", "--port=0", f"{name}_app:app"]
    with serving(command, postgresql, "postgresql+asyncpg") as site:
        assert len(postgresql.sessions()) == MIN_SIZE
        assert site.doubles() <= MAX_SIZE
        stats = site.pool()
        # none was replaced meanwhile, so there were never more
        assert MIN_SIZE <= stats["connections_num"] <= MAX_SIZE
        assert stats["requests_errors"] == 0

        site.leave_exports()
        eventually(lambda: site.pool()["pool_in_use"] == 0)
        eventually(
            lambda: len(postgresql.sessions()) == site.pool()["pool_size"]
        )
        assert site.doubles(20) <= MAX_SIZE
        stats = site.pool()
        assert stats["requests_errors"] == stats["reclaimed"] == 0
        assert stats["returns_bad"] > 0, "none was cut in mid-query"
        site.stop()


@pytest.mark.parametrize(
    "options",
    [
        ["uvicorn", "--port=0", "--workers=2"],
        ["gunicorn", "--bind=127.0.0.1:0", "--workers=2", "--preload"]
        + ["--worker-class=uvicorn_worker.UvicornWorker"],
    ],
    ids=["uvicorn", "gunicorn"],
)
def test_each_worker_has_a_pool_of_its_own(
    options: list[str], postgresql: Any
) -> None:
    if options[0] == "gunicorn" and not hasattr(os, "fork"):
        pytest.skip("gunicorn forks")
    command = ["-m", *options, "starlette_app:app"]
    with serving(command, postgresql, "postgresql+asyncpg") as site:
        eventually(lambda: len(postgresql.sessions()) == 2 * MIN_SIZE)
        assert site.doubles() <= 2 * MAX_SIZE
        assert MIN_SIZE <= site.pool()["connections_num"] <= MAX_SIZE
        site.stop()
