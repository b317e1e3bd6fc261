"""Has pytest's summary say how much was explored."""

from __future__ import annotations

from typing import Any
from typing import Callable

import pytest

from tests.lab.explorer import Explorer
from tests.lab.explorer import Report
from tests.lab.schedule import Run

_PROPERTY = "explored"

#: explores a scenario, with so many preemptions
Explore = Callable[[Callable[[Run], object], int], Report]


@pytest.fixture
def explore(record_property: Callable[[str, object], None]) -> Explore:
    """Explores, and has it counted in the summary."""

    def explore(scenario: Callable[[Run], object], preemptions: int) -> Report:
        report = Explorer(scenario, preemptions).explore()
        counts = [report.schedules, report.states, preemptions]
        record_property(_PROPERTY, counts)
        return report

    return explore


def pytest_terminal_summary(terminalreporter: Any) -> None:
    schedules = states = 0
    lines = []
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()):
                if name == _PROPERTY and report.when == "teardown":
                    schedules += value[0]
                    states += value[1]
                    test = report.nodeid.rpartition("::")[2]
                    lines.append("{1:7} {2:7} {3:5}  {0}".format(test, *value))
    if lines:
        terminalreporter.section("interleavings")
        heading = "schedules, states, preemptions at most"
        for line in [heading, *sorted(lines)]:
            terminalreporter.write_line(line)
        terminalreporter.write_line(f"{schedules:7} {states:7}         in all")
