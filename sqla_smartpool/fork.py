"""What a forked child does with the connections of its parent: nothing.

It must neither use nor close nor even collect them, not at its exit either:
a driver's destructor says farewell over the socket that it shares with the
parent, and the server ends the parent's session.
"""

from __future__ import annotations

import ctypes
import os
import threading

from .aio import LoopRuntime
from .pool import all_pools
from .pool import SmartPool
from .record import Record
from .runtime import forget_threads
from .sockets import all_held


def _keep_for_good(thing: object) -> None:
    """Leak a reference: a list would be emptied at the interpreter's exit."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _abandon(record: Record, nothing: int) -> None:
    connection = record.dbapi_connection
    if connection is None:
        return
    _keep_for_good(connection)
    _keep_for_good(record.driver_connection)
    if record.line is not None:
        # whatever is still written goes nowhere
        record.line.point_at(nothing)
    record.forget()


def start_anew(pool: SmartPool) -> None:
    """Have an inherited pool begin with empty books."""
    inherited = [*pool.inventory.members, *pool.inventory.empty]
    nothing = os.open(os.devnull, os.O_RDWR)
    try:
        for record in inherited:
            _abandon(record, nothing)
    finally:
        os.close(nothing)
    _keep_for_good(pool.inventory)
    pool.begin_anew()


def _in_child() -> None:
    forget_threads()
    LoopRuntime.moving = threading.Lock()
    for held in list(all_held):
        # or the server would not see the parent go while the child is there
        held.release_in_child()
    for pool in list(all_pools):
        start_anew(pool)


# not every platform forks
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
