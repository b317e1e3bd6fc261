"""Callers of one engine on the fake database, in a world of their own."""

from __future__ import annotations

from typing import Any
from typing import Callable
from typing import Optional

from sqlalchemy import text

from tests.lab.fake_connections import Fake
from tests.lab.fake_dbapi import FakeDatabase
from tests.lab.worlds import Actor
from tests.lab.worlds import Greenlets
from tests.lab.worlds import Tasks

#: for ``parametrize``
WORLDS = {"threads": Greenlets, "loop": Tasks}

ONE = text("SELECT 1")


class Callers:
    """Whoever uses the engine.

    :param world: "threads" or "loop".
    :param kind: of the connections.
    """

    def __init__(
        self, world: str, kind: Optional[type[Fake]] = None, **options: Any
    ) -> None:
        self.world: Any = WORLDS[world](0)
        self.database = FakeDatabase(self.world.asynchronous, kind)
        self._options = options
        engine = self.database.engine(
            poolclass=self.world.pool_class,
            _runtime=None if self.world.asynchronous else self.world,
            **options,
        )
        self.engine = getattr(engine, "sync_engine", engine)
        #: connections in use, the oldest first
        self.held: list[Any] = []

    @property
    def pool(self) -> Any:
        return self.engine.pool

    def do(self, job: Callable[[], Any]) -> Actor:
        """Have somebody do something, as far as it goes."""
        actor: Actor = self.world.begin(job)
        return actor

    def call(self, name: str, **arguments: Any) -> Actor:
        """Call a method of the pool."""
        return self.do(
            lambda: self.world.wait_for(getattr(self.pool, name)(**arguments))
        )

    def ask(self) -> Actor:
        """Want a connection."""
        return self.do(lambda: self.held.append(self.engine.connect()))

    def execute(self) -> Actor:
        """Use the oldest connection."""
        return self.do(lambda: self.held[0].execute(ONE))

    def give_back(self) -> Actor:
        """Return the oldest connection; what is held up is not done."""

        def job() -> None:
            # nothing else may keep it
            self.held.pop(0).close()

        return self.do(job)

    def is_whole(self, max_size: int) -> None:
        """See that every connection can be had and used, and is returned."""
        for _ in range(max_size):
            asked = self.ask()
            assert asked.done and asked.error is None, asked.error
        stats = self.pool.stats()
        assert stats.pool_size == stats.pool_in_use == max_size, stats
        for _ in range(max_size):
            assert self.execute().error is None
            assert self.give_back().error is None
        assert not self.pool.stats().pool_in_use

    def leave(self) -> None:
        """See that nothing is left open, nor in anybody's hands."""
        while self.held:
            self.give_back()
        self.do(self.engine.dispose)
        self.world.advance(20.0)
        self.database.check(open=0)
        assert not self.world.failures, self.world.failures
        self.world.close()
