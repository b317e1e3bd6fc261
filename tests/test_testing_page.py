"""``docs/testing.rst`` holds what it says, as do the fixtures for pytest."""

from __future__ import annotations

import os
from pathlib import Path
import re
import subprocess
import sys
from textwrap import dedent

from tests.lab import written

ROOT = written.TESTS.parent
PAGE = ROOT / "docs" / "testing.rst"
_PROGRAM = re.compile(r"^\.\. code-block:: python\n((?:\n| {4}.*\n)+)", re.M)


#: what the page leaves to trust
_FAILING = dedent("""
    import pytest
    from sqlalchemy import create_engine
    from sqla_smartpool import SmartPool

    engine = create_engine("sqlite:///it.db", poolclass=SmartPool)

    @pytest.mark.xfail(strict=True)
    def test_fails(smartpool_outage, smartpool_slow_connects):
        smartpool_slow_connects(engine, 3600)
        smartpool_outage(engine)
        assert False

    def test_comes_after_it(smartpool_kill_idle):
        engine.connect().close()
        assert smartpool_kill_idle(engine) == 1
    """)


def run(*command: str, folder: Path, **env: str) -> str:
    """Run Python on this checkout, and return what it says."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_tests_on_the_page_pass_side_by_side(tmp_path: Path) -> None:
    programs = _PROGRAM.findall(PAGE.read_text(encoding="utf-8"))
    page = "\n".join(map(dedent, programs))
    for name, source in {
        "test_page.py": page,
        "test_failing.py": _FAILING,
        "pytest.ini": "[pytest]\n",  # or one further up would hold
    }.items():
        (tmp_path / name).write_text(source, encoding="utf-8")
    said = run(
        *("-m", "pytest", "-q", "-p", "no:cacheprovider"),
        *("-p", "xdist.plugin", "-n", "2", "--dist", "loadfile"),
        *("-p", "pytest_sqla_smartpool"),
        folder=tmp_path,
        PYTEST_DISABLE_PLUGIN_AUTOLOAD="1",
    )
    assert f"{page.count('def test_') + 1} passed, 1 xfailed" in said


def test_the_plugin_imports_neither_the_pool_nor_sqlalchemy(
    tmp_path: Path,
) -> None:
    said = run(
        "-c",
        "import sys, pytest_sqla_smartpool\n"
        "print([*{n.partition('.')[0] for n in sys.modules}\n"
        "       & {'sqlalchemy', 'sqla_smartpool', 'greenlet', 'asyncio'}])",
        folder=tmp_path,
    )
    # pytest itself has no use for asyncio either
    assert said == "[]\n"
