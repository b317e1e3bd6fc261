"""What happens to the servers and to the pools, and in which order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
import random
import time
from typing import Any
from typing import Callable
from typing import NamedTuple

from .lanes import Lane
from .lanes import LARGEST
from .lanes import SIZES

_QUERY = frozenset({"query"})
_DOWN = frozenset({"query", "connect"})
_NOTHING: frozenset[str] = frozenset()


class Blow(NamedTuple):
    """One fault of the plan.

    :param seconds: how long it lasts.
    :param seed: for what it does at random.
    """

    fault: str
    seconds: float
    seed: str


# -- of a server: they take the server and the lanes on it ------------------


def terminate_some(place: Any, blow: Blow) -> None:
    chance = random.Random(blow.seed)
    there = place.server.sessions()
    number = chance.randint(1, max(1, len(there)))
    place.server.terminate(chance.sample(there, min(number, len(there))))


def terminate_all(place: Any, blow: Blow) -> None:
    place.server.terminate()


def kill(place: Any, blow: Blow) -> None:
    place.server.kill()
    time.sleep(blow.seconds)
    place.server.start()


def restart(place: Any, blow: Blow) -> None:
    place.server.stop()
    time.sleep(blow.seconds)
    place.server.start()


def freeze(place: Any, blow: Blow) -> None:
    place.server.freeze()
    try:
        time.sleep(blow.seconds)
    finally:
        place.server.thaw()


def too_many_connections(place: Any, blow: Blow) -> None:
    place.limit_connections(True)
    try:
        terminate_some(place, blow)
        time.sleep(blow.seconds)
    finally:
        place.limit_connections(False)


def idle_timeout(place: Any, blow: Blow) -> None:
    place.limit_idleness(True)
    try:
        time.sleep(1.0 + blow.seconds)
    finally:
        place.limit_idleness(False)


# -- of the way to a server: they take the same -----------------------------


def stall(place: Any, blow: Blow) -> None:
    place.proxy.stall()
    _heal_later(place, blow)


def delay(place: Any, blow: Blow) -> None:
    place.proxy.delay(random.Random(blow.seed).uniform(0.01, 0.1))
    _heal_later(place, blow)


def throttle(place: Any, blow: Blow) -> None:
    place.proxy.throttle(random.Random(blow.seed).uniform(5e3, 5e4))
    _heal_later(place, blow)


def cut(place: Any, blow: Blow) -> None:
    place.proxy.cut(reset=random.Random(blow.seed).random() < 0.5)


def refuse(place: Any, blow: Blow) -> None:
    chance = random.Random(blow.seed)
    place.proxy.refuse(reset=chance.random() < 0.5)
    if chance.random() < 0.5:
        place.proxy.cut()
    _heal_later(place, blow)


def _heal_later(place: Any, blow: Blow) -> None:
    try:
        time.sleep(blow.seconds)
    finally:
        place.proxy.heal()


# -- of a pool: they take a lane --------------------------------------------


def drain(lane: Lane, blow: Blow) -> None:
    lane.do(lane.pool.drain)


def resize(lane: Lane, blow: Blow) -> None:
    chance = random.Random(blow.seed)
    pool = lane.pool
    most = chance.randint(1, LARGEST)
    least = chance.randint(0, most)
    lane.ceiling = max(lane.ceiling, most)
    lane.do(pool.resize, min_size=least, max_size=most)
    time.sleep(blow.seconds)
    lane.do(pool.resize, **SIZES)


def pause(lane: Lane, blow: Blow) -> None:
    pool = lane.pool
    lane.do(pool.pause)
    time.sleep(blow.seconds)
    lane.do(pool.resume)


def check(lane: Lane, blow: Blow) -> None:
    checked, replaced = lane.do(lane.pool.check)
    lane.judge.check(
        "stats add up",
        checked >= replaced >= 0,
        "{}: check() replaced {} of {}",
        lane.name,
        replaced,
        checked,
    )


def dispose(lane: Lane, blow: Blow) -> None:
    lane.dispose()


def stop(lane: Lane, blow: Blow) -> None:
    pool = lane.pool
    lane.do(pool.stop, timeout=blow.seconds)
    time.sleep(blow.seconds)
    lane.do(pool.start, wait=False)


@dataclass(frozen=True)
class Fault:
    """
    :param strikes: brings it about, and makes it good.
    :param allows: the kinds of errors that it may cause.
    """

    strikes: Callable[[Any, Blow], None]
    allows: frozenset[str]


OF_SERVERS = {
    "terminate some": Fault(terminate_some, _DOWN),
    "terminate all": Fault(terminate_all, _DOWN),
    "kill -9": Fault(kill, _DOWN),
    "restart": Fault(restart, _DOWN),
    "freeze": Fault(freeze, _NOTHING),
    "too many connections": Fault(too_many_connections, _DOWN),
    # one may be closed at the very moment at which it is handed out
    "idle timeout": Fault(idle_timeout, _QUERY),
}
OF_WAYS = {
    "stall": Fault(stall, _NOTHING),
    "delay": Fault(delay, _NOTHING),
    "throttle": Fault(throttle, _NOTHING),
    "cut": Fault(cut, _DOWN),
    "refuse": Fault(refuse, _DOWN),
}
OF_POOLS = {
    "drain": Fault(drain, _NOTHING),
    "resize": Fault(resize, _NOTHING),
    "pause": Fault(pause, _NOTHING),
    "check": Fault(check, _NOTHING),
    "dispose": Fault(dispose, _NOTHING),
    "stop": Fault(stop, frozenset({"closed"})),
}


class Step(NamedTuple):
    """Faults that happen together, and the calm after them.

    :param server: of the server; or none.
    :param pool: of a lane's pool, with the number of the lane; or none.
    :param later: seconds by which the second comes later.
    """

    number: int
    server: list[Blow]
    pool: list[tuple[int, Blow]]
    later: float
    calm: float


def plan(seed: str, of_servers: list[str]) -> Iterator[Step]:
    """Say what happens, step after step: the same for the same seed.

    Each fault once by itself, and after that single ones and pairs.

    :param of_servers: the names of the server's faults.
    """
    chance = random.Random(seed)
    first = [*of_servers, *OF_POOLS]
    chance.shuffle(first)
    number = 0
    while True:
        number += 1
        longest = 0.8 if number <= len(first) else 3.0

        def blow(fault: str) -> Blow:
            return Blow(
                fault,
                round(chance.uniform(0.1, longest), 2),
                f"{seed} {number} {fault}",
            )

        if number <= len(first):
            names = {first[number - 1]}
        else:
            names = {chance.choice(of_servers), chance.choice([*OF_POOLS])}
            if chance.random() < 0.4:
                names.remove(chance.choice(sorted(names)))
        yield Step(
            number,
            [blow(name) for name in sorted(names) if name in of_servers],
            [
                (chance.randrange(1000), blow(name))
                for name in sorted(names)
                if name in OF_POOLS
            ],
            round(chance.uniform(0.0, 1.0), 2),
            round(chance.uniform(0.2, 0.6), 2),
        )
