"""The status page as HTTP: what it answers, to whom, and what it leaves
out."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
import json
import threading
import time
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy import event
from sqlalchemy import URL
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.pool import NullPool
from sqlalchemy.pool import QueuePool

from sqla_smartpool import observe
from sqla_smartpool import PoolTimeoutError
from sqla_smartpool import SmartPool
from sqla_smartpool.integrations.status import asgi_app
from sqla_smartpool.integrations.status import wsgi_app
from sqla_smartpool.integrations.status_errors import hidden
from sqla_smartpool.integrations.status_view import PoolView
from tests.conftest import Database
from tests.integrations.status_pages import ask
from tests.integrations.status_pages import FACES
from tests.integrations.status_pages import made
from tests.integrations.status_pages import only_pool
from tests.integrations.status_pages import POOLS
from tests.integrations.status_pages import told
from tests.lab.waiting import eventually

FILES = ["", "page.css", "page.js", "pool.js", "chart.js", "words.js"]
FILES += ["icon.svg", "json"]
NUMBER = (int, float)
#: what ``json`` says of a pool, and of what kind it is
POOL = {
    "name": str,
    "pool": str,
    "at": NUMBER,
    "state": str,
    "blocked": (dict, type(None)),
    "stats": dict,
    "recent_seconds": NUMBER,
    "times": dict,
    "connections": list,
    "holders": list,
    "errors": list,
    "diagnosis": (dict, type(None)),
    "samples": list,
    "settings": dict,
    "advice": dict,
}


# -- HTTP --------------------------------------------------------------------


@FACES
@pytest.mark.parametrize("name", FILES)
def test_every_answer_is_guarded_by_its_headers(face: str, name: str) -> None:
    answer = ask(face, [], f"/pools/{name}")
    headers = answer.headers
    assert answer.status_code == 200
    assert int(headers["Content-Length"]) == len(answer.content) > 0
    policy = dict(
        part.split(" ", 1)
        for part in headers["Content-Security-Policy"].split("; ")
    )
    assert policy.pop("default-src") == "'none'"
    assert policy.pop("frame-ancestors") == "'none'"
    assert set(policy.values()) == {"'self'", "'none'"}
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"


@FACES
@pytest.mark.parametrize("name", ["", "json", "page.js"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_it_can_only_be_read(face: str, name: str, method: str) -> None:
    answer = ask(face, [], f"/pools/{name}", method)
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "GET, HEAD"
    assert "Content-Security-Policy" in answer.headers


@FACES
def test_head_is_get_without_the_body(face: str) -> None:
    got, head = (ask(face, [], "/pools/", each) for each in ("GET", "HEAD"))
    assert (got.status_code, head.status_code) == (200, 200)
    assert head.content == b"" != got.content
    assert head.headers == got.headers


@FACES
@pytest.mark.parametrize(
    "name", ["x", "json/", "page.py", "../status.py", "%2e%2e/status.py"]
)
def test_there_is_nothing_else(face: str, name: str) -> None:
    assert ask(face, [], f"/pools/{name}").status_code == 404
    assert ask(face, [], f"/{name}", prefix="").status_code == 404


@FACES
@pytest.mark.parametrize("prefix", ["", "/pools", "/ops/the pools"])
def test_it_works_wherever_it_is_mounted(face: str, prefix: str) -> None:
    page = ask(face, [], f"{prefix}/", prefix=prefix)
    assert b'src="page.js"' in page.content
    for name in FILES:
        path = str(page.url.join(name))
        assert ask(face, [], path, prefix=prefix).status_code == 200


def test_an_address_without_its_slash_leads_to_the_page() -> None:
    answer = ask("wsgi", [], "/ops/the pools", prefix="/ops/the pools")
    assert answer.status_code == 307
    location = answer.headers["Location"]
    assert answer.url.join(location).path == "/ops/the pools/"

    async def raw(root: str, path: str) -> str:
        """Of a server that takes the prefix off, or not."""
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": path}
        await asgi_app([])({**scope, "root_path": root}, _never, send)
        return dict(sent[0]["headers"])[b"location"].decode()

    assert asyncio.run(raw("/ops", "")) == "ops/"
    assert asyncio.run(raw("/ops", "/ops")) == "ops/"
    assert asyncio.run(raw("/ops/", "/ops")) == "ops/"


async def _never() -> Any:
    raise AssertionError("there is no body to receive")


def test_it_can_be_served_by_itself() -> None:
    """A server says when it starts and stops, and may upgrade."""

    async def program() -> list[str]:
        inbox = ["lifespan.startup", "lifespan.shutdown", "websocket.connect"]
        sent: list[str] = []

        async def receive() -> Any:
            return {"type": inbox.pop(0)}

        async def send(message: Any) -> None:
            sent.append(message["type"])

        app = asgi_app([])
        await app({"type": "lifespan"}, receive, send)
        await app({"type": "websocket", "path": "/json"}, receive, send)
        return sent

    assert asyncio.run(program()) == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
        "websocket.close",
    ]


# -- what it tells -----------------------------------------------------------


@FACES
@POOLS
def test_the_json_is_as_it_is_described(
    sqlite_database: Database, face: str, pool_class: Any
) -> None:
    engine = made(sqlite_database, pool_class)
    with engine.connect():
        answer = ask(face, {"orders": engine}).json()
    assert answer.keys() == {"process", "now", "bounds", "pools"}
    (pool,) = answer["pools"]
    assert pool.keys() == POOL.keys()
    for name, kind in POOL.items():
        assert isinstance(pool[name], kind), name
    assert (pool["name"], pool["state"]) == ("orders", "fine")
    assert pool["pool"] == pool_class.__name__
    assert pool["stats"]["pool_in_use"] == 1
    assert pool["times"].keys() == {"wait", "use", "connect"}
    for each in pool["times"].values():
        assert len(each["counts"]) == len(answer["bounds"]) + 1
        assert sum(each["counts"]) == each["count"]
    ((at, *sizes),) = pool["samples"]
    assert abs(at - answer["now"]) < 5
    assert sizes == [1, 1, 0, 0], "size, in use, waiting, connecting"
    (connection,) = pool["connections"]
    assert connection["state"] == "in use"
    (holder,) = pool["holders"]
    assert holder["name"] == threading.current_thread().name
    assert holder["where"] and not holder["taken"]
    engine.dispose()


@FACES
@POOLS
def test_an_exhausted_pool_is_told_with_its_cause(
    sqlite_database: Database, face: str, pool_class: Any
) -> None:
    engine = made(sqlite_database, pool_class, pool_timeout=30)
    with ThreadPoolExecutor(1, "waiting") as threads:
        with engine.connect(), engine.connect():
            waiting = threads.submit(lambda: engine.connect().close())

            def exhausted() -> Any:
                pool = told(face, {"orders": engine})
                return pool if pool["state"] == "exhausted" else None

            pool = eventually(exhausted)
            assert pool["stats"]["requests_waiting"] == 1
            assert pool["diagnosis"]["cause"] == "backlog"
            assert pool["diagnosis"]["remedy"]
        waiting.result()
    assert told(face, {"orders": engine})["diagnosis"] is None
    engine.dispose()


@FACES
@POOLS
def test_asking_takes_no_connection(
    sqlite_database: Database, face: str, pool_class: Any
) -> None:
    engine = made(sqlite_database, pool_class)
    engine.connect().close()
    used: list[Any] = []
    for name in ("checkout", "connect"):
        event.listen(engine, name, lambda *args: used.append(args))
    for _ in range(3):
        ask(face, {"orders": engine})
    assert used == []
    engine.dispose()


@pytest.mark.parametrize("face", ["wsgi"])
def test_errors_are_told_once_with_their_number(
    sqlite_database: Database, face: str
) -> None:
    engine = made(sqlite_database, SmartPool)
    app = wsgi_app({"orders": engine})
    with engine.connect(), engine.connect():
        for _ in range(2):
            with pytest.raises(PoolTimeoutError):
                engine.connect()
    (error,) = only_pool(app)["errors"]
    assert (error["what"], error["times"]) == ("checkout failed", 2)
    assert error["text"].startswith("QueuePool limit of size 2")
    assert error["first"] < error["last"] <= time.time()
    engine.dispose()


@POOLS
def test_a_database_that_refuses_is_told(pool_class: Any) -> None:
    def refuse() -> Any:
        raise engine.dialect.loaded_dbapi.OperationalError(
            "no route to postgresql://bob:hunter2@db.example/orders"
        )

    engine = create_engine("sqlite://", poolclass=pool_class, creator=refuse)
    app = wsgi_app({"orders": engine})
    for _ in range(2):
        with pytest.raises(Exception, match="no route"):
            engine.connect()
    pool = only_pool(app)
    assert pool["state"] == "database unreachable"
    assert pool["diagnosis"]["cause"] == "database"
    (error,) = pool["errors"]
    assert (error["what"], error["times"]) == ("connect failed", 2)
    assert error["text"] == "OperationalError: no route to (a URL)"
    assert "hunter2" not in json.dumps(pool)


@FACES
def test_pools_are_called_what_they_are_called(face: str) -> None:
    def pools(engines: Any) -> list[str]:
        answer = ask(face, engines).json()
        return [pool["name"] for pool in answer["pools"]]

    url = "sqlite://"
    first, second = (
        create_engine(url, poolclass=QueuePool, pool_logging_name=name)
        for name in (None, "orders")
    )
    assert pools([first, second]) == ["pool 1", "orders"]
    assert pools({"<b>": first, "": second}) == ["<b>", ""]


def test_a_pool_in_which_nobody_waits_is_refused() -> None:
    engine = create_engine("sqlite://", poolclass=NullPool)
    with pytest.raises(InvalidRequestError, match="NullPool"):
        wsgi_app([engine])


def test_what_an_observer_was_told_stays(sqlite_database: Database) -> None:
    engine = made(sqlite_database, QueuePool)
    observer: Any = observe(engine, leak_after=60.0)
    wsgi_app([engine])
    assert observer.leak_after == 60.0
    assert observer.traces


# -- what it does not tell ---------------------------------------------------


@FACES
def test_nothing_secret_is_told(
    postgresql_database: Database, face: str
) -> None:
    """Not by a driver, nor by who names a thread, nor by source code."""
    secret = "s3cr3t/pa ss"
    url = postgresql_database.url().set(username="nobody", password=secret)
    engine = create_engine(url, poolclass=SmartPool, trace_checkouts=True)
    whole = url.render_as_string(hide_password=False)
    pool = PoolView("orders", engine)

    def hold() -> str:
        with pytest.raises(Exception, match="nobody"):
            engine.connect()
        return "".join(json.dumps(pool.look()))

    with ThreadPoolExecutor(1, f"{whole} password={secret}") as threads:
        said = threads.submit(hold).result()
    assert "database unreachable" in said
    for word in (secret, whole, "s3cr3t", url.render_as_string()):
        assert word not in said
    engine.dispose()


@pytest.mark.parametrize(
    "told, cleaned",
    [
        ("no such table: x", "no such table: x"),
        ("invalid dsn a://b:c@d/e!", "invalid dsn (a URL)"),
        (
            "a.py:1 in f: connect(password='x y')",
            "a.py:1 in f: connect(password=***)",
        ),
        ("PWD=abc;UID=sa", "PWD=***;UID=sa"),
        ("db_password = abc, x", "db_password = ***, x"),
        ("password authentication failed", "password authentication failed"),
        ("it was ge/heim or ge%2Fheim", "it was *** or ***"),
        (
            ["ge/heim", {"a": ("ge/heim",)[0], "b": 1}],
            ["***", {"a": "***", "b": 1}],
        ),
    ],
)
def test_passwords_and_urls_are_hidden(told: Any, cleaned: Any) -> None:
    url = URL.create("postgresql", "bob", "ge/heim", "db")
    assert hidden(told, url) == cleaned
