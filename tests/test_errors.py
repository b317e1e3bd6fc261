"""Errors say why, survive the way to another process, and keep secrets."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy import event
from sqlalchemy import exc as sa_exc
from sqlalchemy.pool import QueuePool

from sqla_smartpool import deadline
from sqla_smartpool import PoolClosedError
from sqla_smartpool import PoolOverloadedError
from sqla_smartpool import PoolTimeoutError
from sqla_smartpool import SmartPool


class Unpicklable(Exception):
    def __init__(self, one: object, two: object) -> None:
        super().__init__(f"{one}{two}")


def queuepools_text(size: int, overflow: int, timeout: float) -> str:
    pool = QueuePool(
        lambda: None,  # type: ignore[arg-type, return-value]
        pool_size=size,
        max_overflow=overflow,
        timeout=timeout,
    )
    pool._overflow = overflow
    with pytest.raises(sa_exc.TimeoutError) as refused:
        pool._do_get()
    return str(refused.value.args[0])


def exhausted(tmp_path: Any, **arguments: Any) -> SmartPool:
    engine = create_engine(
        f"sqlite:///{tmp_path}/errors.db", poolclass=SmartPool, **arguments
    )
    engine.held = engine.connect()  # type: ignore[attr-defined]
    return engine.pool  # type: ignore[return-value]


def test_the_text_begins_as_queuepools(tmp_path: Any) -> None:
    pool = exhausted(tmp_path, pool_size=1, max_overflow=0, pool_timeout=0.01)
    with pytest.raises(sa_exc.TimeoutError) as refused:
        pool.connect()
    error = refused.value
    assert str(error).startswith(queuepools_text(1, 0, 0.01))
    assert "1 of 1 in use" in str(error)
    assert error.code == "3o7r"
    assert isinstance(error, PoolTimeoutError)
    assert error.stats is not None and error.stats.pool_in_use == 1
    assert pool.stats().requests_timeouts == 1


def test_it_names_why_connects_fail() -> None:
    def creator() -> Any:
        raise OSError("no route to host")

    pool = SmartPool(creator, timeout=0)
    for _ in range(6):  # as many as the bucket has attempts for
        with pytest.raises(OSError):
            pool.connect()
    with pytest.raises(PoolTimeoutError, match="no route to host") as refused:
        pool.connect()
    cause = refused.value.__cause__
    assert isinstance(cause, OSError)
    assert cause is refused.value.last_connect_error
    # frames hold passwords
    assert cause.__traceback__ is None


def test_a_listener_hears_of_it_before_the_caller(tmp_path: Any) -> None:
    pool = exhausted(tmp_path, max_size=1, pool_timeout=0)
    heard: list[BaseException] = []
    event.listen(
        pool, "checkout_timeout", lambda pool, error: heard.append(error)
    )
    with pytest.raises(PoolTimeoutError) as refused:
        pool.connect()
    assert heard == [refused.value]


def test_a_deadline_replaces_the_pools_timeout(tmp_path: Any) -> None:
    pool = exhausted(tmp_path, max_size=1, pool_timeout=300)
    with deadline(0.01):
        with pytest.raises(PoolTimeoutError, match="timeout 0.01"):
            pool.connect()


def test_overload_is_told_from_a_timeout(tmp_path: Any) -> None:
    pool = exhausted(tmp_path, max_size=1, max_waiting=0, pool_timeout=300)
    with pytest.raises(PoolOverloadedError, match="no more than 0 may wait"):
        pool.connect()


def test_a_closed_pool_says_so(tmp_path: Any) -> None:
    pool = exhausted(tmp_path, max_size=1)
    pool.stop(timeout=0)
    with pytest.raises(PoolClosedError, match=r"start\(\) opens it again"):
        pool.connect()


@pytest.mark.parametrize("cause", [OSError("x"), Unpicklable(1, 2), None])
@pytest.mark.parametrize("kind", [PoolTimeoutError, PoolOverloadedError])
def test_errors_survive_pickling(
    tmp_path: Any, kind: type[PoolTimeoutError], cause: Any
) -> None:
    stats = exhausted(tmp_path).stats()
    error = kind("no connection", stats, cause)
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error)
    assert again.stats == stats
    assert again.code == "3o7r"
    if cause is None:
        assert again.last_connect_error is None
    else:
        assert str(cause) in str(again.last_connect_error)
        assert again.__cause__ is again.last_connect_error
    closed = pickle.loads(pickle.dumps(PoolClosedError("stopped")))
    assert str(closed) == "stopped"
