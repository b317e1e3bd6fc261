"""The page: what came of it first, then each benchmark by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Callable
from typing import Iterator
from typing import Sequence

from matplotlib.figure import Figure

from . import drawing
from ..kept import Kept
from ..measure import Measured
from ..suite import SUITE
from ..tables import markdown
from ..tables import table_of
from ..tables import targets_table

_NAME = "README.md"
_HOW = """\
The candidates of a case took turns, in another order each round. A ratio is
the median of those of the rounds, with the least and the most in brackets; it
holds where times do not. Printed by `python -m benchmarks.report`, from what
`python -m benchmarks --json` measured."""
_QUICK = """\
**These figures mean nothing:** `--quick` only shows that all runs."""


def write(kept: Kept, folder: Path) -> Path:
    """Write the page and its pictures.

    :return: the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in SUITE:
        for picture in folder.glob(f"{name}-*.svg"):
            picture.unlink()  # of an earlier page
    page = folder / _NAME
    page.write_text("\n\n".join(_parts(kept, folder)) + "\n")
    return page


def _parts(kept: Kept, folder: Path) -> Iterator[str]:
    yield "# Benchmarks"
    if kept.quick:
        yield _QUICK
    versions = (f"{name} {value}" for name, value in kept.machine.items())
    yield f"{', '.join(versions)}. Rounds: {kept.rounds}."
    yield _HOW
    yield "## What was to be reached"
    table = targets_table(kept.measured, kept.machine)
    met = list(table.columns[-1].cells).count("met")
    yield f"Met: {met} of {table.row_count}."
    yield markdown(table)
    for name, benchmark in SUITE.items():
        cases = [each for each in kept.measured if each.benchmark == name]
        if cases:
            yield f"## {name}"
            yield f"{benchmark.about[0].upper()}{benchmark.about[1:]}."
            yield from _benchmark(name, cases, folder)


def _benchmark(
    name: str, cases: Sequence[Measured], folder: Path
) -> Iterator[str]:
    pictures: list[tuple[str, str, Callable[[], Figure]]] = []
    if name == "steps":
        pictures.append(
            ("steps", "A checkout in steps", lambda: drawing.steps(cases[0]))
        )
    elif drawing.has_ratios(cases):
        pictures.append(("ratios", "Ratios", lambda: drawing.ratios(cases)))
    if any(case.waits for case in cases):
        pictures.append(("waits", "Waits", lambda: drawing.waits(cases)))
    for what, text, draw in pictures:
        yield _picture(folder, f"{name}-{what}.svg", text, draw())
    for number, case in enumerate(cases, 1):
        yield f"### {case.title}"
        if case.timelines:
            drawn = drawing.timelines(case)
            yield _picture(folder, f"{name}-{number}.svg", case.title, drawn)
        yield markdown(table_of(case))


def _picture(folder: Path, name: str, text: str, figure: Figure) -> str:
    drawing.save(figure, folder / name)
    return f"![{text}]({name})"
