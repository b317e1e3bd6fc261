from __future__ import annotations

from typing import Iterator

import pytest

from tests.integrations.telemetry import Telemetry


@pytest.fixture(params=["own", "stock"])
def kind(request: pytest.FixtureRequest) -> str:
    """Whose pool it is: one of ours, or of SQLAlchemy's."""
    return str(request.param)


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    made = Telemetry()
    yield made
    made.provider.shutdown()
