"""Do something at the k-th step of the pool's own code, for each k in turn.

A step is a line or a bytecode: between any two of them the garbage collector
may run, or a signal handler, or another thread.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
import math
from pathlib import Path
import sys
from types import CodeType
from types import FrameType
from typing import Any
from typing import Callable
from typing import Iterator
from typing import Optional

import sqlalchemy.pool

import sqla_smartpool

_PACKAGE = str(Path(sqla_smartpool.__file__).parent)
_SQLALCHEMY = str(Path(sqlalchemy.pool.__file__).parent)


class Steps:
    """Follows the pool's code on this thread, and interferes once.

    ::

        with Steps(7, interfere) as steps:
            use the pool
        if steps.done: ...

    :param at: the step before which to interfere, from 1 on.
    :param interfere: is not followed itself; what it raises is raised there.
    :param fine: steps are bytecodes instead of lines.
    :param visits: how often one and the same place counts as a step.
    :param within: follow this function only.
    :param sqlalchemy: follow SQLAlchemy's part of the pool as well.
    """

    def __init__(
        self,
        at: int,
        interfere: Callable[[], object],
        *,
        fine: bool = False,
        visits: float = math.inf,
        within: Optional[Callable[..., Any]] = None,
        sqlalchemy: bool = False,
    ) -> None:
        self._at = at
        self._interfere = interfere
        self._fine = fine
        self._visits = visits
        self._within = within and within.__code__
        self._folders = (_PACKAGE, _SQLALCHEMY)[: 1 + sqlalchemy]
        self._visited: Counter[tuple[CodeType, int]] = Counter()
        self._seen = 0
        #: where it was, for the reader of a failure; empty: not yet
        self.where = ""

    @property
    def done(self) -> bool:
        """There was such a step."""
        return bool(self.where)

    def __enter__(self) -> Steps:
        self._before = sys.gettrace()
        sys.settrace(self._called)
        return self

    def __exit__(self, *exc_info: object) -> None:
        sys.settrace(self._before)

    @contextmanager
    def elsewhere(self) -> Iterator[None]:
        """What happens in here would happen on another thread."""
        tracing = sys.gettrace()
        sys.settrace(None)
        try:
            yield
        finally:
            sys.settrace(tracing)

    def _called(self, frame: FrameType, event: str, arg: Any) -> Any:
        code = frame.f_code
        if code.co_name == "__del__":
            return None  # the interpreter swallows what is raised in there
        if self.done or not code.co_filename.startswith(self._folders):
            return None
        if self._within is not None and code is not self._within:
            return None
        if self._fine:
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
        return self._went_on

    def _went_on(self, frame: FrameType, event: str, arg: Any) -> Any:
        if self.done:
            return None
        if event == ("opcode" if self._fine else "line"):
            place = frame.f_lasti if self._fine else frame.f_lineno
            self._visited[frame.f_code, place] += 1
            if self._visited[frame.f_code, place] <= self._visits:
                self._seen += 1
                if self._seen == self._at:
                    self._reached(frame)
        return self._went_on

    def _reached(self, frame: FrameType) -> None:
        file = Path(frame.f_code.co_filename).name
        self.where = f"{file}:{frame.f_lineno}, step {self._at}"
        self._interfere()
