"""What came of a run, and how it goes while it lasts."""

from __future__ import annotations

from collections import defaultdict
import statistics
from typing import Any

from rich.console import Console
from rich.table import Table

from .invariants import Judge
from .lanes import Lane
from .stage import Stage
from .watch import Resources

_VIOLATIONS_SHOWN = 50


def print_report(
    to: Console,
    seconds: float,
    stages: list[Stage],
    judge: Judge,
    resources: Resources,
) -> None:
    """Print everything; what matters most comes last."""
    to.print(_lanes(seconds, [x for stage in stages for x in stage.lanes]))
    to.print(_errors([lane for stage in stages for lane in stage.lanes]))
    to.print(_faults(stages))
    to.print(_resources(resources))
    to.print(_invariants(judge))
    for line in judge.violations[:_VIOLATIONS_SHOWN]:
        to.print(f"violation: {line}", soft_wrap=True)
    to.print(
        f"seed {judge.seed}: {sum(judge.checked.values())} checks,"
        f" {len(judge.violations)} violations"
    )


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


def _lanes(seconds: float, lanes: list[Lane]) -> Table:
    table = _table(
        "lanes",
        "driver",
        "checkouts",
        "per s",
        "wait p50",
        "p99",
        "max",
        "cancelled",
        "failed",
        "connects",
        "most open",
    )
    for lane in lanes:
        table.add_row(
            lane.name,
            str(lane.waits.number),
            f"{lane.waits.number / seconds:.1f}",
            _milliseconds(lane.waits.quantile(0.5)),
            _milliseconds(lane.waits.quantile(0.99)),
            _milliseconds(lane.waits.longest),
            str(lane.cancelled),
            str(sum(lane.errors.values())),
            str(lane.books.opened),
            str(lane.books.most),
        )
    return table


def _errors(lanes: list[Lane]) -> Table:
    table = _table("errors, all of them excused", "driver", "kind", "number")
    for lane in lanes:
        for error, number in lane.errors.most_common():
            table.add_row(lane.name, error, str(number))
    return table


def _faults(stages: list[Stage]) -> Table:
    table = _table(
        "faults survived, and until each lane was whole again",
        "fault",
        "lanes hit",
        "min",
        "median",
        "max",
    )
    healed: defaultdict[str, list[float]] = defaultdict(list)
    for stage in stages:
        for fault, times in stage.healed.items():
            healed[fault] += times
    for fault, times in sorted(healed.items()):
        table.add_row(
            fault,
            str(len(times)),
            _milliseconds(min(times)),
            _milliseconds(statistics.median(times)),
            _milliseconds(max(times)),
        )
    return table


def _resources(resources: Resources) -> Table:
    table = _table("resources", "", "early", "late", "most")
    for name, samples in (
        ("memory, MiB", resources.memory),
        ("threads", resources.threads),
        ("descriptors", resources.descriptors),
    ):
        growth = resources.growth(samples)
        table.add_row(name, *(f"{number:.0f}" for number in growth))
    return table


def _invariants(judge: Judge) -> Table:
    table = _table("invariants", "", "checked", "violated")
    for name, number in sorted(judge.checked.items()):
        violated = sum(f" s: {name}: " in x for x in judge.violations)
        table.add_row(name, str(number), str(violated))
    return table


def _milliseconds(seconds: Any) -> str:
    return f"{seconds * 1000:.1f} ms"
