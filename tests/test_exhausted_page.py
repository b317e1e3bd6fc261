"""What ``docs/exhausted.rst`` tells to write works, in this order."""

from __future__ import annotations

from pathlib import Path
import re
from textwrap import dedent
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import QueuePool

from sqla_smartpool import Cause
from sqla_smartpool import SmartPool
from tests.lab import written

PAGE = written.TESTS.parent / "docs" / "exhausted.rst"
_PROGRAM = re.compile(r"^\.\. code-block:: python\n((?:\n| {4}.*\n)+)", re.M)


def test_its_programs_tell_of_an_exhausted_pool(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = PAGE.read_text(encoding="utf-8")
    observe, ask, advise, replace = map(dedent, _PROGRAM.findall(text))
    url = f"sqlite:///{tmp_path}/it.db"
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=1,
        max_overflow=0,
        pool_timeout=0.1,
    )
    names: dict[str, Any] = {"engine": engine, "url": url}
    exec(observe, names)
    with engine.connect():
        exec(ask, names)
    said = capsys.readouterr().out
    # the one who waits has it himself
    assert said.startswith("Likely cause: self-deadlock")
    assert "Held by, the longest first:" in said
    exec(advise, names)
    assert capsys.readouterr().out.strip()
    exec(replace, names)
    assert isinstance(names["engine"].pool, SmartPool)
    engine.dispose()


def test_every_cause_is_explained() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for cause in Cause:
        if cause is not Cause.PAUSED:  # no stock pool can be paused
            assert f"   * - {cause.value}\n" in text
