"""A pool that was disposed of, or forked, leaves nothing behind."""

from __future__ import annotations

from typing import Any

import pytest

from tests.lab.fake_dbapi import FakeDatabase
from tests.lab.worlds import Greenlets
from tests.lab.worlds import Tasks


class Client:
    """Callers of one engine, in a world of their own."""

    def __init__(self, kind: Any, **options: Any) -> None:
        self.world = kind(0)
        self.database = FakeDatabase(self.world.asynchronous)
        engine = self.database.engine(
            poolclass=self.world.pool_class,
            _runtime=None if self.world.asynchronous else self.world,
            **options,
        )
        self.engine = getattr(engine, "sync_engine", engine)
        self.held: list[Any] = []

    def ask(self) -> Any:
        return self.world.begin(
            lambda: self.held.append(self.engine.raw_connection())
        )

    def give_back(self) -> None:
        assert self.world.begin(self.held.pop(0).close).done


@pytest.fixture(params=[Greenlets, Tasks], ids=["threads", "loop"])
def client(request: pytest.FixtureRequest) -> Client:
    return Client(request.param, max_size=1)


def test_dispose_while_callers_wait_leaves_nothing_open(
    client: Client,
) -> None:
    first, second = client.ask(), client.ask()
    client.world.begin(client.engine.dispose)
    assert first.done and not second.done
    client.give_back()
    # its room served who had waited, with a connection of its own
    assert second.done and second.error is None
    assert client.database.count("connect") == 2
    client.give_back()
    client.database.check(open=0)


def test_dispose_while_a_caller_waits_who_then_leaves_leaves_nothing_open(
    client: Client,
) -> None:
    client.ask()
    second = client.ask()
    client.world.begin(client.engine.dispose)
    gate = client.world.gate()
    client.database.once("connect", gate)
    client.give_back()
    client.world.interrupt(second)
    assert second.done and not isinstance(second.error, Exception)
    gate.open()
    client.world.settle()
    client.database.check(open=0)


def test_a_disposed_pool_that_is_used_again_keeps_its_connections(
    client: Client,
) -> None:
    pool: Any = client.engine.pool
    client.world.begin(client.engine.dispose)
    for _ in range(2):
        client.world.begin(lambda: client.held.append(pool.connect()))
        client.give_back()
    assert client.database.count("connect") == 1
    client.world.begin(pool.dispose)
    client.database.check(open=0)
