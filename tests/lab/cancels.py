"""What tasks are doing when one of them is cancelled, and what must hold.

A :class:`Scene` is an engine on a server.  The functions after it bring it
into a state, and return what a task does then.
"""

from __future__ import annotations

import asyncio
import gc
import time
from typing import Any
from typing import Callable

from sqlalchemy import text

from sqla_smartpool._sqlalchemy import await_
from sqla_smartpool._sqlalchemy import greenlet_spawn
from tests.lab.awaits import Awaits
from tests.lab.awaits import Moment
from tests.lab.matrix import Client
from tests.lab.matrix import LONG
from tests.lab.matrix import ONE

SIZE = 2
#: whoever waits is served long before this, seconds; upkeep does not look
#: again so soon
SOON = 10.0


class Scene:
    """An engine, who has its connections, and who wants one."""

    def __init__(self, side: Client) -> None:
        self.side = side
        self.engine = self._new_engine()
        self.held: list[Any] = []
        #: what others do, once the task waits that may be cancelled
        self.later: list[Callable[[], object]] = []
        #: the numbers of the connections that the cancelled task talked to
        self._talked_to: set[int] = set()
        self._pools: list[Any] = []

    def _new_engine(self) -> Any:
        return self.side.smart(
            max_size=SIZE, check_interval=60.0, pool_timeout=LONG
        )

    @property
    def pool(self) -> Any:
        return self.engine.pool

    # -- what states are made of -------------------------------------------

    def hold(self, number: int = SIZE) -> None:
        self.held += self.side.hold(self.engine, number)

    def release(self) -> None:
        while self.held:
            self.held.pop().close()

    def fill(self) -> None:
        self.hold()
        self.release()

    def visit(self) -> None:
        """Check a connection out, use it, and return it."""
        with self.engine.connect() as connection:
            assert connection.scalar(ONE) == 1

    def suspect(self) -> None:
        """Have every connection answer a ping before it is handed out."""
        for record in self.pool.inventory.members:
            # later than the last bytes, by the kernel's coarse clock as well
            record.suspect(self.pool.runtime.clock() + 1.0)

    def age(self) -> None:
        """Make every connection too old to be handed out."""
        for record in self.pool.inventory.members:
            record.born -= self.pool.settings.max_lifetime
            record.judge()

    def upkeep(self) -> None:
        """Have upkeep make a pass."""
        self.pool.upkeep._look()

    def renew(self) -> None:
        """Go on with an engine that nobody has used yet."""
        self.engine.dispose()
        self.engine = self._new_engine()

    # -- one cancellation --------------------------------------------------

    def cancel(self, scenario: Scenario, at: int, moment: Moment) -> Awaits:
        """Bring a task into a state, and cancel it or one of the pool's.

        :return: tells whether there was such an await, and where.
        """
        self.later = []
        self._talked_to = set()
        operation = scenario(self)
        self._pools = [self.pool]
        self._settle()
        with Awaits(at, moment, self._see) as awaits:
            task = asyncio.ensure_future(greenlet_spawn(operation))
            others = [self._next(), *map(_in_a_moment, self.later)]
            everybody = [task, *map(asyncio.ensure_future, others)]
            _, pending = await_(asyncio.wait(everybody, timeout=LONG))
            assert not pending, f"not ended: {pending}, {awaits}"
            self._pools.append(self.pool)
            self._settle()
            for each in everybody:
                if each is not awaits.task:
                    each.result()
            if awaits.task is not None:
                assert awaits.task.cancelled(), f"was not: {awaits}"
        return awaits

    def _see(self, talking: list[Any]) -> None:
        talking += [getattr(each, "_adapt_connection", 0) for each in talking]
        self._talked_to = {
            record.number
            for record in self.pool.inventory.members
            if any(record.dbapi_connection is each for each in talking)
        }

    async def _next(self) -> None:
        """Whoever comes next is served, and soon."""
        began = time.monotonic()
        await greenlet_spawn(self.visit)
        assert time.monotonic() - began < SOON

    def _settle(self) -> None:
        """Wait until the pool does nothing by itself."""
        for pool in self._pools:
            tasks = pool.runtime._tasks
            self.side.eventually(lambda: not tasks, "the pool's tasks end")

    def check(self) -> None:
        """Nothing is lost, and nothing is out of step."""
        pool = self.pool
        gc.collect()
        self.release()
        self._settle()
        stats = pool.stats()
        assert stats.pool_in_use == stats.requests_waiting == 0, stats
        assert stats.pool_connecting == stats.reclaimed == 0, stats
        assert stats.requests_timeouts == 0, stats
        assert stats.pool_available == stats.pool_size, stats
        assert not pool.inventory.tending and not pool.inventory.asked
        numbers = {record.number for record in pool.inventory.members}
        assert not numbers & self._talked_to, "what was interrupted is cut"
        self.side.eventually(self.side.has(stats.pool_size), "as it is told")
        self._are_in_step()

    def _are_in_step(self) -> None:
        """Every connection answers what it is asked."""
        taken = [self.engine.connect() for _ in range(SIZE)]
        for number, connection in enumerate(taken):
            answer = connection.scalar(text(f"SELECT {number} + 7"))
            assert answer == number + 7
            connection.close()

    def reset(self) -> None:
        """A new pool, none of whose connections is open yet."""
        self.engine.dispose()
        self.side.eventually(self.side.has(0), "nothing is left")


async def _in_a_moment(job: Callable[[], object]) -> None:
    await asyncio.sleep(0.02)
    await greenlet_spawn(job)


Operation = Callable[[], Any]
Scenario = Callable[[Scene], Operation]


# -- checkouts -------------------------------------------------------------


def first(scene: Scene) -> Operation:
    """An engine that nobody has used yet, and that looks around."""
    scene.renew()
    return scene.visit


def idle(scene: Scene) -> Operation:
    scene.fill()
    return scene.visit


def suspect(scene: Scene) -> Operation:
    scene.fill()
    scene.suspect()
    return scene.visit


def dead(scene: Scene) -> Operation:
    scene.fill()
    scene.side.server.terminate()
    return scene.visit


def expired(scene: Scene) -> Operation:
    scene.fill()
    scene.age()
    return scene.visit


def empty(scene: Scene) -> Operation:
    return scene.visit


def full(scene: Scene) -> Operation:
    scene.hold()
    scene.later.append(scene.release)
    return scene.visit


# -- checkins --------------------------------------------------------------


def returning(scene: Scene) -> Operation:
    scene.hold()
    close: Operation = scene.held.pop().close
    return close


def returning_to_retire(scene: Scene) -> Operation:
    scene.hold()
    connection = scene.held.pop()
    connection.connection._connection_record.going = "lifetime"
    close: Operation = connection.close
    return close


def returning_to_a_disposed_pool(scene: Scene) -> Operation:
    scene.hold()
    close: Operation = scene.held.pop().close
    scene.engine.dispose()
    return close


def invalidating(scene: Scene) -> Operation:
    scene.hold()
    invalidate: Operation = scene.held.pop().invalidate
    return invalidate


# -- upkeep ----------------------------------------------------------------


def pinging(scene: Scene) -> Operation:
    scene.fill()
    scene.suspect()
    return scene.upkeep


def cutting(scene: Scene) -> Operation:
    scene.fill()
    scene.side.server.terminate()
    return scene.upkeep


def renewing(scene: Scene) -> Operation:
    scene.hold(1)
    scene.release()
    scene.age()
    return scene.upkeep


def closing_surplus(scene: Scene) -> Operation:
    scene.fill()
    for record in scene.pool.inventory.members:
        record.idle_since -= scene.pool.settings.keep_alive
    return scene.upkeep


def filling(scene: Scene) -> Operation:
    scene.side.wait(scene.pool.resize(min_size=SIZE))
    return scene.pool.upkeep.begin  # type: ignore[no-any-return]


# -- on request ------------------------------------------------------------


def on_request(name: str, **arguments: Any) -> Scenario:
    """A method of the pool's, with all its connections idle."""

    def scenario(scene: Scene) -> Operation:
        scene.fill()
        method = getattr(scene.pool, name)
        return lambda: scene.side.wait(method(**arguments))

    scenario.__name__ = name
    return scenario


def starting(scene: Scene) -> Operation:
    scene.side.wait(scene.pool.resize(min_size=SIZE))
    return lambda: scene.side.wait(scene.pool.start())


def disposing(scene: Scene) -> Operation:
    scene.fill()
    return scene.engine.dispose


SCENARIOS = [
    first,
    idle,
    suspect,
    dead,
    expired,
    empty,
    full,
    returning,
    returning_to_retire,
    returning_to_a_disposed_pool,
    invalidating,
    pinging,
    cutting,
    renewing,
    closing_surplus,
    filling,
    starting,
    disposing,
    on_request("check"),
    on_request("drain"),
]

#: it ends sessions, or is what connections are opened beside callers for
NEED_A_SERVER = [dead, cutting, renewing, filling]
