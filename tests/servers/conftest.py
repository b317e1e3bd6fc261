"""What the pages under ``docs/servers`` tell to do."""

from __future__ import annotations

from importlib.util import module_from_spec
from importlib.util import spec_from_file_location
from types import ModuleType

from tests.faults.conftest import lanes
from tests.lab.scripts import ROOT

__all__ = ["example", "lanes"]

EXAMPLES = ROOT / "docs" / "servers" / "examples"


def example(name: str) -> ModuleType:
    """A program of the pages, imported."""
    spec = spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
