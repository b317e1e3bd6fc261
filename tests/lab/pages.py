"""What the documentation tells to write, block by block.

A page is read with docutils.  Comments in its source, which readers do not
see, say what is to be done with a block:

``.. not run: <reason>``
    The next block is not run, and this is why.
``.. prints``
    The next block is what the programs above it print; ``...`` stands for
    whatever else.
``.. also run:`` and, indented below it, a program
    To be run at this place: what the page takes for granted, and what has to
    hold after what it tells.
"""

from __future__ import annotations

from dataclasses import dataclass
import os
from pathlib import Path
from typing import Any
from typing import Iterator

from docutils import nodes
from docutils.core import publish_doctree
from docutils.parsers.rst import Directive
from docutils.parsers.rst import directives
from docutils.parsers.rst import roles

from tests.lab.written import TESTS

ROOT = TESTS.parent
DOCS = ROOT / "docs"

_NOT_RUN, _PRINTS, _ALSO_RUN = "not run:", "prints", "also run:"
# What docutils does not know of Sphinx: directives without a block (a file
# that is included has a test of its own), directives around others, and roles.
_WITHOUT_BLOCKS = (
    *("autoclass", "autodata", "autoexception", "autofunction"),
    *("automethod", "automodule", "currentmodule", "literalinclude"),
    "toctree",
)
_AROUND_OTHERS = (
    *("deprecated", "only", "seealso", "versionadded", "versionchanged"),
)
_ROLES = (
    *("attr", "class", "data", "doc", "exc", "func", "meth", "mod", "obj"),
    *("any", "download", "option", "py:class", "py:func", "py:meth", "ref"),
)


@dataclass(frozen=True)
class Block:
    """A block of code on a page.

    :param language: as in ``.. code-block:: <language>``; empty after ``::``,
        where nobody says it.
    :param name: that of the option ``:name:``, or empty.
    :param title: the heading above it.
    :param line: where it is on the page.
    :param not_run: why it is not run; empty when it is.
    :param prints: it is what the programs above it print.
    :param hidden: it is a comment, for tests only.
    """

    page: Path
    line: int
    language: str
    source: str
    name: str = ""
    title: str = ""
    not_run: str = ""
    prints: bool = False
    hidden: bool = False

    @property
    def place(self) -> str:
        """Where it is, for a person: ``docs/exhausted.rst:17``."""
        return f"{os.path.relpath(self.page, ROOT)}:{self.line}"

    def run(self, names: dict[str, Any]) -> None:
        """Execute a Python block.

        :param names: the program's globals, in and out.
        """
        # with empty lines above it, so that tracebacks show the page's own
        source = "\n" * (self.line - 1) + self.source
        exec(compile(source, str(self.page), "exec"), names)


def pages() -> list[Path]:
    """README and all pages of the documentation."""
    return [ROOT / "README.rst", *sorted(DOCS.rglob("*.rst"))]


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, from its top to its end."""
    return list(_blocks(page))


def _blocks(page: Path) -> Iterator[Block]:
    said = ""
    for node in _tree(page).findall():
        if isinstance(node, nodes.comment):
            said = node.astext()
            if said.startswith(_ALSO_RUN):
                source = said.removeprefix(_ALSO_RUN).lstrip("\n")
                line = _line(node) - len(source.splitlines())
                yield Block(page, line, "python", source, hidden=True)
        elif isinstance(node, nodes.literal_block):
            language = next(iter(node["classes"][1:]), "")
            yield Block(
                page,
                _line(node),
                language,
                node.astext(),
                "".join(node["names"][:1]),
                _title(node),
                _reason(said),
                said == _PRINTS,
            )
            said = ""
        elif isinstance(node, nodes.Structural):
            said = ""


def _reason(said: str) -> str:
    if not said.startswith(_NOT_RUN):
        return ""
    reason = " ".join(said.removeprefix(_NOT_RUN).split())
    if not reason:
        raise ValueError("a block that is not run has a reason")
    return reason


def _line(node: Any) -> int:
    """The line of a page on which what is in a block begins."""
    return int(node.line or node.parent.line or 1)


def _title(node: Any) -> str:
    while not isinstance(node, nodes.section):
        node = node.parent
        if node is None:
            return ""
    return str(node[0].astext())


def _tree(page: Path) -> nodes.document:
    _know_sphinx()
    return publish_doctree(
        page.read_text(encoding="utf-8"),
        source_path=str(page),
        settings_overrides={
            "halt_level": 2,  # a warning: a block may have been overlooked
            "report_level": 2,
            "syntax_highlight": "none",
            "input_encoding": "utf-8",
            "file_insertion_enabled": True,
        },
    )


class _Without(Directive):
    """A directive that has no block of code in it."""

    optional_arguments = 1
    final_argument_whitespace = True
    has_content = True

    def run(self) -> list[nodes.Node]:
        return []


class _Around(_Without):
    """A directive that has text in it, and blocks perhaps."""

    def run(self) -> list[nodes.Node]:
        node = nodes.container()
        self.state.nested_parse(self.content, self.content_offset, node)
        return [node]


class _CodeBlock(Directive):
    """Sphinx's, with its options."""

    required_arguments = 1
    has_content = True
    option_spec = {
        "caption": directives.unchanged,
        "emphasize-lines": directives.unchanged,
        "name": directives.unchanged,
    }

    def run(self) -> list[nodes.Node]:
        text = "\n".join(self.content)
        language = self.arguments[0]
        node = nodes.literal_block(text, text, classes=["code", language])
        node.line = self.content_offset + 1
        self.add_name(node)
        return [node]


def _know_sphinx() -> None:
    for name in _WITHOUT_BLOCKS:
        directives.register_directive(name, _Without)
    for name in _AROUND_OTHERS:
        directives.register_directive(name, _Around)
    directives.register_directive("code-block", _CodeBlock)
    for name in _ROLES:
        roles.register_generic_role(name, nodes.literal)


if __name__ == "__main__":
    left_out = [
        block for page in pages() for block in blocks(page) if block.not_run
    ]
    for block in left_out:
        print(f"{block.place}: {block.not_run}")
    print(len(left_out), "blocks are not run")
