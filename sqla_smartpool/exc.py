"""The errors that the pool raises.

All of them survive pickling, because task queues and process pools carry
errors between processes.
"""

from __future__ import annotations

import copy
import pickle
from typing import Any
from typing import Optional
from typing import TYPE_CHECKING

from sqlalchemy import exc as sa_exc

if TYPE_CHECKING:
    from .diagnosis import Diagnosis
    from .holders import Holder
    from .stats import PoolStats


class PoolTimeoutError(sa_exc.TimeoutError):
    """A checkout did not get a connection in time.

    A subclass of :class:`sqlalchemy.exc.TimeoutError`; its text begins as
    that of ``QueuePool`` does, so that handlers and alerts keep matching.

    .. attribute:: stats

        the :class:`.PoolStats` of that moment, or None.

    .. attribute:: diagnosis

        the :class:`.Diagnosis`: what keeps callers waiting, and what helps;
        not older than a second.  None when ``start()`` or ``wait()`` ended.

    .. attribute:: holders

        who has the connections, each a :class:`.Holder`, the longest first.

    .. attribute:: last_connect_error

        what the driver said when a connect last failed, without its
        traceback; None when connects succeed.  Also the ``__cause__``.

    .. versionadded:: 0.1
    """

    def __init__(
        self,
        message: str,
        stats: Optional[PoolStats] = None,
        last_connect_error: Optional[BaseException] = None,
        diagnosis: Optional[Diagnosis] = None,
    ) -> None:
        super().__init__(message, code="3o7r")
        self.stats = stats
        self.diagnosis = diagnosis
        self.last_connect_error = last_connect_error
        self.__cause__ = last_connect_error

    @property
    def holders(self) -> tuple[Holder, ...]:
        return self.diagnosis.holders if self.diagnosis else ()

    def _message(self) -> str:
        message = super()._message()
        return f"{message}\n{self.diagnosis}" if self.diagnosis else message

    def as_dict(self) -> dict[str, Any]:
        """Return what the text says as plain values, for JSON."""
        error = self.last_connect_error
        return {
            "error": type(self).__name__,
            "message": self.args[0],
            "stats": self.stats and self.stats.as_dict(),
            "diagnosis": self.diagnosis and self.diagnosis.as_dict(),
            "holders": [holder.as_dict() for holder in self.holders],
            "last_connect_error": error and f"{type(error).__name__}: {error}",
        }

    def __reduce__(self) -> tuple[Any, ...]:
        error = self.last_connect_error
        return (
            type(self),
            (
                self.args[0],
                self.stats,
                error and _picklable(error),
                self.diagnosis,
            ),
        )


class PoolOverloadedError(PoolTimeoutError):
    """As many callers as ``max_waiting`` allows are waiting already.

    .. versionadded:: 0.1
    """


class PoolClosedError(sa_exc.InvalidRequestError):
    """The pool has been stopped, or was stopped while the caller waited.

    .. versionadded:: 0.1
    """


class PoolLoopError(sa_exc.InvalidRequestError):
    """The pool belongs to another event loop, which is still running.

    .. versionadded:: 0.1
    """


def without_traceback(error: BaseException) -> BaseException:
    """Return a copy of a driver's error that is safe to keep.

    Tracebacks hold the frames of the connect, and these hold passwords.  An
    error is copied for each caller who is told of it, as one object raised
    by many threads grows its traceback in all of them.
    """
    try:
        twin = copy.copy(error)
    except Exception:  # a driver's error class may refuse to be built anew
        twin = error
    if type(twin) is not type(error):
        twin = error
    twin.__traceback__ = None
    # what it was caused by or raised beside has frames of its own
    twin.__cause__ = None
    twin.__context__ = None
    return twin


def _picklable(error: BaseException) -> BaseException:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # drivers' errors often do not survive; their text does
        return sa_exc.SQLAlchemyError(f"{type(error).__name__}: {error}")
    return error
