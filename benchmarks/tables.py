"""Figures as tables, on a terminal and on a page, and the progress until they
are there."""

from __future__ import annotations

import io
import math
import statistics
from typing import Mapping
from typing import Sequence

from rich import box
from rich.console import Console
from rich.progress import BarColumn
from rich.progress import Progress
from rich.progress import TextColumn
from rich.progress import TimeElapsedColumn
from rich.table import Table

from .measure import Measured
from .targets import targets_of


def console(stderr: bool = False) -> Console:
    """A console whose tables are not squeezed where there is no terminal."""
    terminal = Console(stderr=stderr, highlight=False, markup=False)
    if terminal.is_terminal:
        return terminal
    return Console(stderr=stderr, highlight=False, markup=False, width=160)


def progress_bar(to: Console) -> Progress:
    """A progress bar that is shown on a terminal only."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=to,
        transient=True,
        disable=not to.is_terminal,
    )


def markdown(table: Table) -> str:
    """The table for a page, without its title."""
    table.title = None
    table.box = box.MARKDOWN
    table.show_lines = False
    for row in table.rows:
        row.end_section = False
    text = io.StringIO()
    Console(file=text, width=1000, markup=False, highlight=False).print(table)
    return text.getvalue().strip()


def table_of(measured: Measured) -> Table:
    """Median, spread and ratios: a row for each figure of each candidate."""
    table = _table(f"{measured.benchmark}: {measured.title}")
    for heading in ("median", "least", "most"):
        table.add_column(heading, justify="right")
    for reference in measured.references:
        table.add_column(f"x {reference}", justify="right")
    for figure in measured.figures:
        for candidate in measured.samples:
            values = measured.values(candidate, figure)
            numbers = (statistics.median(values), min(values), max(values))
            table.add_row(
                figure,
                candidate,
                *(f"{number:.4g}" for number in numbers),
                *(
                    _with_spread(measured.ratios(candidate, each, figure))
                    for each in measured.references
                ),
            )
        table.add_section()
    return table


def targets_table(
    measured: Sequence[Measured], machine: Mapping[str, str]
) -> Table:
    """What was to be reached, and what was."""
    table = _table("")
    table.columns[0].header = "to be reached"
    table.add_column("found", justify="right")
    table.add_column("")
    for case in measured:
        for target in targets_of(case, machine):
            table.add_row(
                str(target),
                f"{target.candidate}; {case.title}",
                f"{target.found(case):.4g}",
                "met" if target.met(case) else "MISSED",
            )
    return table


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("figure")
    table.add_column("candidate")
    return table


def _with_spread(ratios: Sequence[float]) -> str:
    middle = f"{statistics.median(ratios):.3f}"
    if len(ratios) == 1 or math.isnan(sum(ratios)):
        return middle
    return f"{middle} ({min(ratios):.3f}-{max(ratios):.3f})"
