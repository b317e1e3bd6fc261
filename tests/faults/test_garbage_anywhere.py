"""The garbage collector returns a connection in the middle of the pool's own
code: at every line of what callers and upkeep do, one after the other."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
from typing import Any
from typing import Iterator
from typing import NamedTuple

import pytest
from sqlalchemy import event

from sqla_smartpool import PoolTimeoutError
from sqla_smartpool.upkeep import Upkeep
from tests.lab import matrix
from tests.lab.matrix import Client
from tests.lab.stage import doomed
from tests.lab.stage import PATIENCE
from tests.lab.stage import Stage
from tests.lab.stage import Story
from tests.lab.steps import Steps


def use(stage: Stage) -> None:
    stage.engine.connect().close()


def take_what_another_gives_back(stage: Stage) -> None:
    stage.hand_back_later()
    use(stage)


def be_refused(stage: Stage) -> None:
    def refuse(*arguments: Any) -> None:
        raise OSError("refused")

    event.listen(stage.engine, "do_connect", refuse)
    try:
        use(stage)
    except OSError:
        pass
    finally:
        event.remove(stage.engine, "do_connect", refuse)


def meet_an_unhealthy_one(stage: Stage) -> None:
    ill: list[Any] = []

    @event.listens_for(stage.engine, "health_check")
    def check(connection: Any, record: Any) -> None:
        if not ill:
            ill.append(connection)
            raise OSError("ill")

    stage.runtime.now += 100.0
    use(stage)


def invalidate(stage: Stage) -> None:
    with stage.engine.connect() as connection:
        connection.invalidate()


def detach(stage: Stage) -> None:
    with stage.engine.connect() as connection:
        connection.detach()


def meet_a_disconnect(stage: Stage) -> None:
    stage.pool._invalidate(stage.engine.raw_connection())
    use(stage)


def resize(stage: Stage) -> None:
    stage.pool.resize(max_size=1)
    stage.pool.resize(max_size=3)
    use(stage)


def pause_and_resume(stage: Stage) -> None:
    stage.pool.pause()
    stage.runtime.call_later(1.0, stage.pool.resume)
    use(stage)


def drain(stage: Stage) -> None:
    stage.pool.drain()
    stage.runtime.run_jobs()


def look_on(stage: Stage) -> None:
    stage.pool.stats()
    stage.pool.status()


LONG = os.environ.get("SMARTPOOL_FAULTS") == "long"


class Scene(NamedTuple):
    story: Story
    #: of these there are so many, besides the one that is dropped
    idle: int
    options: dict[str, Any]


#: connections are pinged, and replaced, and closed, within three seconds
HURRIED = {
    "check_interval": 1.0,
    "ping_after": 0.5,
    "keep_alive": 2.0,
    "max_lifetime": 2.5,
}
SCENES = {
    "takes an idle one": Scene(use, 1, {"max_size": 2}),
    "waits for it": Scene(use, 0, {"max_size": 1}),
    "has one opened": Scene(use, 0, {"max_size": 2}),
    "waits for another's": Scene(
        take_what_another_gives_back, 0, {"max_size": 2}
    ),
    "is refused": Scene(be_refused, 0, {"max_size": 2}),
    "meets an unhealthy one": Scene(meet_an_unhealthy_one, 1, {"max_size": 2}),
    "meets a disconnect": Scene(meet_a_disconnect, 2, {"max_size": 3}),
    "invalidates": Scene(invalidate, 1, {"max_size": 2}),
    "detaches": Scene(detach, 1, {"max_size": 2}),
    "upkeep": Scene(
        lambda stage: stage.runtime.advance(3.0),
        2,
        {"min_size": 1, "max_size": 3, **HURRIED},
    ),
    "starts": Scene(
        lambda stage: stage.pool.start(), 0, {"min_size": 3, "max_size": 4}
    ),
    "stops": Scene(lambda stage: stage.pool.stop(1.0), 2, {"max_size": 3}),
    "disposes": Scene(lambda stage: stage.pool.dispose(), 2, {"max_size": 3}),
    "checks": Scene(lambda stage: stage.pool.check(), 2, {"max_size": 3}),
    "resizes": Scene(resize, 2, {"max_size": 3}),
    "drains": Scene(drain, 2, {"max_size": 4}),
    "pauses": Scene(pause_and_resume, 0, {"max_size": 1}),
    "looks on": Scene(look_on, 2, {"max_size": 3}),
}


side = matrix.side


@pytest.fixture(autouse=True)
def heap() -> Iterator[None]:
    """A collection looks at what the test has made, and is quick."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def nothing_is_said(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Neither an error in a log, nor one where nobody can catch it."""
    unraisable: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    caplog.set_level(logging.WARNING)
    yield
    assert not unraisable
    assert not caplog.messages


def play(scene: Scene, url: str, at: int, **following: Any) -> Steps:
    """Play a scene once, and drop a connection at one of its steps."""
    stage = Stage(url, **scene.options)
    stage.doom()
    for connection in [stage.engine.connect() for _ in range(scene.idle)]:
        connection.close()
    dropped_at: list[float] = []

    def drop() -> None:
        dropped_at.append(stage.runtime.now)
        stage.drop()

    gives_up_at = stage.runtime.now + PATIENCE
    try:
        with Steps(at, drop, **following) as steps:
            scene.story(stage)
    except PoolTimeoutError:
        # what comes after the timeout has run out is too late
        assert not steps.done or dropped_at[0] >= gives_up_at, steps.where
    if steps.done:
        assert stage.find_faults() == [], steps.where
    else:
        stage.drop()
    stage.end()
    return steps


def play_to_the_end(scene: Scene, url: str, **following: Any) -> int:
    """Play it with the drop at each step; returns how many there are."""
    at = 1
    while play(scene, url, at, **following).done:
        at += 1
    return at - 1


@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
def test_a_connection_collected_at_any_line_of_the_pool_is_not_lost(
    scene: Scene, tmp_path: Any
) -> None:
    url = f"sqlite:///{tmp_path}/garbage.db"
    assert play_to_the_end(scene, url, visits=1) > 20


def test_a_connection_collected_while_upkeep_looks_for_lost_ones_is_none(
    tmp_path: Any,
) -> None:
    url = f"sqlite:///{tmp_path}/garbage.db"
    steps = play_to_the_end(
        SCENES["upkeep"], url, fine=True, within=Upkeep._reclaim
    )
    assert steps > 100


@matrix.on([case for case in matrix.BOTH if case.asynchronous])
@pytest.mark.filterwarnings("ignore:The garbage collector:Warning")
def test_an_async_one_collected_at_any_line_leaves_its_room_to_who_waits(
    side: Client, caplog: pytest.LogCaptureFixture
) -> None:
    # what SQLAlchemy says of each
    caplog.set_level(logging.CRITICAL, "sqlalchemy.pool")
    engine = side.smart(max_size=1, pool_timeout=30, check_interval=0.05)
    at, steps = 1, None
    while steps is None or steps.done:
        held = [doomed(engine.connect())]

        def drop() -> None:
            held.clear()
            gc.collect()

        # no step is left to drop it at when upkeep has looked some times
        anyway = asyncio.get_running_loop().call_later(0.3, drop)
        with Steps(at, drop, visits=1) as steps:
            engine.connect().close()
        anyway.cancel()
        # a new connection each time: one line in four will do
        at += 1 if LONG else 4
    assert at > 100
    side.use(engine, 1)
    side.eventually(side.has(1), "the others have ended")
    stats = engine.pool.stats()
    assert (stats.pool_size, stats.pool_available) == (1, 1)
    assert stats.reclaimed == 0


@pytest.mark.slow
@pytest.mark.skipif(
    not LONG, reason="takes minutes; SMARTPOOL_FAULTS=long runs it"
)
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
def test_a_connection_collected_at_any_bytecode_of_the_pool_is_not_lost(
    scene: Scene, tmp_path: Any
) -> None:
    url = f"sqlite:///{tmp_path}/garbage.db"
    # what explains a long wait goes through every frame and every line: the
    # fourth time round says no more than the first three
    assert play_to_the_end(scene, url, fine=True, visits=3) > 100
