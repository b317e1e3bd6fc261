"""``tune``: the knee of a curve, and of a real server."""

from __future__ import annotations

import json
from pathlib import Path
import random
import sys
from typing import Any
from typing import Callable
from xml.etree import ElementTree

import pytest
from sqlalchemy import create_engine
from sqlalchemy import text

from sqla_smartpool.cli.main import main
from sqla_smartpool.cli.tuning import load
from sqla_smartpool.cli.tuning.curve import judge
from sqla_smartpool.cli.tuning.curve import Point
from sqla_smartpool.cli.tuning.curve import points
from sqla_smartpool.cli.tuning.curve import Run
from sqla_smartpool.cli.tuning.curve import sizes
from tests.conftest import Database
from tests.lab.waiting import eventually

SYNC_OR_ASYNC = pytest.mark.parametrize(
    "asynchronous", [False, True], ids=["sync", "async"]
)
#: no two of them run at the same time, however many connections there are
SERIAL = "SELECT pg_advisory_xact_lock(1), pg_sleep(0.05)"
#: each of them runs by itself
PARALLEL = "SELECT pg_sleep(0.05)"


@pytest.fixture(autouse=True)
def no_database_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)


def tuned(
    capsys: pytest.CaptureFixture[str],
    database: Database,
    sql: str,
    *options: str,
    asynchronous: bool = False,
) -> Any:
    """Run the command, and return its JSON document."""
    flags = ["--async"] if asynchronous else []
    url = database.url_text(asynchronous)
    argv = ["tune", url, "--sql", sql, "--json", *flags, *options]
    assert main(argv) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    return json.loads(printed.out)


# The knee, of curves that are known


def run_of(size: int, workers: int, throughput: float) -> Run:
    """What Little's law makes of a throughput."""
    use = size / throughput
    return Run(size, throughput, use, workers / throughput - use, 0.003)


def curve(
    workers: int,
    throughput: Callable[[int], float],
    noise: Callable[[], float] = lambda: 1.0,
) -> list[Point]:
    return points(
        run_of(size, workers, throughput(size) * noise())
        for size in sizes(workers)
        for _ in range(3)
    )


@pytest.mark.parametrize("workers", [1, 2, 3, 16, 50, 200])
def test_sizes_go_from_one_to_the_number_of_workers(workers: int) -> None:
    tried = sizes(workers)
    assert tried[0] == 1 and tried[-1] == workers
    assert tried == sorted(set(tried))
    assert len(tried) <= 15
    assert all(
        b <= max(a + 1, 1.5 * a + 0.5) for a, b in zip(tried, tried[1:])
    )


@pytest.mark.parametrize("capacity", [1, 2, 3, 4, 6, 9, 14])
def test_the_knee_is_where_a_server_is_full(capacity: int) -> None:
    found = curve(24, lambda size: 100.0 * min(size, capacity))
    verdict = judge(found, 24)
    assert verdict.knee == verdict.max_size == capacity
    assert 1 <= verdict.min_size <= capacity


@pytest.mark.parametrize("capacity", [1, 4, 9])
def test_noise_does_not_move_the_knee_far(capacity: int) -> None:
    draw = random.Random(0)
    tried = sizes(24)
    near = tried.index(capacity)
    allowed = tried[max(0, near - 1) : near + 2]
    for _ in range(200):
        found = curve(
            24,
            lambda size: 100.0 * min(size, capacity),
            lambda: draw.lognormvariate(0.0, 0.05),
        )
        assert judge(found, 24).knee in allowed


def test_a_server_that_thrashes_is_best_before_it_does() -> None:
    def throughput(size: int) -> float:
        return 100.0 * min(size, 4) / (1.0 + max(0, size - 4) / 10)

    assert judge(curve(24, throughput), 24).knee == 4


def test_without_a_knee_more_workers_are_needed() -> None:
    verdict = judge(curve(24, lambda size: 100.0 * size), 24)
    assert verdict.knee is None
    assert verdict.max_size == 24
    assert "still grew" in verdict.text
    assert "measure with more workers" in verdict.text


def test_one_worker_needs_one_connection() -> None:
    verdict = judge(curve(1, lambda size: 100.0), 1)
    assert verdict.knee == verdict.min_size == verdict.max_size == 1


def test_the_verdict_has_the_figures() -> None:
    # 4 connections of 10 ms each: 400 a second
    verdict = judge(curve(24, lambda size: 100.0 * min(size, 4)), 24)
    assert verdict.text == (
        "The knee of the throughput of 24 workers is at 4: 400 statements a"
        " second of 10 ms each, which keep 4 connections busy (Little's law)."
        " With 6 it was 400 a second (+0%), and each took 15 ms: what does"
        " not wait in the pool waits in the database. max_size=4 serves;"
        " min_size=4 has enough open for 50% of that load, and each one"
        " opened on top takes 3 ms. At 80% of that load 60% of the callers"
        " would wait for one of them, 7.46 ms on average over all, if callers"
        " come at random. With 3, the next smaller size, throughput ended at"
        " 300 a second (-25%)."
    )


def test_more_throughput_beyond_the_knee_is_told_with_its_price() -> None:
    def throughput(size: int) -> float:
        return 100.0 * size if size <= 4 else 450.0

    verdict = judge(curve(24, throughput), 24)
    assert verdict.knee == 4
    assert (
        "With 6 it was 450 a second (+12%), and each took 13.3 ms: a statement"
        " with its wait then takes 53.3 ms instead of 60 ms (Little's law)"
    ) in verdict.text


def test_a_point_is_the_median_of_its_runs() -> None:
    [point] = points(run_of(2, 4, rate) for rate in (100.0, 300.0, 110.0))
    assert point.run.throughput == 110.0
    assert (point.lowest_throughput, point.highest_throughput) == (100, 300)


# The knee, of a real server


@pytest.mark.slow
@SYNC_OR_ASYNC
def test_statements_that_wait_for_each_other_need_one_connection(
    postgresql_database: Database,
    asynchronous: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    document = tuned(
        capsys,
        postgresql_database,
        SERIAL,
        "--workers=3",
        "--seconds=5",
        asynchronous=asynchronous,
    )
    assert document["knee"] == document["max_size"] == 1
    assert document["async"] is asynchronous
    assert [each["size"] for each in document["points"]] == [1, 2, 3]
    for point in document["points"]:
        lowest, highest = point["throughput_range"]
        assert 0 < lowest <= point["throughput"] <= highest < 1.2 / 0.05
        assert point["use_seconds"] >= 0.05
        assert point["connect_seconds"] > 0
    # who does not wait in the pool waits in the database
    first, last = document["points"][0], document["points"][-1]
    assert last["use_seconds"] > 1.5 * first["use_seconds"]
    assert first["wait_seconds"] > 1.5 * last["wait_seconds"]
    eventually(lambda: postgresql_database.sessions() == 0)


@pytest.mark.slow
@SYNC_OR_ASYNC
def test_statements_that_do_not_wait_use_all_there_are(
    postgresql_database: Database,
    asynchronous: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    document = tuned(
        capsys,
        postgresql_database,
        PARALLEL,
        "--workers=3",
        "--seconds=5",
        asynchronous=asynchronous,
    )
    assert document["max_size"] > 1
    first, last = document["points"][0], document["points"][-1]
    # three times as much, if nothing else keeps the machine busy
    assert last["throughput"] > 1.5 * first["throughput"]
    assert first["throughput"] < 1.2 / 0.05


def test_what_is_measured_is_rolled_back(
    sqlite_database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = create_engine(sqlite_database.url())
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE t (a INTEGER)"))
    document = tuned(
        capsys,
        sqlite_database,
        "INSERT INTO t VALUES (1)",
        "--workers=1",
        "--seconds=3",
    )
    assert document["points"][0]["throughput"] > 0
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM t")) == 0
    engine.dispose()


# What is printed and drawn

QUICK = ("--sql=SELECT 1", "--workers=2", "--seconds=3")


def test_the_table_marks_the_size_that_serves(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["tune", *QUICK]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.startswith("sqlite:///")
    assert printed.out.count(" * ") == 1
    assert "max_size=" in printed.out


def test_the_plot_is_a_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    png, svg = tmp_path / "curve.png", tmp_path / "curve.svg"
    assert main(["tune", *QUICK, "--plot", str(png)]) == 0
    with Image.open(png) as image:
        assert image.format == "PNG"
        assert min(image.size) >= 400
        # not a blank one
        assert len(image.convert("RGB").getcolors(1 << 20) or ()) > 20
    assert main(["tune", *QUICK, "--plot", str(svg)]) == 0
    root = ElementTree.parse(svg).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert len(list(root.iter("{http://www.w3.org/2000/svg}path"))) > 10


# Mistakes


@pytest.mark.parametrize(
    "options, says",
    [
        ((), "--sql"),
        (("--sql=SELECT 1",), "--workers"),
        (("--sql=SELECT 1", "--workers=0"), "'0'"),
        ((*QUICK, "--seconds=0"), "'0'"),
        ((*QUICK, "--seconds=soon"), "'soon'"),
        ((*QUICK, "--plot=curve.pdf"), "does not end with .png or .svg"),
        ((*QUICK, "--plot=/no/such/folder/curve.png"), "No such file"),
        ((*QUICK, "--sql=SELECT no_column"), "no such column: no_column"),
        ((*QUICK, "--async", "--sql=SELECT no_column"), "no such column"),
        (
            ("postgresql+psycopg://bob:s3cret@127.0.0.1:1/db", *QUICK),
            "cannot connect to postgresql+psycopg://bob:***@",
        ),
    ],
)
def test_a_mistake_gets_one_line(
    options: tuple[str, ...],
    says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    try:
        status: object = main(["tune", *options])
    except SystemExit as ended:  # argparse's way
        status = ended.code
    printed = capsys.readouterr()
    assert status == 2
    assert says in printed.err
    assert printed.err.count("\n") == 1
    assert "s3cret" not in printed.err


@SYNC_OR_ASYNC
def test_a_server_that_refuses_so_many_connections(
    postgresql_database: Database,
    asynchronous: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(load, "START_TIMEOUT", 3.0)
    server = postgresql_database.server
    server.execute("ALTER ROLE smart CONNECTION LIMIT 2")
    url = postgresql_database.url_text(asynchronous)
    flags = ["--async"] if asynchronous else []
    try:
        status = main(["tune", url, *QUICK, "--workers=3", *flags])
    finally:
        server.execute("ALTER ROLE smart CONNECTION LIMIT -1")
    assert status == 2
    line = capsys.readouterr().err
    assert "with a pool of 3: " in line
    assert "too many connections" in line
    assert line.count("\n") == 1


def test_without_matplotlib_it_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["tune", *QUICK, "--plot=curve.png"]) == 2
    assert "pip install 'sqla_smartpool[tune]'" in capsys.readouterr().err
