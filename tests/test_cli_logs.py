"""``--log-format`` and ``--log-level``: what the pools log while they work."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
import subprocess
import sys
from typing import Any

import pytest

from sqla_smartpool.cli.main import main
from tests.lab.server import free_port

SMALL = (
    "--pool=smart",
    "--requests=8",
    "--workers=4",
    "--hold=0.001:0.002",
    "--min-size=2",
    "--max-size=2",
)
SECRET = "s3cret"


@pytest.fixture(autouse=True)
def no_database_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)


def logged(capsys: pytest.CaptureFixture[str], *options: str) -> list[str]:
    """Run a small program, and return the lines that it logged."""
    assert main(["stress", *SMALL, "--json", *options]) == 0
    printed = capsys.readouterr()
    json.loads(printed.out)  # which logs leave alone
    return printed.err.splitlines()


def nobody_there() -> str:
    return f"postgresql+psycopg://bob:{SECRET}@127.0.0.1:{free_port()}/db"


@pytest.mark.parametrize("flags", [(), ("--async",)], ids=["sync", "async"])
def test_json_has_the_fields_of_each_record(
    flags: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    lines = logged(capsys, "--log-format=json", *flags)
    records = [json.loads(line) for line in lines]
    assert {record["level"] for record in records} == {"INFO"}
    [starting] = [each for each in records if "starting" in each["message"]]
    assert starting["min_size"] == starting["max_size"] == 2
    assert starting["logger"] == "sqla_smartpool.pool"
    opened = [each for each in records if " opened " in each["message"]]
    assert sorted(each["connection"] for each in opened) == [1, 2]
    assert all(each["ms"] > 0 and each["timestamp"] for each in opened)
    assert len({each["pool"] for each in records}) == 1


def test_plain_is_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    lines = logged(capsys, "--log-format=plain")
    assert all(" INFO sqla_smartpool." in line for line in lines)
    assert any(line.endswith("starting: 2 to 2 connections") for line in lines)
    # it is also what a level alone gives
    [first, *_] = logged(capsys, "--log-level=info")
    assert first.endswith("starting: 2 to 2 connections")


def test_color_is_written_by_rich(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    lines = logged(capsys, "--log-format=color")
    assert any("starting: " in line and "\x1b[" in line for line in lines)


def test_the_level_is_the_least_that_is_logged(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert logged(capsys, "--log-level=warning") == []
    assert logged(capsys, "--log-level=error", "--log-format=json") == []
    lines = logged(capsys, "--log-level=debug", "--log-format=json")
    messages = [json.loads(line)["message"] for line in lines]
    assert sum(" checked out after " in each for each in messages) == 8
    assert any("upkeep started" in each for each in messages)


def test_nothing_is_logged_unasked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert logged(capsys) == []


def test_a_command_leaves_logging_as_it_was(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logger = logging.getLogger("sqla_smartpool")
    before = logger.handlers[:], logger.level
    logged(capsys, "--log-level=debug")
    assert (logger.handlers, logger.level) == before


@pytest.mark.parametrize("options", [(), ("--log-format=json",)])
def test_an_unreachable_database(options: tuple[str, ...]) -> None:
    """As a process: where nobody has a handler, logging has a last resort."""
    ended = subprocess.run(
        [sys.executable, "-m", "sqla_smartpool", "check", *options],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "DATABASE_URL": nobody_there()},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    assert ended.stdout == ""
    *lines, last = ended.stderr.splitlines()
    assert last.startswith("sqla_smartpool: cannot connect to ")
    assert bool(lines) is bool(options)
    records = [json.loads(line) for line in lines]
    errors = [each["error"] for each in records if "error" in each]
    # the caller is told before the log is, and the program ends with that
    assert len(errors) <= len(options)
    assert SECRET not in ended.stderr


def test_what_a_driver_says_is_logged_without_a_password(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import psycopg

    def refuse(*args: object, **arguments: Any) -> None:
        raise psycopg.OperationalError(f"no luck with {SECRET}\nat all")

    monkeypatch.setattr(psycopg, "connect", refuse)
    assert main(["check", nobody_there(), "--log-format=json"]) == 2
    printed = capsys.readouterr()
    assert "no luck with *** at all; next attempt" in printed.err
    assert SECRET not in printed.err


def test_json_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pythonjsonlogger", None)
    monkeypatch.setitem(sys.modules, "pythonjsonlogger.json", None)
    assert main(["stress", *SMALL, "--log-format=json"]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "pip install 'sqla_smartpool[cli]'" in line


def test_who_reads_no_further_is_not_told_of_it() -> None:
    environment = {**os.environ}
    environment.pop("DATABASE_URL", None)
    with subprocess.Popen(
        [sys.executable, "-m", "sqla_smartpool", "check", "--json"],
        cwd=Path(__file__).parents[1],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as command:
        assert command.stdout is not None and command.stderr is not None
        command.stdout.close()
        assert command.stderr.read() == ""
    assert command.returncode == 1
