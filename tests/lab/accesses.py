"""Makes every access to what callers share known to an explorer.

The classes of the pool stay as they are, but while an exploration runs,
reading and assigning the attributes of their objects is reported before it
is done, and a container or lock that is assigned to one is kept in a shell
which reports each operation on it.  An operation on a container written in C
is one step, as it is in CPython; iterating over one is a step per element.

A container of a kind that is not known here is an error, so that nothing
shared goes unseen.  Not watched are statistics, what only tells of the pool
(its journal, and those who look at long waits), and what a function shares
with the jobs that it starts.  That an object vanishes to which there were
weak references is part of the step before.
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
from sqla_smartpool.key import Key
from sqla_smartpool.pool import SmartPool
from sqla_smartpool.record import Record
from sqla_smartpool.tickets import Grant
from sqla_smartpool.tickets import Waiter
from sqla_smartpool.upkeep import Upkeep

if TYPE_CHECKING:
    from tests.lab.schedule import Run

#: whose attributes are watched
CLASSES = (
    Inventory,
    Key,
    Backoff,
    Waiter,
    Grant,
    Record,
    Upkeep,
    SmartPool,
)
#: nobody decides by these: statistics, the wall clock's times, and whether
#: an alarm is set, as none goes off here
_IGNORED = {
    "counts",
    "waits",
    "wait_seconds",
    "connects",
    "long_uses",
    "queued",
    "usage",
    "starttime",
    "_soft_invalidate_time",
    "_watches_waits",
}
#: operations that change nothing
_READING = {"copy", "get", "items", "keys", "values", "count", "index"}
_CONTAINERS = (deque, OrderedDict, dict, set, list, Counter)
_IMMUTABLE = {type(None), bool, int, float, str}
_LOCKS = (type(threading.Lock()), type(threading.RLock()))

_run: Optional[Run] = None
#: by ``id``: what the things are called that are watched
_names: dict[int, str] = {}


def name_of(thing: object) -> str:
    """What a watched thing is called in this run."""
    return _names[id(thing)]


class _OrderedSet(dict[Any, None]):
    """A set that is in the same order in every schedule."""

    def add(self, item: Any) -> None:
        self[item] = None

    def discard(self, item: Any) -> None:
        self.pop(item, None)


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
    if isinstance(value, _CONTAINERS + _LOCKS):
        assert _run is not None
        inside = f"{name}[]"
        label = (owner, inside if _run.active is None else _run.name(inside))
        if type(value) in _LOCKS:
            return LockShell(type(value) is _LOCKS[1], label)
        if isinstance(value, set):
            value = _OrderedSet.fromkeys(value)
        return Shell(value, label)
    if isinstance(value, weakref.WeakSet):
        raise TypeError(f"{owner}.{name} cannot be watched: {type(value)}")
    return value


class _Reported:
    """An attribute whose readers are reported."""

    def __init__(self, kind: type, name: str) -> None:
        self._slot = getattr(kind, name, None)
        self._name = name

    def __get__(self, thing: Any, kind: type) -> Any:
        if _run is not None and _run.active is not None:
            label = _names.get(id(thing))
            if label is not None:
                _run.access((label, self._name), "read", False)
        if self._slot is not None:
            return self._slot.__get__(thing, kind)
        try:
            return thing.__dict__[self._name]
        except KeyError:
            raise AttributeError(self._name) from None

    def __set__(self, thing: Any, value: Any) -> None:
        if self._slot is not None:
            self._slot.__set__(thing, value)
        else:
            thing.__dict__[self._name] = value


def report_readers(written: set[str]) -> None:
    """Report whoever reads these attributes; nobody else need be."""
    for kind in CLASSES:
        for name in written:
            own = getattr(kind, name, None)
            if own is None or isinstance(own, MemberDescriptorType):
                setattr(kind, name, _Reported(kind, name))


def _watch(kind: type) -> dict[str, Any]:
    """What takes the place of a class's own way to make and change things."""
    put, init = kind.__setattr__, kind.__init__

    def __setattr__(self: Any, name: str, value: Any) -> None:
        run = _run
        if run is not None:
            label = _names.get(id(self))
            if label is not None and name not in _IGNORED:
                if run.active is not None and id(self) != run.newborn:
                    run.access((label, name), "write", True)
                value = _shell(value, label, name)
        put(self, name, value)

    def __init__(self: Any, *args: Any, **more: Any) -> None:
        run = _run
        if run is None:
            init(self, *args, **more)
            return
        _names[id(self)] = run.name(kind.__name__.lower())
        # nobody else knows of it yet
        before, run.newborn = run.newborn, id(self)
        init(self, *args, **more)
        run.newborn = before

    return {"__setattr__": __setattr__, "__init__": __init__}


@contextmanager
def watching() -> Iterator[None]:
    """Have the classes report, for as many runs as are made in here."""
    own = {kind: dict(vars(kind)) for kind in CLASSES}
    for kind in CLASSES:
        for name, way in _watch(kind).items():
            setattr(kind, name, way)
    try:
        yield
    finally:
        for kind, before in own.items():
            for name, value in dict(vars(kind)).items():
                if name not in before:
                    delattr(kind, name)
                elif before[name] is not value:
                    setattr(kind, name, before[name])


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
