"""What an explorer's callers do with a pool, and what must hold meanwhile.

The pool is a whole one with all its real code; its runtime is the explorer's,
and the connections are those of a database that keeps books.
"""

from __future__ import annotations

from contextvars import Context
from functools import lru_cache
from types import SimpleNamespace
from typing import Any
from typing import Callable
from typing import Optional

from sqlalchemy.pool.base import _ConnDialect

from sqla_smartpool import SmartPool
from sqla_smartpool.record import Record
from sqla_smartpool.settings import Settings
from sqla_smartpool.testing.alarms import TimedCall
from sqla_smartpool.tickets import Grant
from tests.lab import accesses
from tests.lab.schedule import Interrupted
from tests.lab.schedule import Run


class ExplorerSignal:
    def __init__(self, run: Run) -> None:
        self._run = run
        self._label = (run.name("signal"), "")
        self._is_set = False

    def set(self) -> None:
        self._run.access(self._label, "set", True)
        self._is_set = True

    def wait(self, timeout: Optional[float] = None) -> bool:
        self._run.block(lambda: self._is_set, self._label)
        return self._is_set


class ExplorerRuntime:
    """Callers run when the explorer says so; time stands still."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.now = 1000.0

    def clock(self) -> float:
        return self.now + 0.0  # another object each time, as a real one's

    def who(self) -> None:
        """Nobody who could be looked up, as callers are no threads."""

    def chance(self) -> float:
        return 0.5

    def signal(self) -> ExplorerSignal:
        return ExplorerSignal(self._run)

    def spawn(
        self, job: Callable[[], object], context: Optional[Context] = None
    ) -> None:
        if self._run.active is None:
            job()  # while the scenario is set up
        else:
            self._run.add(self._run.name("worker"), job)

    def call_later(
        self, delay: float, call: Callable[[], object]
    ) -> TimedCall:
        return TimedCall(call)

    def on_books(self, call: Callable[[], object]) -> None:
        call()


class Refused(Exception):
    """What a connect of these tests fails with."""


class PingingDialect(_ConnDialect):
    """With this one, connections are opened beside the callers."""

    name = "explored"

    def do_ping(self, connection: Connection) -> bool:
        connection.house.run.talk(f"pings {connection}")
        return True

    _do_ping_w_event: Any = do_ping


class Connection:
    """What the database knows of a connection."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.name = house.run.name("connection")
        self.open = True

    def __repr__(self) -> str:
        return self.name

    def rollback(self) -> None:
        self.house.run.must(self.open, f"{self} was closed")

    def close(self) -> None:
        self.house.run.talk(f"closes {self}")
        self.house.run.must(self.open, f"{self} is closed twice")
        self.open = False
        self.house.open.remove(self)


@lru_cache(maxsize=None)
def _settings(timeout: Optional[float] = None, **arguments: Any) -> Settings:
    return Settings(timeout=timeout, **arguments)


class House:
    """A pool, its database, and the rules that hold in every schedule.

    :param refuse: how many connects fail before they succeed.
    :param stock: how many connections are open to begin with.
    :param beside: connects are made beside the callers.
    """

    def __init__(
        self,
        run: Run,
        stock: int = 0,
        beside: bool = False,
        refuse: int = 0,
        **arguments: Any,
    ) -> None:
        self.run = run
        self.refuse = refuse
        self.open: list[Connection] = []
        #: by record: who has it
        self.owners: dict[Any, str] = {}
        #: waiters by name, in the order in which they queue
        self.queue: list[str] = []
        #: and whom they left behind there who had come before them
        self._passed: dict[str, list[str]] = {}
        self.pool = SmartPool(
            self.connect,
            dialect=PingingDialect() if beside else None,
            _settings=_settings(**arguments),
            _runtime=ExplorerRuntime(run),  # type: ignore[arg-type]
        )
        self.books = self.pool.inventory
        self.books.inline = self.pool.inline
        self.pool.upkeep.active = True
        self.ceiling = self.books.settings.ceiling
        held = [self.take() for _ in range(stock)]
        for record in held:
            self.give(record)
        self.books.counts.clear()
        run.observers.append(self._watch_the_queue)
        run.when_quiet = self.nobody_waits_in_vain
        run.when_over = self.nothing_is_lost

    # -- the database ----------------------------------------------------

    def connect(self) -> Connection:
        connection = Connection(self)
        self.open.append(connection)
        if self.ceiling is not None:
            within = len(self.open) <= self.ceiling
            self.run.must(within, "more than max_size")
        try:
            self.run.talk(f"connects {connection}")
            if self.refuse > 0:
                self.refuse -= 1
                raise Refused
        except BaseException:
            self.open.remove(connection)
            raise
        return connection

    # -- what callers do -------------------------------------------------

    def take(self) -> Any:
        """Check a connection out, past nobody who was waiting."""
        name = self.run.active.name if self.run.active else "main"
        ahead = list(self.queue)
        record: Any = self.pool._do_get()
        connection = record.dbapi_connection
        other = self.owners.get(record)
        must = self.run.must
        must(other is None, f"{connection} is with both {other} and {name}")
        overtaken = [each for each in ahead if each in self.queue]
        must(not overtaken, f"{name} came later than {overtaken}")
        must(connection is not None and connection.open, "it was closed")
        self.owners[record] = name
        return record

    def give(self, record: Any) -> None:
        """Check it in."""
        connection = record.dbapi_connection
        self.run.must(
            connection is None or connection.open, "closed while in use"
        )
        del self.owners[record]
        self.pool._do_return_conn(record)

    def use(self) -> None:
        """A caller: take, work, give back."""
        record = self.take()
        self.run.talk("works")
        self.give(record)

    def touch(self) -> None:
        """A caller whose work is quick."""
        self.give(self.take())

    def try_to_use(self, *expected: type[BaseException]) -> None:
        """A caller who may fail, be late, or be interrupted."""
        try:
            self.use()
        except (Interrupted, *expected):
            pass

    def spoil(self) -> None:
        """A caller whose connection breaks."""
        record = self.take()
        record.fairy_ref = lambda: SimpleNamespace()
        record.invalidate()
        record.fairy_ref = None
        self.give(record)

    def dispose_engine(self) -> None:
        """What ``Engine.dispose()`` does."""
        self.pool.dispose()
        self.pool.recreate()

    # -- what must hold --------------------------------------------------

    def _watch_the_queue(
        self, label: tuple[str, str], what: str, args: Any, result: Any
    ) -> None:
        owner, attribute = label
        if attribute == "waiters[]" and what == "__setitem__":
            if not args[0]._box.real:  # has not given up already
                self.queue.append(accesses.name_of(args[0]))
        elif attribute == "waiters[]" and what == "move_to_end":
            name = accesses.name_of(args[0])
            if name in self.queue:
                self.queue.remove(name)
                self.queue.insert(0, name)
        elif attribute == "waiters[]" and what == "pop":
            self._leaves(accesses.name_of(args[0]))
        elif attribute.startswith("_box[]"):
            self._leaves(owner)
            if isinstance(result, (Record, Grant)) and result is args[-1]:
                before = self._passed.pop(owner, None)
                self.run.must(not before, f"{owner} comes before {before}")

    def _leaves(self, name: str) -> None:
        if name in self.queue:
            place = self.queue.index(name)
            self._passed[name] = self.queue[:place]
            del self.queue[place]

    def nobody_waits_in_vain(self) -> None:
        """Nothing moves any more: then nobody waits for what is there."""
        books = self.books
        if self.queue and not books.paused:
            assert not books.idle, f"{self.queue} wait, and one is idle"
            assert books.room <= 0, f"{self.queue} wait, and there is room"

    def nothing_is_lost(self) -> None:
        """All have gone home: the books are true, and nothing is pending."""
        books = self.books
        assert not books._mail, "a change was posted and never carried out"
        assert not books._key.locked(), "the key was never given back"
        assert not books._todo, "something was to be done, and is not"
        assert not self.owners, "somebody holds a connection"
        assert not self.queue and not books.waiters, "somebody waits"
        connects = [*books.opening, *books.overdue]
        assert not connects, "a connect that has ended takes up room"
        assert not books.tending, "upkeep has one, and does nothing with it"
        assert not books.asked, "upkeep asks one, and has no answer"
        assert not books.counts["checks_failed"], "all of them were alive"
        resting = books.resting()
        listed = [record.dbapi_connection for record in resting]
        assert len({*map(id, listed)}) == len(listed), "twice among the idle"
        assert {*books.members} == {*resting}, "open, but not idle"
        assert {*self.open} == {*listed}, f"{self.open} are open: {listed}"
        going = [record for record in resting if record.going is not None]
        assert not going, "is to be closed, and nobody does"
        assert books.room >= 0, "too many are open"

    def all_is_tidy(self) -> None:
        """Upkeep has been woken, and then nothing is lost."""
        upkeep = self.pool.upkeep
        assert upkeep.due_at <= self.pool.runtime.clock(), "nobody woke it"
        upkeep._look()
        self.nothing_is_lost()

    def nothing_is_open(self) -> None:
        """The pool was stopped."""
        self.nothing_is_lost()
        assert not self.open, f"{self.open} are still open"
