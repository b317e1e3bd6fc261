"""Who is served, in which order, and by what: the rules, one at a time."""

from __future__ import annotations

from contextvars import copy_context
import math
from typing import Any
from typing import Optional

import pytest

from sqla_smartpool.inventory import Inventory
from sqla_smartpool.record import Grip
from sqla_smartpool.settings import Settings
from sqla_smartpool.tickets import Grant
from sqla_smartpool.tickets import Purpose
from sqla_smartpool.tickets import Refusal
from sqla_smartpool.tickets import Waiter
from tests.lab.manual import ManualRuntime


class Connection:
    """Stands for a record: what the books need of one."""

    uses = 0
    queued = 0
    wait_seconds = 0.0
    waits: Optional[list[int]] = None
    usage = 0.0
    connect_time = math.inf
    long_uses: Optional[list[int]] = None
    going: Optional[str] = None
    broken = False
    handed: Any = None
    dbapi_connection: Optional[object] = None
    proven_at = 0.0
    idle_since = 0.0
    taken_at = 0.0

    def judge(self) -> None:
        pass

    def heir(self) -> Connection:
        return Connection()


class Books:
    """An inventory, and what it asked to be done."""

    def __init__(self, inline: bool = False, **arguments: Any) -> None:
        self.runtime = ManualRuntime()
        self.connects: list[Grant] = []
        self.dismissed: list[Any] = []
        self.alarms: list[float] = []
        self.inventory = Inventory(
            Settings(**arguments),
            self.runtime,  # type: ignore[arg-type]
            connect=self.connects.append,
            dismiss=lambda record, reason: self.dismissed.append(record),
            look_again=self.alarms.append,
        )
        self.inventory.inline = inline

    def wait(self, **more: Any) -> Waiter:
        waiter = Waiter(
            self.runtime.signal(),
            self.runtime.now,
            context=copy_context(),
            **more,
        )
        self.inventory.queue(waiter, first=False)
        return waiter

    def arrive(self, grant: Grant) -> Any:
        record: Any = Connection()
        self.inventory.post(self.inventory.arrived, grant, record, True)
        return record

    def fail(self, grant: Grant, text: str = "down") -> Exception:
        error = OSError(text)
        self.inventory.post(self.inventory.failed, grant, error)
        return error

    def hand_in(self, record: Any) -> None:
        self.inventory.take_back(record)

    def stock(self, number: int) -> list[Any]:
        """Connections in use."""
        held = []
        for _ in range(number):
            waiter = self.wait()
            held.append(self.arrive(self.connects.pop()))
            assert waiter.outcome is held[-1]
        return held


@pytest.mark.pain("unfair queue")
def test_waiters_are_served_in_the_order_in_which_they_asked() -> None:
    books = Books(max_size=2)
    first, second = books.stock(2)
    waiters = [books.wait() for _ in range(3)]
    books.hand_in(second)
    books.hand_in(first)
    assert [w.outcome for w in waiters] == [second, first, None]


def test_a_connect_serves_whoever_waits_first() -> None:
    books = Books(max_size=5)
    waiters = [books.wait() for _ in range(3)]
    records = [books.arrive(grant) for grant in reversed(books.connects)]
    assert [w.outcome for w in waiters] == records


@pytest.mark.pain("more than the ceiling")
def test_never_more_connections_than_the_ceiling() -> None:
    books = Books(max_size=3)
    for _ in range(10):
        books.wait()
    assert len(books.connects) == 3
    assert books.inventory.room == 0


def test_no_connect_is_started_for_a_waiter_who_has_one_under_way() -> None:
    books = Books(max_size=30)
    for _ in range(10):
        books.wait()
    for _ in range(5):
        books.inventory.look()
    assert len(books.connects) == 10


def test_a_connect_that_takes_long_no_longer_counts_for_its_waiter() -> None:
    books = Books(max_size=30)
    waiter = books.wait()
    assert min(books.alarms) == pytest.approx(1.0)
    books.runtime.now += 1.01
    books.inventory.look()
    assert len(books.connects) == 2
    record = books.arrive(books.connects[1])
    assert waiter.outcome is record
    # the slow one is not thrown away
    late = books.arrive(books.connects[0])
    assert list(books.inventory.idle) == [late]


def test_a_connect_that_never_ends_is_written_off_and_its_room_freed() -> None:
    books = Books(max_size=1, timeout=3)
    books.wait()
    books.runtime.now += 3.01
    books.inventory.look()
    assert books.inventory.room == 0  # given to the waiter's next connect
    assert len(books.connects) == 2
    books.arrive(books.connects[1])
    late = books.arrive(books.connects[0])
    # there is no room any more for what came too late
    assert books.dismissed == [late]


def test_at_most_max_connecting_at_a_time() -> None:
    books = Books(max_size=30, max_connecting=2)
    for _ in range(5):
        books.wait()
    assert len(books.connects) == 2
    books.arrive(books.connects[0])
    assert len(books.connects) == 3


def test_without_a_limit_as_many_are_opened_at_a_time_as_are_open() -> None:
    books = Books(max_size=60)
    books.stock(15)
    for _ in range(45):
        books.wait()
    assert len(books.connects) == 15
    books.arrive(books.connects[0])
    # sixteen are open, fourteen still come
    assert len(books.connects) == 1 + 16
    # nothing is to be expected of those any more
    books.runtime.now += 1.01
    books.inventory.look()
    assert len(books.connects) == 1 + 16 + 16


def test_without_a_limit_ten_are_opened_at_a_time_for_one_that_is_open() -> (
    None
):
    books = Books(max_size=30)
    books.stock(1)
    for _ in range(30):
        books.wait()
    assert len(books.connects) == 10


def _with_known_times(use: float, connect: float) -> Books:
    """Four connections in use since now, of which that much is known."""
    books = Books(max_size=30)
    for _ in range(4):
        books.wait()
    books.runtime.now += connect
    for grant in books.connects:
        record = books.arrive(grant)
        record.uses, record.usage = 11, 10 * use
        record.taken_at = books.runtime.now
    books.connects.clear()
    return books


def test_none_is_opened_beside_another_that_would_come_after_the_returns() -> (
    None
):
    books = _with_known_times(use=0.01, connect=0.1)
    for _ in range(40):
        books.wait()
    # the four serve forty in the time of a connect
    assert len(books.connects) == 1
    # and whether they have is looked at then
    assert pytest.approx(0.1) in books.alarms
    for _ in range(5):
        books.wait()
    assert len(books.connects) == 5


def test_what_is_out_for_longer_than_ever_is_not_waited_for() -> None:
    books = _with_known_times(use=0.01, connect=0.1)
    for _ in range(4):
        books.wait()
    assert len(books.connects) == 1
    books.runtime.now += 0.09
    books.inventory.look()
    assert len(books.connects) == 1
    books.runtime.now += 0.06
    books.inventory.look()
    assert len(books.connects) == 2


def test_nothing_is_expected_of_returns_as_long_as_there_was_none() -> None:
    books = _with_known_times(use=0.0, connect=0.1)
    for record in books.inventory.members:
        record.uses = 1
    for _ in range(4):
        books.wait()
    assert len(books.connects) == 4


def test_one_is_opened_for_everybody_as_long_as_none_is_open() -> None:
    books = Books(max_size=30)
    for _ in range(40):
        books.wait()
    assert len(books.connects) == 30


def test_who_does_not_queue_has_one_opened_where_there_is_room() -> None:
    books = Books(max_size=30)
    books.stock(1)
    for _ in range(10):
        books.wait()
    impatient = books.wait(impatient=True)
    assert impatient.outcome is None
    assert len(books.connects) == 11


def test_who_will_have_one_opened_does_not_count_for_max_waiting() -> None:
    books = Books(max_size=15, max_waiting=0)
    books.stock(1)
    waiters = [books.wait() for _ in range(15)]
    assert len(books.connects) == 10
    assert [w.outcome for w in waiters] == [None] * 14 + [Refusal.OVERLOADED]


def test_the_first_failure_goes_to_the_longest_waiter_not_covered() -> None:
    books = Books(max_size=3)
    waiters = [books.wait() for _ in range(3)]
    error = books.fail(books.connects[0])
    # the other two connects will serve the first two
    assert [w.outcome for w in waiters] == [None, None, error]


def test_while_connects_fail_all_who_waited_are_told_and_one_tries() -> None:
    books = Books(max_size=1)
    waiters = [books.wait() for _ in range(4)]
    first = books.fail(books.connects[0])
    assert [w.outcome for w in waiters] == [first, None, None, None]
    assert len(books.connects) == 2
    books.runtime.now += 0.1
    latecomer = books.wait()
    assert len(books.connects) == 2
    second = books.fail(books.connects[1])
    told = [w.outcome for w in waiters[1:]]
    assert told[0] is second
    for copy in told[1:]:
        assert repr(copy) == repr(second) and copy is not second
    assert latecomer.outcome is None
    assert len(books.connects) == 3


def test_an_error_is_not_handed_out_a_second_time() -> None:
    books = Books(max_size=1)
    books.wait()
    books.fail(books.connects[0])
    newcomer = books.wait()
    assert newcomer.outcome is None
    assert len(books.connects) == 2


def test_callers_wait_for_their_attempt_when_the_bucket_is_empty() -> None:
    books = Books(max_size=5)
    for _ in range(6):
        books.wait()
        books.fail(books.connects[-1])
    made = len(books.connects)
    waiter = books.wait()
    assert len(books.connects) == made
    assert waiter.outcome is None
    books.runtime.now += books.alarms[-1]
    books.inventory.look()
    assert len(books.connects) == made + 1


def test_reconnect_timeout_lets_callers_wait_on() -> None:
    books = Books(max_size=2, reconnect_timeout=10)
    waiter = books.wait()
    error = books.fail(books.connects[-1])
    assert waiter.outcome is None
    books.runtime.now += 9
    books.fail(books.connects[-1])
    assert waiter.outcome is None
    books.runtime.now += 1.01
    books.inventory.look()
    assert repr(waiter.outcome) == repr(error)


def test_a_success_makes_waiters_forget_the_error() -> None:
    books = Books(max_size=1, reconnect_timeout=10)
    waiter, other = books.wait(), books.wait()
    books.fail(books.connects[-1])
    books.fail(books.connects[-1])
    record = books.arrive(books.connects[-1])
    assert waiter.outcome is record
    books.runtime.now += 30
    books.inventory.look()
    assert other.outcome is None


def test_an_impatient_caller_does_not_queue() -> None:
    books = Books(max_size=1)
    mine = books.wait(impatient=True)
    assert mine.outcome is None  # its own connect is under way
    refused = books.wait(impatient=True)
    assert refused.outcome is Refusal.TIMEOUT
    books.runtime.now += 20
    books.inventory.look()
    assert mine.outcome is None
    record = books.arrive(books.connects[0])
    assert mine.outcome is record


def test_no_more_than_max_waiting_wait_without_a_connect() -> None:
    books = Books(max_size=2, max_waiting=1)
    waiters = [books.wait() for _ in range(4)]
    assert [w.outcome for w in waiters] == [
        None,
        None,
        None,
        Refusal.OVERLOADED,
    ]


def test_a_waiter_that_has_left_is_passed_over() -> None:
    books = Books(max_size=1)
    (record,) = books.stock(1)
    gone, waiter = books.wait(), books.wait()
    assert gone.give_up() is None
    books.hand_in(record)
    assert waiter.outcome is record


@pytest.mark.pain("swallowed hand-off")
def test_a_waiter_served_at_the_moment_it_leaves_knows() -> None:
    books = Books(max_size=1)
    (record,) = books.stock(1)
    waiter = books.wait()
    books.hand_in(record)
    assert waiter.give_up() is record


@pytest.mark.pain("lost wake-up")
def test_freed_room_serves_the_next_waiter_at_once() -> None:
    books = Books(max_size=1)
    (record,) = books.stock(1)
    books.wait()
    assert not books.connects
    books.inventory.post(books.inventory.gone, record)
    assert len(books.connects) == 1


def test_inline_callers_are_given_the_right_to_connect() -> None:
    books = Books(inline=True, max_size=2)
    outcomes = [books.wait().outcome for _ in range(3)]
    assert [isinstance(o, Grant) for o in outcomes] == [True, True, False]
    assert not books.connects


def test_closing_refuses_those_who_wait_and_those_who_come() -> None:
    books = Books(max_size=1)
    books.stock(1)
    waiter = books.wait()
    books.inventory.close_gates(True)
    assert waiter.outcome is Refusal.CLOSED
    assert books.wait().outcome is Refusal.CLOSED
    books.inventory.open_gates()
    assert books.wait().outcome is None


def test_a_connect_that_arrives_after_the_close_is_closed() -> None:
    books = Books(max_size=1)
    books.wait()
    books.inventory.close_gates(True)
    late = books.arrive(books.connects[0])
    assert books.dismissed == [late]


def test_while_paused_callers_wait_and_nothing_is_opened() -> None:
    books = Books(max_size=5)
    (record,) = books.stock(1)
    books.inventory.close_gates(False)
    books.hand_in(record)
    waiter = books.wait()
    assert waiter.outcome is None and not books.connects
    with pytest.raises(IndexError):
        books.inventory.take()
    books.inventory.open_gates()
    assert waiter.outcome is record


def test_gates_close_at_once_whoever_is_at_the_books() -> None:
    books = Books(max_size=2)
    (record,) = books.stock(1)
    books.hand_in(record)
    grip = Grip()
    assert books.inventory._key.take(grip)
    books.inventory.close_gates(False)
    with pytest.raises(IndexError):
        books.inventory.take()
    books.inventory.open_gates()
    assert books.inventory.take() is record


def test_those_set_aside_make_room_for_those_who_wait() -> None:
    books = Books(max_size=2)
    for record in books.stock(2):
        books.hand_in(record)
    books.inventory.post(books.inventory.set_aside, 1.0)
    assert books.inventory.idle_now == 2
    books.wait()
    assert len(books.dismissed) == 1
    assert not books.connects  # room is free only when the close is done
    books.inventory.post(books.inventory.gone, books.dismissed[0], "unhealthy")
    assert len(books.connects) == 1


def test_upkeep_gets_no_connection_that_somebody_waits_for() -> None:
    books = Books(max_size=2)
    record, other = books.stock(2)
    books.inventory.idle.append(record)
    assert books.inventory.claim(record)
    assert not books.inventory.claim(record)
    books.inventory.put_back(record)
    waiter = books.wait()
    assert waiter.outcome is record
    assert not books.inventory.claim(other)


def test_a_pinged_connection_goes_back_to_the_cold_end() -> None:
    books = Books(max_size=3)
    one, two, three = books.stock(3)
    for record in (one, two, three):
        books.hand_in(record)
    books.inventory.claim(three)
    books.inventory.put_back(three)
    assert list(books.inventory.idle) == [three, one, two]


def test_a_waiter_gets_what_is_just_pinged_and_no_other_is_opened() -> None:
    books = Books(max_size=2)
    (only,) = books.stock(1)
    books.inventory.asked[only] = books.runtime.now
    waiter = books.wait()
    assert not books.connects
    books.inventory.put_back(only)
    assert waiter.outcome is only


def test_a_ping_that_takes_long_no_longer_counts_for_a_waiter() -> None:
    books = Books(max_size=2)
    (only,) = books.stock(1)
    books.inventory.asked[only] = books.runtime.now
    del books.alarms[:]
    books.wait()
    assert not books.connects
    (delay,) = books.alarms
    assert delay == pytest.approx(0.3)
    books.runtime.advance(delay + 0.001)
    books.inventory.look()
    assert len(books.connects) == 1


def test_an_impatient_caller_gets_what_is_just_pinged() -> None:
    books = Books(max_size=1)
    (only,) = books.stock(1)
    books.inventory.asked[only] = books.runtime.now
    served, refused = (books.wait(impatient=True) for _ in range(2))
    assert refused.outcome is Refusal.TIMEOUT
    books.inventory.put_back(only)
    assert served.outcome is only
    books.inventory.asked[only] = books.runtime.now
    late = books.wait(impatient=True)
    books.runtime.advance(0.301)
    books.inventory.look()
    assert late.outcome is Refusal.TIMEOUT


def test_upkeep_opens_no_more_than_the_floor() -> None:
    books = Books(min_size=2, max_size=5)

    def ask(why: Purpose, up_to: float) -> Any:
        waiter = Waiter(books.runtime.signal(), books.runtime.now)
        books.inventory.post(books.inventory.ask_to_open, waiter, why, up_to)
        return waiter.outcome

    asked = [ask(Purpose.FLOOR, 2) for _ in range(3)]
    assert [isinstance(it, Grant) for it in asked] == [True, True, False]
    assert isinstance(ask(Purpose.SUCCESSOR, math.inf), Grant)


def test_a_return_in_the_middle_of_a_change_serves_who_waits() -> None:
    books = Books(max_size=1)
    (record,) = books.stock(1)
    inventory = books.inventory
    seen = []

    def collected_in_here() -> None:
        # the garbage collector returns a connection on this very thread
        waiter = books.wait()
        books.hand_in(record)
        inventory.post(inventory.count, "returns_bad")
        seen.append((waiter.outcome, inventory.counts["returns_bad"]))

    inventory.post(collected_in_here)
    # other changes are made after this one
    assert seen == [(record, 0)]
    assert inventory.counts["returns_bad"] == 1


def test_the_numbers_add_up() -> None:
    books = Books(max_size=3)
    one, two, _ = books.stock(3)
    books.hand_in(one)
    books.inventory.post(books.inventory.gone, two, "idle")
    stats = books.inventory.stats()
    assert (stats.pool_size, stats.pool_available) == (2, 1)
    assert (stats.pool_in_use, stats.pool_connecting) == (1, 0)
    assert (stats.closed_idle, stats.connections_num) == (1, 3)
