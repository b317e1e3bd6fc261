"""What callers of a pool do side by side, for an explorer to run."""

from __future__ import annotations

from typing import Any

from sqla_smartpool.exc import PoolClosedError
from sqla_smartpool.exc import PoolTimeoutError
from tests.lab.explored_pool import House
from tests.lab.explored_pool import Refused
from tests.lab.schedule import Run

# -- callers among themselves ------------------------------------------------


def two_callers(run: Run) -> None:
    house = House(run, stock=1, max_size=1)
    run.add("A", house.use)
    run.add("B", house.use)


def three_callers(run: Run) -> None:
    house = House(run, stock=1, max_size=1)
    run.add("A", house.use)
    run.add("B", house.use)
    run.add("C", house.use)


def four_callers(run: Run) -> None:
    house = House(run, stock=2, max_size=2)
    for name in "ABCD":
        run.add(name, house.touch)


def newcomer_returner_waiter(run: Run) -> None:
    house = House(run, stock=1, max_size=1)
    held = house.take()
    run.add("waiter", house.use)
    run.add("returner", lambda: house.give(held))
    run.add("newcomer", house.use)


def gives_up(run: Run, **how: Any) -> House:
    house = House(run, stock=1, max_size=1)
    held = house.take()
    run.add("quitter", lambda: house.try_to_use(PoolTimeoutError), **how)
    run.add("returner", lambda: house.give(held))
    return house


def is_late(run: Run) -> None:
    gives_up(run, impatient=True)


def is_late_before_another(run: Run) -> None:
    house = gives_up(run, impatient=True)
    run.add("waiter", house.use)


def is_cancelled(run: Run) -> None:
    gives_up(run, interruptible=True)


def is_cancelled_before_another(run: Run) -> None:
    house = gives_up(run, interruptible=True)
    run.add("waiter", house.use)


def is_cancelled_with_room(run: Run) -> None:
    house = House(run, max_size=1)
    run.add("quitter", house.try_to_use, interruptible=True)
    run.add("waiter", house.use)


def nobody_connects_twice(run: Run) -> None:
    house = House(run, max_size=2)
    for name in "ABC":
        run.add(name, house.touch)


def one_connect_fails(run: Run, beside: bool = False) -> None:
    house = House(run, max_size=1, refuse=1, beside=beside)
    run.add("A", lambda: house.try_to_use(Refused))
    run.add("B", lambda: house.try_to_use(Refused))


def one_connect_fails_beside(run: Run) -> None:
    one_connect_fails(run, beside=True)


def opened_beside(run: Run) -> None:
    house = House(run, max_size=2, beside=True)
    run.add("A", house.use)
    run.add("B", house.use)


def one_breaks(run: Run) -> None:
    house = House(run, stock=1, max_size=1)
    run.add("A", house.spoil)
    run.add("B", house.use)


# -- with other sizes --------------------------------------------------------


def grows(run: Run) -> None:
    house = House(run, stock=1, max_size=1)
    house.ceiling = 2
    held = house.take()
    run.add("A", house.use)
    run.add("resize", lambda: house.pool.resize(max_size=2))
    run.add("B", lambda: house.give(held))


def shrinks(run: Run) -> None:
    house = House(run, stock=2, max_size=2)
    run.add("A", house.use)
    run.add("resize", lambda: house.pool.resize(max_size=1))
    run.add("B", house.use)
    run.when_over = house.all_is_tidy


def resized_twice(run: Run) -> None:
    house = House(run, max_size=2)

    def as_both_said() -> None:
        settings = house.pool.settings
        assert (settings.min_size, settings.max_size) == (1, 3)

    run.add("min_size", lambda: house.pool.resize(min_size=1))
    run.add("max_size", lambda: house.pool.resize(max_size=3))
    run.when_over = as_both_said


# -- at the end --------------------------------------------------------------


def stopped(run: Run, beside: bool = False) -> None:
    house = House(run, stock=1, max_size=1, beside=beside)
    run.add("A", lambda: house.try_to_use(PoolClosedError))
    run.add("B", lambda: house.try_to_use(PoolClosedError))
    run.add("stop", house.pool.stop)
    run.when_over = house.nothing_is_open


def stopped_while_connecting(run: Run) -> None:
    house = House(run, max_size=1, beside=True)
    run.add("A", lambda: house.try_to_use(PoolClosedError))
    run.add("stop", house.pool.stop)
    run.when_over = house.nothing_is_open


def stopped_as_one_is_cancelled(run: Run) -> None:
    house = House(run, stock=1, max_size=1)
    held = house.take()
    run.add("A", lambda: house.try_to_use(PoolClosedError), interruptible=True)
    run.add("returner", lambda: house.give(held))
    run.add("stop", house.pool.stop)
    run.when_over = house.nothing_is_open


def disposed(run: Run, **how: Any) -> None:
    house = gives_up(run, **how)
    run.add("dispose", house.pool.dispose)


def replaced(run: Run, **how: Any) -> None:
    house = gives_up(run, **how)
    run.add("dispose", house.dispose_engine)
    run.when_over = house.nothing_is_open


def replaced_while_connecting(run: Run) -> None:
    house = House(run, max_size=1)
    run.add("A", house.use)
    run.add("dispose", house.dispose_engine)
    run.when_over = house.nothing_is_open


def replaced_as_it_begins(run: Run) -> None:
    house = House(run, max_size=1)
    house.pool.upkeep.active = False
    run.add("A", house.touch)
    run.add("dispose", house.dispose_engine)
    run.when_over = house.nothing_is_open


def disposed_as_one_is_late(run: Run) -> None:
    disposed(run, impatient=True)


def disposed_while_connecting(run: Run) -> None:
    house = House(run, max_size=1, beside=True)
    run.add("A", house.use)
    run.add("dispose", house.pool.dispose)


# -- with upkeep -------------------------------------------------------------


def pinged(run: Run) -> None:
    house = House(run, stock=1, max_size=1, beside=True)
    record = house.books.idle[0]
    run.add("upkeep", lambda: house.pool.chores.ping(record))
    run.add("A", house.use)
    run.add("B", house.use)


def pinged_while_disposed(run: Run) -> None:
    house = House(run, stock=1, max_size=1, beside=True)
    record = house.books.idle[0]
    run.add("upkeep", lambda: house.pool.chores.ping(record))
    run.add("dispose", house.pool.dispose)


def closed_for_idleness(run: Run) -> None:
    house = House(run, stock=1, max_size=1)
    record = house.books.idle[0]
    run.add("upkeep", lambda: house.pool.chores.close(record, "idle"))
    run.add("A", house.use)


def renewed(run: Run) -> None:
    house = House(run, stock=1, max_size=2, beside=True)
    record = house.books.idle[0]
    run.add("upkeep", lambda: house.pool.chores.renew(record, "lifetime"))
    run.add("A", house.use)


def drained(run: Run) -> None:
    house = House(run, stock=1, max_size=1, beside=True)
    run.add("drain", house.pool.drain)
    run.add("A", house.use)


def drained_as_one_returns(run: Run) -> None:
    house = House(run, stock=1, max_size=1, beside=True)
    held = house.take()
    run.add("drain", house.pool.drain)
    run.add("returner", lambda: house.give(held))


def drained_as_one_is_late(run: Run) -> None:
    house = gives_up(run, impatient=True)
    run.add("drain", house.pool.drain)


def pinged_while_drained(run: Run) -> None:
    house = House(run, stock=1, max_size=1, beside=True)
    record = house.books.idle[0]
    run.add("upkeep", lambda: house.pool.chores.ping(record))
    run.add("drain", house.pool.drain)


# -- when garbage is collected -----------------------------------------------


def garbage_returns(run: Run, max_size: int = 1, **how: Any) -> House:
    house = House(run, stock=1, max_size=max_size)
    held = house.take()
    run.drop(lambda: house.give(held))
    run.add("A", lambda: house.try_to_use(PoolTimeoutError), **how)
    return house


def garbage_returns_with_room(run: Run) -> None:
    garbage_returns(run, max_size=2)


def garbage_returns_as_one_is_late(run: Run) -> None:
    garbage_returns(run, impatient=True)


def garbage_returns_as_one_is_cancelled(run: Run) -> None:
    garbage_returns(run, interruptible=True)


def garbage_returns_to_two(run: Run) -> None:
    house = garbage_returns(run)
    run.add("B", house.use)


def garbage_returns_as_another_does(run: Run) -> None:
    house = House(run, stock=2, max_size=2)
    held = house.take()
    run.drop(lambda: house.give(held))
    run.add("A", house.use)
    run.add("B", house.use)


def garbage_returns_as_one_of_two_is_late(run: Run) -> None:
    house = garbage_returns(run, impatient=True)
    run.add("B", house.use)
