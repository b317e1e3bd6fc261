"""Run a piece of Python in an interpreter of its own, to its very end."""

from __future__ import annotations

import os
from pathlib import Path
import re
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from typing import Any
from typing import NamedTuple
from typing import Sequence

from tests.lab import drivers
from tests.lab.waiting import eventually

ROOT = Path(__file__).parents[2]


class Ended(NamedTuple):
    status: int
    stdout: str
    stderr: str
    #: seconds from the script's word "leaving" until the process was gone
    exit_took: float


class Program:
    """A process of the test's own, which can be talked to by lines.

    :param command: of Python, such as ``["-m", "gunicorn", "app"]``.
    :param env: added to the environment.

    """

    def __init__(self, command: Sequence[str], **env: str) -> None:
        self._lines: list[str] = []
        self._left_at: float | None = None
        self._ended_at = 0.0
        # a file, as a pipe that nobody reads would fill
        self._stderr = tempfile.TemporaryFile("w+", encoding="utf-8")
        self.process = subprocess.Popen(
            [sys.executable, "-u", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line == "leaving\n":
                self._left_at = time.monotonic()
            self._lines.append(line)
        self.process.wait()
        self._ended_at = time.monotonic()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self._stderr):
            assert pipe is not None
            pipe.close()

    @property
    def stderr(self) -> str:
        """All that was written to it so far.

        Not that somebody has to wait for more than two seconds, which on a
        busy machine is nobody's fault.
        """
        # not by seeking: the process writes through the same position
        length = os.fstat(self._stderr.fileno()).st_size
        lines = os.pread(self._stderr.fileno(), length, 0).decode()
        return "".join(
            line
            for line in lines.splitlines(keepends=True)
            if "a checkout has been waiting for" not in line
        )

    def hear(self, line: str, timeout: float = 30.0) -> None:
        """Wait until the program, or a child of it, has printed a line."""
        deadline = time.monotonic() + timeout
        while f"{line}\n" not in self._lines:
            # by then, all who could say it are gone
            ended = not self._reader.is_alive()
            if ended or time.monotonic() > deadline:
                if f"{line}\n" in self._lines:
                    break
                raise AssertionError(f"no {line!r} was said:\n{self.stderr}")
            time.sleep(0.01)

    def tell(self, line: str) -> None:
        """Write a line to the program's standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def end(self, timeout: float = 60.0) -> Ended:
        """Wait for the program's end.

        :param timeout: seconds after which it is killed, which fails the
         test.
        """
        with self:
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                raise AssertionError(
                    f"not ended within {timeout} s:\n{self.stderr}"
                ) from None
            self._reader.join(10)
            left_at, ended_at = self._left_at, self._ended_at
            return Ended(
                self.process.returncode,
                "".join(self._lines),
                self.stderr,
                0.0 if left_at is None else ended_at - left_at,
            )


def listening_at(program: Program) -> str:
    """The address of a web server, once it has told it."""

    def told_address() -> Any:
        said = program.stderr
        assert program.process.poll() is None, said
        return re.search(r"(?:Listening at:|running on) (http://\S+)", said)

    return str(eventually(told_address, message="it listens")[1])


def start_script(script: str, *options: str, **env: str) -> Program:
    """Start a script; what it needs is passed through the environment.

    :param options: of Python.
    """
    return Program([*options, "-c", textwrap.dedent(script)], **env)


def run_script(script: str, *, timeout: float = 60.0, **env: str) -> Ended:
    """Run a script; what it needs is passed through the environment.

    :param timeout: seconds after which it is killed, which fails the test.
    """
    return start_script(script, **env).end(timeout)


def way_to(server: Any, drivername: str, tls: bool = False) -> dict[str, str]:
    """The environment from which :func:`told` makes the way to a server."""
    url = server.url(drivername, tls=tls)
    return {
        "URL": url.render_as_string(hide_password=False),
        "DRIVER": url.get_driver_name(),
        "CERTIFICATE": str(server.certificate) if tls else "",
    }


def told() -> dict[str, Any]:
    """Inside of a script: arguments for ``create_engine()``."""
    certificate = os.environ["CERTIFICATE"]
    return {
        "url": os.environ["URL"],
        "connect_args": drivers.connect_args(
            os.environ["DRIVER"], Path(certificate) if certificate else None
        ),
    }
