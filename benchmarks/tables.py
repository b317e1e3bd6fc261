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
    """Median, spread and ratios of each figure, a row for each candidate."""
    table = Table(title=f"{measured.benchmark}: {measured.title}")
    table.title_justify = "left"
    table.add_column("candidate")
    figures = measured.figures
    for figure in figures:
        table.add_column(figure, justify="right")
        table.add_column("min - max", justify="right")
        for reference in measured.references:
            table.add_column(f"x {reference}", justify="right")
    for candidate in measured.samples:
        cells = [candidate]
        for figure in figures:
            values = measured.values(candidate, figure)
            cells.append(f"{statistics.median(values):.4g}")
            cells.append(f"{min(values):.3g} - {max(values):.3g}")
            for reference in measured.references:
                ratio = measured.ratio(candidate, reference, figure)
                cells.append(f"{ratio:.3f}")
        table.add_row(*cells)
    return table
