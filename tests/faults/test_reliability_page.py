"""The page that says which test proves what names tests that there are."""

from __future__ import annotations

import re

from tests.lab import written

PAGE = written.TESTS.parent / "docs" / "reliability.rst"


def test_every_test_that_the_page_names_exists() -> None:
    named = re.findall(r"``(tests/[^`]*::[^`]*)``", PAGE.read_text("utf-8"))
    assert named
    assert not set(named) - {test.id for test in written.tests()}


def test_every_file_of_fault_tests_is_named_on_the_page() -> None:
    named = set(re.findall(r"tests/[\w/]+\.py", PAGE.read_text("utf-8")))
    files = set(map(written.shown, written.files(written.TESTS / "faults")))
    assert not files - named
    assert not [
        name for name in named if not (written.TESTS.parent / name).is_file()
    ]
