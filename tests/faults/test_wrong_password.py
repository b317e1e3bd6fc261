"""The password was changed, and the pool does not know the new one."""

from __future__ import annotations

from functools import partial
import threading
import time
from typing import Any
from typing import Iterator

import pytest
from sqlalchemy import create_engine
from sqlalchemy import Engine
from sqlalchemy import event

from sqla_smartpool import SmartPool
from sqla_smartpool.backoff import is_authentication_error
from tests.faults.conftest import Durations
from tests.lab import matrix
from tests.lab.lanes import Lane
from tests.lab.lanes import Lanes
from tests.lab.manual import ManualRuntime
from tests.lab.matrix import Case

pytestmark = pytest.mark.slow

#: a bound may be missed by this factor on a slow machine
MARGIN = 5.0
#: after a wrong password: so many attempts, and then one per so many seconds
BUCKET, EVERY = 3, 5.0
CALLERS = 8
SIZE = 3

CHANGE = {
    "PostgreSQL": "ALTER ROLE smart PASSWORD '{}'",
    "MariaDB": "SET PASSWORD FOR smart = PASSWORD('{}')",
}
CASES = [
    Case("postgresql+psycopg", "postgresql"),
    Case("postgresql+psycopg", "postgresql", "tls"),
    Case("postgresql+asyncpg", "postgresql"),
    Case("mysql+pymysql", "mariadb"),
    Case("mysql+aiomysql", "mariadb"),
]


class Rotation:
    """The password of a server's clients, which is another from ``at`` on.

    Nobody knows the new one before ``told_at``.  At the end it is as it was,
    as other tests know no other.
    """

    def __init__(self, server: Any) -> None:
        self._server = server
        self.at = self.all_out_at = self.told_at = 0.0
        self.over = threading.Event()
        self._valid = self.known = server.password

    def rotate(self) -> None:
        """Change it, and have everybody log in anew."""
        self.at = time.monotonic()
        self._change("another-" + self._server.password)
        self._server.terminate()
        self.all_out_at = time.monotonic()

    def tell(self) -> None:
        """From now on, who asks is told the new one."""
        self.told_at = time.monotonic()
        self.known = self._valid
        self.over.set()

    def undo(self) -> None:
        self._change(self._server.password)

    def _change(self, password: str) -> None:
        self._server.execute(CHANGE[self._server.name].format(password))
        self._valid = password


@pytest.fixture
def rotations(
    lanes: Lanes,
) -> Iterator[dict[str, Rotation]]:
    rotations: dict[str, Rotation] = {}
    for case in matrix.installed(CASES):
        server = lanes.server(case)
        rotations.setdefault(str(case.server), Rotation(server))
    yield rotations
    for rotation in rotations.values():
        rotation.undo()


class Vault:
    """Where an engine gets the password from, each time that it connects."""

    def __init__(self, rotation: Rotation) -> None:
        self._rotation = rotation
        #: when it was asked
        self.asked: list[float] = []

    def password(self) -> str:
        self.asked.append(time.monotonic())
        known: str = self._rotation.known
        return known

    def listen(self, engine: Engine) -> None:
        """Give it by the event ``do_connect``."""

        @event.listens_for(engine, "do_connect")
        def connect(
            dialect: Any, record: Any, args: Any, params: dict[str, Any]
        ) -> None:
            params["password"] = self.password()

    def engine_by_creator(self, lane: Lane) -> Engine:
        """Give it by a ``creator`` of the engine's."""

        def creator() -> Any:
            dialect = engine.dialect
            args, params = dialect.create_connect_args(engine.url)
            params.update(lane.connect_args(), password=self.password())
            return dialect.loaded_dbapi.connect(*args, **params)

        engine = lane.smart(creator=creator, **SIZES)
        return engine


SIZES: dict[str, Any] = {"min_size": SIZE, "max_size": SIZE}


def judge_attempts(made: list[float], side_by_side: int) -> None:
    """They are in the bucket, from the first failure on.

    :param side_by_side: how many may have been under way when it came.
    """
    assert made, "it did not try"
    within = made[-1] - made[0]
    assert len(made) <= side_by_side + BUCKET + within / EVERY + 1, made


def with_callers(rotation: Rotation, how: str, lane: Lane) -> None:
    vault = Vault(rotation)
    if how == "creator":
        engine = vault.engine_by_creator(lane)
    else:
        engine = lane.smart(**SIZES)
        vault.listen(engine)
    pool: Any = engine.pool
    lane.wait(pool.start())
    lane.ready()
    lane.until(lambda: rotation.at)
    made = lane.load(engine, CALLERS, rotation.over.is_set)
    told_at = rotation.told_at
    judge_attempts([a for a in vault.asked if rotation.at < a < told_at], SIZE)
    refused = [each for each in made if each.asked > rotation.all_out_at]
    assert refused
    for request in refused:
        # those who came last may have been served with the new password
        if request.ended < told_at:
            assert request.error is not None
            assert is_authentication_error(request.error)
            # no longer than until the next attempt
            assert request.took < EVERY + 0.3 * MARGIN
    served_at = lane.until(lambda: lane.request(engine).error is None)
    assert served_at - told_at < EVERY + 1.0 * MARGIN
    lane.until(lambda: pool.stats().pool_available == SIZE, 30.0)
    assert len(vault.asked) == pool.stats().connections_num


def without_callers(rotation: Rotation, lane: Lane) -> None:
    vault = Vault(rotation)
    engine = lane.smart(check_interval=0.2, **SIZES)
    vault.listen(engine)
    pool: Any = engine.pool
    lane.wait(pool.start())
    lane.ready()
    lane.until(rotation.over.is_set, 120.0)
    asked = [when for when in vault.asked if when > rotation.at]
    assert asked, "upkeep did not try"
    # those under way when the first one failed, and then one in 30 s
    later = [when for when in asked if when > asked[0] + 0.3 * MARGIN]
    assert len(asked) - len(later) <= pool.settings.num_workers
    times = [asked[0], *later]
    pauses = [b - a for a, b in zip(times, times[1:])]
    assert all(pause > 30.0 - 0.3 * MARGIN for pause in pauses)


def test_a_wrong_password_is_tried_within_the_bucket_and_told_at_once(
    lanes: Lanes, rotations: dict[str, Rotation], durations: Durations
) -> None:
    for case in matrix.installed(CASES):
        rotation = rotations[str(case.server)]
        for how in ("do_connect", "creator"):
            lanes.enter(case, partial(with_callers, rotation, how), how)
        lanes.enter(case, partial(without_callers, rotation), "no callers")
    lanes.all_ready()
    for rotation in rotations.values():
        rotation.rotate()
    time.sleep(durations.lockout)
    for rotation in rotations.values():
        rotation.tell()
    lanes.end()


@pytest.mark.pain("storm while down")
@pytest.mark.parametrize("callers", [False, True])
@pytest.mark.parametrize(
    "drivername, kind",
    [("postgresql+psycopg", "postgresql"), ("mysql+pymysql", "mariadb")],
)
def test_ten_minutes_of_a_wrong_password_stay_within_the_bucket(
    request: pytest.FixtureRequest,
    rotations: dict[str, Rotation],
    drivername: str,
    kind: str,
    callers: bool,
) -> None:
    server = request.getfixturevalue(kind)
    runtime = ManualRuntime()
    engine = create_engine(
        server.url(drivername),
        connect_args=server.connect_args(drivername),
        poolclass=SmartPool,
        _runtime=runtime,
        **SIZES,
    )
    attempts: list[float] = []
    event.listen(
        engine, "do_connect", lambda *args: attempts.append(runtime.now)
    )
    engine.pool.start()  # type: ignore[attr-defined]
    del attempts[:]
    rotations[kind].rotate()
    ends = runtime.now + 600.0
    while runtime.now < ends:
        if callers:
            with pytest.raises(Exception) as refused:
                engine.connect()
            assert is_authentication_error(refused.value)
        runtime.advance(1.0)
    if callers:
        judge_attempts(attempts, 1)
    else:
        # those under way when the first one failed count as one
        times = sorted(set(attempts))
        pauses = [b - a for a, b in zip(times, times[1:])]
        assert len(attempts) - len(times) < SIZE
        assert len(pauses) >= 15
        assert min(pauses) >= 30.0
    engine.dispose()
