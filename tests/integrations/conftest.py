from __future__ import annotations

import pytest


@pytest.fixture(params=["own", "stock"])
def kind(request: pytest.FixtureRequest) -> str:
    """Whose pool it is: one of ours, or of SQLAlchemy's."""
    return str(request.param)
