"""What a pass of upkeep has to do: decided here, and done elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
import math
from typing import NamedTuple

from .record import Record
from .settings import Settings

#: looks are never closer together than this, seconds
_SHORTEST_PAUSE = 0.01
#: when to look again after one that others were in the way of, seconds
_SOON = 1.0


class Seen(NamedTuple):
    """One connection in the hands of nobody, as a look finds it."""

    record: Record
    idle_since: float
    retire_at: float
    proven_at: float
    dead: bool = False
    suspect: bool = False


class Snapshot(NamedTuple):
    """A pool as a look finds it.

    :param idle: the connections that wait for a caller.
    :param busy: when each of the others is to be retired.
    :param opening: how many connects are under way.
    :param waiting: somebody waits for a connection.
    :param retry_at: until when upkeep holds back with connects.
    :param may_ping: pings make sense.
    """

    idle: Sequence[Seen]
    busy: Sequence[tuple[Record, float]] = ()
    opening: int = 0
    waiting: bool = False
    retry_at: float = 0.0
    may_ping: bool = True


@dataclass
class Plan:
    """What is to be done, and when to look again."""

    #: dead: close without a farewell
    cut: list[Record] = field(default_factory=list)
    #: surplus, with the reason
    close: list[tuple[Record, str]] = field(default_factory=list)
    #: too old: replace, idle or in use
    renew: list[Record] = field(default_factory=list)
    #: ask whether they are alive
    ping: list[Record] = field(default_factory=list)
    #: how many to open to reach the floor
    open: int = 0
    #: seconds until the next look
    look_in: float = math.inf

    def __bool__(self) -> bool:
        return bool(
            self.cut or self.close or self.renew or self.ping or self.open
        )


def plan(seen: Snapshot, now: float, settings: Settings) -> Plan:
    """Decide what a pass has to do.

    :param now: the time, by the same clock as the snapshot's times.
    """
    todo = Plan(look_in=settings.check_interval)
    todo.cut = [item.record for item in seen.idle if item.dead]
    left = [item for item in seen.idle if not item.dead]
    size = len(left) + len(seen.busy) + seen.opening

    if not seen.waiting:
        kept = _surplus(todo, left, size, now, settings)
        size -= len(left) - len(kept)
        _too_old(todo, kept, seen.busy, now)
        if seen.may_ping:
            _due_for_a_ping(todo, kept, now, settings)

    if size < settings.min_size:
        hold_back = seen.retry_at - now
        if hold_back <= 0:
            todo.open = settings.min_size - size
        else:
            todo.look_in = min(todo.look_in, hold_back)
    if seen.waiting or seen.opening:
        # who waits will leave, and a connect that counts for the floor fail,
        # without a word to upkeep
        todo.look_in = min(todo.look_in, _SOON)
    todo.look_in = max(todo.look_in, _SHORTEST_PAUSE)
    return todo


def _surplus(
    todo: Plan, left: list[Seen], size: int, now: float, settings: Settings
) -> list[Seen]:
    """Close what is beyond the ceiling, or was unused for too long."""
    ceiling = math.inf if settings.ceiling is None else settings.ceiling
    keep_alive = settings.keep_alive
    kept = []
    for item in sorted(left, key=lambda item: item.idle_since):
        unused_until = item.idle_since + (
            math.inf if keep_alive is None else keep_alive
        )
        if size > ceiling:
            todo.close.append((item.record, "resize"))
            size -= 1
        elif size > settings.min_size and unused_until <= now:
            todo.close.append((item.record, "idle"))
            size -= 1
        else:
            kept.append(item)
            if size > settings.min_size:
                todo.look_in = min(todo.look_in, unused_until - now)
    return kept


def _too_old(
    todo: Plan,
    kept: list[Seen],
    busy: Sequence[tuple[Record, float]],
    now: float,
) -> None:
    ages = [(item.record, item.retire_at) for item in kept]
    for record, retire_at in [*ages, *busy]:
        if retire_at <= now:
            todo.renew.append(record)
        else:
            todo.look_in = min(todo.look_in, retire_at - now)


def _due_for_a_ping(
    todo: Plan, kept: list[Seen], now: float, settings: Settings
) -> None:
    """Ping what would be due before the next look, the oldest proof first."""
    soon = now + settings.check_interval
    too_soon = now - settings.check_interval / 2
    old = set(map(id, todo.renew))
    due = sorted(
        (
            item
            for item in kept
            if item.suspect
            or (
                item.proven_at + settings.proof_window <= soon
                and item.proven_at <= too_soon
            )
        ),
        key=lambda item: item.proven_at,
    )
    pings = [item.record for item in due if id(item.record) not in old]
    todo.ping = pings[: settings.monitor_batch_size]
    if len(pings) > len(todo.ping):
        todo.look_in = 0.0
