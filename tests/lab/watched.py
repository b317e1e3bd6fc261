"""Makes every access to what callers share known to an explorer.

The classes of the pool stay as they are, but while an exploration runs,
reading and assigning the attributes of their objects is reported before it
is done, and a container or lock that is assigned to one is kept in a shell
which reports each operation on it.  An operation on a container written in C
is one step, as it is in CPython; iterating over one is a step per element.

A mutable thing of a kind that is not known here is an error, so that nothing
shared goes unseen.
"""

from __future__ import annotations

from collections import Counter
from collections import deque
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
import threading
from types import MemberDescriptorType
from typing import Any
from typing import Optional
from typing import TYPE_CHECKING
import weakref

from sqla_smartpool.backoff import Backoff
from sqla_smartpool.inventory import Inventory
from sqla_smartpool.pool import SmartPool
from sqla_smartpool.record import Record
from sqla_smartpool.tickets import Grant
from sqla_smartpool.tickets import Waiter
from sqla_smartpool.upkeep import Upkeep

if TYPE_CHECKING:
    from tests.lab.schedule import Run

#: whose attributes are watched
CLASSES = (Inventory, Backoff, Waiter, Grant, Record, Upkeep, SmartPool)
#: operations that change nothing
_READING = {"copy", "get", "items", "keys", "values", "count", "index"}
_CONTAINERS = (deque, OrderedDict, dict, set, list, Counter)
_IMMUTABLE = {type(None), bool, int, float, str}
_LOCKS = (type(threading.Lock()), type(threading.RLock()))

_run: Optional[Run] = None
#: by ``id``: what the things are called that are watched
_names: dict[int, str] = {}
_MISSING = object()


def name_of(thing: object) -> str:
    """What a watched thing is called in this run."""
    return _names[id(thing)]


class Shell:
    """A container that reports what is done with it."""

    def __init__(self, real: Any, label: tuple[str, str]) -> None:
        self.real = real
        self.label = label

    def _do(self, method: str, *args: Any, **more: Any) -> Any:
        run = _run
        if run is None:
            return getattr(self.real, method)(*args, **more)
        run.access(self.label, method, method not in _READING)
        result = getattr(self.real, method)(*args, **more)
        run.observe(self.label, method, args, result)
        return result

    def __getattr__(self, name: str) -> Any:
        getattr(self.real, name)
        return partial(self._do, name)

    def __len__(self) -> int:
        self._look("len")
        return len(self.real)

    def __contains__(self, item: object) -> bool:
        self._look("in")
        return item in self.real

    def __iter__(self) -> Iterator[Any]:
        self._look("iter")
        for item in self.real:
            yield item
            self._look("next")

    def __getitem__(self, key: Any) -> Any:
        self._look("[]")
        return self.real[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self._do("__setitem__", key, value)

    def __delitem__(self, key: Any) -> None:
        self._do("__delitem__", key)

    def _look(self, what: str) -> None:
        if _run is not None:
            _run.access(self.label, what, False)


class LockShell:
    """A lock whose holder may be told to stand still."""

    def __init__(self, reentrant: bool, label: tuple[str, str]) -> None:
        self._reentrant = reentrant
        self._holder: object = None
        self._depth = 0
        self.label = label

    def acquire(self, blocking: bool = True) -> bool:
        if _run is None:  # a schedule that is not followed any further
            return True
        me = _run.active
        _run.access(self.label, "acquire", True)
        while self._depth and not (self._reentrant and self._holder is me):
            if not blocking:
                return False
            _run.block(lambda: not self._depth, self.label, waits=False)
        self._holder = me
        self._depth += 1
        return True

    def release(self) -> None:
        if _run is not None:
            _run.access(self.label, "release", True)
            self._depth -= 1

    def locked(self) -> bool:
        return self._depth > 0

    __enter__ = acquire

    def __exit__(self, *exc_info: object) -> None:
        self.release()


def _shell(value: Any, owner: str, name: str) -> Any:
    if type(value) in _IMMUTABLE:
        return value
    if type(value) in _CONTAINERS or type(value) in _LOCKS:
        assert _run is not None
        inside = f"{name}[]"
        label = (owner, inside if _run.active is None else _run.name(inside))
        if type(value) in _LOCKS:
            return LockShell(type(value) is _LOCKS[1], label)
        return Shell(value, label)
    if isinstance(value, (*_CONTAINERS, weakref.WeakSet)):
        raise TypeError(f"{owner}.{name} cannot be watched: {type(value)}")
    return value


def _watch(kind: type) -> dict[str, Any]:
    """What takes the place of a class's own ways to its attributes."""
    get, put, init = kind.__getattribute__, kind.__setattr__, kind.__init__
    is_data: dict[str, bool] = {}

    def asks_for_data(name: str) -> bool:
        attribute = getattr(kind, name, _MISSING)
        is_data[name] = answer = (
            attribute is _MISSING
            or isinstance(attribute, MemberDescriptorType)
        ) and not name.startswith("__")
        return answer

    def __getattribute__(self: Any, name: str) -> Any:
        run = _run
        if run is not None and run.active is not None:
            data = is_data.get(name)
            if data or (data is None and asks_for_data(name)):
                label = _names.get(id(self))
                if label is not None:
                    run.access((label, name), "read", False)
        return get(self, name)

    def __setattr__(self: Any, name: str, value: Any) -> None:
        run = _run
        if run is not None:
            label = _names.get(id(self))
            if label is not None:
                run.access((label, name), "write", True)
                value = _shell(value, label, name)
        put(self, name, value)

    def __init__(self: Any, *args: Any, **more: Any) -> None:
        if _run is not None:
            _names[id(self)] = _run.name(kind.__name__.lower())
        init(self, *args, **more)

    return {
        "__getattribute__": __getattribute__,
        "__setattr__": __setattr__,
        "__init__": __init__,
    }


@contextmanager
def watching() -> Iterator[None]:
    """Have the classes report, for as many runs as are made in here."""
    own = {kind: dict(vars(kind)) for kind in CLASSES}
    watching = {kind: _watch(kind) for kind in CLASSES}
    for kind, ways in watching.items():
        for name, way in ways.items():
            setattr(kind, name, way)
    try:
        yield
    finally:
        for kind, ways in watching.items():
            for name in ways:
                if name in own[kind]:
                    setattr(kind, name, own[kind][name])
                else:
                    delattr(kind, name)


@contextmanager
def by(run: Run) -> Iterator[None]:
    """Report to this run."""
    global _run
    _run = run
    try:
        yield
    finally:
        _run = None
        _names.clear()
