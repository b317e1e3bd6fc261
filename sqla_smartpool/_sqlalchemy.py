"""All private names of SQLAlchemy that the pool builds on, in one place.

Checked against 2.0 (the lowest supported and the latest) and 2.1; a test
fails when one of them changes.  Beside what is imported here:

* ``Pool._do_get``, ``_do_return_conn``, ``_create_connection``,
  ``_invalidate`` and ``_close_connection`` are overridden;
* ``Pool._creator``, ``_dialect`` and ``_reset_on_return`` are read;
* ``Pool._creator`` is set, and ``_invoke_creator`` called, by :mod:`.testing`;
* ``_ConnectionRecord.get_connection``, ``fairy_ref`` and ``fresh``, and
  ``_ConnectionFairy.dbapi_connection`` and ``_connection_record`` are used by
  :mod:`.record`;
* what resets and returns a connection refers to its record, in the module
  ``sqlalchemy.pool.base``, for as long as it does;
* ``_finalize_fairy`` is known by its name and its local ``is_gc_cleanup``,
  and by whether it invalidates by itself what it does not return;
* ``Dialect._do_ping_w_event`` is called;
* the listeners' ``_exec_once_mutex`` and ``_exec_w_sync_once``, and what
  ``util.only_once`` remembers, are mended by :func:`let_first_connect_begin`.
"""

from __future__ import annotations

import inspect
from types import FrameType
from typing import Any
from typing import Optional
import warnings

import sqlalchemy
from sqlalchemy.pool.base import _ConnectionRecord
from sqlalchemy.util import greenlet_spawn

try:
    from sqlalchemy.util import await_
except ImportError:
    # its name before SQLAlchemy 2.1
    from sqlalchemy.util import await_only as await_

__all__ = (
    "MODULE",
    "_ConnectionRecord",
    "await_",
    "greenlet_spawn",
    "let_first_connect_begin",
    "was_collected",
    "warn_if_unknown",
    "will_lose",
)

#: where SQLAlchemy resets and returns connections
MODULE = _ConnectionRecord.__module__

#: the versions, as (major, minor), that the list above was checked against
CHECKED = ((2, 0), (2, 1))


def warn_if_unknown(version: str = sqlalchemy.__version__) -> None:
    """Warn when this SQLAlchemy is newer than what the pool was tested on.

    :param version: SQLAlchemy's version.
    """
    major, minor = (int(part) for part in version.split(".")[:2])
    if (major, minor) > CHECKED[-1]:
        warnings.warn(
            f"sqla_smartpool has not been tested with SQLAlchemy {version}; "
            "look for a newer release of sqla_smartpool",
            stacklevel=2,
        )


def was_collected(caller: FrameType) -> bool:
    """Tell whether a connection is closed as the garbage collector has found
    it, which may be in the middle of anything.

    :param caller: who calls ``Pool._close_connection``.
    """
    if caller.f_code.co_name != "_finalize_fairy":
        return False
    return bool(caller.f_locals["is_gc_cleanup"])


def will_lose(caller: FrameType, error: Optional[BaseException]) -> bool:
    """Tell whether a connection whose reset was interrupted is not going to
    be returned: SQLAlchemy before its fix of #13699 leaves that to the garbage
    collector, which finds it when the error is gone.

    :param caller: who calls ``_ConnectionRecord.invalidate``.
    :param error: why.
    """
    return (
        not isinstance(error, (Exception, type(None)))
        and caller.f_code.co_name == "_finalize_fairy"
    )


def let_first_connect_begin(dispatch: Any) -> None:
    """Have a first connect made anew whose thread or event loop is gone.

    It would hold its lock for good, which every connect takes until one has
    succeeded, and be taken for one that has set the dialect up.

    :param dispatch: of a pool.
    """
    for listeners in (dispatch.first_connect, dispatch.connect):
        if getattr(listeners, "_exec_once_mutex", None) is None:
            continue
        listeners._exec_once_mutex = None
        if not listeners._exec_w_sync_once:
            for listener in listeners.listeners:
                _have_called_again(listener)


def _have_called_again(listener: Any) -> None:
    if getattr(listener, "__qualname__", "") != "only_once.<locals>.go":
        return
    own = inspect.getclosurevars(listener).nonlocals
    # a user's ``once=True`` stays once
    if own["retry_on_exception"] and not own["once"]:
        own["once"].append(own["fn"])
