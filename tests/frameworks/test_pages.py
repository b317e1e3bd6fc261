"""What the pages show is what the tests run."""

from __future__ import annotations

import re

from tests.frameworks.serving import EXAMPLES

PAGES = "\n".join(
    page.read_text(encoding="utf-8") for page in EXAMPLES.parent.glob("*.rst")
)
TESTS = "\n".join(
    file.read_text(encoding="utf-8")
    for file in [*EXAMPLES.parents[2].glob("tests/frameworks/*.py")]
)


def test_every_program_on_a_page_is_a_file() -> None:
    assert "code-block:: python" not in PAGES


def test_every_example_is_shown_and_run() -> None:
    shown = set(re.findall(r"literalinclude:: examples/(\S+)", PAGES))
    assert shown
    for name in shown:
        assert (EXAMPLES / name).is_file(), name
    for file in EXAMPLES.glob("*.py"):
        assert file.name in shown, f"{file.name} is on no page"
        known = re.sub(r"(_app|_conf)$", "", file.stem)
        assert known in TESTS, f"{file.name} is run by no test"
