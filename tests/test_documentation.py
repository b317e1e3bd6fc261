"""What README and the documentation tell to write works, page by page.

``tests/lab/pages.py`` says how a page tells that a block is not to be run.
"""

from __future__ import annotations

from collections import Counter
import inspect
import os
from pathlib import Path
import re
import subprocess
import sys

import pytest

import sqla_smartpool
from tests.conftest import Database
from tests.lab import pages
from tests.lab import run_page
from tests.lab.links import broken
from tests.lab.pages import DOCS
from tests.lab.pages import ROOT

PACKAGE = ROOT / "sqla_smartpool"

#: pages with tests of their own, which need servers, frameworks or other
#: pools beside the page
TESTED_ELSEWHERE = (
    "docs/frameworks/",
    "docs/migration/",
    "docs/servers/",
    "docs/testing.rst",
)
#: how many blocks of a page are not run, each for the reason that stands
#: there
NOT_RUN = {
    "README.rst": 3,
    "docs/benchmarks.rst": 2,
    "docs/command-line.rst": 3,
    "docs/design.rst": 1,
    "docs/exhausted.rst": 2,
    "docs/faq/too-many-clients.rst": 1,
    "docs/index.rst": 1,
    "docs/metrics.rst": 2,
    "docs/performance.rst": 1,
    "docs/reliability.rst": 4,
    "docs/sizing.rst": 2,
    "docs/tutorial.rst": 2,
}
#: which databases they are about, where that is not SQLite alone
DATABASES = {
    "docs/faq/gone-away.rst": ["postgresql"],
    "docs/faq/too-many-clients.rst": ["postgresql"],
    "docs/tutorial.rst": ["sqlite", "postgresql"],
}


def test_the_reference_has_every_public_name() -> None:
    folder = DOCS / "reference"
    text = "".join(page.read_text() for page in folder.glob("*.rst"))
    shown = set(re.findall(r"^\.\. auto\w+:: (\w+)$", text, re.M))
    assert shown == set(sqla_smartpool.__all__)


def test_every_argument_is_explained() -> None:
    arguments = inspect.signature(sqla_smartpool.SmartPool).parameters
    explained = re.findall(r":param (\w+):", sqla_smartpool.SmartPool.__doc__)
    assert explained == [name for name in arguments if name[0] != "_"]


def test_every_event_is_explained() -> None:
    events = [
        name
        for name, value in vars(sqla_smartpool.SmartPoolEvents).items()
        if inspect.isfunction(value)
    ]
    page = (DOCS / "reference" / "events.rst").read_text()
    (listed,) = re.findall(r":members: (.*)", page)
    assert listed.split(", ") == events


def test_every_logger_is_explained() -> None:
    loggers = {
        name
        for file in PACKAGE.rglob("*.py")
        for name in re.findall(r'getLogger\("(\S+\.\S+)"', file.read_text())
    }
    page = (DOCS / "reference" / "log.rst").read_text()
    assert set(re.findall(r"``(sqla_smartpool\.\w+)``", page)) == loggers


def test_every_module_has_its_place_in_the_design() -> None:
    named = set(
        re.findall(r"``(\w+\.py)``", (DOCS / "design.rst").read_text())
    )
    modules = {file.name for file in PACKAGE.glob("*.py")}
    assert named == modules - {"__init__.py", "__main__.py"}


def test_every_file_that_is_named_exists() -> None:
    named = {
        name
        for page in [*pages.pages(), ROOT / "CHANGES.rst"]
        for name in re.findall(
            # not what is a part of an address
            r"(?<![\w/.])(?:benchmarks|docs|tests)/[\w/-]+(?:\.\w+)?",
            page.read_text(),
        )
    }
    assert len(named) > 50
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "there.html").write_text('<h1 id="here">')
    (tmp_path / "page.html").write_text(
        '<a href="there.html#here"><a href="#"><a href="https://example.org">'
        '<a href="gone.html"><a href="there.html#gone">'
        '<script src="https://example.org/it.js"></script>'
    )
    assert [text.partition(": ")[2] for text in broken(tmp_path)] == [
        "no file for gone.html",
        "no anchor for there.html#gone",
        "loads https://example.org/it.js",
    ]


def shown(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


PAGES = [
    name
    for name in map(shown, pages.pages())
    if not name.startswith(TESTED_ELSEWHERE)
]


def test_only_these_are_not_run() -> None:
    left_out = [
        block
        for page in PAGES
        for block in pages.blocks(ROOT / page)
        if block.not_run
    ]
    for block in left_out:
        print(block.place, block.not_run)
    assert Counter(shown(block.page) for block in left_out) == NOT_RUN


def run(page: str, folder: Path, url: str) -> None:
    """Do what a page tells to do, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.lab.run_page", page],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "DATABASE_URL": url,
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "page, database",
    [
        (page, database)
        for page in PAGES
        for database in DATABASES.get(page, ["sqlite"])
    ],
    indirect=["database"],
)
def test_what_a_page_tells_to_do_works(
    page: str, tmp_path: Path, database: Database
) -> None:
    if all(block.not_run for block in pages.blocks(ROOT / page)):
        run_page.run(ROOT / page)  # looks at our own command lines only
    else:
        run(page, tmp_path, database.url_text())
