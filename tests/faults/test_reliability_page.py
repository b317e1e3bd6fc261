"""The page that says which test proves what names tests that there are."""

from __future__ import annotations

import re

from tests.lab import written

ROOT = written.TESTS.parent
PAGE = (ROOT / "docs" / "reliability.rst").read_text(encoding="utf-8")


def test_every_test_that_the_page_names_exists() -> None:
    named = set(re.findall(r"``(tests/[^`]*::[^`]*)``", PAGE))
    assert named
    unknown = named - {test.id for test in written.tests()}
    assert sorted(unknown) == []


def test_every_file_of_fault_tests_is_named_on_the_page() -> None:
    named = set(re.findall(r"tests/[\w/]+\.py", PAGE))
    files = set(map(written.shown, written.files(written.TESTS / "faults")))
    assert sorted(files - named) == []
    assert [
        name for name in sorted(named) if not (ROOT / name).is_file()
    ] == []
