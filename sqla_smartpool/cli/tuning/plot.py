"""The curve as a picture; the only module that needs matplotlib."""

from __future__ import annotations

from typing import Sequence

from matplotlib.figure import Figure

from .curve import Point
from .curve import Verdict


def draw(
    file: str, title: str, curve: Sequence[Point], verdict: Verdict
) -> None:
    """Draw throughput and times over the size of the pool.

    :param file: its ending is the format.
    """
    # Without pyplot, which looks for a screen and keeps what it draws.
    figure = Figure(figsize=(8, 7), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    figure.suptitle(title)
    sizes = [point.run.size for point in curve]
    medians = [point.run.throughput for point in curve]
    upper.errorbar(
        sizes,
        medians,
        yerr=[
            [m - p.lowest_throughput for m, p in zip(medians, curve)],
            [p.highest_throughput - m for m, p in zip(medians, curve)],
        ],
        marker="o",
        capsize=3,
    )
    upper.set_ylabel("statements a second")
    upper.set_ylim(bottom=0)
    for label, times in (
        ("in use", [point.run.use for point in curve]),
        ("waited", [point.run.wait for point in curve]),
    ):
        lower.plot(
            sizes, [1000 * each for each in times], marker="o", label=label
        )
    lower.set_ylabel("ms for each statement")
    lower.set_xlabel("connections")
    lower.set_ylim(bottom=0)
    for axes in (upper, lower):
        axes.axvline(
            verdict.max_size,
            linestyle="--",
            color="gray",
            label=f"max_size={verdict.max_size}",
        )
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(file)
