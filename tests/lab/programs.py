"""The programs that the documentation shows."""

from __future__ import annotations

from importlib.util import module_from_spec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

DOCS = Path(__file__).parents[2] / "docs"


def program(path: str) -> ModuleType:
    """One of them, imported.

    :param path: such as ``servers/examples/budget.py``.
    """
    file = DOCS / path
    spec = spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
