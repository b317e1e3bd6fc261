"""A network of a test's own, which loses packets as the test wishes.

It is a network namespace, joined to the machine's by one link. Nobody else
can reach it. A :class:`tests.lab.proxy.Proxy` that listens inside leads to a
server; what is lost is lost between it and its clients, as the kernel sees
it: nothing is acknowledged.
"""

from __future__ import annotations

import ctypes
import ipaddress
import os
import shutil
import socket
import subprocess
import sys
import threading
from typing import Callable
from typing import Iterable
from typing import Optional
from typing import TypeVar

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
# 198.18.0.0/15 is reserved for tests of networks; four addresses of it for
# each process, chosen when it starts, as a server's certificate names one.
_FOUR = int(ipaddress.IPv4Address("198.18.0.0")) + (os.getpid() % 0x8000) * 4
_NEAR = ipaddress.IPv4Address(_FOUR + 1)
#: the address inside the network, the same for all of a process
ADDRESS = ipaddress.IPv4Address(_FOUR + 2)


class Network:
    """A network namespace and the link to it.

    At most one per process at a time. It is gone with the process, in
    whatever way that ends: nothing but an open file keeps it.

    :raises RuntimeError: it cannot be made here, and why.

    """

    def __init__(self) -> None:
        self._near = f"lab{os.getpid()}"
        _check()
        self._namespace = _in_thread(_new_namespace)
        try:
            self._join()
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"<Network {ADDRESS} behind {self._near}>"

    def close(self) -> None:
        """Remove it. Sockets inside stay open, and cut off."""
        if self._namespace < 0:
            return
        # The namespace itself lasts as long as its last socket.
        subprocess.run(
            ["ip", "link", "delete", self._near], stderr=subprocess.DEVNULL
        )
        os.close(self._namespace)
        self._namespace = -1

    def listen(self) -> socket.socket:
        """A socket that listens inside, at a port of the kernel's choice."""
        return self.inside(
            lambda: socket.create_server((str(ADDRESS), 0), backlog=256)
        )

    def inside(self, job: Callable[[], T]) -> T:
        """Do a job inside: sockets and processes made by it belong there."""

        def entered() -> T:
            _call("setns", self._namespace, _CLONE_NEWNET)
            return job()

        return _in_thread(entered)

    # Faults

    def unplug(self) -> None:
        """Take the far end of the link down: the near one has no carrier."""
        self.inside(lambda: _run("ip", "link", "set", "far", "down"))

    def drop(self, clients: Optional[Iterable[int]] = None) -> None:
        """Lose packets without a word, in both directions.

        :param clients: only those from and to these ports of clients (see
         :attr:`tests.lab.proxy.Proxy.clients`); by default all.
        """
        if clients is None:
            self._rules("-A INPUT -j DROP", "-A OUTPUT -j DROP")
            return
        for port in clients:
            self._rules(
                f"-A INPUT -p tcp --sport {port} -j DROP",
                f"-A OUTPUT -p tcp --dport {port} -j DROP",
            )

    def drop_new(self) -> None:
        """Lose the packets that open connections, and no others."""
        self._rules("-A INPUT -p tcp --syn -j DROP")

    def heal(self) -> None:
        """Lose nothing any more.

        The kernel sends again what was lost, after a while: the longer it
        has tried in vain, the longer that takes.
        """
        self._rules("-F INPUT", "-F OUTPUT")
        self.inside(lambda: _run("ip", "link", "set", "far", "up"))

    def _rules(self, *rules: str) -> None:
        table = "\n".join(["*filter", *rules, "COMMIT", ""])
        self.inside(lambda: _run("iptables-restore", "--noflush", text=table))

    def _join(self) -> None:
        there = f"/proc/{os.getpid()}/fd/{self._namespace}"
        far = ["type", "veth", "peer", "name", "far", "netns", there]
        _run("ip", "link", "add", self._near, *far)
        _run("ip", "address", "add", f"{_NEAR}/30", "dev", self._near)
        _run("ip", "link", "set", self._near, "up")
        self.inside(self._join_far)

    def _join_far(self) -> None:
        _run("ip", "address", "add", f"{ADDRESS}/30", "dev", "far")
        _run("ip", "link", "set", "far", "up")


def _check() -> None:
    if not sys.platform.startswith("linux"):
        raise RuntimeError("only Linux has network namespaces")
    for program in ("ip", "iptables-restore"):
        if shutil.which(program) is None:
            raise RuntimeError(
                f"no {program} on PATH: install iproute2 and iptables"
            )
    if os.geteuid() != 0:
        raise RuntimeError("only root can make a network namespace")


def _new_namespace() -> int:
    """Make a namespace; it lasts while the returned descriptor is open."""
    _call("unshare", _CLONE_NEWNET)
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _in_thread(job: Callable[[], T]) -> T:
    """Do a job in a thread of its own: a namespace is a thread's matter."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(job())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="lab-network")
    thread.start()
    thread.join()
    for error in errors:
        raise error
    return results[0]


def _call(function: str, *args: int) -> None:
    """Call the kernel. (Python's ``os`` has these from 3.12 on.)"""
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, function)(*args):
        reason = os.strerror(ctypes.get_errno())
        raise RuntimeError(f"{function}() of a network namespace: {reason}")


def _run(*command: str, text: Optional[str] = None) -> None:
    done = subprocess.run(
        command,
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout.strip()}")
