"""Run a piece of Python in an interpreter of its own, to its very end."""

from __future__ import annotations

import os
from pathlib import Path
import subprocess
import sys
import textwrap
import time
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Ended(NamedTuple):
    status: int
    stdout: str
    stderr: str
    #: seconds from the script's word "leaving" until the process was gone
    exit_took: float


def run_script(script: str, *, timeout: float = 60.0, **env: str) -> Ended:
    """Run a script; what it needs is passed through the environment.

    :param timeout: seconds after which it is killed, which fails the test.
    """
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", textwrap.dedent(script)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, **env},
    )
    lines, left_at = [], time.monotonic()
    try:
        assert process.stdout is not None and process.stderr is not None
        for line in process.stdout:
            lines.append(line)
            if line == "leaving\n":
                left_at = time.monotonic()
        process.wait(timeout)
        exit_took = time.monotonic() - left_at
        return Ended(
            process.returncode,
            "".join(lines),
            process.stderr.read(),
            exit_took,
        )
    finally:
        process.kill()
        process.wait()
