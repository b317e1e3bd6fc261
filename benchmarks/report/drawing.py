"""The pictures of a report."""

from __future__ import annotations

import math
from pathlib import Path
import statistics
from typing import Any
from typing import Sequence

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from ..measure import Measured
from ..waits import UNIT

_WIDTH = 9.0  # inches
#: percentiles are drawn as HdrHistogram's own plots do: as many of them for
#: each further nine
_PER_NINE = 20
_NINES = 5
#: the same picture is the same file
_STABLE = {"svg.hashsalt": "benchmarks", "svg.fonttype": "none"}


def save(figure: Figure, path: Path) -> None:
    with rc_context(_STABLE):
        figure.savefig(path, format="svg", metadata={"Date": None})


def has_ratios(cases: Sequence[Measured]) -> bool:
    return bool(_rows(cases))


def ratios(cases: Sequence[Measured]) -> Figure:
    """The first figure of each case, in parts of the first reference's."""
    groups = _rows(cases)
    lengths = [len(rows) for rows in groups.values()]
    figure, all_axes = _axes(
        len(groups),
        0.7 + 0.35 * sum(lengths) / len(groups),
        height_ratios=lengths,
    )
    for (name, reference), axes in zip(groups, all_axes):
        rows = groups[name, reference]
        middles = [statistics.median(each) for _, each in rows]
        axes.errorbar(
            middles,
            range(len(rows)),
            xerr=[
                [middle - min(row[1]) for middle, row in zip(middles, rows)],
                [max(row[1]) - middle for middle, row in zip(middles, rows)],
            ],
            fmt="o",
            capsize=3,
        )
        labels = [label for label, _ in rows]
        axes.set_yticks(range(len(rows)), labels, fontsize=6)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.axvline(1.0, color="grey", linewidth=0.8)
        axes.set_xscale("log")
        for which in (
            axes.xaxis.set_major_formatter,
            axes.xaxis.set_minor_formatter,
        ):
            which(StrMethodFormatter("{x:g}"))
        axes.tick_params(axis="x", which="both", labelsize=7)
        axes.set_xlabel(
            f"{name}, in parts of {reference}'s: median, least and most",
            fontsize=8,
        )
    return figure


def _rows(
    cases: Sequence[Measured],
) -> dict[tuple[str, str], list[tuple[str, list[float]]]]:
    """By figure and reference: ratios, each with its label."""
    groups: dict[tuple[str, str], list[tuple[str, list[float]]]] = {}
    for case in cases:
        name = case.figures[0]
        for reference in case.references[:1]:
            for candidate in case.samples:
                found = case.ratios(candidate, reference, name)
                drawable = all(0.0 < each < math.inf for each in found)
                if candidate != reference and drawable:
                    row = f"{case.title}\n{candidate}", found
                    groups.setdefault((name, reference), []).append(row)
    return groups


def waits(cases: Sequence[Measured]) -> Figure:
    """Which part of the callers waited for how long, by candidate."""
    cases = [case for case in cases if case.waits]
    parts = [
        1.0 - 10.0 ** (-number / _PER_NINE)
        for number in range(_NINES * _PER_NINE + 1)
    ]
    figure, all_axes = _axes(len(cases), 2.4)
    for case, axes in zip(cases, all_axes):
        for candidate, histogram in case.waits.items():
            # beyond the last caller there is nothing to tell
            told = [
                part
                for part in parts
                if (1.0 - part) * histogram.total_count >= 0.5
            ]
            axes.plot(
                [1.0 / (1.0 - part) for part in told],
                [_wait(histogram, part) for part in told],
                label=candidate,
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(
            [10.0**nines for nines in range(_NINES + 1)],
            ["0", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %"],
        )
        axes.set_title(case.title, fontsize=9, loc="left")
        axes.set_ylabel("wait, ms")
        axes.legend(fontsize=7)
    return figure


def _wait(histogram: Any, part: float) -> float:
    """In milliseconds; what is less than the unit is drawn as that."""
    value = histogram.get_value_at_percentile(100.0 * part)
    return 1e3 * UNIT * max(value, 1)


def timelines(case: Measured) -> Figure:
    """What happened to each candidate in the course of its last turn."""
    figure, all_axes = _axes(len(case.timelines), 1.7, sharex=True)
    most = max(
        max(map(max, each.series.values())) for each in case.timelines.values()
    )
    for (candidate, timeline), axes in zip(case.timelines.items(), all_axes):
        for name, numbers in timeline.series.items():
            times = [timeline.step * each for each in range(len(numbers))]
            axes.step(times, numbers, where="post", label=name, linewidth=1)
        for name, when in timeline.marks.items():
            axes.axvline(when, color="grey", linewidth=0.8, linestyle="--")
            axes.text(when, most, f" {name}", fontsize=6, va="top")
        axes.set_yscale("symlog", linthresh=1)
        axes.set_ylim(0, 1.3 * most)
        axes.set_title(candidate, fontsize=9, loc="left")
        axes.set_ylabel(f"per {timeline.step:g} s", fontsize=7)
        axes.legend(fontsize=7, loc="lower right")
    all_axes[-1].set_xlabel("seconds")
    return figure


def steps(case: Measured) -> Figure:
    """One bar for each figure: what a step adds to those before it."""
    names = list(case.samples)
    figure, all_axes = _axes(len(case.figures), 2.2)
    for name, axes in zip(case.figures, all_axes):
        begins, before = 0.0, [0.0] * len(case.values(names[0], name))
        for step in names:
            now = case.values(step, name)
            adds = statistics.median(b - a for a, b in zip(before, now))
            # what a step spares covers what comes before it
            axes.barh(0, adds, left=begins, label=f"{step}: {adds:+.3g}")
            begins, before = begins + adds, now
        axes.set_yticks([])
        axes.set_xlabel(name)
        axes.legend(
            fontsize=7, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1)
        )
    return figure


def _axes(
    number: int, height: float, **options: Any
) -> tuple[Figure, list[Any]]:
    """So many panels, one below the other."""
    figure = Figure(figsize=(_WIDTH, height * number), layout="constrained")
    return figure, list(
        figure.subplots(number, 1, squeeze=False, **options)[:, 0]
    )
