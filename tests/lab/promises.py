"""What must hold of a pool at any time, by the notes of a
:class:`~.machine.PoolMachine` and the books of the fake database."""

from __future__ import annotations

from typing import Any

from tests.lab.fake_connections import Fake
from tests.lab.fake_dbapi import driver_connection
from tests.lab.notes import Notes


class Promises(Notes):
    """The promises of a pool, one by one."""

    def see_that_all_is_well(self) -> None:
        self.world.settle()
        self._look_at_callers()
        self.the_books_are_right()
        self.every_connection_is_somewhere()
        self.there_are_never_too_many()
        self.nobody_waits_in_vain()
        self.nobody_waits_for_longer_than_allowed()
        self.the_numbers_add_up()

    def the_books_are_right(self) -> None:
        self.database.check()
        assert not self.world.failures, self.world.failures
        for actor in [each for each in self.busy if each.done]:
            assert actor.error is None, repr(actor.error)
            self.busy.remove(actor)

    def _members(self) -> set[int]:
        """Which connections the pools know of."""
        return {
            id(driver_connection(record.dbapi_connection))
            for pool in self.pools
            for record in pool.inventory.members
            if record.dbapi_connection is not None
        }

    def every_connection_is_somewhere(self) -> None:
        members = self._members()
        for fake in self.database.open:
            known = id(fake) in members or _is_left_to_its_fate(fake)
            assert known, f"{fake!r} is lost"
        opening = sum(len(pool.inventory.opening) for pool in self.pools)
        assert opening <= self.database.connecting

    def there_are_never_too_many(self) -> None:
        members = self._members()
        # without a socket that could be shut, what a cancelled caller was
        # asking ends with its answer, and keeps nobody from its room
        counted = [
            fake
            for fake in self.database.open
            if id(fake) in members or not _is_left_to_its_fate(fake)
        ]
        for pool in self.pools:
            inventory = pool.inventory
            open_ones = sum(
                getattr(fake, "pool", None) is pool for fake in counted
            )
            kept = sum(each.going is None for each in inventory.members)
            total = len(inventory.opening)
            total += kept if self.loose else open_ones
            most = max(pool.settings.max_size, self.totals.get(pool, 0))
            assert total <= most, f"{total} of {most}"
            self.totals[pool] = total

    def nobody_waits_in_vain(self) -> None:
        for pool in self.pools:
            inventory = pool.inventory
            queue = inventory.waiters
            assert len(queue) == len(self._queue(pool)), "a ghost waits"
            if queue and not inventory.paused:
                assert not inventory.idle, "waits beside an idle connection"
                may_open = self._may_open(pool)
                assert not may_open or inventory.room <= 0, "waits beside room"

    def _may_open(self, pool: Any) -> bool:
        """Whether there should be one more connect under way, given room."""
        inventory = pool.inventory
        now, limit = self.world.now, pool.settings.max_connecting
        young = sum(now - each.begun < 1.0 for each in inventory.grants)
        # what is just being pinged may be free in a moment
        pinged = sum(now - when < 0.1 for when in inventory.asked.values())
        if limit is None:
            open_ = len(inventory.members)
            may_begin = not open_ or young < max(3, open_)
        else:
            may_begin = len(inventory.opening) < limit
        return (
            len(inventory.waiters) > young + pinged
            and not inventory.backoff.failing
            and may_begin
        )

    def nobody_waits_for_longer_than_allowed(self) -> None:
        for pool in self.pools:
            for caller in self._queue(pool):
                late = self.world.now - caller.ends
                assert late <= 0.001, f"{caller} is {late} s late"

    def the_numbers_add_up(self) -> None:
        begun = 0
        for pool in self.pools:
            stats = pool.stats()
            self._see_that_they_add_up(pool, stats)
            begun += stats.connections_num
        if len(self.pools) == 1:
            so_far = self.database.count("connect") - self.begun_before
            assert begun <= so_far

    def _see_that_they_add_up(self, pool: Any, stats: Any) -> None:
        numbers = [
            number
            for number in vars(stats).values()
            if isinstance(number, (int, float))
        ]
        assert min(numbers) >= 0, stats
        tended = len(pool.inventory.tending)
        known = stats.pool_available + stats.pool_in_use + tended
        assert stats.pool_size == known, stats
        holders = [
            each
            for each in self._in("holding", "returning", "dropped")
            if each.pool is pool and each.fake is not None
        ]
        assert stats.pool_in_use == len(holders), (stats, holders)
        assert stats.requests_num == self.ended[pool], stats
        assert stats.reclaimed == 0, "a connection was lost"
        assert not pool.inventory.counts["_failed_passes"], stats


def _is_left_to_its_fate(fake: Fake) -> bool:
    """Whether whoever waits for it closes it: its ping, or the rollback after
    that, or its close took too long."""
    return fake.owner is None and fake.under_way in (
        "ping",
        "rollback",
        "close",
    )
