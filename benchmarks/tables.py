"""Figures on a terminal, and the progress until they are there."""

from __future__ import annotations

import statistics

from rich.console import Console
from rich.progress import BarColumn
from rich.progress import Progress
from rich.progress import TextColumn
from rich.progress import TimeElapsedColumn
from rich.table import Table

from .measure import Measured


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


def table_of(measured: Measured) -> Table:
    """Median, spread and ratios: a row for each figure of each candidate."""
    table = Table(title=f"{measured.benchmark}: {measured.title}")
    table.title_justify = "left"
    table.add_column("figure")
    table.add_column("candidate")
    for heading in ("median", "least", "most"):
        table.add_column(heading, justify="right")
    for reference in measured.references:
        table.add_column(f"x {reference}", justify="right")
    for figure in measured.figures:
        for candidate in measured.samples:
            values = measured.values(candidate, figure)
            numbers = (statistics.median(values), min(values), max(values))
            ratios = (
                measured.ratio(candidate, reference, figure)
                for reference in measured.references
            )
            table.add_row(
                figure,
                candidate,
                *(f"{number:.4g}" for number in numbers),
                *(f"{ratio:.3f}" for ratio in ratios),
            )
        table.add_section()
    return table
