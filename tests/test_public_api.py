"""The public interface is what it was, or was changed on purpose."""

from __future__ import annotations

import difflib

import pytest

from tests.lab import api
from tests.lab.fixtures import missing


def test_the_public_interface_is_as_written_down() -> None:
    try:
        now = api.described()
    except ImportError as error:  # an integration's library
        missing(str(error))
    was = api.FILE.read_text(encoding="utf-8")
    if now != was:
        changes = difflib.unified_diff(
            was.splitlines(), now.splitlines(), "written", "now", "", "", 0, ""
        )
        pytest.fail(
            "the public interface has changed; if that is meant, say so in "
            "CHANGES.rst and run python -m tests.lab.api\n"
            + "\n".join(changes),
            pytrace=False,
        )
