"""Pages that say which test proves what name tests that there are."""

from __future__ import annotations

import re

from tests.lab import written

ROOT = written.TESTS.parent
PAGES = {
    page.relative_to(ROOT / "docs").as_posix(): page.read_text("utf-8")
    for page in (ROOT / "docs").rglob("*.rst")
}
PAGE = PAGES["reliability.rst"]


def test_every_test_that_a_page_names_exists() -> None:
    there = {test.id for test in written.tests()}
    named = {
        (page, name)
        for page, text in PAGES.items()
        for name in re.findall(r"``(tests/[^`]*::[^`]*)``", text)
    }
    assert len(named) > len(PAGES)
    assert [each for each in sorted(named) if each[1] not in there] == []


def test_every_file_of_fault_tests_is_named_on_the_page() -> None:
    named = set(re.findall(r"tests/[\w/]+\.py", PAGE))
    files = set(map(written.shown, written.files(written.TESTS / "faults")))
    assert sorted(files - named) == []
    assert [
        name for name in sorted(named) if not (ROOT / name).is_file()
    ] == []
