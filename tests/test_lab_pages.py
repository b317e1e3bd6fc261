"""A page that does not do what it says is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.pages import blocks
from tests.lab.run_page import PageError
from tests.lab.run_page import run

PAGE = """\
Title
=====

.. also run:
    given = 20

.. code-block:: python
    :name: sum

    print(given + 1)

.. prints

.. code-block:: text

    2...

.. note::

    .. not run: there is no such
        program

    .. code-block:: shell

        no-such-program --ever

Last
----

As data::

    1
"""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    return tmp_path / "page.rst"


def test_a_page_is_read(page: Path) -> None:
    page.write_text(PAGE)
    given, program, printed, shell, data = blocks(page)
    assert (given.hidden, given.source, given.line) == (True, "given = 20", 5)
    assert (program.name, program.line) == ("sum", 10)
    assert (program.language, printed.prints) == ("python", True)
    assert shell.not_run == "there is no such program"
    assert (data.language, data.title, data.source) == ("", "Last", "1")


def test_what_a_page_prints_is_compared(page: Path) -> None:
    page.write_text(PAGE.partition("Last")[0])
    run(page)
    page.write_text(page.read_text().replace("2...", "3..."))
    with pytest.raises(PageError, match="(?s)page.rst:16: .*21"):
        run(page)


@pytest.mark.parametrize(
    "text, error, said",
    [
        (PAGE, PageError, "what language it is: not said"),
        (".. code-block:: text\n\n   1\n", PageError, "it is: text"),
        (".. code-block:: python\n\n   1 / 0\n", ZeroDivisionError, "zero"),
        (".. code-block:: shell\n\n   exit 3\n", PageError, "status 3"),
        (".. code-block:: json\n\n   {1: 2}\n", ValueError, "property name"),
        (".. not run:\n\n.. code-block:: sql\n\n   1\n", ValueError, "reason"),
        (
            ".. not run: takes long\n\n.. code-block:: shell\n\n"
            "   python -m sqla_smartpool stress --hurry\n",
            SystemExit,
            "2",
        ),
    ],
)
def test_a_mistake_on_a_page_is_found(
    page: Path, text: str, error: type[BaseException], said: str
) -> None:
    page.write_text(text)
    with pytest.raises(error, match=said):
        run(page)
