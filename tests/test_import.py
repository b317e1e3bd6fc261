"""What ``import sqla_smartpool`` brings along, and what it costs."""

from __future__ import annotations

import sys

from benchmarks.imports import measured
from tests.lab.scripts import run_script

#: what it may cost beyond SQLAlchemy itself, ms of CPU time
_PROMISED = 60.0
#: other work on a machine makes a computation dearer, too
_MARGIN = 5


def test_it_imports_nothing_but_sqlalchemy_and_greenlet() -> None:
    ended = run_script("""
        import sys
        import sqlalchemy
        before = set(sys.modules)
        import sqla_smartpool
        print(*sorted(set(sys.modules) - before))
    """)
    added = ended.stdout.split()
    packages = {name.partition(".")[0] for name in added}
    known = {"greenlet", "sqla_smartpool", "sqlalchemy"}
    # an editable installation's way to find it
    own = {name for name in packages if name.startswith("__editable__")}
    assert packages - known - own <= sys.stdlib_module_names
    for heavy in ("asyncio", "sqlalchemy.orm", "sqlalchemy.ext.asyncio"):
        assert heavy not in added
    mine = {name for name in added if name.startswith("sqla_smartpool.")}
    optional = ("cli", "integrations", "plugin", "testing")
    assert not [name for name in mine if name.split(".")[1] in optional]


def test_it_is_quick() -> None:
    _, beyond = measured(rounds=3)
    assert beyond < _MARGIN * _PROMISED
