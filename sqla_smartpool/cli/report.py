"""What a run of the stress program measured, and how it is printed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
import statistics
from typing import Any
from typing import Callable
from typing import Mapping
from typing import Optional
from typing import Sequence

from rich.console import Console
from rich.progress import BarColumn
from rich.progress import MofNCompleteColumn
from rich.progress import Progress
from rich.progress import TextColumn
from rich.progress import TimeElapsedColumn
from rich.table import Table

ERRORS_SHOWN = 5


@dataclass(frozen=True)
class Measurement:
    """What one pool did with the program.

    :param pool: the name of the pool's class.
    :param ideal: seconds that a pool without any overhead would have taken.
    :param seconds: from the first job's start to the last one's end.
    :param start_seconds: to start the pool; None where it has no start.
    :param waits: seconds from asking to having the connection, of every
        caller who got one.
    :param errors: how often each error ended a job.

    """

    pool: str
    ideal: float
    seconds: float
    start_seconds: Optional[float]
    opened: int
    most_open: int
    open_afterwards: int
    waits: Sequence[float]
    errors: Mapping[str, int]

    @property
    def failed(self) -> int:
        """How many jobs ended with an error."""
        return sum(self.errors.values())

    def wait_quantiles(self) -> dict[str, Optional[float]]:
        """Return p50, p99 and max of the waits, None where nobody waited."""
        if not self.waits:
            return {"p50": None, "p99": None, "max": None}
        longest = max(self.waits)
        if len(self.waits) == 1:  # one is too few before Python 3.13
            return {"p50": longest, "p99": longest, "max": longest}
        cuts = statistics.quantiles(self.waits, n=100, method="inclusive")
        return {"p50": cuts[49], "p99": cuts[98], "max": longest}

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the single waits, for ``--json``."""
        return {
            "pool": self.pool,
            "ideal_seconds": self.ideal,
            "seconds": self.seconds,
            "seconds_to_ideal": self.seconds / self.ideal,
            "start_seconds": self.start_seconds,
            "connections_opened": self.opened,
            "most_open": self.most_open,
            "open_afterwards": self.open_afterwards,
            "wait_seconds": self.wait_quantiles(),
            "errors_num": self.failed,
            "errors": dict(self.errors),
        }


def progress_bar(shown: bool) -> Progress:
    """Return a progress bar on stderr, which vanishes when it is done.

    :param shown: False keeps it away; so does a stderr that is no terminal.

    """
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not (shown and console.is_terminal),
    )


def print_table(
    headlines: Sequence[str], measurements: Sequence[Measurement]
) -> None:
    """Print the measurements side by side, and the errors below."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    for line in headlines:
        console.print(line)
    table = Table()
    table.add_column("")
    for measurement in measurements:
        table.add_column(measurement.pool, justify="right")
    for label, cell in _ROWS.items():
        table.add_row(label, *map(cell, measurements))
    console.print(table)
    for measurement in measurements:
        most_common = Counter(measurement.errors).most_common()
        for error, count in most_common[:ERRORS_SHOWN]:
            console.print(f"{measurement.pool}: {count} x {error}")
        if len(most_common) > ERRORS_SHOWN:
            kinds = len(most_common) - ERRORS_SHOWN
            console.print(f"{measurement.pool}: and {kinds} other errors")


def _seconds(value: Optional[float]) -> str:
    return "-" if value is None else f"{value:.3f} s"


def _milliseconds(value: Optional[float]) -> str:
    return "-" if value is None else f"{value * 1000:.1f} ms"


_ROWS: Mapping[str, Callable[[Measurement], str]] = {
    "total": lambda m: _seconds(m.seconds),
    "ideal": lambda m: _seconds(m.ideal),
    "total / ideal": lambda m: f"{m.seconds / m.ideal:.3f}",
    "start": lambda m: _seconds(m.start_seconds),
    "connections opened": lambda m: str(m.opened),
    "most open at one time": lambda m: str(m.most_open),
    "open afterwards": lambda m: str(m.open_afterwards),
    "wait p50": lambda m: _milliseconds(m.wait_quantiles()["p50"]),
    "wait p99": lambda m: _milliseconds(m.wait_quantiles()["p99"]),
    "wait max": lambda m: _milliseconds(m.wait_quantiles()["max"]),
    "errors": lambda m: str(m.failed),
}
