"""What was measured, in a file: every sample, for a report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from typing import NamedTuple
from typing import Sequence

from .measure import Measured
from .measure import Timeline
from .waits import decoded
from .waits import encoded


class Kept(NamedTuple):
    """All that one run of the benchmarks measured.

    :param machine: what it was made on, as :mod:`.machine` describes it.
    :param rounds: turns of each candidate.
    :param quick: it only shows that all runs.
    """

    machine: dict[str, str]
    rounds: int
    quick: bool
    measured: list[Measured]

    def write(self, path: Path) -> None:
        kept = self._asdict()
        kept["measured"] = [_plain(each) for each in self.measured]
        path.write_text(json.dumps(kept, indent=1))


def read(path: Path) -> Kept:
    kept = json.loads(path.read_text())
    return Kept(**{**kept, "measured": list(map(_whole, kept["measured"]))})


def read_all(paths: Sequence[Path]) -> Kept:
    """What several runs measured, on the machine of the first.

    A case that was measured again is that of the last.
    """
    runs = [read(path) for path in paths]
    measured = {
        (each.benchmark, each.title): each
        for run in runs
        for each in run.measured
    }
    return runs[0]._replace(
        quick=any(run.quick for run in runs),
        measured=list(measured.values()),
    )


def _plain(measured: Measured) -> dict[str, Any]:
    return {
        **vars(measured),
        "waits": {who: encoded(x) for who, x in measured.waits.items()},
        "timelines": {
            who: x._asdict() for who, x in measured.timelines.items()
        },
    }


def _whole(plain: dict[str, Any]) -> Measured:
    waits = {who: decoded(x) for who, x in plain["waits"].items()}
    timelines = {who: Timeline(**x) for who, x in plain["timelines"].items()}
    return Measured(**{**plain, "waits": waits, "timelines": timelines})
