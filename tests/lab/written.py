"""Which tests there are, by what is written in their files.

Quicker than to have pytest collect them, and the same on every machine.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Iterator

TESTS = Path(__file__).parent.parent


class Test:
    """A function that pytest collects.

    :param file: as from the folder that ``tests`` is in.
    """

    __test__ = False  # pytest, it is called so but is none

    def __init__(self, file: str, function: ast.FunctionDef) -> None:
        self.file = file
        self.name = function.name
        self._decorators = function.decorator_list

    @property
    def id(self) -> str:
        """What one gives to pytest to have it run."""
        return f"{self.file}::{self.name}"

    def marks(self, name: str) -> Iterator[str]:
        """What is said by a marker, such as ``pytest.mark.pain("this")``."""
        for decorator in self._decorators:
            if is_mark(decorator, name):
                assert isinstance(decorator, ast.Call)
                for argument in decorator.args:
                    yield ast.literal_eval(argument)


def is_mark(node: ast.AST, name: str) -> bool:
    """Whether a piece of source is the use of a marker."""
    return (
        isinstance(node, ast.Call)
        and ast.unparse(node.func) == f"pytest.mark.{name}"
    )


def files(folder: Path = TESTS) -> list[Path]:
    """The files in which pytest looks for tests."""
    return sorted(folder.rglob("test_*.py"))


def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def shown(file: Path) -> str:
    """The name of a file, as one gives it to pytest."""
    return file.relative_to(TESTS.parent).as_posix()


def tests() -> Iterator[Test]:
    """All of them."""
    for file in files():
        for node in tree(file).body:
            if isinstance(node, ast.FunctionDef):
                if node.name.startswith("test_"):
                    yield Test(shown(file), node)
