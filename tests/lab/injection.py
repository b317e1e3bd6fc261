"""Exceptions at every place where one can come: found, not listed by hand.

:class:`Lines` is for threads, where a signal or another thread may raise
between any two instructions: it counts the lines that a piece of code runs
through, or raises at the one of a number.  :class:`Suspensions` is for event
loops, where a task can be cancelled whenever it waits: it counts how often
tasks do, or cancels at the time of a number.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
import sys
from types import CodeType
from types import FrameType
from typing import Any
from typing import Iterator
from typing import Optional

import sqlalchemy.pool

import sqla_smartpool

#: the code in which an exception is raised: the pool's, and SQLAlchemy's part
#: of a checkout and a checkin
FOLDERS = tuple(
    str(Path(str(module.__file__)).parent)
    for module in (sqla_smartpool, sqlalchemy.pool)
)


class Lines:
    """Counts the lines of the pool's code that a block runs through.

    ::

        lines = Lines(at=17, error=KeyboardInterrupt)
        with lines:
            engine.connect()

    :param at: the number of the line before which to raise, from 1 on; 0:
        none, count only.
    :param error: what to raise there.
    """

    def __init__(
        self, at: int = 0, error: type[BaseException] = KeyboardInterrupt
    ) -> None:
        self._at = at
        self._error = error
        self._before: Any = None
        self.number = 0
        #: where it was raised; None: the block did not get there
        self.place: Optional[str] = None
        self._known: dict[CodeType, bool] = {}

    def __enter__(self) -> Lines:
        self._before = sys.gettrace()
        sys.settrace(self._call)
        return self

    def __exit__(self, *exc_info: object) -> None:
        sys.settrace(self._before)

    @contextmanager
    def elsewhere(self) -> Iterator[None]:
        """What happens in here would happen in a thread of its own."""
        tracing = sys.gettrace()
        sys.settrace(None)
        try:
            yield
        finally:
            sys.settrace(tracing)

    def _call(self, frame: FrameType, event: str, arg: object) -> Any:
        code = frame.f_code
        known = self._known.get(code)
        if known is None:
            known = code.co_filename.startswith(FOLDERS)
            self._known[code] = known
        return self._line if known else None

    def _line(self, frame: FrameType, event: str, arg: object) -> Any:
        if event == "line":
            self.number += 1
            if self.number == self._at:
                code = frame.f_code
                name = Path(code.co_filename).name
                self.place = f"{name}:{frame.f_lineno} in {code.co_name}"
                sys.settrace(None)
                raise self._error(f"at {self.place}")
        return self._line
