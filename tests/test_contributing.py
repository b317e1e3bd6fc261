"""What ``CONTRIBUTING.rst`` tells to do can be done."""

from __future__ import annotations

import ast
import configparser
import re
import shlex
import subprocess
import sys

from tests.lab import written

ROOT = written.TESTS.parent
TEXT = (ROOT / "CONTRIBUTING.rst").read_text(encoding="utf-8")


def test_one_line_runs_one_test_on_one_database() -> None:
    (line,) = re.findall(r"^    python (-m pytest .*--pdb .*)$", TEXT, re.M)
    options = [each for each in shlex.split(line) if each != "--pdb"]
    done = subprocess.run(
        [sys.executable, *options, "--collect-only", "-q"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert re.search(r"^1/\d+ tests? collected", done.stdout, re.M), done
    assert "postgresql-loop]" in done.stdout


def test_every_session_that_it_names_is_there() -> None:
    named = set(re.findall(r"nox -s ([\w-]+)", TEXT))
    source = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    there = set(re.findall(r"^def (\w+)\(session", source, re.M))
    there |= set(re.findall(r'@nox\.session\(name="([\w-]+)"\)', source))
    assert named and named <= there


def test_every_module_that_it_names_is_there() -> None:
    for name in re.findall(r"python -m (benchmarks\.\w+|tests[\w.]+)", TEXT):
        assert (ROOT / name.replace(".", "/")).with_suffix(".py").is_file()


def test_every_extra_is_installed_by_the_session_that_installs() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    tree = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    named: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Assign):
            (name,) = map(ast.unparse, node.targets)
            if name == "WITH_EXTRA":
                assert isinstance(node.value, ast.Dict)
                named |= {ast.literal_eval(key) for key in node.value.keys}
            elif name == "FOR_DEVELOPERS":
                named |= ast.literal_eval(node.value)
    assert named == set(config["options.extras_require"])
