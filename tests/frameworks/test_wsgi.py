"""Applications in threads and greenlets, served by gunicorn."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.frameworks.serving import EXAMPLES
from tests.frameworks.serving import serving
from tests.lab.waiting import eventually

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="gunicorn forks"),
]

GUNICORN = ["-m", "gunicorn", "--bind=127.0.0.1:0"]
#: of all examples
MIN_SIZE, MAX_SIZE = 2, 5


@pytest.mark.parametrize(
    "options, opened",
    [
        (["--threads=20", "flask_app:app"], 0),
        (
            [
                f"--config={EXAMPLES / 'gunicorn_flask_conf.py'}",
                "flask_sqlalchemy_app:app",
            ],
            MIN_SIZE,
        ),
    ],
    ids=["flask", "flask_sqlalchemy"],
)
def test_threads_share_the_pool(
    options: list[str], opened: int, postgresql: Any
) -> None:
    command = [*GUNICORN, *options]
    with serving(command, postgresql, "postgresql+psycopg") as site:
        eventually(lambda: len(postgresql.sessions()) == opened)
        assert site.doubles() <= MAX_SIZE
        stats = site.pool()
        # none was replaced meanwhile, so there were never more
        assert MIN_SIZE <= stats["connections_num"] <= MAX_SIZE
        assert stats["pool_in_use"] == stats["requests_errors"] == 0
        site.stop()


@pytest.mark.parametrize("config", ["gunicorn", "gunicorn_gevent"])
def test_each_preloaded_worker_has_a_pool_of_its_own(
    config: str, postgresql: Any
) -> None:
    if "gevent" in config:
        pytest.importorskip("gevent", reason="gevent is not installed")
    config = f"--config={EXAMPLES / config}_conf.py"
    command = [*GUNICORN, config, "wsgi_app:app"]
    with serving(command, postgresql, "postgresql+psycopg") as site:
        eventually(lambda: len(postgresql.sessions()) == 2 * MIN_SIZE)
        assert site.doubles() <= 2 * MAX_SIZE
        pools: dict[int, dict[str, Any]] = {}

        def both_told() -> bool:
            # whichever accepts first answers, and may do so many times
            pools.update((p["process"], p) for p in site.get(["/pool"] * 40))
            return len(pools) == 2

        eventually(both_told)
        for stats in pools.values():
            assert MIN_SIZE <= stats["connections_num"] <= MAX_SIZE
            assert stats["pool_in_use"] == stats["requests_errors"] == 0
        # used side by side, by greenlets too
        opened = [stats["connections_num"] for stats in pools.values()]
        assert max(opened) > MIN_SIZE
        site.stop()
