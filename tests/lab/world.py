"""A world in which a test decides who runs, and when time passes.

There are two: in :class:`~.greenlets.Greenlets` the pool's threads are
greenlets, which switch only where they wait; in :class:`~.tasks.Tasks` they
are tasks of an event loop without a clock of its own.  Both offer the same: a
test begins actors, settles (lets everybody run until all wait), and lets time
pass.
"""

from __future__ import annotations

from abc import ABC
from abc import abstractmethod
import ctypes
import inspect
import random
from typing import Any
from typing import Callable
from typing import Optional

from sqla_smartpool._sqlalchemy import await_

Job = Callable[[], Any]

#: between any two looks at the clock, seconds
_INSTANT = 1e-9


class Actor:
    """Somebody who does something, and what came of it."""

    def __init__(self, job: Job) -> None:
        self._job = job
        #: its greenlet or task
        self.thread: Any = None
        self.done = False
        #: something was raised in it from outside
        self.interrupted = False
        self.error: Optional[BaseException] = None

    def __call__(self) -> None:
        try:
            self._job()
        except BaseException as error:
            # frames would keep connections alive
            error.__traceback__ = error.__context__ = None
            self.error = error
        finally:
            self.done = True

    def never_began(self, error: BaseException) -> None:
        """It was interrupted before it could begin."""
        if not self.done:
            self.done, self.error = True, error


class World(ABC):
    """What both have in common.

    :param seed: of all chance.
    """

    #: called with a signal that somebody waits for, and when it is set
    on_wait: Callable[[Any], object] = staticmethod(lambda signal: None)
    on_set: Callable[[Any], object] = staticmethod(lambda signal: None)
    #: errors that nobody has caught
    failures: list[Any]

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.chance = self.random.random
        self.now = 1000.0
        self.failures = []

    def clock(self) -> float:
        # who asks first is first
        self.now += _INSTANT
        return self.now

    @staticmethod
    def wait_for(result: Any) -> Any:
        """What a method of the pool returns, or its coroutine."""
        return await_(result) if inspect.isawaitable(result) else result

    def begin(self, job: Job, outside: bool = False) -> Actor:
        """Have something done; returns when everybody waits.

        :param outside: of SQLAlchemy's bridge.
        """
        actor = self.start(job, outside)
        self.settle()
        return actor

    def interrupt(self, actor: Actor) -> None:
        """Interrupt somebody where they wait now."""
        self.interrupt_in(0, actor)
        self.settle()

    @abstractmethod
    def start(self, job: Job, outside: bool = False) -> Actor:
        """Have something done as soon as the world settles."""

    @abstractmethod
    def interrupt_in(self, steps: int, actor: Actor) -> None:
        """Interrupt somebody after so many steps of the world, if they are
        not done by then; or as soon as it has settled."""

    @abstractmethod
    def settle(self) -> None:
        """Let everybody run until all wait."""

    @abstractmethod
    def advance(self, seconds: float) -> None:
        """Let time pass, with all that happens in it."""

    @abstractmethod
    def gate(self) -> Any:
        """Something that holds up whoever comes, until it is opened."""

    @abstractmethod
    def fork(self) -> None:
        """Go on as the child of a fork, to which nobody came along."""

    @abstractmethod
    def close(self) -> None:
        """See that nobody is left."""


def keep_for_good(thing: object) -> None:
    """A greenlet, or task, that is collected would run on."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
