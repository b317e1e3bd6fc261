"""Random load and random faults on real servers: a minute of it."""

from __future__ import annotations

from pathlib import Path
import re
import subprocess
import sys

import pytest

from tests.lab.fixtures import missing

ROOT = Path(__file__).parents[2]
#: a machine may be busy; seconds
PATIENCE = 240.0

RUN = """
import sys
from benchmarks.soak.__main__ import main

sys.exit(main(sys.argv[1:]))
"""
#: each connection that comes back is put on the shelf twice
TWICE = """
from sqla_smartpool import SmartPool

take_back = SmartPool._do_return_conn


def take_back_twice(pool, record):
    take_back(pool, record)
    pool.inventory.idle.append(record)


SmartPool._do_return_conn = take_back_twice
"""


def soak(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    for package in ("psutil", "rich"):
        try:
            __import__(package)
        except ImportError:
            missing(f"{package} (pip install 'sqla_smartpool[benchmarks]')")
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


@pytest.mark.slow
def test_a_minute_of_random_load_and_faults_breaks_no_invariant() -> None:
    ended = soak(RUN, "--minutes", "1", "--seed", "1")
    violations = re.findall(r"^violation: .*", ended.stdout, re.MULTILINE)
    assert not violations, "\n".join(violations)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.slow
def test_a_pool_that_hands_a_connection_out_twice_is_found_by_the_soak() -> (
    None
):
    # a driver in Python: two threads in a connection of libpq's may well end
    # the process
    ended = soak(
        TWICE + RUN,
        *("--minutes", "0.2", "--seed", "1", "--drivers", "pg8000"),
    )
    assert ended.returncode == 1, ended.stdout + ended.stderr
    row = re.search(r"a connection has one owner\D+\d+\D+(\d+)", ended.stdout)
    assert row and int(row[1]) > 0, ended.stdout
