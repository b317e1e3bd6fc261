"""The command line: what it prints, its exit status, what it keeps secret."""

from __future__ import annotations

import json
import os
from pathlib import Path
import subprocess
import sys
from typing import Any

import pytest
from sqlalchemy import exc
from sqlalchemy.engine import make_url

from sqla_smartpool.cli import masked
from sqla_smartpool.cli import reason
from sqla_smartpool.cli import redact
from sqla_smartpool.cli import stress
from sqla_smartpool.cli.main import main
from sqla_smartpool.cli.report import Measurement

SMALL = (
    "--requests=40",
    "--workers=8",
    "--hold=0.005:0.01",
    "--min-size=2",
    "--max-size=4",
)
SECRET = "pä/ss w0rd!"
QUOTED = "p%C3%A4%2Fss%20w0rd%21"
NOBODY_THERE = f"postgresql+psycopg://bob:{QUOTED}@127.0.0.1:1/db"


@pytest.fixture(autouse=True)
def no_database_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)


def stress_json(capsys: pytest.CaptureFixture[str], *argv: str) -> Any:
    assert main(["stress", "--json", *SMALL, *argv]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    return json.loads(printed.out)


def error_line(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run what must fail with status 2, and return what it says."""
    try:
        status: object = main(argv)
    except SystemExit as ended:  # argparse's way
        status = ended.code
    printed = capsys.readouterr()
    assert status == 2
    assert printed.out == ""
    assert printed.err.startswith("sqla_smartpool: ")
    assert printed.err.count("\n") == 1
    return printed.err


def python(*argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *argv],
        cwd=Path(__file__).parents[1],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
    )


# The program


@pytest.mark.parametrize("flags", [(), ("--async",)], ids=["sync", "async"])
def test_both_pools_do_the_same_jobs_without_an_error(
    flags: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    document = stress_json(capsys, *flags)
    assert document["async"] is bool(flags)
    assert list(document["pools"]) == ["smart", "queue"]
    smart, queue = document["pools"].values()
    assert smart["ideal_seconds"] == queue["ideal_seconds"]
    assert smart["start_seconds"] is not None
    assert queue["start_seconds"] is None
    for pool in smart, queue:
        assert pool["errors_num"] == 0
        assert pool["errors"] == {}
        assert 1 <= pool["most_open"] <= 4
        assert pool["open_afterwards"] == 0
        assert pool["connections_opened"] >= pool["most_open"]
        wait = pool["wait_seconds"]
        assert 0 <= wait["p50"] <= wait["p99"] <= wait["max"]


def test_json_says_what_was_run(capsys: pytest.CaptureFixture[str]) -> None:
    document = stress_json(capsys, "--pool=queue", "--seed=7")
    pools = document.pop("pools")
    assert document.pop("url").startswith("sqlite:///")
    assert document == {
        "command": "stress",
        "async": False,
        "requests": 40,
        "workers": 8,
        "hold_seconds": [0.005, 0.01],
        "seed": 7,
        "min_size": 2,
        "max_size": 4,
    }
    assert set(pools["queue"]) == {
        "pool",
        "ideal_seconds",
        "seconds",
        "seconds_to_ideal",
        "start_seconds",
        "connections_opened",
        "most_open",
        "open_afterwards",
        "wait_seconds",
        "errors_num",
        "errors",
    }


def test_a_seed_draws_the_same_holds_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, again, other = (
        stress_json(capsys, "--pool=queue", seed)["pools"]["queue"]
        for seed in ("--seed=1", "--seed=1", "--seed=2")
    )
    assert first["ideal_seconds"] == again["ideal_seconds"]
    assert first["ideal_seconds"] != other["ideal_seconds"]


def test_the_table_shows_the_pools_side_by_side(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["stress", *SMALL]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "SmartPool" in printed.out
    assert "QueuePool" in printed.out
    assert "total / ideal" in printed.out


def test_only_the_pool_asked_for_is_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["stress", *SMALL, "--pool=smart"]) == 0
    assert "QueuePool" not in capsys.readouterr().out


def test_queuepool_without_a_floor_keeps_the_ceiling(
    capsys: pytest.CaptureFixture[str],
) -> None:
    document = stress_json(capsys, "--pool=queue", "--min-size=0")
    assert document["pools"]["queue"]["most_open"] <= 4


def test_the_database_is_taken_from_the_environment(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    file = tmp_path / "mine.sqlite"
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{file}")
    document = stress_json(capsys, "--pool=queue")
    assert document["url"] == f"sqlite:///{file}"
    assert file.exists()


@pytest.mark.parametrize("flags", [(), ("--async",)], ids=["sync", "async"])
def test_failed_jobs_are_counted_and_stop_nobody(
    flags: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stress, "POOL_TIMEOUT", 0)
    argv = ["stress", *SMALL, "--min-size=1", "--max-size=1", *flags]
    assert main([*argv, "--pool=queue", "--json"]) == 1
    result = json.loads(capsys.readouterr().out)["pools"]["queue"]
    assert 0 < result["errors_num"] < 40
    assert sum(result["errors"].values()) == result["errors_num"]
    assert all(
        error.startswith("TimeoutError: ") for error in result["errors"]
    )

    assert main([*argv, "--pool=queue"]) == 1
    assert " x TimeoutError: QueuePool limit" in capsys.readouterr().out


@pytest.mark.parametrize(
    "holds, at_a_time, seconds",
    [
        ([1], 1, 1),
        ([1, 1, 1], 1, 3),
        ([1, 1, 1], 2, 2),
        ([1, 1, 1], 5, 1),
        ([3, 1, 1, 1], 2, 3),
        ([1, 1, 3], 2, 4),  # in order of asking, not the longest first
    ],
)
def test_ideal(holds: list[float], at_a_time: int, seconds: float) -> None:
    assert stress.ideal_seconds(holds, at_a_time) == seconds


def measurement(waits: list[float]) -> Measurement:
    return Measurement("Pool", 1.0, 2.0, None, 1, 1, 0, waits, {})


def test_wait_quantiles() -> None:
    waits = [float(number) for number in range(101)]
    quantiles = measurement(waits).wait_quantiles()
    assert quantiles == {"p50": 50.0, "p99": 99.0, "max": 100.0}


def test_wait_quantiles_of_very_few() -> None:
    one = measurement([0.5]).wait_quantiles()
    assert one == {"p50": 0.5, "p99": 0.5, "max": 0.5}
    assert set(measurement([]).wait_quantiles().values()) == {None}


# Errors


@pytest.mark.parametrize(
    "argv, says",
    [
        ([], "COMMAND"),
        (["stres"], "'stres'"),
        (["check", "--processes=0"], "'0'"),
        (["check", "--max-size=few"], "'few'"),
        (["check", "--log-format=xml"], "'xml'"),
        (["check", "--log-level=loud"], "'loud'"),
        (["stress", "--pool=fast"], "'fast'"),
        (["stress", "--requests=0"], "'0'"),
        (["stress", "--workers=many"], "'many'"),
        (["stress", "--max-size=0"], "'0'"),
        (["stress", "--min-size=-1"], "'-1'"),
        (["stress", "--min-size=5", "--max-size=4"], "--max-size 4"),
        (["stress", "--hold=0"], "'0'"),
        (["stress", "--hold=2:1"], "'2:1'"),
        (["stress", "--hold=1:"], "'1:'"),
        (["stress", "--hold=nan"], "'nan'"),
        (["stress", "--hold=1:inf"], "'1:inf'"),
        (["stress", "sqlite://"], "memory"),
        (["stress", "sqlite:///:memory:"], "memory"),
        (["stress", "sqlite:///file:x?mode=memory&uri=true"], "memory"),
        (["stress", "no URL"], "cannot be read"),
        (["stress", "nosql://h/db"], "nosql"),
        (["stress", "sqlite:////no/such/folder/x"], "unable to open"),
        (["stress", "sqlite+aiosqlite:///x"], "add --async"),
        (
            ["stress", "--async", "postgresql+psycopg2://h/db"],
            "postgresql+asyncpg://",
        ),
    ],
)
def test_a_mistake_gets_one_line(
    argv: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert says in error_line(capsys, *argv)


@pytest.mark.parametrize(
    "argv",
    [
        ["postgresql://bob:s3cret@h/db"],
        ["stress", "sqlite:///x", "postgresql://bob:s3cret@h/db"],
        ["stress", "postgresql://bob:x@s3cret@h/db"],
        ["stress", "postgresql://bob:x@s3/cret@h/db"],
        ["stress", "postgresql://bob@h:s3cret"],
        ["stress", "nosql://bob:s3cret@h/db"],
        ["stress", "nosql://h/db?password=s3cret"],
        ["stress", "postgresql+psycopg://bob:s3cret@127.0.0.1:1/db"],
        ["stress", "postgresql+psycopg://127.0.0.1:1/?password=s3cret"],
        ["stress", "--async", "postgresql+asyncpg://b:s3cret@127.0.0.1:1/db"],
        ["stress", "--async", "postgresql+psycopg2://b:s3cret@h/db"],
    ],
)
def test_no_mistake_shows_the_password(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    line = error_line(capsys, *argv)
    assert "s3" not in line
    assert "cret" not in line


def test_what_a_pool_raises_at_its_start_gets_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqla_smartpool import PoolTimeoutError
    from sqla_smartpool import SmartPool

    def start(pool: SmartPool) -> None:
        raise PoolTimeoutError("no luck") from OSError("too many clients")

    monkeypatch.setattr(SmartPool, "start", start)
    line = error_line(capsys, "stress", "--pool=smart", *SMALL)
    assert "cannot connect to sqlite:///" in line
    assert "too many clients" in line


def test_ctrl_c_ends_with_130_and_a_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stress, "measure", interrupted)
    assert main(["stress"]) == 130
    assert capsys.readouterr().err == "sqla_smartpool: interrupted\n"


@pytest.mark.parametrize("place", ["argument", "environment"])
def test_an_unreachable_database_gets_one_line_from_the_process(
    place: str,
) -> None:
    command = ["-m", "sqla_smartpool", "stress"]
    if place == "argument":
        ended = python(*command, NOBODY_THERE)
    else:
        ended = python(*command, DATABASE_URL=NOBODY_THERE)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith(
        "sqla_smartpool: cannot connect to"
        " postgresql+psycopg://bob:***@127.0.0.1:1/db: "
    )
    assert ended.stderr.count("\n") == 1
    assert "Traceback" not in ended.stderr
    assert QUOTED not in ended.stderr
    assert "w0rd" not in ended.stderr


def test_without_rich_it_says_what_to_install() -> None:
    ended = python(
        "-c",
        "import sys; sys.modules['rich'] = None\n"
        "from sqla_smartpool.cli.main import main\n"
        "sys.exit(main(['stress']))",
    )
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1
    assert "pip install 'sqla_smartpool[cli]'" in ended.stderr


def test_the_package_itself_does_without_rich() -> None:
    ended = python(
        "-c",
        "import sys, sqla_smartpool\n"
        "print({'rich', 'sqla_smartpool.cli'} & set(sys.modules))",
    )
    assert ended.stdout == "set()\n"


# Secrets


@pytest.mark.parametrize(
    "text",
    [
        f"refused {SECRET}",
        f"refused {SECRET!r}",
        f"refused {QUOTED}",
        f"refused {QUOTED.lower()}",
        "refused p%C3%A4%2Fss+w0rd%21",
        "refused p%C3%A4%2Fss w0rd%21",
        "refused p%C3%A4/ss%20w0rd%21",
        f"password={SECRET}&host=h",
        f"x://bob:{SECRET}@h/db",
    ],
)
def test_redact_knows_the_spellings_of_a_password(text: str) -> None:
    for url in NOBODY_THERE, f"mysql+pymysql://h/db?passwd={QUOTED}":
        shown = redact(text, make_url(url))
        assert "***" in shown
        assert "w0rd" not in shown


@pytest.mark.parametrize(
    "text, shown",
    [
        ("nothing secret", "nothing secret"),
        ("x://bob@h:5432/db", "x://bob@h:5432/db"),
        ("x://bob:a@h/db", "x://bob:***@h/db"),
        ("x://bob:a/b@c@h/db", "x://bob:***@h/db"),
        ("x://h/db?sslpassword=a b&y=1", "x://h/db?sslpassword=***&y=1"),
        ("?odbc_connect=PWD%3Da", "?odbc_connect=PWD%3D***"),
    ],
)
def test_redact_masks_what_looks_like_a_password(
    text: str, shown: str
) -> None:
    assert redact(text) == shown


def test_a_url_is_shown_without_password_and_query() -> None:
    url = make_url("x://bob:a@h:1/db?password=a")
    assert masked(url) == "x://bob:***@h:1/db"


def test_the_reason_is_what_the_driver_said_in_one_line() -> None:
    url = make_url(NOBODY_THERE)
    driver_error = OSError(f"no\n\tentry for {SECRET}")
    assert reason(driver_error, url) == "no entry for ***"
    wrapped = exc.OperationalError("SELECT 1", None, driver_error)
    assert reason(wrapped, url) == "no entry for ***"
    timeout = exc.TimeoutError("pool exhausted", code="3o7r")
    assert reason(timeout, url) == "pool exhausted"
    timeout.__cause__ = wrapped
    assert reason(timeout, url) == "no entry for ***"
    assert reason(OSError(), url) == "OSError"
    assert reason(KeyError("host"), url) == "KeyError: 'host'"
