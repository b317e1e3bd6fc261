"""The benchmarks run, and compare what they say they do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Callable

import pytest

pytest.importorskip("psycopg_pool", reason="psycopg_pool is not installed")
pytest.importorskip("rich", reason="rich is not installed")

from benchmarks.__main__ import main  # noqa: E402
from benchmarks.measure import Case  # noqa: E402
from benchmarks.measure import Figures  # noqa: E402
from benchmarks.measure import measure  # noqa: E402
from benchmarks.suite import SUITE  # noqa: E402


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


@pytest.mark.slow
@pytest.mark.parametrize("name", SUITE)
def test_each_runs_and_keeps_every_sample(name: str, tmp_path: Path) -> None:
    file = tmp_path / "measured.json"
    main([name, "--quick", "--json", str(file)])
    kept = json.loads(file.read_text())
    assert kept["machine"]["cores"]
    for measured in kept["measured"]:
        assert measured["benchmark"] == name
        names = set(measured["samples"])
        assert names > set(measured["references"])
        assert any("SmartPool" in each for each in names)
        for rounds in measured["samples"].values():
            assert len(rounds) == kept["rounds"]
            assert all(min(each.values()) >= 0.0 for each in rounds)
