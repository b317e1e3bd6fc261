"""What the pool builds on in SQLAlchemy without being promised it: each of
these fails when SQLAlchemy changes it."""

from __future__ import annotations

import inspect
from typing import Any
import warnings

import pytest
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.event.attr import _CompoundListener
from sqlalchemy.pool import Pool
from sqlalchemy.pool.base import _ConnectionFairy
from sqlalchemy.pool.base import _ConnectionRecord
from sqlalchemy.pool.base import _finalize_fairy
from sqlalchemy.util.langhelpers import only_once

from sqla_smartpool import _sqlalchemy
from sqla_smartpool import SmartPool


def parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


@pytest.mark.parametrize(
    "function, expected",
    [
        (Pool._do_get, ["self"]),
        (Pool._do_return_conn, ["self", "record"]),
        (Pool._create_connection, ["self"]),
        (
            Pool._invalidate,
            ["self", "connection", "exception", "_checkin"],
        ),
        (Pool._close_connection, ["self", "connection", "terminate"]),
        (_ConnectionRecord.__init__, ["self", "pool", "connect"]),
        (_ConnectionRecord.get_connection, ["self"]),
        (_ConnectionRecord.invalidate, ["self", "e", "soft"]),
        (DefaultDialect._do_ping_w_event, ["self", "dbapi_connection"]),
    ],
)
def test_signatures_are_as_they_were(function: Any, expected: Any) -> None:
    assert parameters(function) == expected


def test_fields_are_where_they_were() -> None:
    record = {"fairy_ref", "fresh", "dbapi_connection", "starttime"}
    assert record <= set(_ConnectionRecord.__slots__)
    fairy = {"dbapi_connection", "_connection_record"}
    assert fairy <= set(_ConnectionFairy.__slots__)


def test_what_was_collected_is_ended_where_it_was() -> None:
    code = _finalize_fairy.__code__
    assert "is_gc_cleanup" in code.co_varnames + code.co_cellvars
    assert "_close_connection" in code.co_names


def test_the_first_connect_is_remembered_as_it_was() -> None:
    fields = {"_exec_once_mutex", "_exec_w_sync_once"}
    assert fields <= set(_CompoundListener.__slots__)
    calls: list[int] = []
    once: Any = only_once(calls.append, retry_on_exception=True)
    assert once.__qualname__ == "only_once.<locals>.go"
    nonlocals = inspect.getclosurevars(once).nonlocals
    assert (nonlocals["retry_on_exception"], nonlocals["once"]) == (
        True,
        [nonlocals["fn"]],
    )
    once(1)
    assert (calls, nonlocals["once"]) == ([1], [])


def test_every_option_of_pools_constructor_is_known_to_ours() -> None:
    ours = set(parameters(SmartPool.__init__))
    assert set(parameters(Pool.__init__)) <= ours


def test_an_unknown_sqlalchemy_is_warned_of_and_no_known_one() -> None:
    with pytest.warns(UserWarning, match="SQLAlchemy 2.9.0"):
        _sqlalchemy.warn_if_unknown("2.9.0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for version in ("2.0.53", "2.1.0b1", "2.1.9"):
            _sqlalchemy.warn_if_unknown(version)
