"""Workers of Celery, of every kind."""

from __future__ import annotations

from contextlib import ExitStack
import os
from pathlib import Path
import signal
from typing import Any

from celery import Celery  # type: ignore[import-untyped]
import pytest

from tests.frameworks.serving import Census
from tests.frameworks.serving import environment
from tests.lab import broker
from tests.lab.scripts import Program
from tests.lab.waiting import eventually

#: by kind: how many run at a time, and the most connections they need
KINDS = {"prefork": (2, 2), "threads": (8, 5), "solo": (1, 1)}


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="prefork forks")
def test_each_process_of_a_worker_has_a_pool_of_its_own(
    postgresql: Any, tmp_path: Path
) -> None:
    env = environment(postgresql, "postgresql+psycopg")
    postgresql.terminate()
    programs = []
    results = []
    with ExitStack() as started, Census(postgresql) as census:
        for kind, (at_once, _) in KINDS.items():
            folder = tmp_path / kind
            settings = broker.settings(folder)
            broker.write(settings, folder / "celeryconfig.py")
            path = f"{folder}:{env['PYTHONPATH']}"
            options = [f"--pool={kind}", f"--concurrency={at_once}"]
            command = ["-m", "celery", "-A", "celery_app", "worker", *options]
            program = Program(
                command, **{**env, "PYTHONPATH": path}, C_FORCE_ROOT="1"
            )
            programs.append(started.enter_context(program))
            client = Celery(kind)
            client.config_from_object(settings)
            results += [
                (number, client.send_task("celery_app.double", [number]))
                for number in range(20)
            ]
        for number, result in results:
            assert result.get(timeout=60, interval=0.05) == 2 * number
        # prefork's two keep one each, the others at least one
        eventually(lambda: len(postgresql.sessions()) >= 4)
        for program in programs:
            program.process.send_signal(signal.SIGTERM)
        for program in programs:
            ended = program.end()
            assert ended.status == 0, ended.stderr
            for word in ("Traceback", "ERROR"):
                assert word not in ended.stderr, ended.stderr
    assert census.most <= sum(most for _, most in KINDS.values())
    eventually(lambda: not postgresql.sessions(), message="none is left")
