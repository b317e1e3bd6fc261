"""What is supported is said alike wherever it is said."""

from __future__ import annotations

import configparser
import re

import sqla_smartpool
from sqla_smartpool._sqlalchemy import CHECKED
from tests.lab import written

ROOT = written.TESTS.parent
_CONFIG = configparser.ConfigParser()
_CONFIG.read(ROOT / "setup.cfg", encoding="utf-8")
_PYTHONS = re.findall(
    r"^Programming Language :: Python :: (3\.\d+)$",
    _CONFIG["metadata"]["classifiers"],
    re.M,
)
_LOWEST = re.findall(
    r"^sqlalchemy>=([\d.]+)$", _CONFIG["options"]["install_requires"], re.M
)


def said_in(name: str) -> str:
    """The text of a file, without the breaks of its lines."""
    return " ".join((ROOT / name).read_text(encoding="utf-8").split())


def test_the_pythons() -> None:
    assert _CONFIG["options"]["python_requires"] == f">={_PYTHONS[0]}"
    quoted = ", ".join(f'"{version}"' for version in _PYTHONS)
    assert f"PYTHONS = [{quoted}]" in said_in("noxfile.py")
    for name in ("README.rst", "CHANGES.rst"):
        assert f"Python {_PYTHONS[0]} to {_PYTHONS[-1]}" in said_in(name)


def test_the_sqlalchemys() -> None:
    (lowest,) = _LOWEST
    assert f"(2.0 from {lowest} on, or 2.1)" in said_in("README.rst")
    assert f"2.0 (from {lowest}) and 2.1" in said_in("CHANGES.rst")
    assert CHECKED == ((2, 0), (2, 1))
    for version in ("lowest", "2.0", "2.1"):
        assert f'"{version}": ' in said_in("noxfile.py")


def test_the_release() -> None:
    version = _CONFIG["metadata"]["version"]
    assert sqla_smartpool.__version__ == version
    newest = re.search(r" (\d+\.\d+\.\d+) ", said_in("CHANGES.rst"))
    assert newest and newest[1] == version
