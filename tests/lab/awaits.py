"""Cancel a task at the k-th await of the pool, for each k in turn.

A task awaits where its coroutine hands a future to the event loop.  To find
these places, none of which has to be known, coroutines are followed: what
drives them is asked each time that it is handed something.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
import enum
from typing import Any
from typing import Callable
from typing import Optional

from sqla_smartpool.whereabouts import frames_of_task

#: where SQLAlchemy talks to drivers
_TALKING = ("sqlalchemy.connectors.", "sqlalchemy.dialects.")
#: and has them ask the server; closing a cursor is none of it
_ASKING = ("do_execute", "do_commit", "do_rollback", "do_ping")
#: whoever is run by the pool, or as the pool runs somebody
_FOLLOWED = "greenlet_spawn"


class Moment(enum.Enum):
    """When a task is cancelled that awaits something."""

    #: there is no answer yet
    WAITING = "waiting"
    #: the answer is there, and the task is about to go on
    ANSWERED = "answered"


class Awaits:
    """Follows the tasks begun in it, and cancels the one at an await.

    ::

        with Awaits(7, Moment.WAITING) as awaits:
            begin tasks by greenlet_spawn(), wait for them
        if awaits.done: ...

    :param at: the await, counted over all tasks, from 1 on.
    :param see: called before a task is cancelled that asks the server
        something, with the connections and cursors of SQLAlchemy's through
        which it does that.
    """

    def __init__(
        self,
        at: int,
        moment: Moment,
        see: Callable[[list[Any]], object] = lambda talking: None,
    ) -> None:
        self._at = at
        self._moment = moment
        self._see = see
        self._count = 0
        #: there was such an await; where, for the reader of a failure
        self.done = False
        self.where = ""
        #: who was cancelled
        self.task: Optional[asyncio.Task[Any]] = None

    def __repr__(self) -> str:
        return f"await {self._at}, {self._moment.value}: {self.where}"

    def __enter__(self) -> Awaits:
        self._loop = asyncio.get_running_loop()
        self._loop.set_task_factory(self._make_task)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._loop.set_task_factory(None)
        # its frames keep what it was opening
        self.task = None

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any
    ) -> Any:
        if getattr(coroutine, "__name__", "") == _FOLLOWED:
            coroutine = _Followed(coroutine, self._passed)
        return asyncio.Task(coroutine, loop=loop, **options)

    def _passed(self, future: Any) -> None:
        if self.done:
            return
        self._count += 1
        if self._count < self._at:
            return
        self.done = True
        task = self.task = asyncio.current_task()
        assert task is not None
        self._look(task)
        if self._moment is Moment.ANSWERED and future is not None:
            # before the task itself is told
            future.add_done_callback(lambda _: task.cancel())
        else:
            self._loop.call_soon(task.cancel)

    def _look(self, task: asyncio.Task[Any]) -> None:
        frames = frames_of_task(task)
        self.where = " < ".join(
            f"{frame.f_code.co_name}:{frame.f_lineno}" for frame in frames[:9]
        )
        if any(frame.f_code.co_name in _ASKING for frame in frames):
            self._see(
                [
                    frame.f_locals.get("self")
                    for frame in frames
                    if frame.f_globals["__name__"].startswith(_TALKING)
                ]
            )


class _Followed(Coroutine[Any, Any, Any]):
    """A coroutine that tells what it hands to the event loop."""

    def __init__(
        self, coroutine: Any, passed: Callable[[Any], object]
    ) -> None:
        self._coroutine = coroutine
        self._passed = passed

    def send(self, value: Any) -> Any:
        return self._handed(self._coroutine.send(value))

    def throw(self, *error: Any) -> Any:
        return self._handed(self._coroutine.throw(*error))

    def _handed(self, future: Any) -> Any:
        self._passed(future)
        return future

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Any:
        raise TypeError("tasks only")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._coroutine, name)
