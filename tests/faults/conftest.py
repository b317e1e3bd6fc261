"""How long faults last: as long as one can wait for, or in full.

In full with ``SMARTPOOL_FAULTS=long`` in the environment, as set by
``nox -s faults-long``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Iterator
from typing import NamedTuple

import pytest

from tests.lab.lanes import Lanes


class Durations(NamedTuple):
    """What a test makes itself last; seconds."""

    #: for which a server is away
    outages: tuple[float, ...]
    #: for which nobody asks for anything
    quiet: float
    #: for which callers try a wrong password
    lockout: float


SHORT = Durations(outages=(1.0, 3.0), quiet=13.0, lockout=6.0)
LONG = Durations(outages=(1.0, 5.0, 30.0), quiet=37.0, lockout=62.0)

#: for ``parametrize``, where no fixture can be taken
DURATIONS = LONG if os.environ.get("SMARTPOOL_FAULTS") == "long" else SHORT


@pytest.fixture
def durations() -> Durations:
    """How long the faults of this run last."""
    return DURATIONS


@pytest.fixture
def lanes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lanes]:
    """Clients that live through one fault side by side."""
    lanes = Lanes(request, tmp_path)
    yield lanes
    lanes.leave()
