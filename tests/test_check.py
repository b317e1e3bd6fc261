"""``check``: what it finds out, what it advises, and when it is silent."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any
from typing import Callable

import pytest
from sqlalchemy import create_engine
from sqlalchemy import Engine
from sqlalchemy import text
from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from sqla_smartpool import SmartPool
from sqla_smartpool._sqlalchemy import greenlet_spawn
from sqla_smartpool.cli.doctor import tls
from sqla_smartpool.cli.main import main
from tests.conftest import Database
from tests.lab.pgbouncer import PgBouncer
from tests.lab.servers import MariaDB
from tests.lab.servers import PostgreSQL
from tests.lab.waiting import eventually

Check = Callable[..., Any]
SYNC_OR_ASYNC = pytest.mark.parametrize(
    "asynchronous", [False, True], ids=["sync", "async"]
)


@pytest.fixture(autouse=True)
def no_database_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]) -> Check:
    """Run the command, and return its JSON document."""

    def check(url: URL, *options: str) -> Any:
        if url.get_dialect().is_async:
            options = ("--async", *options)
        shown = url.render_as_string(hide_password=False)
        status = main(["check", shown, "--json", *options])
        printed = capsys.readouterr()
        assert printed.err == ""
        if url.password:
            assert str(url.password) not in printed.out
        document = json.loads(printed.out)
        assert status == (1 if document["advice"] else 0)
        return document

    return check


def subjects(document: Any) -> list[str]:
    return [each["about"] for each in document["advice"]]


# What is found out


@SYNC_OR_ASYNC
def test_all_is_well(
    database: Database, asynchronous: bool, check: Check
) -> None:
    document = check(database.url(asynchronous))
    assert document["advice"] == []
    assert document["async"] is asynchronous
    assert document["connect"]["cpu"] > 0
    assert document["ping"]["median"] > 0
    limits = document["limits"]
    if database.server is None:
        assert document["sight"] == "in process"
        assert limits["known"] is False
    else:
        assert document["sight"] == "kernel"
        # which takes several round trips
        assert document["connect"]["median"] > document["ping"]["median"]
        assert database.server.name in limits["product"]
        assert limits["connections"] == database.server.max_connections
        assert limits["used"] == 0
    assert document["pooler"] is None
    eventually(lambda: not database.sessions(), message="none is left")


@SYNC_OR_ASYNC
def test_it_is_told_in_plain_words(
    database: Database,
    asynchronous: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = ["--async"] if asynchronous else []
    assert main(["check", database.url_text(asynchronous), *flags]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.endswith("All is well.\n")
    for words in ("driver", "connect", "ping", "server", "ms"):
        assert words in printed.out
    if database.server is not None:
        assert database.server.password not in printed.out
        assert "max_connections = " in printed.out
        assert "120 left" in printed.out


def test_a_unix_socket_can_be_peeked_at(
    postgresql: PostgreSQL, check: Check
) -> None:
    document = check(postgresql.unix_url("postgresql+psycopg"))
    assert document["sight"] == "peek"


@pytest.mark.parametrize("database", ["postgresql", "mariadb"], indirect=True)
def test_sessions_of_others_are_counted(
    database: Database, check: Check
) -> None:
    engine = create_engine(
        database.url(), connect_args=database.connect_args()
    )
    held = [engine.connect() for _ in range(3)]
    document = check(database.url())
    assert document["limits"]["used"] == 3
    assert document["limits"]["left"] == 117
    for connection in held:
        connection.close()
    engine.dispose()


def test_a_server_that_does_not_tell_its_limits(
    postgresql_database: Database, check: Check
) -> None:
    server = postgresql_database.server
    server.execute("REVOKE SELECT ON pg_settings FROM PUBLIC")
    try:
        document = check(postgresql_database.url(), "--processes=1000")
    finally:
        server.execute("GRANT SELECT ON pg_settings TO PUBLIC")
    assert document["limits"]["known"] is False
    assert "permission denied" in document["limits"]["refusal"]
    assert document["ping"]["median"] > 0
    assert document["advice"] == []


def test_how_long_a_vanished_client_keeps_its_session(
    postgresql: PostgreSQL, capsys: pytest.CaptureFixture[str]
) -> None:
    postgresql.configure(
        tcp_keepalives_idle=100,
        tcp_keepalives_interval=10,
        tcp_keepalives_count=3,
    )
    for url, told in (
        (postgresql.url("postgresql+psycopg"), True),
        (postgresql.unix_url("postgresql+psycopg"), False),
    ):
        assert main(["check", url.render_as_string(False)]) == 0
        out = capsys.readouterr().out
        assert ("has vanished keeps its session for 130 s" in out) is told


# A server that ends idle sessions


@SYNC_OR_ASYNC
@pytest.mark.parametrize(
    "database, setting, given",
    [
        ("postgresql", "idle_session_timeout", "20s"),
        ("mariadb", "wait_timeout", 20),
    ],
    indirect=["database"],
)
def test_a_server_that_ends_idle_sessions_before_the_pool_pings_them(
    database: Database,
    setting: str,
    given: Any,
    asynchronous: bool,
    check: Check,
) -> None:
    database.server.configure(**{setting: given})
    url = database.url(asynchronous)
    document = check(url)
    assert subjects(document) == ["ping_after"]
    [advice] = document["advice"]
    assert f"20 s ({setting})" in advice["text"]
    pool_class = "AsyncSmartPool" if asynchronous else "SmartPool"
    create = "create_async_engine" if asynchronous else "create_engine"
    assert advice["code"] == (
        f"{create}(url, poolclass={pool_class}, ping_after=16, ...)"
    )
    # the pool of who follows it has nothing to fear, nor one that lets go
    pool = {"plugin": "smartpool"}
    for well in ({"ping_after": "16"}, {"keep_alive": "15"}):
        assert check(url.update_query_dict({**pool, **well}))["advice"] == []
    floor = {"keep_alive": "15", "min_size": "1"}
    assert subjects(check(url.update_query_dict({**pool, **floor}))) == [
        "ping_after"
    ]


def test_upkeep_has_to_look_often_enough_as_well(
    postgresql_database: Database, check: Check
) -> None:
    postgresql_database.server.configure(idle_session_timeout="5s")
    url = postgresql_database.url()
    code = check(url)["advice"][0]["code"]
    assert "ping_after=4, check_interval=2," in code
    pool = {"plugin": "smartpool", "ping_after": "4"}
    seldom = check(url.update_query_dict(pool))
    assert subjects(seldom) == ["ping_after"]
    often = check(url.update_query_dict({**pool, "check_interval": "2"}))
    assert often["advice"] == []


# More connections than the server has


@pytest.mark.parametrize("database", ["postgresql", "mariadb"], indirect=True)
def test_processes_times_max_size_beyond_the_server(
    database: Database, check: Check
) -> None:
    options = "--processes=12", "--max-size=10"
    assert check(database.url(), *options)["advice"] == []
    document = check(database.url(), "--processes=11", "--max-size=11")
    assert subjects(document) == ["max_size"]
    [advice] = document["advice"]
    assert "121 connections (11 x 11)" in advice["text"]
    assert "120 left" in advice["text"]
    assert "max_size=10," in advice["text"]


def test_what_others_have_is_not_left(
    postgresql_database: Database, check: Check
) -> None:
    options = "--processes=12", "--max-size=10"
    engine = create_engine(postgresql_database.url())
    with engine.connect():
        document = check(postgresql_database.url(), *options)
    engine.dispose()
    assert subjects(document) == ["max_size"]
    assert "119 left" in document["advice"][0]["text"]


@pytest.mark.parametrize("what", ["ROLE smart", "DATABASE test"])
def test_a_limit_of_the_role_or_the_database_counts(
    what: str, postgresql_database: Database, check: Check
) -> None:
    server = postgresql_database.server
    server.execute(f"ALTER {what} CONNECTION LIMIT 7")
    try:
        document = check(postgresql_database.url(), "--max-size=8")
    finally:
        server.execute(f"ALTER {what} CONNECTION LIMIT -1")
    assert document["limits"]["connections"] == 7
    assert subjects(document) == ["max_size"]


def test_a_limit_of_the_user_counts(mariadb: MariaDB, check: Check) -> None:
    mariadb.execute("ALTER USER smart WITH MAX_USER_CONNECTIONS 7")
    try:
        document = check(mariadb.url("mysql+pymysql"), "--max-size=8")
    finally:
        mariadb.execute("ALTER USER smart WITH MAX_USER_CONNECTIONS 0")
    assert document["limits"]["connections"] == 7
    assert subjects(document) == ["max_size"]


def test_a_pool_without_a_ceiling_is_beyond_every_server(
    postgresql_database: Database, check: Check
) -> None:
    url = postgresql_database.url().update_query_dict(
        {"plugin": "smartpool", "max_overflow": "-1"}
    )
    document = check(url)
    assert subjects(document) == ["max_size"]
    assert document["max_size"] is None


# TLS


def advised(document: Any, url: URL) -> Engine:
    """Run the code that is advised, and return the engine that it makes."""
    [advice] = document["advice"]
    names: dict[str, Any] = {"create_engine": create_engine, "url": url}
    *lines, last = advice["code"].splitlines()
    exec("\n".join(lines), names)
    engine: Engine = eval(last.replace(", ...)", ")"), names)
    return engine


@pytest.mark.parametrize(
    "database, driver",
    [("postgresql", "postgresql+pg8000"), ("mariadb", "mysql+pymysql")],
    indirect=["database"],
)
def test_a_context_for_each_connection_can_be_shared(
    database: Database, driver: str, check: Check
) -> None:
    # without a word about TLS: both take it when the server offers it
    url = database.server.url(driver).set(query={})
    document = check(url)
    assert subjects(document) == ["TLS"]
    assert document["tls"]["encrypted"]
    shared = document["tls"]["shared"]["cpu"]
    assert document["connect"]["cpu"] > 2 * shared
    engine = advised(document, url)
    with engine.connect() as one, engine.connect() as other:
        contexts = []
        for connection in (one, other):
            driver_connection = connection.connection.driver_connection
            way = tls.way_of(driver_connection)
            assert way is not None
            contexts.append(way.context_of(driver_connection))
        assert contexts[0] is not None
        assert contexts[0] is contexts[1]
    engine.dispose()


def test_a_context_is_built_although_nothing_is_encrypted(
    postgresql_database: Database, check: Check
) -> None:
    postgresql_database.server.configure(ssl="off")
    url = postgresql_database.server.url("postgresql+pg8000")
    document = check(url)
    assert subjects(document) == ["TLS"]
    assert not document["tls"]["encrypted"]
    engine = advised(document, url)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1
    engine.dispose()


def test_a_verified_server_stays_verified(
    mariadb: MariaDB, check: Check, tmp_path: Any
) -> None:
    """Also with many authorities in the file, which make it slow."""
    bundle = tmp_path / "authorities.pem"
    bundle.write_text(mariadb.certificate.read_text() * 200)
    url = mariadb.url("mysql+pymysql", tls=True).update_query_dict(
        {"ssl_ca": str(bundle), "ssl_check_hostname": "true"}
    )
    code = check(url)["advice"][0]["code"]
    assert f"cafile='{bundle}'" in code
    assert "CERT_NONE" not in code


# Another pooler


@pytest.mark.parametrize(
    "driver", ["psycopg", "psycopg2", "pg8000", "asyncpg"]
)
def test_pgbouncer_is_found(
    driver: str,
    pooler: PgBouncer,
    request: pytest.FixtureRequest,
    check: Check,
) -> None:
    document = check(pooler.url(f"postgresql+{driver}"))
    mode = request.node.callspec.params["pooler"]
    assert document["pooler"]["mode"] == mode
    advice = [each for each in subjects(document) if each != "TLS"]
    prepares = mode == "transaction" and driver in ("psycopg", "asyncpg")
    assert advice == (["prepared statements"] if prepares else [])


def test_pgbouncer_has_limits_of_its_own_where_it_shares_sessions(
    pooler: PgBouncer,
    postgresql: PostgreSQL,
    request: pytest.FixtureRequest,
    check: Check,
) -> None:
    postgresql.configure(idle_session_timeout="20s")
    document = check(pooler.url("postgresql+psycopg2"), "--processes=100")
    if request.node.callspec.params["pooler"] == "transaction":
        assert document["advice"] == []
    else:
        assert subjects(document) == ["ping_after", "max_size"]


@pytest.mark.parametrize("driver", ["psycopg", "asyncpg"])
@pytest.mark.parametrize("pooler", ["transaction"], indirect=True)
def test_prepared_statements_fail_unless_the_advice_is_followed(
    driver: str, pooler: PgBouncer, check: Check
) -> None:
    url = pooler.url(f"postgresql+{driver}")
    code = check(url)["advice"][0]["code"]
    arguments = code[code.index("{") : code.index("}") + 1]
    with pytest.raises(DBAPIError, match="prepared statement .* not exist"):
        _change_sessions(url, {})
    _change_sessions(url, eval(arguments))


def _change_sessions(url: URL, connect_args: dict[str, Any]) -> None:
    """Have two clients meet each other's sessions, in random order."""
    is_async = url.get_dialect().is_async
    engine = (
        create_async_engine(url, connect_args=connect_args).sync_engine
        if is_async
        else create_engine(url, connect_args=connect_args)
    )

    def work() -> None:
        try:
            with engine.connect() as one, engine.connect() as other:
                for number in range(60):
                    for connection in random.sample((one, other), 2):
                        # again and again the same, and always another one
                        wanted = 0 if connection is one else number
                        connection.exec_driver_sql(f"SELECT {wanted}")
                    for connection in random.sample((one, other), 2):
                        connection.commit()
        finally:
            engine.dispose()

    asyncio.run(greenlet_spawn(work)) if is_async else work()


# No database


@SYNC_OR_ASYNC
def test_a_refused_password_gets_one_line(
    postgresql: PostgreSQL,
    asynchronous: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    driver = "asyncpg" if asynchronous else "psycopg"
    url = postgresql.url(f"postgresql+{driver}").set(password="s3cret")
    flags = ["--async"] if asynchronous else []
    shown = url.render_as_string(hide_password=False)
    assert main(["check", shown, *flags]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("sqla_smartpool: cannot connect to ")
    assert printed.err.count("\n") == 1
    assert "password authentication failed" in printed.err
    assert "s3cret" not in printed.err


def test_a_server_that_does_not_answer_is_given_up(
    postgresql: PostgreSQL,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from sqla_smartpool.cli import check

    monkeypatch.setitem(check._ROOM, "pool_timeout", 0.3)
    postgresql.freeze()
    url = postgresql.url("postgresql+psycopg")
    shown = url.render_as_string(hide_password=False)
    assert main(["check", shown]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_settings_that_no_pool_takes_get_one_line(
    sqlite_database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    url = sqlite_database.url().update_query_dict(
        {"plugin": "smartpool", "min_size": "4"}
    )
    argv = ["check", str(url), "--max-size=3"]
    assert main(argv) == 2
    assert "min_size=4 exceeds" in capsys.readouterr().err


def test_the_pool_examined_with_is_a_smart_pool(
    sqlite_database: Database, check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    connect = SmartPool._do_get

    def noted(pool: SmartPool) -> Any:
        made.append(pool)
        return connect(pool)

    monkeypatch.setattr(SmartPool, "_do_get", noted)
    check(sqlite_database.url())
    assert made
