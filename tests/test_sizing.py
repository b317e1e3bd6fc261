"""Which sizes would have served: the arithmetic, and what pools measure."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

import pytest
from sqlalchemy.engine import Engine
from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.pool import QueuePool

from sqla_smartpool import observe
from sqla_smartpool import sizing
from sqla_smartpool._sqlalchemy import await_
from sqla_smartpool.sizing import advise
from sqla_smartpool.sizing import size_for
from sqla_smartpool.sizing import waits
from sqla_smartpool.sizing import Window
from tests.conftest import Database
from tests.conftest import Side


def erlang_c(demand: float, size: int) -> float:
    """By its definition, which overflows for large sizes."""
    last = demand**size / math.factorial(size) * size / (size - demand)
    others = sum(demand**k / math.factorial(k) for k in range(size))
    return last / (others + last)


@pytest.mark.parametrize(
    "demand, size",
    [(0.1, 1), (0.9, 1), (1.5, 2), (10, 11), (10, 14), (80, 90)],
)
def test_the_part_of_callers_who_wait_is_erlangs(
    demand: float, size: int
) -> None:
    assert waits(demand, size) == pytest.approx(erlang_c(demand, size))


@pytest.mark.parametrize("size", [0, 5, 10])
def test_with_fewer_connections_than_wanted_all_wait(size: int) -> None:
    assert waits(10.0, size) == 1.0


@pytest.mark.parametrize("demand", [0.5, 1, 3, 10, 30, 100, 1000])
def test_the_size_for_a_demand_leaves_few_to_wait(demand: float) -> None:
    size = size_for(demand)
    assert waits(demand, size) < 0.101
    # and is not wasteful
    assert size <= demand + 2 * math.sqrt(demand) + 1


def window(demand: float, waited: float = 0.0) -> Window:
    return Window(60.0, 6000, 60.0 * demand - waited, waited)


def test_the_busiest_window_sets_the_ceiling_the_median_one_the_floor() -> (
    None
):
    quiet, usual, busy = window(1.0), window(4.0), window(25.0)
    advice = advise([quiet, busy, usual], min_size=1, max_size=10)
    assert advice.max_size == size_for(25.0)
    assert advice.min_size == size_for(4.0)
    assert "min_size=8, max_size=35" in str(advice)
    assert "Now: min_size=1, max_size=10" in str(advice)
    assert "25 connections were wanted" in str(advice)


def test_callers_who_waited_wanted_connections_as_well() -> None:
    served = advise([window(10.0)], 0, 10)
    waiting = advise([window(10.0, waited=300.0)], 0, 5)
    assert waiting.max_size == served.max_size
    assert "waited 50 ms" in str(waiting)
    assert "waited 50 ms" not in str(served)


def test_a_pool_that_nobody_has_used_gets_no_advice() -> None:
    advice = advise([Window(60.0, 0, 0.0, 0.0)], 0, None)
    assert (advice.min_size, advice.max_size) == (None, None)
    assert "nothing to go by" in str(advice)


@pytest.mark.parametrize("kind", ["own", "stock"])
def test_a_pool_advises_what_its_callers_wanted(
    sqlite_database: Database,
    side: Side,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sizing, "WINDOW", 0.5)
    options: dict[str, Any] = {"max_size": 6, "check_interval": 0.1}
    if kind == "stock":
        stock = AsyncAdaptedQueuePool if side.asynchronous else QueuePool
        options = {"pool_size": 6, "max_overflow": 0, "poolclass": stock}
    engine = side.engine(sqlite_database, **options)
    observer = observe(engine)
    until = time.monotonic() + 2.0
    # four at a time, nearly without a break
    side.together(*[lambda: hold_on(side, engine, until)] * 4)
    advice = observer.advise()
    assert advice.max_size in range(size_for(2.0), size_for(4.5) + 1), advice


def hold_on(side: Side, engine: Engine, until: float) -> None:
    while time.monotonic() < until:
        with engine.connect():
            if side.asynchronous:
                await_(asyncio.sleep(0.05))
            else:
                time.sleep(0.05)
