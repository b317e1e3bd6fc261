"""Where threads and tasks stand, and who awaits whom."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from typing import Any
from typing import Awaitable
from typing import Callable
from typing import Iterator
from typing import Optional
import weakref

import anyio
import pytest

from sqla_smartpool._sqlalchemy import await_
from sqla_smartpool._sqlalchemy import greenlet_spawn
from sqla_smartpool.whereabouts import current_task
from sqla_smartpool.whereabouts import frames_of_thread
from sqla_smartpool.whereabouts import here
from sqla_smartpool.whereabouts import in_hand
from sqla_smartpool.whereabouts import place_of
from sqla_smartpool.whereabouts import with_all_who_await


async def child(event: asyncio.Event) -> None:
    await event.wait()


async def by_await(event: asyncio.Event) -> None:
    await asyncio.create_task(child(event), name="child")


async def by_gather(event: asyncio.Event) -> None:
    await asyncio.gather(asyncio.create_task(child(event), name="child"))


async def by_gather_twice(event: asyncio.Event) -> None:
    await asyncio.gather(by_gather(event))


async def by_wait(event: asyncio.Event) -> None:
    await asyncio.wait([asyncio.create_task(child(event), name="child")])


async def by_wait_for(event: asyncio.Event) -> None:
    await asyncio.wait_for(asyncio.create_task(child(event), name="child"), 99)


async def by_shield(event: asyncio.Event) -> None:
    await asyncio.shield(asyncio.create_task(child(event), name="child"))


async def by_group(event: asyncio.Event) -> None:
    async with asyncio.TaskGroup() as group:  # new in Python 3.11
        group.create_task(child(event), name="child")


async def by_anyio(event: asyncio.Event) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(child, event, name="child")


WAYS = [by_await, by_gather, by_gather_twice, by_wait, by_wait_for, by_shield]
WAYS += [by_anyio] + [by_group] * (sys.version_info >= (3, 11))


def task_named(name: str) -> Any:
    (found,) = (t for t in asyncio.all_tasks() if t.get_name() == name)
    return weakref.ref(found)


@pytest.mark.parametrize("way", WAYS)
def test_who_awaits_a_task_is_found(
    way: Callable[[asyncio.Event], Awaitable[None]],
) -> None:
    async def main() -> None:
        event = asyncio.Event()
        parent: Any = asyncio.ensure_future(way(event))
        parent.set_name("parent")
        stranger = asyncio.create_task(child(event), name="stranger")
        for _ in range(5):
            await asyncio.sleep(0)
        found: set[Any] = with_all_who_await([task_named("child")()])
        names = {task.get_name() for task in found}
        assert {"child", "parent"} <= names
        assert "stranger" not in names
        event.set()
        await asyncio.gather(parent, stranger)

    asyncio.run(main())


def test_a_task_is_followed_through_a_greenlet() -> None:
    async def main() -> None:
        event = asyncio.Event()

        def looks_synchronous() -> None:
            await_(child(event))

        async def outer() -> None:
            await greenlet_spawn(looks_synchronous)

        task = asyncio.create_task(outer(), name="outer")
        await asyncio.sleep(0)
        place = place_of(weakref.ref(task))
        assert place.name == "outer"
        functions = [line.split(" in ")[1] for line in place.lines]
        assert [each.split(":")[0] for each in functions] == [
            "outer",
            "looks_synchronous",
            "child",
        ]
        event.set()
        await task

    asyncio.run(main())


def test_the_running_task_finds_itself_also_in_a_greenlet() -> None:
    def inner() -> tuple[str, ...]:
        return here()

    async def main() -> tuple[str, ...]:
        lines: tuple[str, ...] = await greenlet_spawn(inner)
        assert "in main" in place_of(current_task()).lines[-1]
        return lines

    lines = asyncio.run(main())
    assert "in main" in lines[-2] and "in inner" in lines[-1]
    assert len(lines) == 2, "what is outside of the loop is left out"


def test_a_thread_is_found_where_it_stands() -> None:
    go, there = threading.Event(), threading.Event()

    def stand_here() -> None:
        there.set()
        go.wait()

    thread = threading.Thread(target=stand_here, name="standing")
    thread.start()
    there.wait()
    try:
        place = place_of(thread.ident)
        assert place.name == "standing"
        assert "in stand_here" in place.lines[-1]
        assert not place.in_database
    finally:
        go.set()
        thread.join()
    ended = place_of(thread.ident)
    assert ended.lines == () and "ended" in ended.name


def test_who_is_unknown_is_said_to_be() -> None:
    assert place_of(None) == ("unknown", (), False)


def test_for_a_thread_that_has_ended_not_every_object_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That took 40 ms for each leaked connection of a small program."""
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()
    looks: list[int] = []
    monkeypatch.setattr(gc, "get_objects", lambda: looks.append(1) or [])
    assert place_of(thread.ident).lines == ()
    assert looks == []
    # as under gevent
    monkeypatch.setattr(threading, "get_ident", lambda: 1)
    assert place_of(thread.ident).lines == ()
    assert looks == [1]


class Deleted:
    """Notes which thread deletes it: the one in which it was in use, or
    whoever had its frame at that time."""

    def __init__(self, by: set[int]) -> None:
        self._by = by

    def __del__(self) -> None:
        self._by.add(threading.get_ident())


def let_others_run(phase: str, info: object) -> None:
    """What a profiler does at each collection, or a finalizer in it."""
    if threading.current_thread() is threading.main_thread():
        time.sleep(1e-6)


@pytest.fixture
def collecting() -> Iterator[None]:
    """Garbage is collected at almost every object that is made."""
    before = gc.get_threshold()
    gc.set_threshold(5, 1000, 1000)
    gc.callbacks.append(let_others_run)
    yield
    gc.callbacks.remove(let_others_run)
    gc.set_threshold(*before)


@pytest.fixture
def switching() -> Iterator[None]:
    """Threads take turns as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class Compared(type):
    """What compares, and hashes, in Python; those of protocols do."""

    def __eq__(cls, other: object) -> bool:
        time.sleep(0)  # others may run
        return cls is other

    def __hash__(cls) -> int:
        time.sleep(0)
        return id(cls)


class OfThose(metaclass=Compared):
    pass


#: are there all the time, next to each other
STRANGERS = [each for _ in range(5) for each in ([], OfThose())]


def looks_for_it(ident: int) -> None:
    in_hand("nowhere")  # at every object there is


def looks_at_itself(ident: int) -> None:
    next(frames_of_thread(threading.get_ident()))


@pytest.mark.parametrize(
    ("look", "garbage", "looks"),
    [
        (place_of, None, 20_000),
        (place_of, "collecting", 500),
        (looks_for_it, None, 9),
        (looks_for_it, "collecting", 9),
        (looks_at_itself, "collecting", 500),
    ],
)
@pytest.mark.usefixtures("switching")
def test_who_looks_at_a_thread_takes_nothing_from_it(
    look: Callable[[int], object],
    garbage: Optional[str],
    looks: int,
    request: pytest.FixtureRequest,
) -> None:
    # mysqlclient refuses a connection while another thread deletes a result
    if garbage:
        request.getfixturevalue(garbage)
    by: set[int] = set()
    over = threading.Event()

    def use_something() -> None:
        something = Deleted(by)  # noqa: F841

    def work() -> None:
        while not over.is_set():
            use_something()

    worker = threading.Thread(target=work)
    worker.start()
    ident: Any = worker.ident
    for _ in range(looks):
        look(ident)
    over.set()
    worker.join()
    assert by == {ident}
