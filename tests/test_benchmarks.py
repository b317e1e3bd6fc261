"""The benchmarks run, and compare what they say they do."""

from __future__ import annotations

from importlib.metadata import version
import json
from pathlib import Path
from platform import python_version
import re
import sys
from typing import Callable

import pytest

from tests.lab.fixtures import missing

try:
    from benchmarks import against
    from benchmarks import kept
    from benchmarks.__main__ import main
    from benchmarks.measure import Case
    from benchmarks.measure import Figures
    from benchmarks.measure import measure
    from benchmarks.measure import Timeline
    from benchmarks.measure import Turn
    from benchmarks.report.__main__ import main as report
    from benchmarks.suite import SUITE
    from benchmarks.targets import TARGETS
    from benchmarks.waits import recorded
except ModuleNotFoundError as error:
    missing(f"{error} (pip install -e '.[test,benchmarks]')")


def test_candidates_take_turns_and_are_compared_round_by_round() -> None:
    turns: list[str] = []

    def candidate(name: str, factor: float) -> Callable[[], Figures]:
        def turn() -> Figures:
            turns.append(name)
            # the machine grows slower and slower
            return {"s": factor * len(turns)}

        return turn

    case = Case(
        "", {"a": candidate("a", 1.0), "b": candidate("b", 2.0)}, ("a",)
    )
    measured = measure("", case, 4)
    assert "".join(turns) == "abbaabba"
    assert measured.values("a", "s") == [1.0, 4.0, 5.0, 8.0]
    # 4/1, 6/4, 12/5, 14/8
    assert measured.ratio("b", "a", "s") == pytest.approx((2.4 + 1.75) / 2)


def test_a_report_shows_what_was_kept(tmp_path: Path) -> None:
    waits = [0.001] * 98 + [0.02, 0.5]

    def brought(longest: float) -> Turn:
        figures = {"longest wait / fair wait": longest, "workers starved": 0.0}
        timeline = Timeline(0.1, {"served": [3, 0, 5]}, {"outage": 0.1})
        return Turn(figures, recorded(waits), timeline)

    turns = {
        "QueuePool": lambda: brought(40.0),
        "SmartPool": lambda: brought(2.0),
    }
    measured = measure("fairness", Case("here", turns), 3)
    file, folder = tmp_path / "measured.json", tmp_path / "report"
    machine = {"CPython": "3.11.2", "cores": "2"}
    kept.Kept(machine, 3, False, [measured]).write(file)
    (again,) = kept.read(file).measured
    assert again.samples == measured.samples
    assert again.timelines == measured.timelines
    histogram = again.waits["SmartPool"]
    assert histogram.get_total_count() == 3 * len(waits)
    longest = histogram.get_value_at_percentile(100)
    assert longest == pytest.approx(500_000, rel=0.001)

    other = measure("fairness", Case("there", turns), 1)
    anew = measure("fairness", Case("here", turns), 1)
    second = tmp_path / "second.json"
    kept.Kept(machine, 1, False, [other, anew]).write(second)
    both = kept.read_all([file, second]).measured
    assert [(each.title, len(each.samples["SmartPool"])) for each in both] == [
        ("here", 1),
        ("there", 1),
    ]

    report([str(file), "--to", str(folder)])
    page = (folder / "README.md").read_text()
    assert "CPython 3.11.2, cores 2. Rounds: 3." in page
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in page.splitlines()
    ]
    name = "longest wait / fair wait"
    smart = ["SmartPool", "2", "2", "2", "0.050 (0.050-0.050)"]
    assert [name, *smart] in rows
    assert [f"{name} <= 1.7", "SmartPool; here", "2", "MISSED"] in rows
    assert ["workers starved <= 0", "SmartPool; here", "0", "met"] in rows
    pictures = {each.name for each in folder.glob("*.svg")}
    assert len(pictures) == 3
    assert all(f"]({each})" in page for each in pictures)


def test_another_python_takes_turns_with_this_one(tmp_path: Path) -> None:
    file = tmp_path / "against.json"
    arguments = ["--quick", "--rounds", "1", "--json", str(file)]
    # by another name, with all that is installed for this one
    against.main(["--python", sys.executable, *arguments])
    (measured,) = kept.read(file).measured
    other = f"SQLAlchemy {version('sqlalchemy')} on Python {python_version()}"
    assert list(measured.samples) == ["this tree", other]
    assert measured.references == [other]
    for rounds in measured.samples.values():
        assert len(rounds) == 1
        assert all(
            0.1 < x["SmartPool / StaticPool, alone"] < 10 for x in rounds
        )


def without_numbers(title: str) -> str:
    """A quick case differs from the full one in its numbers."""
    return re.sub(r"[\d.]+", "#", title)


@pytest.mark.slow
@pytest.mark.parametrize("name", SUITE)
def test_each_runs_and_keeps_every_sample(name: str, tmp_path: Path) -> None:
    file = tmp_path / "measured.json"
    main([name, "--quick", "--json", str(file)])
    result = json.loads(file.read_text())
    assert result["machine"]["cores"]
    titles: list[str] = []
    candidates: set[str] = set()
    figures: set[str] = set()
    for measured in result["measured"]:
        assert measured["benchmark"] == name
        names = set(measured["samples"])
        assert names > set(measured["references"])
        assert any("SmartPool" in each for each in names)
        candidates |= names
        titles.append(without_numbers(measured["title"]))
        for rounds in measured["samples"].values():
            assert len(rounds) == result["rounds"]
            assert all(min(each.values()) >= 0.0 for each in rounds)
            figures |= set(rounds[0])
    for target in TARGETS.get(name, ()):
        where = without_numbers(target.where)
        assert any(title.startswith(where) for title in titles)
        assert target.candidate in candidates
        assert target.figure in figures
        assert target.reference in {None, *candidates}
