"""What can be seen of a pool, whichever it is: what diagnoses build on."""

from __future__ import annotations

from typing import Iterable
from typing import NamedTuple
from typing import Optional
from typing import Protocol

from .core import PoolCore
from .holders import Checkout
from .holders import Holder
from .whereabouts import Who


class Wait(NamedTuple):
    """A caller who waits for a connection."""

    who: Who
    since: float


class Watched(Protocol):
    """A pool as :class:`.Lookout` sees it; times are in seconds."""

    def clock(self) -> float: ...

    @property
    def label(self) -> str: ...

    @property
    def limit(self) -> Optional[int]:
        """How many connections there may be; None: any number."""

    @property
    def leak_after(self) -> Optional[float]: ...

    @property
    def full(self) -> bool:
        """All connections that there may be are in use."""

    @property
    def paused(self) -> bool: ...

    @property
    def closed(self) -> bool: ...

    @property
    def error(self) -> Optional[BaseException]:
        """What the last connect said, if it failed."""

    def in_use(self) -> Iterable[Checkout]: ...

    def waits(self) -> list[Wait]:
        """Those who wait, the longest first."""

    def connects(self) -> list[float]:
        """When the connects that are under way began."""

    def usual(self) -> Optional[float]:
        """Below this most uses lie."""

    def fire_leak(self, holder: Holder) -> None: ...


class WatchedPool:
    """A pool of our own, which knows all of this."""

    def __init__(self, pool: PoolCore) -> None:
        self._pool = pool

    def clock(self) -> float:
        return self._pool.runtime.clock()

    @property
    def label(self) -> str:
        return self._pool.label

    @property
    def limit(self) -> Optional[int]:
        return self._pool.settings.ceiling

    @property
    def leak_after(self) -> Optional[float]:
        return self._pool.settings.leak_after

    @property
    def full(self) -> bool:
        inventory = self._pool.inventory
        return (
            inventory.room <= 0
            and not inventory.opening
            and not inventory.idle_now
            and not inventory.tending
        )

    @property
    def paused(self) -> bool:
        return self._pool.inventory.paused

    @property
    def closed(self) -> bool:
        return self._pool.inventory.closed

    @property
    def error(self) -> Optional[BaseException]:
        return self._pool.inventory.backoff.error

    def in_use(self) -> list[Checkout]:
        inventory = self._pool.inventory
        elsewhere = {*inventory.resting(), *inventory.tending.copy()}
        members = inventory.members
        return [record for record in members if record not in elsewhere]

    def waits(self) -> list[Wait]:
        waiters = self._pool.inventory.waiters.copy()
        return [Wait(waiter.who, waiter.since) for waiter in waiters]

    def connects(self) -> list[float]:
        return [grant.begun for grant in self._pool.inventory.under_way]

    def usual(self) -> Optional[float]:
        return self._pool.inventory.stats().use_time.quantile(0.95)

    def fire_leak(self, holder: Holder) -> None:
        if self._pool.dispatch.leak:
            self._pool.dispatch.leak(self._pool, holder)
