"""What the pool builds on in SQLAlchemy without being promised it: each of
these fails when SQLAlchemy changes it."""

from __future__ import annotations

import inspect
from pathlib import Path
from textwrap import dedent
from typing import Any
import warnings

import pytest
from sqlalchemy.pool import NullPool
from sqlalchemy.pool import Pool
from sqlalchemy.pool.base import _ConnectionRecord
from sqlalchemy.pool.base import _finalize_fairy
from sqlalchemy.util.langhelpers import only_once

from sqla_smartpool import _sqlalchemy
from sqla_smartpool import SmartPool
from tests.lab.scripts import run_script


def test_names_and_signatures_are_as_they_were() -> None:
    assert _sqlalchemy.missing() == []


def test_a_pool_has_the_fields_that_it_had() -> None:
    pool = NullPool(lambda: None)  # type: ignore[arg-type, return-value]
    for name in (
        "_creator",
        "_dialect",
        "_invoke_creator",
        "_orig_logging_name",
        "_reset_on_return",
    ):
        assert hasattr(pool, name), name


def test_what_is_gone_or_different_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(_ConnectionRecord, "fresh")
    monkeypatch.setattr(Pool, "_do_get", lambda self, wait: None)
    monkeypatch.setitem(_sqlalchemy.PARAMETERS, "pool.gone:Pool.go", "self")
    assert _sqlalchemy.missing() == [
        "pool.base:_ConnectionRecord.fresh",
        "pool.base:Pool._do_get",
        "pool.gone:Pool.go",
    ]


def test_what_was_collected_is_ended_where_it_was() -> None:
    code = _finalize_fairy.__code__
    assert "is_gc_cleanup" in code.co_varnames + code.co_cellvars
    assert "_close_connection" in code.co_names


def test_the_first_connect_is_remembered_as_it_was() -> None:
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
    ours = inspect.signature(SmartPool.__init__).parameters
    assert set(inspect.signature(Pool.__init__).parameters) <= set(ours)


def test_no_known_sqlalchemy_is_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for version in ("2.0.53", "2.1.0b1", "2.1.9"):
            _sqlalchemy.warn_if_unknown(version)


#: SQLAlchemy as it may be one day
_NEXT = """
    import sqlalchemy
    from sqlalchemy.engine.default import DefaultDialect
    sqlalchemy.__version__ = "2.2.0b1"
"""


def test_the_next_sqlalchemy_is_warned_of_once() -> None:
    import_it = """
        import sqla_smartpool, sqla_smartpool.plugin, sqla_smartpool.testing
    """
    ended = run_script(dedent(_NEXT) + dedent(import_it))
    assert ended.status == 0
    assert ended.stderr.count("Warning") == 1
    assert "tested with SQLAlchemy 2.0 and 2.1" in ended.stderr
    assert "this is 2.2.0b1" in ended.stderr
    assert "What it builds on is all there" in ended.stderr


def test_what_the_next_one_has_no_longer_is_named_and_the_pool_still_works(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path}/it.db"
    use_it = f"""
        for kind in (sqlalchemy.Dialect, DefaultDialect):
            del kind._do_ping_w_event
        from sqla_smartpool import SmartPool
        engine = sqlalchemy.create_engine({url!r}, poolclass=SmartPool)
        engine.connect().close()
        print(engine.pool.check())
    """
    ended = run_script(dedent(_NEXT) + dedent(use_it))
    assert "CheckResult(checked=1, replaced=0)" in ended.stdout
    assert "DefaultDialect._do_ping_w_event\n" in ended.stderr


def test_a_sqlalchemy_that_cannot_do_is_said_to_be_the_reason() -> None:
    without = """
        import sqlalchemy.pool.base
        del sqlalchemy.pool.base._ConnectionRecord
        import sqla_smartpool
    """
    ended = run_script(dedent(_NEXT) + dedent(without))
    assert ended.status == 1
    assert "cannot work with SQLAlchemy 2.2.0b1" in ended.stderr
    assert "look for a newer one" in ended.stderr
