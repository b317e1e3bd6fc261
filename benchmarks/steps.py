"""What each step of a checkout and its checkin costs.

Each candidate does what the one before it does, and one thing more: SmartPool
itself is the last.  What a step costs is the difference.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import lru_cache
from functools import partial
import os
import re
import shutil
import socket
import subprocess
import sys
from typing import Any
from typing import Callable
from typing import Iterator
from typing import Optional

from sqlalchemy import Pool
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.pool import StaticPool

from sqla_smartpool import SmartPool
from sqla_smartpool.record import Record
from sqla_smartpool.sockets import Line
from .checkout import cpu_of
from .measure import Benchmark
from .measure import Case
from .measure import Figures
from .pools import engine
from .pools import pool


class _OneRecord(SmartPool):
    """Hands out the one record that it has, to whoever asks."""

    _only: Optional[ConnectionPoolEntry] = None

    def _do_get(self) -> ConnectionPoolEntry:
        if self._only is None:
            self._only = self._create_connection()
        return self._only

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        pass


class _Idle(SmartPool):
    """Takes it from the idle ones, and puts it back."""

    def _do_get(self) -> ConnectionPoolEntry:
        try:
            return self.inventory.take()
        except IndexError:
            return super()._do_get()

    def _do_return_conn(self, record: Any) -> None:
        self.inventory.idle.append(record)


class _InTurn(SmartPool):
    """Looks for others who wait."""

    def _do_get(self) -> ConnectionPoolEntry:
        inventory = self.inventory
        if not inventory.waiters:
            try:
                return inventory.take()
            except IndexError:
                pass
        return super()._do_get()

    def _do_return_conn(self, record: Any) -> None:
        inventory = self.inventory
        inventory.idle.append(record)
        if inventory.waiters:
            inventory.look()


class _OnTime(_InTurn):
    """Reads the clock: is it too old, or without proof of life?"""

    def _do_get(self) -> ConnectionPoolEntry:
        inventory = self.inventory
        record: Optional[Record] = None
        if not inventory.waiters:
            try:
                record = inventory.take()
            except IndexError:
                pass
            else:
                if self._clock() < record.trusted_until:
                    return record
        return self.checkout.slowly(record)

    def _do_return_conn(self, record: Any) -> None:
        record.idle_since = self._clock()
        inventory = self.inventory
        inventory.idle.append(record)
        if inventory.waiters:
            inventory.look()


class _Alive(_OnTime):
    """Asks the kernel whether the socket still stands."""

    def _do_get(self) -> ConnectionPoolEntry:
        inventory = self.inventory
        record: Optional[Record] = None
        if not inventory.waiters:
            try:
                record = inventory.take()
            except IndexError:
                pass
            else:
                peek = record.peek
                if self._clock() < record.trusted_until and (
                    peek is None or peek()
                ):
                    return record
        return self.checkout.slowly(record)


#: in this order; the names say what a step adds
STEPS: dict[str, type[Pool]] = {
    "SQLAlchemy's pool": StaticPool,
    "SQLAlchemy's engine": StaticPool,
    "a record of its own": _OneRecord,
    "idle connections": _Idle,
    "who waits": _InTurn,
    "the clock": _OnTime,
    "a look at the socket": _Alive,
    "SmartPool: who has it, and for how long": SmartPool,
}
_WITHOUT_ENGINE = "SQLAlchemy's pool"
#: checkouts under the instruments, which are slow
_COUNTED = 2_000


@contextmanager
def _opened(name: str) -> Iterator[Callable[[], Any]]:
    """A way to check out what has a socket, as connections have."""
    if name == _WITHOUT_ENGINE:
        yield pool(STEPS[name], 1).connect
        return
    made = engine(STEPS[name], 1)
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        if isinstance(made.pool, SmartPool):
            for record in made.pool.inventory.idle:
                record.line = Line(client.fileno())
                record.peek = record.line.quiet
        yield made.connect
    made.dispose()


def _turn(name: str, number: int, counts: bool) -> Figures:
    with _opened(name) as connect:
        figures = dict(cpu_of(connect, number))
    if counts:
        figures["instructions per checkout"] = _instructions(name)
    return figures


@lru_cache(maxsize=None)  # they are the same each time
def _instructions(name: str) -> float:
    """Of the processor, counted by valgrind: a busy machine changes none."""
    few, many = (_collected(name, number * _COUNTED) for number in (1, 2))
    return (many - few) / _COUNTED


def _collected(name: str, number: int) -> int:
    done = subprocess.run(
        [
            "valgrind",
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            *(sys.executable, "-m", __name__, name, str(number)),
        ],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        check=True,
        capture_output=True,
        text=True,
    )
    found = re.search(r"Collected : (\d+)", done.stderr)
    assert found is not None, done.stderr
    return int(found[1])


def cases(quick: bool) -> Iterator[Case]:
    counts = not quick and shutil.which("valgrind") is not None
    number = 500 if quick else 20_000
    yield Case(
        "one connection, one thread",
        {name: partial(_turn, name, number, counts) for name in STEPS},
        (_WITHOUT_ENGINE,),
    )


STEPS_OF_A_CHECKOUT = Benchmark(
    "steps", "what each step of a checkout costs", cases
)


if __name__ == "__main__":
    with _opened(sys.argv[1]) as connect_once:
        cpu_of(connect_once, int(sys.argv[2]))
