"""The server of a simulated fleet."""

from __future__ import annotations

from collections import Counter

import simpy

from .world import World

#: how long the server works on a connect, and on how many at a time: 3,200
#: in a second; seconds
_CONNECT, _SIDE_BY_SIDE = 0.02, 64
#: to be refused, when it is down, and for a round trip, seconds
_REFUSED, _ROUND_TRIP = 0.001, 0.0005


class Down(Exception):
    """What a connect fails with, or a statement."""


class Database:
    def __init__(self, world: World) -> None:
        self.world = world
        self.up = True
        self.begun_at = world.now
        #: how many connects began in which second
        self.attempts: Counter[int] = Counter()
        self.open: set[Connection] = set()
        self._room = simpy.Resource(world.env, _SIDE_BY_SIDE)

    def connect(self) -> Connection:
        """Open a connection; takes time, more if many want one.

        :raises Down: the server is not there.
        """
        self.attempts[self.second] += 1
        if not self.up:
            self.world.sleep(_REFUSED)
            raise Down("refused")
        with self._room.request() as turn:
            self.world.wait(turn)
            self.world.sleep(_CONNECT)
        if not self.up:
            raise Down("reset")
        return Connection(self)

    @property
    def second(self) -> int:
        return int(self.world.now - self.begun_at)

    def fail(self) -> None:
        """Go down, and all connections with it."""
        self.up = False
        self.open.clear()

    def come_back(self) -> None:
        self.up = True


class Connection:
    """One connection, and what its driver knows of it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.born = database.world.now
        database.open.add(self)

    @property
    def alive(self) -> bool:
        return self in self._database.open

    def is_healthy(self) -> bool:
        return self.alive

    def use(self, seconds: float) -> None:
        """Execute a statement.

        :raises Down: the connection has ended.
        """
        self._database.world.sleep(_ROUND_TRIP + seconds)
        if not self.alive:
            raise Down("the connection has ended")

    def ping(self) -> bool:
        self._database.world.sleep(_ROUND_TRIP)
        return self.alive

    def rollback(self) -> None:
        pass

    def close(self) -> None:
        self._database.open.discard(self)


# SmartPool asks drivers whom it knows, by the package of their class, what
# they know of a socket: this one is asked as that one's are.
Connection.__module__ = "oracledb"
