"""Fixtures for the tests of programs that use sqla_smartpool's pools.

pytest loads this by itself.  Nothing is imported before a fixture is used:
what tests need no database should not pay for one, and what is imported too
early is missing in their coverage.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any
from typing import Callable
from typing import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from sqla_smartpool.testing.pools import AnyEngine


@pytest.fixture
def smartpool_outage() -> Iterator[Callable[..., ExitStack]]:
    """``smartpool_outage(engine)`` begins an outage of its database.

    It ends with ``close()`` of what was returned, with a ``with`` block of
    it, or with the test.  See :func:`sqla_smartpool.testing.simulate_outage`.
    """
    from sqla_smartpool.testing import simulate_outage

    yield from _begun_at_once(simulate_outage)


@pytest.fixture
def smartpool_slow_connects() -> Iterator[Callable[..., ExitStack]]:
    """``smartpool_slow_connects(engine, seconds)`` has connects take longer.

    It ends as an outage of ``smartpool_outage`` does.  See
    :func:`sqla_smartpool.testing.slow_connects`.
    """
    from sqla_smartpool.testing import slow_connects

    yield from _begun_at_once(slow_connects)


@pytest.fixture
def smartpool_kill_idle() -> Callable[[AnyEngine], int]:
    """:func:`sqla_smartpool.testing.kill_idle`."""
    from sqla_smartpool.testing import kill_idle

    return kill_idle


@pytest.fixture
def smartpool_clock() -> Callable[[AnyEngine], Any]:
    """:func:`sqla_smartpool.testing.control_clock`."""
    from sqla_smartpool.testing import control_clock

    return control_clock


def _begun_at_once(
    fault: Callable[..., Any],
) -> Iterator[Callable[..., ExitStack]]:
    with ExitStack() as faults:

        def begin(*args: Any, **options: Any) -> ExitStack:
            begun = faults.enter_context(ExitStack())
            begun.enter_context(fault(*args, **options))
            return begun

        yield begin
