"""What the users of a pool do: all they may do, and much of what they should
not.

Written once, as coroutines: in a thread nothing in them ever waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import nullcontext
import random
import threading
import time
from typing import Any
from typing import Optional

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from sqla_smartpool import deadline
from sqla_smartpool import PoolClosedError
from sqla_smartpool import PoolTimeoutError
from .lanes import Lane
from .lanes import TIMEOUT
from .words import WORDS

#: how much longer than its timeout a checkout may take beside threads that
#: hold on to the interpreter, seconds
MARGIN = 2.0
#: how long a worker thinks between two visits, on average, seconds
_THINKS = 0.12
#: the part of the visits on an event loop that are cancelled
_CANCELLED = 0.08
#: what is done with a connection, and how often
_DEEDS = {
    "read": 30,
    "commit": 15,
    "roll_back": 10,
    "leave_open": 12,
    "fail": 8,
    "change_settings": 6,
    "change_isolation": 6,
    "read_in_part": 6,
    "wait_in_database": 6,
    "invalidate": 3,
    "drop": 2,
}


class Visit:
    """One checkout, what is done with it, and its return."""

    def __init__(self, lane: Lane, token: str, chance: random.Random) -> None:
        self.lane = lane
        self.token = token
        self.begun = time.monotonic()
        self.phase = "checkout"
        self.thread = threading.get_ident()
        self._chance = chance
        self._words = WORDS[lane.kind.server]
        self._deed = chance.choices([*_DEEDS], [*_DEEDS.values()])[0]
        self._kept = True
        patience = None
        if chance.random() < 0.1:
            patience = chance.choice([0.0, 0.05, 0.3])
        #: None: that of the pool
        self.patience: Optional[float] = patience

    @property
    def timeout(self) -> float:
        """How long the checkout may take."""
        # one that does not queue may have to connect or to ping
        return self.patience or TIMEOUT

    async def run(self) -> None:
        """Do it all; an error is judged, and goes no further."""
        self.lane.visits.add(self)
        try:
            await self._check_out_and_use()
        except Exception as error:
            self._failed(error)
        else:
            self.phase = "done"
            self.lane.served_since = max(self.lane.served_since, self.begun)
        finally:
            self.lane.visits.discard(self)

    async def _check_out_and_use(self) -> None:
        connection = await self._check_out()
        try:
            fairy = self._fairy(connection)
            self._claim(fairy)
            try:
                await self._examine(connection)
                await getattr(self, f"_{self._deed}")(connection)
            finally:
                self._release(fairy)
                if not self._kept:
                    self._drop_it(fairy)
                del fairy
        finally:
            self.phase = "return"
            if self._kept:
                await self._ask(connection.close)
            del connection

    async def _check_out(self) -> Any:
        own = self.patience is not None
        with deadline(self.patience) if own else nullcontext():
            connection = await self._ask(self.lane.engine.connect)
        self.phase = "use"
        took = time.monotonic() - self.begun
        self.lane.waited(took)
        self._check_duration(took)
        return connection

    def _check_duration(self, took: float) -> None:
        self.lane.judge.check(
            "every checkout ends in time",
            took <= self.timeout + MARGIN,
            "{} took {:.2f} s, timeout {:.2f} s",
            self.token,
            took,
            self.timeout,
        )

    # -- whose it is --------------------------------------------------------

    def _fairy(self, connection: Any) -> Any:
        if self.lane.asynchronous:
            connection = connection.sync_connection
        return connection.connection

    def _claim(self, fairy: Any) -> None:
        driver_connection = fairy.driver_connection
        other = self.lane.owners.claim(driver_connection, self.token)
        self.lane.judge.check(
            "a connection has one owner",
            other is None,
            "{} was handed what {} holds",
            self.token,
            other,
        )
        visits = fairy.info.setdefault("visits", deque(maxlen=4))
        #: who had it before, and what they did, for the reader
        self._before = [*visits]
        visits.append((self.token, self._deed))
        fairy.info["holder"] = self.token
        self._driver_connection = driver_connection

    def _release(self, fairy: Any) -> None:
        driver_connection, self._driver_connection = (
            self._driver_connection,
            None,
        )
        if driver_connection is None:
            return
        found = self.lane.owners.release(driver_connection, self.token)
        if fairy.is_valid:
            found = fairy.info["holder"] if found == self.token else found
        self.lane.judge.check(
            "a connection has one owner",
            found == self.token,
            "{} was also handed to {}",
            self.token,
            found,
        )

    async def _examine(self, connection: Any) -> None:
        """See what the one before has left."""
        found = (await self._query(connection, "examine")).one()
        self.lane.judge.check(
            "no state leaks",
            tuple(value or None for value in found) == self._words.clean,
            "{} found {}, after {}",
            self.token,
            found,
            self._before,
        )

    # -- what is done -------------------------------------------------------

    async def _ask(self, function: Any, *args: Any) -> Any:
        return await self.lane.ask(function, *args)

    async def _query(self, connection: Any, words: str, **values: Any) -> Any:
        sql = text(getattr(self._words, words))
        return await self._ask(connection.execute, sql, values)

    async def _echo(self, connection: Any) -> None:
        sent = f"{self.token} {self._chance.random()}"
        got = (await self._query(connection, "echo", token=sent)).scalar()
        self.lane.judge.check(
            "an answer belongs to its question",
            got == sent,
            "sent {!r}, got {!r}",
            sent,
            got,
        )

    async def _hold(self) -> None:
        most = self._chance.choice([0.0, 0.0, 0.02, 0.2])
        if most:
            await self.lane.sleep(self._chance.uniform(0.0, most))

    async def _read(self, connection: Any) -> None:
        for _ in range(self._chance.randrange(4)):
            await self._echo(connection)
            await self._hold()

    async def _write(self, connection: Any, fate: str) -> None:
        await self._query(connection, "insert", token=self.token, fate=fate)
        await self._hold()
        await self._echo(connection)

    async def _commit(self, connection: Any) -> None:
        await self._write(connection, "commit")
        await self._ask(connection.commit)

    async def _roll_back(self, connection: Any) -> None:
        await self._write(connection, "rollback")
        await self._ask(connection.rollback)
        await self._echo(connection)

    async def _leave_open(self, connection: Any) -> None:
        await self._write(connection, "rollback")

    async def _fail(self, connection: Any) -> None:
        try:
            await self._query(connection, "nonsense")
        except DBAPIError as error:
            if "nonsense" not in str(error.orig):
                raise
            now, judge = time.monotonic(), self.lane.judge
            judge.check(
                "errors are those expected",
                # unless the connection ended with it
                not error.connection_invalidated
                or judge.excused("query", self.lane.name, now, now),
                "a mistake was taken for a disconnect: {}",
                error,
            )
        if self._chance.random() < 0.5:
            await self._ask(connection.rollback)
            await self._echo(connection)

    async def _change_settings(self, connection: Any) -> None:
        """In a transaction that is not committed."""
        for statement in self._words.settings:
            await self._ask(
                connection.execute, text(statement), {"token": self.token}
            )
        await self._echo(connection)

    async def _change_isolation(self, connection: Any) -> None:
        level = self._chance.choice(["AUTOCOMMIT", "SERIALIZABLE"])
        await self._ask(connection.rollback)
        if self.lane.asynchronous:
            await connection.execution_options(isolation_level=level)
        else:
            connection.execution_options(isolation_level=level)
        await self._echo(connection)

    async def _read_in_part(self, connection: Any) -> None:
        rows = await self._query(connection, "rows")
        first = rows.fetchmany(3)
        self.lane.judge.check(
            "an answer belongs to its question",
            [row[0] for row in first] == [1, 2, 3],
            "{} counted {}",
            self.token,
            first,
        )
        await self._hold()

    async def _wait_in_database(self, connection: Any) -> None:
        seconds = self._chance.uniform(0.0, 0.2)
        await self._query(connection, "sleep", seconds=seconds)

    async def _invalidate(self, connection: Any) -> None:
        await self._echo(connection)
        self._release(self._fairy(connection))
        await self._ask(connection.invalidate)

    async def _drop(self, connection: Any) -> None:
        """Leave it to the garbage collector."""
        await self._echo(connection)
        self._kept = False
        self.lane.left += 1
        self.lane.dropped_at = time.monotonic()

    def _drop_it(self, fairy: Any) -> None:
        if self.lane.asynchronous and fairy.is_valid:
            self.lane.dropped += 1
            self.lane.books.drop(fairy._connection_record)

    # -- how it ended -----------------------------------------------------

    def _failed(self, error: Exception) -> None:
        lane, judge = self.lane, self.lane.judge
        ended = time.monotonic()
        took = ended - self.begun
        kind = kind_of(error)
        if kind == "driver":
            kind = "connect" if self.phase == "checkout" else "query"
        if self.phase == "checkout":
            self._check_duration(took)
        lane.failed(f"{kind}: {name_of(error)}")
        own = self.patience is not None
        patience = min(lane.reconnect_timeout, self.timeout)
        if kind == "timeout" and own:
            excused = took >= (self.patience or 0.0) - 0.001
        else:
            excused = judge.excused(kind, lane.name, self.begun, ended)
        if kind == "connect" and not own:
            excused = excused and took >= patience - 0.001
        judge.check(
            "errors are those expected",
            excused,
            "{}: {} after {:.3f} s in its {}: {}: {}",
            self.token,
            kind,
            took,
            self.phase,
            name_of(error),
            str(error)[:300],
        )


class Worker:
    """Somebody who visits a pool again and again."""

    def __init__(self, lane: Lane, number: int) -> None:
        self._lane = lane
        self.name = f"{lane.name}-{number}"
        self._chance = random.Random(f"{lane.judge.seed} {self.name}")
        #: one in each lane computes in Python for a while
        self._computes = number == 0
        #: checkouts asked for, and those of them that were cancelled
        self.asked = self.cancelled = 0

    async def work(self) -> None:
        lane, chance = self._lane, self._chance
        while not lane.leaving:
            await lane.sleep(min(chance.expovariate(1 / _THINKS), 2.0))
            if self._computes and chance.random() < 0.1:
                _compute(chance.uniform(0.01, 0.05))
            self.asked += 1
            visit = Visit(lane, f"{self.name}-{self.asked}", chance)
            if lane.asynchronous and chance.random() < _CANCELLED:
                await self._visit_cancelled(visit)
            else:
                await visit.run()

    async def _visit_cancelled(self, visit: Visit) -> None:
        """Cancel a visit at some moment, and maybe its farewell as well."""
        task = asyncio.ensure_future(visit.run())
        wait = self._chance.uniform(0.0, 0.05)
        again = self._chance.choice([0, 0, 1])
        for _ in range(1 + again):
            await asyncio.wait([task], timeout=wait)
            phase = visit.phase
            if not task.done():
                task.cancel()
                self._lane.cancelled += 1
                self._lane.cancelled_at = time.monotonic()
                wait = self._chance.uniform(0.0, 0.002)
        await asyncio.wait([task])
        if phase == "checkout" and visit.phase == "checkout":
            self.cancelled += 1
        if not task.cancelled():
            task.result()


def _compute(seconds: float) -> None:
    """Hold on to the interpreter."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        sum(range(1000))


def kind_of(error: BaseException) -> str:
    """Which kind of error this is, as a fault's ``allows`` names it."""
    if isinstance(error, PoolClosedError):
        return "closed"
    if isinstance(error, PoolTimeoutError):
        return "timeout"
    drivers = ("asyncpg", "psycopg", "psycopg2", "pg8000", "aiomysql")
    drivers += ("pymysql", "MySQLdb", "asyncmy")
    if isinstance(error, DBAPIError):
        return "driver"
    # a connect in the middle of a statement is wrapped as one, whatever fails
    error = getattr(error, "orig", None) or error
    module = type(error).__module__.partition(".")[0]
    if isinstance(error, OSError) or module in drivers:
        return "driver"
    return "other"


def name_of(error: BaseException) -> str:
    return type(getattr(error, "orig", None) or error).__name__
