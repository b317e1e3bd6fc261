"""``docs/exhausted.rst`` explains every cause that a diagnosis names."""

from __future__ import annotations

from sqla_smartpool import Cause
from tests.lab.pages import DOCS


def test_every_cause_is_explained() -> None:
    text = (DOCS / "exhausted.rst").read_text(encoding="utf-8")
    for cause in Cause:
        if cause is not Cause.PAUSED:  # no stock pool can be paused
            assert f"   * - {cause.value}\n" in text
