"""What greenlets do with a pool, and what must hold then; under gevent."""

from __future__ import annotations

import gc
import random
import sys
import time
from typing import Any
from typing import Callable
from typing import Optional

import gevent
from gevent.event import Event
from greenlet import GreenletExit
from greenlet import settrace
from sqlalchemy import create_engine
from sqlalchemy import event
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from sqla_smartpool import SmartPool
from sqla_smartpool.exc import PoolTimeoutError
from tests.lab.scripts import told

SIZE = 4
#: longer than anything takes here, seconds
LONG = 60.0
#: long before upkeep looks again, seconds
SOON = 10.0
ONE = text("SELECT 1")

Operation = Callable[[], Any]


def new_engine(**options: Any) -> Any:
    options = {"max_size": SIZE, "check_interval": 60.0, **options}
    return create_engine(**told(), poolclass=SmartPool, **options)


def visit(engine: Any, question: int = 1) -> None:
    with engine.connect() as connection:
        answer = connection.scalar(text(f"SELECT {question}"))
        assert answer == question, "the answer to another question"


def together(*jobs: Operation) -> None:
    """Do jobs, each as a greenlet; raises what one of them raises."""
    greenlets = [gevent.spawn(job) for job in jobs]
    with gevent.Timeout(LONG):
        gevent.joinall(greenlets, raise_error=True)


def is_quiet(pool: Any) -> bool:
    stats = pool.stats()
    waiting: int = stats.requests_waiting
    return waiting == stats.pool_in_use == stats.pool_connecting == 0


def is_whole(engine: Any, size: int = SIZE) -> None:
    """Nothing was lost, and every connection answers what it is asked."""
    gc.collect()
    pool = engine.pool
    with gevent.Timeout(LONG):
        while not is_quiet(pool):
            gevent.sleep(0.01)
        held = [engine.connect() for _ in range(size)]
        for number, connection in enumerate(held):
            answer = connection.scalar(text(f"SELECT {number + 7}"))
            assert answer == number + 7, "the answer to another question"
            connection.close()
    stats = pool.stats()
    assert stats.pool_size == stats.pool_available == size, stats
    assert stats.reclaimed == 0, stats


# -- load, timeouts and kills ----------------------------------------------


def storm() -> None:
    """Some are killed, some run out of time, wherever they are."""
    engine = new_engine(min_size=2, pool_timeout=20, check_interval=0.5)
    engine.pool.start()
    torn = served = asked = 0

    def use() -> None:
        nonlocal asked, served
        asked += 1
        visit(engine, asked)
        served += 1

    def run_out_of_time() -> None:
        nonlocal torn
        try:
            with gevent.Timeout(0.1 * random.random() ** 2):
                use()
        except gevent.Timeout:
            torn += 1

    def be_killed() -> None:
        nonlocal torn
        victim = gevent.spawn(use)
        gevent.sleep(0.1 * random.random() ** 2)
        victim.kill()
        torn += isinstance(victim.get(), GreenletExit)

    def again_and_again(job: Operation) -> Operation:
        def do() -> None:
            while torn < 500:
                job()

        return do

    jobs = [run_out_of_time] * 10 + [be_killed] * 10 + [use] * 5
    together(*map(again_and_again, jobs))
    assert served > 50, served
    is_whole(engine)
    assert engine.pool.stats().requests_timeouts == 0
    engine.dispose()


# -- kills at every switch -------------------------------------------------


class Switches:
    """Tears a greenlet away where it switches for the k-th time."""

    def __init__(self, at: int, error: Any) -> None:
        self.at = at
        self._error = error
        self._count = 0
        self._victim: Any = None
        self.where = ""

    def tear(self, job: Operation) -> Any:

        def do() -> Any:
            try:
                return job()
            except self._error as error:  # gevent would print others
                return error

        self._victim = gevent.spawn(do)
        settrace(self._switched)
        return self._victim

    def end(self) -> None:
        settrace(None)

    def _switched(self, kind: str, who: tuple[Any, Any]) -> None:
        if who[0] is not self._victim or self._victim.dead or self.where:
            return
        self._count += 1
        if self._count == self.at:
            frame = self._victim.gr_frame or sys._getframe()
            self.where = f"{frame.f_code.co_name}:{frame.f_lineno}"
            self._victim.kill(self._error, block=False)


class OutOfTime(BaseException):
    """As a timeout is raised."""


class Scene:
    """An engine with two connections, and who has them."""

    def __init__(self) -> None:
        self.engine = new_engine(max_size=2, pool_timeout=LONG)
        self.held: list[Any] = []

    def hold(self) -> None:
        for _ in range(2):
            self.held.append(self.engine.connect())
            self.held[-1].scalar(ONE)

    def release(self) -> None:
        while self.held:
            self.held.pop().close()

    def release_later(self) -> None:
        gevent.sleep(0.02)
        self.release()

    def fill(self) -> None:
        self.hold()
        self.release()

    def visit(self) -> None:
        visit(self.engine)

    def visit_soon(self) -> None:
        """Be served long before upkeep looks again."""
        with gevent.Timeout(SOON):
            self.visit()

    def torn(self, scenario: Callable[[Scene], Operation], at: int) -> bool:
        """Tear somebody away; whoever comes next is served.

        :return: False: it did not switch so often.
        """
        operation = scenario(self)
        error = random.choice([GreenletExit, OutOfTime])
        switches = Switches(at, error)
        victim = switches.tear(operation)
        try:
            together(self.visit_soon, self.release_later)
            victim.join(LONG)
        finally:
            switches.end()
        assert victim.dead, switches.where
        if not switches.where:
            victim.get()
            self.engine.dispose()
            return False
        assert isinstance(victim.get(), error), (switches.where, victim)
        is_whole(self.engine, 2)
        self.engine.dispose()
        return True


def first(scene: Scene) -> Operation:
    scene.engine = new_engine(max_size=2, pool_timeout=LONG)
    return scene.visit


def empty(scene: Scene) -> Operation:
    return scene.visit


def idle(scene: Scene) -> Operation:
    scene.fill()
    return scene.visit


def suspect(scene: Scene) -> Operation:
    scene.fill()
    pool = scene.engine.pool
    for record in pool.inventory.members:
        record.suspect(pool.runtime.clock() + 1.0)
    return scene.visit


def expired(scene: Scene) -> Operation:
    scene.fill()
    pool = scene.engine.pool
    for record in pool.inventory.members:
        record.born -= pool.settings.max_lifetime
        record.judge()
    return scene.visit


def full(scene: Scene) -> Operation:
    scene.hold()
    return scene.visit


def returning(scene: Scene) -> Operation:
    scene.hold()
    close: Operation = scene.held.pop().close
    return close


def kills() -> None:
    number = 0
    for scenario in first, empty, idle, suspect, expired, full, returning:
        scene = Scene()
        at = 1
        while scene.torn(scenario, at):
            at += 1
        number += at - 1
    # pymysql often need not wait for what a server nearby answers
    assert number > 5, f"there were {number} switches"


# -- what takes long -------------------------------------------------------


def quiet() -> None:
    """Nobody does anything for a while; then the floor is looked after."""
    engine = new_engine(min_size=2, check_interval=3.0)
    engine.pool.start()
    gevent.sleep(4.0)
    is_whole(engine)
    engine.dispose()


def dropped() -> None:
    """A dropped connection that is reset slowly is nobody else's."""
    engine = new_engine(max_size=1)
    pool: Any = engine.pool
    under_way = Event()
    go_on = Event()

    def hold_up(*_: Any) -> None:
        under_way.set()
        go_on.wait()

    event.listen(engine, "reset", hold_up)

    def drop() -> None:
        connection: Optional[Any] = engine.raw_connection()
        assert connection is not None
        connection = None

    dropping = gevent.spawn(drop)
    assert under_way.wait(LONG)
    now = pool.runtime.clock()
    for seconds in (0.0, 2.0, 500.0, 1000.0):
        pool.upkeep._reclaim(now + seconds)
    go_on.set()
    dropping.get()
    is_whole(engine, 1)
    assert pool.stats().connections_num == 1
    engine.dispose()


def frozen() -> None:
    """The server stops answering; nobody waits longer than he would."""
    engine = new_engine(
        max_size=2, pool_timeout=2.0, ping_timeout=1.0, ping_after=0.0
    )
    is_whole(engine, 2)  # what nobody has used yet would be trusted
    print("freeze")
    gevent.get_hub().threadpool.apply(sys.stdin.readline)

    def fail() -> None:
        began = time.monotonic()
        try:
            visit(engine)
        except (PoolTimeoutError, DBAPIError):
            took = time.monotonic() - began
            assert took < 2.0 + 5.0, took
        else:
            raise AssertionError("the server answers")

    together(*[fail] * 4)
    print("thaw")
    gevent.get_hub().threadpool.apply(sys.stdin.readline)
    with gevent.Timeout(LONG):
        while True:
            try:
                is_whole(engine, 2)
            except (PoolTimeoutError, DBAPIError):
                continue  # what was sent into the void comes back late
            break
    engine.dispose()
