"""All private names of SQLAlchemy that the pool builds on, in one place.

Checked against 2.0 (the lowest supported and the latest) and 2.1; a test
fails when one of them changes.  Beside what is imported and listed here:

* ``Pool._creator``, ``_dialect``, ``_orig_logging_name`` and
  ``_reset_on_return`` are read; ``_creator`` is set, and ``_invoke_creator``
  called, by :mod:`.testing`;
* what resets and returns a connection refers to its record, in the module
  ``sqlalchemy.pool.base``, for as long as it does;
* ``_finalize_fairy`` is known by its name and its local ``is_gc_cleanup``,
  and by whether it invalidates by itself what it does not return;
* what ``util.only_once`` remembers is mended by
  :func:`let_first_connect_begin`;
* how a dialect sets the options of a connection is completed by
  :func:`cut_whose_options_are_interrupted`;
* ``create_async_engine`` tells plugins ``_is_async``.
"""

from __future__ import annotations

from functools import wraps
from importlib import import_module
import inspect
import re
from types import FrameType
from typing import Any
from typing import Iterator
from typing import Optional
import warnings

import sqlalchemy

try:
    from sqlalchemy.pool.base import _ConnectionRecord
    from sqlalchemy.util import greenlet_spawn
except ImportError as error:
    raise ImportError(
        "this release of sqla_smartpool cannot work with SQLAlchemy "
        f"{sqlalchemy.__version__}: look for a newer one, or install "
        f"'sqlalchemy<2.2' ({error})"
    ) from error
try:
    from sqlalchemy.util import await_
except ImportError:
    # its name before SQLAlchemy 2.1
    from sqlalchemy.util import await_only as await_

__all__ = (
    "MODULE",
    "_ConnectionRecord",
    "await_",
    "cut_whose_options_are_interrupted",
    "greenlet_spawn",
    "let_first_connect_begin",
    "missing",
    "ping",
    "was_collected",
    "warn_if_unknown",
    "will_lose",
)

#: where SQLAlchemy resets and returns connections
MODULE = _ConnectionRecord.__module__

#: the versions, as (major, minor), that all this was checked against
CHECKED = ((2, 0), (2, 1))

#: what is called or overridden, with its parameters
PARAMETERS = {
    "engine.default:DefaultDialect._do_ping_w_event": "self dbapi_connection",
    "engine.default:DefaultDialect._set_connection_characteristics": (
        "self connection characteristics"
    ),
    "pool.base:Pool._close_connection": "self connection terminate",
    "pool.base:Pool._create_connection": "self",
    "pool.base:Pool._do_get": "self",
    "pool.base:Pool._do_return_conn": "self record",
    "pool.base:Pool._invalidate": "self connection exception _checkin",
    "pool.base:Pool._return_conn": "self record",
    "pool.base:Pool._should_wrap_creator": "self creator",
    "pool.base:_ConnectionRecord.__init__": "self pool connect",
    "pool.base:_ConnectionRecord.get_connection": "self",
    "pool.base:_ConnectionRecord.invalidate": "self e soft",
    "pool.events:PoolEvents._accept_with": "target identifier",
}
#: what is read or set
NAMES = (
    "event.attr:_CompoundListener._exec_once_mutex",
    "event.attr:_CompoundListener._exec_w_sync_once",
    "pool.base:_ConnectionFairy._connection_record",
    "pool.base:_ConnectionFairy.dbapi_connection",
    "pool.base:_ConnectionRecord.dbapi_connection",
    "pool.base:_ConnectionRecord.fairy_ref",
    "pool.base:_ConnectionRecord.finalize_callback",
    "pool.base:_ConnectionRecord.fresh",
    "pool.base:_ConnectionRecord.starttime",
    "pool.base:_finalize_fairy",
)


def warn_if_unknown(version: str = sqlalchemy.__version__) -> None:
    """Warn when this SQLAlchemy is newer than what the pool was tested on,
    and say what it has no longer.

    :param version: SQLAlchemy's version.
    """
    found = re.match(r"(\d+)\.(\d+)", version)
    if not found or (int(found[1]), int(found[2])) <= CHECKED[-1]:
        return
    tested = " and ".join(f"{major}.{minor}" for major, minor in CHECKED)
    gone = ", ".join(missing())
    warnings.warn(
        f"sqla_smartpool has been tested with SQLAlchemy {tested}, and this "
        f"is {version}: look for a newer release of sqla_smartpool.  "
        + (
            f"It may fail, as it builds on what has changed: {gone}"
            if gone
            else "What it builds on is all there"
        ),
        stacklevel=2,
    )


def missing() -> list[str]:
    """Return what the pool builds on and this SQLAlchemy has no longer, or
    with other parameters."""
    return [
        *(name for name in NAMES if _found(name) is None),
        *(
            name
            for name, parameters in PARAMETERS.items()
            if " ".join(_parameters(_found(name))) != parameters
        ),
    ]


def _found(name: str) -> Any:
    """Look something up by a name such as "pool.base:Pool._do_get"."""
    module, _, path = name.partition(":")
    try:
        found: Any = import_module(f"sqlalchemy.{module}")
    except ImportError:
        return None
    for part in path.split("."):
        found = getattr(found, part, None)
    return found


def _parameters(function: Any) -> Iterator[str]:
    if callable(function):
        yield from inspect.signature(function).parameters


def ping(dialect: Any, connection: Any) -> bool:
    """Have a dialect ping a connection, with its ``handle_error`` events."""
    try:
        ask = dialect._do_ping_w_event
    except AttributeError:  # better than to take each one for dead
        ask = dialect.do_ping
    return bool(ask(connection))


def cut_whose_options_are_interrupted(dialect: Any) -> None:
    """Have a connection cut when its user is cancelled, or interrupted, while
    an option such as an isolation level is being set.

    SQLAlchemy cuts those whose statements are interrupted, and takes options
    back on return only once they are set.  One that is set in part, such as
    AUTOCOMMIT, would reach whoever comes next.
    """
    set_options = getattr(dialect, "_set_connection_characteristics", None)
    if set_options is None or hasattr(set_options, "__wrapped__"):
        return

    @wraps(set_options)
    def set_or_cut(connection: Any, options: Any) -> None:
        try:
            set_options(connection, options)
        except Exception:  # refused, or the driver's error: not ours
            raise
        except BaseException as error:  # cancelled, or interrupted
            connection.invalidate(error)
            raise

    dialect._set_connection_characteristics = set_or_cut


def was_collected(caller: FrameType) -> bool:
    """Tell whether a connection is closed as the garbage collector has found
    it, which may be in the middle of anything.

    :param caller: who calls ``Pool._close_connection``.
    """
    if caller.f_code.co_name != "_finalize_fairy":
        return False
    return bool(caller.f_locals.get("is_gc_cleanup"))


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
        if not getattr(listeners, "_exec_w_sync_once", True):
            for listener in listeners.listeners:
                _have_called_again(listener)


def _have_called_again(listener: Any) -> None:
    if getattr(listener, "__qualname__", "") != "only_once.<locals>.go":
        return
    own = inspect.getclosurevars(listener).nonlocals
    # a user's ``once=True`` stays once
    if own["retry_on_exception"] and not own["once"]:
        own["once"].append(own["fn"])
