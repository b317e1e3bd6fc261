"""Arguments: what is accepted, and how what is not gets refused."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import QueuePool

from sqla_smartpool import AsyncSmartPool
from sqla_smartpool import deadline
from sqla_smartpool import SmartPool
from sqla_smartpool.settings import Settings


def pool(**arguments: Any) -> SmartPool:
    return SmartPool(lambda: sqlite3.connect(":memory:"), **arguments)


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"min_size": -1}, ["min_size=-1", "at least 0"]),
        ({"min_size": 5, "max_size": 3}, ["min_size=5", "3", "max_size"]),
        ({"min_size": 16}, ["min_size=16", "15"]),
        ({"max_size": 10, "pool_size": 5}, ["max_size=10", "pool_size=5"]),
        ({"max_size": 10, "max_overflow": 5}, ["max_size=10", "max_overflow"]),
        ({"max_size": 0}, ["max_size=0", "at least 1"]),
        ({"keep_alive": "soon"}, ["keep_alive='soon'", "seconds"]),
        ({"keep_alive": float("nan")}, ["keep_alive=nan", "seconds"]),
        ({"keep_alive": float("inf")}, ["keep_alive=inf", "None"]),
        ({"ping_timeout": 0}, ["ping_timeout=0", "above 0"]),
        ({"ping_after": None}, ["ping_after=None", "seconds"]),
        ({"timeout": -1}, ["timeout=-1", "at least 0"]),
        ({"timeout": True}, ["timeout=True", "seconds"]),
        ({"min_size": 2.5}, ["min_size=2.5", "whole number"]),
        ({"min_size": [1]}, ["min_size=[1]", "whole number"]),
        ({"use_lifo": "perhaps"}, ["use_lifo='perhaps'", "True or False"]),
        ({"recycle": 0}, ["recycle=0", "above 0", "-1"]),
        ({"recycle": "never"}, ["recycle='never'", "-1"]),
        ({"recycle": 60, "max_lifetime": 90}, ["recycle", "max_lifetime=90"]),
        ({"pool_size": 0, "max_overflow": 0, "min_size": -2}, ["min_size=-2"]),
        ({"num_workers": 0}, ["num_workers=0", "at least 1"]),
    ],
)
def test_a_bad_argument_is_named_with_its_value_and_what_is_allowed(
    arguments: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ArgumentError) as refused:
        pool(**arguments)
    for word in words:
        assert word in str(refused.value)


def test_an_unknown_argument_is_refused_by_create_engine() -> None:
    with pytest.raises(TypeError, match="min_sise"):
        create_engine("sqlite:///x.db", poolclass=SmartPool, min_sise=5)


def test_a_sync_pool_is_refused_by_an_async_engine() -> None:
    asyncio_engine = pytest.importorskip("sqlalchemy.ext.asyncio")
    with pytest.raises(ArgumentError, match="SmartPool"):
        asyncio_engine.create_async_engine(
            "sqlite+aiosqlite:///x.db", poolclass=SmartPool
        )
    with pytest.raises(ArgumentError, match="AsyncSmartPool"):
        create_engine("sqlite:///x.db", poolclass=AsyncSmartPool)


def test_numbers_and_booleans_may_arrive_as_text() -> None:
    settings = pool(
        min_size="2",
        max_size="4",
        keep_alive="None",
        timeout="1.5",
        pre_ping="true",
        use_lifo="off",
        recycle="-1",
    ).settings
    assert settings == Settings(
        min_size=2,
        max_size=4,
        keep_alive=None,
        timeout=1.5,
        pre_ping=True,
        use_lifo=False,
        max_lifetime=None,
    )


def test_recycle_is_max_lifetime_under_sqlalchemys_name() -> None:
    assert pool(recycle=60).settings.max_lifetime == 60
    assert pool(recycle=60, max_lifetime=60).settings.max_lifetime == 60
    assert pool(recycle=-1).settings.max_lifetime is None
    assert pool(max_lifetime=None)._recycle == -1


@pytest.mark.parametrize(
    "arguments, ceiling, size",
    [
        ({}, 15, 5),
        ({"pool_size": 2, "max_overflow": 3}, 5, 2),
        ({"pool_size": 2, "max_overflow": -1}, None, 2),
        ({"pool_size": 0}, None, 0),
        ({"max_size": 7}, 7, 7),
    ],
)
def test_queuepools_sizes_keep_their_meaning(
    arguments: dict[str, int], ceiling: int, size: int
) -> None:
    smart = pool(**arguments)
    assert smart.settings.ceiling == ceiling
    assert smart.size() == size
    connection = smart.connect()
    assert smart.checkedout() == 1
    # QueuePool's arithmetic
    assert smart.checkedout() == (
        smart.size() - smart.checkedin() + smart.overflow()
    )
    connection.close()


def test_queuepools_attributes_can_be_read_and_assigned() -> None:
    smart = pool(pool_size=2, max_overflow=1, timeout=9)
    assert isinstance(smart, QueuePool)
    assert (smart._max_overflow, smart._recycle) == (1, 3600)
    assert (smart._timeout, smart.timeout(), smart._pre_ping) == (9, 9, False)
    smart._max_overflow = 4
    smart._timeout = 0
    smart._recycle = 5
    smart._pre_ping = True
    again = smart.recreate()
    for each in (smart, again):
        assert each.settings.ceiling == 6
        assert each.settings.timeout == 0
        assert each.settings.max_lifetime == 5
        assert each.settings.proof_window == 0


def test_recreate_hands_on_every_argument() -> None:
    given: dict[str, Any] = {
        "min_size": 1,
        "max_size": 2,
        "timeout": 3,
        "use_lifo": False,
        "keep_alive": 4,
        "max_lifetime": 5,
        "check_interval": 6,
        "monitor_batch_size": 7,
        "ping_after": 8,
        "pre_ping": True,
        "ping_timeout": 9,
        "network_timeout": 10,
        "num_workers": 11,
        "max_connecting": 12,
        "reconnect_timeout": 13,
        "max_waiting": 14,
        "leak_after": 15,
        "trace_checkouts": True,
    }
    # the last is no argument
    neither = {"pool_size", "max_overflow", "learns"}
    assert set(given) == set(Settings.__dataclass_fields__) - neither
    default = Settings()
    assert default.learns
    twice = pool(**given).recreate().recreate()
    for name, value in given.items():
        assert getattr(twice.settings, name) == value
        assert getattr(default, name) != value
    assert not twice.settings.learns


def test_a_deadline_must_be_a_number_of_seconds() -> None:
    with pytest.raises(ArgumentError, match="timeout=-1"):
        with deadline(-1):
            pass


@pytest.mark.parametrize("sizes", [(5, 3), (-1, None), (None, 0)])
def test_a_bad_resize_changes_nothing(sizes: tuple[int, int]) -> None:
    smart = pool(min_size=1, max_size=4)
    before = smart.settings
    with pytest.raises(ArgumentError):
        smart.resize(*sizes)
    assert smart.settings == before
