"""Numbers that are read while others change them: counters never go back.

To those who watch them, one that does has begun anew, and all that it counted
before is counted once more.
"""

from __future__ import annotations

from functools import partial
from itertools import accumulate
import time
from typing import Any
from typing import Callable

import pytest

from sqla_smartpool import deadline
from sqla_smartpool import PoolStats
from sqla_smartpool import PoolTimeoutError
from tests.lab.fake_dbapi import FakeDatabase
from tests.lab.steps import Steps

_GAUGES = {"pool_min", "pool_max", "pool_size", "pool_available"}
_GAUGES |= {"pool_in_use", "pool_connecting", "requests_waiting"}


def used(engine: Any) -> None:
    engine.connect().close()


def used_for_long(engine: Any) -> None:
    connection = engine.connect()
    time.sleep(0.0015)  # longer than what falls into the first bucket
    connection.close()


def used_up(engine: Any) -> None:
    connection = engine.connect()
    time.sleep(0.0015)
    connection.invalidate()
    connection.close()


def timed_out(engine: Any) -> None:
    held = [engine.connect(), engine.connect()]
    with deadline(0.002), pytest.raises(PoolTimeoutError):
        engine.connect()
    for connection in held:
        connection.close()


def went_down(before: PoolStats, after: PoolStats) -> list[str]:
    """The names of the counters that did."""
    was, now = counters(before), counters(after)
    return [name for name in now if now[name] < was[name]]


def counters(stats: PoolStats) -> dict[str, float]:
    found: dict[str, float] = {
        name: number
        for name, number in stats.as_dict().items()
        if name not in _GAUGES
    }
    for name in ("wait_time", "use_time", "connect_time"):
        histogram = getattr(stats, name)
        found[f"{name} sum"] = histogram.sum
        # as they are counted in Prometheus: all up to a bound
        for bucket, number in enumerate(accumulate(histogram.counts)):
            found[f"{name} up to {bucket}"] = number
    return found


class Reader:
    """Somebody who reads the numbers of a pool of its own."""

    def __init__(self) -> None:
        self.engine = FakeDatabase().engine(max_size=2)
        self._read: list[PoolStats] = []
        used_for_long(self.engine)
        self.look()

    def look(self) -> None:
        self._read.append(self.engine.pool.stats())

    def went_down(self) -> list[str]:
        self.look()
        pairs = zip(self._read, self._read[1:])
        return [name for pair in pairs for name in went_down(*pair)]


def expect_no_way_back(
    interfere: Callable[[Reader], None],
    act: Callable[[Reader], None],
    fine: bool = True,
) -> int:
    """Do one thing at each step of the other; returns how many there are."""
    at, steps = 0, None
    while steps is None or steps.done:
        at += 1
        reader = Reader()
        with Steps(
            at, partial(interfere, reader), fine=fine, visits=1
        ) as steps:
            act(reader)
        assert reader.went_down() == [], steps.where
        reader.engine.dispose()
    return at


STORIES = pytest.mark.parametrize(
    "story", [used, used_for_long, used_up, timed_out]
)


@STORIES
def test_no_counter_goes_back_for_who_reads_in_the_middle(
    story: Callable[[Any], None],
) -> None:
    # a timeout takes long, most of it for words
    fine = story is not timed_out
    steps = expect_no_way_back(
        Reader.look, lambda reader: story(reader.engine), fine
    )
    assert steps > 50


@STORIES
def test_no_counter_goes_back_when_something_happens_in_the_middle_of_a_look(
    story: Callable[[Any], None],
) -> None:
    steps = expect_no_way_back(
        lambda reader: story(reader.engine), Reader.look
    )
    assert steps > 100


def test_each_checkout_is_counted_by_how_long_it_waited() -> None:
    engine = FakeDatabase().engine(max_size=2)
    for _ in range(3):
        used(engine)
    timed_out(engine)
    waits = engine.pool.stats().wait_time
    assert waits.count == engine.pool.stats().requests_num == 6
    engine.dispose()
