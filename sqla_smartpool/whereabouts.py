"""Where a thread or a task stands, and who waits for whom.

What a checkout notes is no more than the identity of its caller: the ident
of a thread, or a weak reference to a task.  All else is looked up here, when
somebody asks.
"""

from __future__ import annotations

import asyncio
from functools import partial
import gc
from itertools import accumulate
from itertools import chain
from itertools import compress
from itertools import islice
from itertools import repeat
from itertools import takewhile
import linecache
from operator import attrgetter
from operator import methodcaller
import sys
import threading
from types import BuiltinFunctionType
from types import CodeType
from types import FrameType
from typing import Any
from typing import Iterable
from typing import Iterator
from typing import NamedTuple
from typing import Optional
from typing import Union
import weakref

from greenlet import getcurrent
from greenlet import greenlet

#: a thread by its ident, a task by a weak reference to it, or unknown
Who = Union[int, "weakref.ref[asyncio.Task[Any]]", None]

#: frames of these say nothing of the place in the application
_LEFT_OUT = {
    "asyncio",
    "concurrent",
    "greenlet",
    "sqla_smartpool",
    "sqlalchemy",
    "threading",
}
#: what SQLAlchemy calls to have the database do something
_IN_DATABASE = ("do_execute", "do_commit", "do_rollback", "do_ping")
#: the innermost lines that are told of a place
_LINES = 8


class Step(NamedTuple):
    """A function that has been called and has not returned, and the line at
    which it is."""

    variables: dict[str, Any]
    code: CodeType
    line: int

    @property
    def module(self) -> str:
        return self.variables.get("__name__") or ""


#: what a :class:`Step` is made of, of a frame
_read = attrgetter("f_globals", "f_code", "f_lineno")
_current_frames = methodcaller("_current_frames")


class Place(NamedTuple):
    """Where somebody stands."""

    #: of the thread or task
    name: str
    #: ``file:line in function: code``, the innermost last; empty: it has
    #: ended, or is out of sight
    lines: tuple[str, ...]
    #: it waits for the database at this moment
    in_database: bool


def current_task() -> Who:
    """Return who runs, for a pool on an event loop."""
    task = asyncio.current_task()
    return None if task is None else weakref.ref(task)


def here() -> tuple[str, ...]:
    """Return the lines that lead to the caller."""
    return _lines(_steps(_stack_here()))


def place_of(who: Who) -> Place:
    """Look up where a thread or a task stands now."""
    steps: list[Step] = []
    if isinstance(who, int):
        name = _name_of_thread(who)
        steps = steps_of_thread(who)
    else:
        task = who() if who is not None else None
        name = "unknown" if task is None else task.get_name()
        if task is not None and not task.done():
            steps = _steps(frames_of_task(task))
    busy = any(step.code.co_name in _IN_DATABASE for step in steps)
    return Place(name, _lines(steps), busy)


def resolved(who: Who) -> object:
    """Return the ident or the task itself; None: it is unknown, or was
    collected."""
    return who() if isinstance(who, weakref.ref) else who


def in_hand(module: str) -> set[int]:
    """Return the ``id()`` of all that is referred to by functions of a module
    that any thread or greenlet has called, and that are not yet at their end.
    """
    return {
        id(local)
        for frame in _frames_near(module)
        if frame.f_globals.get("__name__") == module
        for local in list(frame.f_locals.values())
    }


def with_all_who_await(somebody: Iterable[object]) -> set[object]:
    """Return threads and tasks, and those tasks that wait for one of them to
    come to an end: directly or through ``gather``, a task group and the
    like."""
    all_of_them = set(somebody)
    seen: set[int] = set()  # by all, as thousands may be in one gather()
    for each in list(all_of_them):
        if isinstance(each, asyncio.Task):
            all_of_them.update(_awaiting(each, seen))
    return all_of_them


# -- names and frames ----------------------------------------------------


def _name_of_thread(ident: int) -> str:
    for thread in threading.enumerate():
        if thread.ident == ident:
            return thread.name
    return f"thread {ident}, which has ended"


def steps_of_thread(ident: int) -> list[Step]:
    """The innermost first.

    A function that ends while somebody else has its frame leaves its
    variables to them, and what they delete then may be in use where it came
    from: mysqlclient refuses to let two threads have a connection at the same
    time.  So no other thread runs while the frames are read.
    """
    outwards = chain(_innermost(ident), repeat("f_back"))
    frames = takewhile(bool, accumulate(outwards, getattr))
    return _steps(frames) or _steps(frames_of_thread(ident))


def _innermost(ident: int) -> Iterator[Any]:
    """Yield one frame of a thread, or None if it has ended."""
    return map(methodcaller("get", ident), map(_current_frames, (sys,)))


def frames_of_thread(ident: int) -> Iterator[FrameType]:
    """The innermost first; for a thread of which :func:`steps_of_thread` has
    told that it is not in the middle of a driver."""
    (frame,) = _at_once(_innermost(ident))
    if frame is None and not isinstance(
        threading.get_ident, BuiltinFunctionType
    ):
        # under gevent, which replaces that, the ident is a greenlet's; to
        # look at every object for each thread that has ended takes seconds
        for item in _greenlets():
            if id(item) == ident:
                frame = item.gr_frame
    return _outwards(frame)


def _frames_near(module: str) -> Iterator[FrameType]:
    """Yield the frames of all greenlets, and of those threads that are in a
    function of a module."""
    for ident in _at_once(chain.from_iterable(map(_current_frames, (sys,)))):
        if any(step.module == module for step in steps_of_thread(ident)):
            yield from frames_of_thread(ident)
    for item in _greenlets():
        yield from _outwards(item.gr_frame)


def _greenlets() -> list[Any]:
    """All there are; no other thread runs, see :func:`steps_of_thread`."""
    # by identity: metaclasses may compare in Python, as those of protocols do
    kinds = set(map(id, _with_subclasses(greenlet)))
    everything = map(methodcaller("get_objects"), (gc,))
    twice = chain.from_iterable(map(repeat, everything, (2,)))
    objects = chain.from_iterable(islice(twice, 1))
    types = map(type, chain.from_iterable(twice))
    # not isinstance(), which asks proxies for what they stand for
    wanted = map(kinds.__contains__, map(id, types))
    # None: the list is let go of at the end of the one that ends first
    return _at_once(compress(chain(objects, (None,)), wanted))


def _with_subclasses(kind: type) -> Iterator[type]:
    yield kind
    subclasses: list[type] = kind.__subclasses__()
    for each in subclasses:
        yield from _with_subclasses(each)


def _steps(frames: Iterable[FrameType]) -> list[Step]:
    # all are read before the first Step is made: that runs Python's code
    return [Step(*read) for read in _at_once(map(_read, frames))]


def _at_once(things: Iterable[Any]) -> list[Any]:
    """List what an iterator that runs no Python code has, in one call, during
    which no other thread runs.

    A collection of garbage would let them: its finalizers and callbacks are
    Python code.  Since Python 3.12 it waits until the call is over.
    """
    collects = sys.version_info < (3, 12) and gc.isenabled()
    try:
        if collects:
            gc.disable()
        return list(things)
    finally:
        if collects:
            gc.enable()


def _outwards(frame: Optional[FrameType]) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def frames_of_task(task: asyncio.Task[Any]) -> list[FrameType]:
    """The innermost first, also through SQLAlchemy's greenlets."""
    frames: list[FrameType] = []
    awaitable: Any = task.get_coro()
    while awaitable is not None:
        kind = next(
            (
                k
                for k in ("cr", "gi", "ag")
                if hasattr(awaitable, k + "_frame")
            ),
            None,
        )
        if kind is None:
            break
        if getattr(awaitable, kind + "_running"):
            return [*_running(getattr(awaitable, kind + "_frame")), *frames]
        frame = getattr(awaitable, kind + "_frame")
        if frame is None:
            break
        frames.insert(0, frame)
        if frame.f_code.co_name == "greenlet_spawn":
            spawned = frame.f_locals.get("context")
            if isinstance(spawned, greenlet):
                frames[:0] = _outwards(spawned.gr_frame)
        follow = "gi_yieldfrom" if kind == "gi" else kind + "_await"
        awaitable = getattr(awaitable, follow)
    return frames


def _running(root: FrameType) -> list[FrameType]:
    """The frames in which a task runs at this moment."""
    here = list(_stack_here())
    return here if root in here else [root]


def _stack_here() -> Iterator[FrameType]:
    """The frames of the thread or task that calls, the innermost first."""
    for frame in _outwards_through_greenlets():
        if frame.f_globals.get("__name__") == "asyncio.events":
            return  # what is outside of it is the loop's
        yield frame


def _outwards_through_greenlets() -> Iterator[FrameType]:
    yield from _outwards(sys._getframe(1))
    outer = getcurrent().parent
    while outer is not None:
        yield from _outwards(outer.gr_frame)
        outer = outer.parent


def _lines(steps: Iterable[Step]) -> tuple[str, ...]:
    found: list[str] = []
    for step in steps:
        if step.module.partition(".")[0] in _LEFT_OUT:
            continue
        file = step.code.co_filename
        line = f"{file}:{step.line} in {step.code.co_name}"
        text = linecache.getline(file, step.line).strip()
        found.append(f"{line}: {text}" if text else line)
        if len(found) == _LINES:
            break
    return tuple(reversed(found))


# -- who awaits whom -----------------------------------------------------


def _awaiting(
    future: asyncio.Future[Any], seen: set[int]
) -> Iterator[asyncio.Task[Any]]:
    """Yield the tasks that go on when a future is done.

    asyncio keeps no list of them before Python 3.14.  But whoever waits has
    left a callback, from which its task can be reached.
    """
    if id(future) in seen:
        return
    seen.add(id(future))
    for item in getattr(future, "_callbacks", None) or ():
        callback = item[0] if isinstance(item, tuple) else item
        for other in _behind(callback):
            if isinstance(other, asyncio.Task) and id(other) not in seen:
                yield other
            yield from _awaiting(other, seen)


def _behind(callback: Any) -> Iterator[asyncio.Future[Any]]:
    """The futures and tasks that a callback would go on with."""
    near: list[Any] = []
    if isinstance(callback, partial):  # wait_for()
        near.extend(callback.args)
    near.append(getattr(callback, "__self__", None))
    # gather(), wait() and shield() have functions inside functions
    for cell in getattr(callback, "__closure__", None) or ():
        try:
            near.append(cell.cell_contents)
        except ValueError:  # empty
            continue
    for other in near:
        # a task group has a task that waits in it; anyio's knows it as host
        scope = getattr(other, "cancel_scope", None)
        for known in (
            other,
            getattr(other, "_parent_task", None),
            getattr(scope, "_host_task", None),
        ):
            if isinstance(known, asyncio.Future):
                yield known
