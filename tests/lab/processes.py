"""A server's processes: started, frozen, killed, and never left behind."""

from __future__ import annotations

import os
from pathlib import Path
import pwd
import signal
import subprocess
import tempfile
from typing import Any
from typing import Iterable
from typing import Sequence

from tests.lab.waiting import eventually

# Waits for its standard input to end. Without a word before (we are gone,
# however that came), it ends the server and removes the folder. atexit alone
# would not do: it does not run after SIGTERM, SIGKILL or os._exit().
_GUARD = """
read word && exit
kill -CONT "$1"; kill -"$2" "$1"
waits=0
while kill -0 "$1" && [ $waits -lt 100 ]; do
    sleep 0.1
    waits=$((waits + 1))
done
rm -rf "$3"
"""


def account() -> dict[str, Any]:
    """Arguments for :class:`subprocess.Popen`: not as root, who is refused.

    Root becomes ``nobody``, anybody else stays. ``nobody`` owns nothing,
    while ``postgres`` and ``mysql`` may own somebody's real data.
    """
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {
        "user": nobody.pw_uid,
        "group": nobody.pw_gid,
        "extra_groups": [],
    }


def environment() -> dict[str, str]:
    """This process's, without what would lead a server astray."""
    ours = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PG", "MYSQL", "MARIADB", "LC_", "LANG"))
    }
    return {**ours, "LC_ALL": "C"}


def new_folder() -> Path:
    """Make an empty folder which only the server's account (and root) sees.

    Its path is short, as a unix socket's may have some 100 characters, and
    the server's account can get there.
    """
    base = Path(tempfile.gettempdir()).resolve()
    hidden = bool(account()) and not all(
        folder.stat().st_mode & 0o001 for folder in [base, *base.parents]
    )
    if hidden or len(str(base)) > 60:
        base = Path("/tmp")
    folder = Path(tempfile.mkdtemp(prefix="lab-", dir=base))
    own(folder)
    return folder


def own(path: Path) -> None:
    """Give a file or folder to the account the server runs under."""
    who = account()
    if who:
        os.chown(path, who["user"], who["group"])


def run(
    command: Sequence[str | Path], folder: Path
) -> subprocess.CompletedProcess[str]:
    """Run a tool of the server, under its account, to its end.

    :return: with the exit code and all output in ``stdout``.
    """
    return subprocess.run(
        command,
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        **account(),
    )


def table() -> dict[int, tuple[int, str]]:
    """Parent and state (``T`` stopped, ``Z`` dead) of all processes."""
    rows: dict[int, tuple[int, str]] = {}
    if os.path.exists("/proc/self/stat"):
        for name in os.listdir("/proc"):
            if name.isdigit():
                try:
                    stat = Path("/proc", name, "stat").read_text()
                except OSError:
                    continue  # it ended meanwhile
                # The second field, a name, may hold spaces and brackets.
                state, parent = stat.rpartition(")")[2].split()[:2]
                rows[int(name)] = int(parent), state
        return rows
    ps = ["ps", "-A", "-o", "pid=,ppid=,state="]
    for line in subprocess.check_output(ps, text=True).splitlines():
        pid, parent, state = line.split()[:3]
        rows[int(pid)] = int(parent), state[0]
    return rows


def alive(pids: Sequence[int]) -> list[int]:
    """Those of ``pids`` which have not ended (a zombie has)."""
    now = table()
    return [pid for pid in pids if pid in now and now[pid][1] not in "ZX"]


class ServerProcess:
    """A child of this process and its children, the backends.

    PostgreSQL's backends leave the process group (each calls ``setsid()``),
    so they are found by their parent.

    :param quit_signal: on which the main process ends at once by itself,
     with its children; for the guard.

    """

    def __init__(
        self,
        command: Sequence[str | Path],
        folder: Path,
        log: Path,
        quit_signal: signal.Signals,
    ) -> None:
        with log.open("ab") as output:
            self._main = subprocess.Popen(
                command,
                cwd=folder,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for pytest alone
                **account(),
            )
        self.pid = self._main.pid
        name = quit_signal.name.removeprefix("SIG")
        self._guard = subprocess.Popen(
            ["sh", "-c", _GUARD, "guard", str(self.pid), name, str(folder)],
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @property
    def running(self) -> bool:
        return self._main.poll() is None

    def pids(self) -> list[int]:
        """The main process and its children; empty when it has ended."""
        if not self.running:
            return []
        children = [
            pid
            for pid, (parent, state) in table().items()
            if parent == self.pid and state not in "ZX"
        ]
        return [self.pid, *children]

    def freeze(self) -> None:
        """Stop all processes, and return when they stand still."""
        # The main process first, and waited for: it starts the others.
        _halt(self.pids()[:1])
        _halt(self.pids())

    def thaw(self) -> None:
        """Let all processes go on."""
        _send(reversed(self.pids()), signal.SIGCONT)

    def stop(self, how: signal.Signals, timeout: float) -> bool:
        """Ask the main process to end, and wait for it.

        :param timeout: seconds to wait for it.
        :return: whether it has ended.
        """
        self.thaw()
        _send(self.pids()[:1], how)
        try:
            self._main.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        self._release_guard()
        return True

    def kill(self) -> None:
        """SIGKILL to all processes; returns when all are gone."""
        self.freeze()  # or it might start another while we look
        pids = self.pids()
        _send(pids, signal.SIGKILL)
        self._main.wait()
        eventually(lambda: not alive(pids), message="the backends are gone")
        self._release_guard()

    def _release_guard(self) -> None:
        if self._guard.returncode is None:
            self._guard.communicate(b"done\n")


def _send(pids: Iterable[int], how: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, how)
        except ProcessLookupError:
            pass


def _halt(pids: Sequence[int]) -> None:
    _send(pids, signal.SIGSTOP)

    def moving() -> list[int]:
        now = table()
        return [pid for pid in pids if now.get(pid, (0, "Z"))[1] not in "TtZX"]

    eventually(lambda: not moving(), message=f"{pids} stand still")
