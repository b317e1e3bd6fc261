"""The status page as HTTP: what it answers, to whom, and what it leaves
out."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
import json
import sys
import threading
import time
from typing import Any
from typing import AsyncIterator
from typing import Callable
from typing import Iterator

import httpx
import pytest
from sqlalchemy import create_engine
from sqlalchemy import Engine
from sqlalchemy import event
from sqlalchemy import text
from sqlalchemy import URL
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.pool import NullPool
from sqlalchemy.pool import QueuePool
from starlette.applications import Starlette
from starlette.routing import Mount
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.wrappers import Response

from sqla_smartpool import AsyncSmartPool
from sqla_smartpool import Histogram
from sqla_smartpool import observe
from sqla_smartpool import PoolTimeoutError
from sqla_smartpool import SmartPool
from sqla_smartpool.histogram import bucket_of
from sqla_smartpool.histogram import summed
from sqla_smartpool.integrations.status import asgi_app
from sqla_smartpool.integrations.status import wsgi_app
from sqla_smartpool.integrations.status_errors import hidden
from sqla_smartpool.integrations.status_view import PoolView
from sqla_smartpool.integrations.status_view import times
from tests.conftest import Database
from tests.lab.waiting import eventually

FACES = pytest.mark.parametrize("face", ["asgi", "wsgi"])
POOLS = pytest.mark.parametrize(
    "pool_class", [SmartPool, QueuePool], ids=["own", "stock"]
)
ASYNC_POOLS = pytest.mark.parametrize(
    "pool_class", [AsyncSmartPool, AsyncAdaptedQueuePool], ids=["own", "stock"]
)
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


def ask(
    face: str,
    engines: Any,
    path: str = "/pools/json",
    method: str = "GET",
    prefix: str = "/pools",
) -> httpx.Response:
    """Ask the application, mounted under a prefix."""
    if face == "wsgi":
        mounted: Any = DispatcherMiddleware(
            Response("other", 404), {prefix: wsgi_app(engines)}
        )
        if not prefix:
            mounted = wsgi_app(engines)
        with httpx.Client(
            transport=httpx.WSGITransport(mounted), base_url="http://app"
        ) as client:
            return client.request(method, path)
    app: Any = asgi_app(engines)
    if prefix:
        app = Starlette(routes=[Mount(prefix, app=app)])

    async def request() -> httpx.Response:
        async with asgi_client(app) as client:
            return await client.request(method, path)

    return asyncio.run(request())


@asynccontextmanager
async def asgi_client(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://app"
    ) as client:
        yield client


def told(face: str, engines: Any) -> Any:
    """What it says of the only pool there is."""
    answer = ask(face, engines)
    assert answer.status_code == 200
    (pool,) = answer.json()["pools"]
    return pool


def made(database: Database, pool_class: Any, **options: Any) -> Engine:
    """An engine for two connections at most."""
    sizes = (
        {"max_size": 2}
        if issubclass(pool_class, SmartPool)
        else {"pool_size": 2, "max_overflow": 0}
    )
    asynchronous = bool(pool_class._is_asyncio)
    create: Callable[..., Any] = (
        create_async_engine if asynchronous else create_engine
    )
    engine: Engine = create(
        database.url(asynchronous),
        connect_args=database.connect_args(asynchronous),
        poolclass=pool_class,
        **{"pool_timeout": 0.2, **sizes, **options},
    )
    observe(engine)  # before it is in use, as at a program's start
    return engine


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
    (error,) = _json(app)["errors"]
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
    pool = _json(app)
    assert pool["state"] == "database unreachable"
    assert pool["diagnosis"]["cause"] == "database"
    (error,) = pool["errors"]
    assert (error["what"], error["times"]) == ("connect failed", 2)
    assert error["text"] == "OperationalError: no route to (a URL)"
    assert "hunter2" not in json.dumps(pool)


def _json(app: Any) -> Any:
    with httpx.Client(
        transport=httpx.WSGITransport(app), base_url="http://app"
    ) as client:
        (pool,) = client.get("/json").json()["pools"]
    return pool


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


# -- from elsewhere ----------------------------------------------------------


@ASYNC_POOLS
@FACES
def test_tasks_are_looked_at_by_their_own_loop(
    sqlite_database: Database, face: str, pool_class: Any
) -> None:
    """Also when the page is served by a thread, or by another loop."""
    engine: Any = made(sqlite_database, pool_class)
    looked: list[int] = []

    async def program() -> Any:
        loop = asyncio.get_running_loop()
        async with engine.connect():
            view = PoolView("orders", engine.sync_engine)
            own = view.look
            view.look = (
                lambda: looked.append(threading.get_ident())  # type: ignore
                or own()
            )
            here = view.ask()
            assert here.done()
            ask_elsewhere = loop.run_in_executor(None, view.ask)
            answer = await asyncio.wrap_future(await ask_elsewhere)
            assert looked == 2 * [threading.get_ident()]
            served = await loop.run_in_executor(
                None, told, face, {"orders": engine}
            )
            return answer, served

    async def whole() -> Any:
        try:
            return await asyncio.create_task(program(), name="the holder")
        finally:
            await engine.dispose()

    for pool in asyncio.run(whole()):
        (holder,) = pool["holders"]
        assert holder["name"] == "the holder"
        assert "in program" in "".join(holder["where"])


@ASYNC_POOLS
@FACES
def test_a_loop_that_is_blocked_is_told(
    sqlite_database: Database, face: str, pool_class: Any
) -> None:
    engine: Any = made(sqlite_database, pool_class)
    answers: list[Any] = []
    gone_on = threading.Event()

    def ask_meanwhile() -> None:
        answers.append(told(face, {"orders": engine}))
        gone_on.set()

    def block() -> None:
        threading.Thread(target=ask_meanwhile).start()
        assert gone_on.wait(30)

    async def program() -> None:
        async with engine.connect():
            block()
        await engine.dispose()

    asyncio.run(program())
    (pool,) = answers
    assert pool["name"] == "orders"
    assert pool["blocked"]["seconds"] >= 1
    assert "in block" in "".join(pool["blocked"]["where"])


def test_where_a_loop_of_uvloop_is_blocked_is_known_once_it_was_looked_at(
    sqlite_database: Database,
) -> None:
    uvloop = pytest.importorskip("uvloop", reason="not for Windows")
    engine: Any = made(sqlite_database, AsyncSmartPool)
    app = wsgi_app([engine])
    answers: list[Any] = []

    def ask_meanwhile() -> None:
        answers.append(_json(app))

    def block() -> None:
        thread = threading.Thread(target=ask_meanwhile)
        thread.start()
        thread.join(30)

    async def program() -> None:
        async with engine.connect():
            await asyncio.to_thread(ask_meanwhile)
            block()
        await engine.dispose()

    uvloop.run(program())
    before, blocked = answers
    assert before["blocked"] is None
    assert "in block" in "".join(blocked["blocked"]["where"])
    assert blocked["stats"] == before["stats"], "as it was"


@FACES
def test_the_pool_of_a_closed_loop_can_be_looked_at(
    sqlite_database: Database, face: str
) -> None:
    engine: Any = made(sqlite_database, AsyncSmartPool)

    async def program() -> None:
        async with engine.connect():
            pass

    asyncio.run(program())
    pool = told(face, {"orders": engine})
    assert pool["blocked"] is None
    assert pool["stats"]["requests_num"] == 1
    asyncio.run(engine.dispose())


@POOLS
def test_many_may_ask_at_once_while_the_pool_is_in_use(
    sqlite_database: Database, pool_class: Any, hasty: None
) -> None:
    engine = made(sqlite_database, pool_class, pool_timeout=30)
    view = PoolView("orders", engine, ticks=_Ticks())
    uses, lookers = 100, 4

    def use() -> None:
        for _ in range(uses):
            with engine.connect() as connection:
                connection.execute(text("SELECT 1"))

    def look() -> int:
        most = 0
        while not done.is_set():
            most = max(most, view.ask().result()["times"]["use"]["count"])
        return most

    done = threading.Event()
    with ThreadPoolExecutor(4 + lookers) as threads:
        looking = [threads.submit(look) for _ in range(lookers)]
        using = [threads.submit(use) for _ in range(4)]
        try:
            for each in using:
                each.result()
        finally:
            done.set()
        assert all(each.result() > 0 for each in looking)
    assert view.look()["times"]["use"]["count"] == 4 * uses
    engine.dispose()


def test_each_use_is_counted_once_whoever_asks(
    sqlite_database: Database, hasty: None
) -> None:
    """A stock pool's uses are added up when somebody asks."""
    engine = made(sqlite_database, QueuePool)
    observer, uses, lookers = observe(engine), 2000, 4
    together = threading.Barrier(lookers)

    def look() -> int:
        together.wait(30)
        return observer.stats().use_time.count

    for _ in range(uses):
        engine.connect().close()
    with ThreadPoolExecutor(lookers) as threads:
        for each in [threads.submit(look) for _ in range(lookers)]:
            assert each.result() <= uses
    assert observer.stats().use_time.count == uses
    engine.dispose()


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads take turns after every few instructions."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class _Ticks:
    """A clock by which every look is late enough to be made anew."""

    def __init__(self, step: float = 1.0) -> None:
        self.now = 0.0
        self.step = step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


# -- what is kept ------------------------------------------------------------


def test_a_hundred_pages_cost_one_look(sqlite_database: Database) -> None:
    engine = made(sqlite_database, SmartPool)
    ticks = _Ticks(0.0)
    view = PoolView("orders", engine, ticks=ticks)
    first = view.look()
    with engine.connect():
        assert all(view.look() is first for _ in range(100))
        ticks.now += 0.6
        assert view.look()["stats"]["pool_in_use"] == 1
    engine.dispose()


def test_the_chart_is_kept_in_bounds(sqlite_database: Database) -> None:
    engine = made(sqlite_database, SmartPool)
    wall = _Ticks(0.4)
    view = PoolView("orders", engine, clock=wall, ticks=_Ticks())
    for _ in range(3000):
        pool = view.look()
    samples = [at for at, *_ in pool["samples"]]
    assert len(samples) == 400
    steps = {round(b - a, 3) for a, b in zip(samples, samples[1:])}
    assert min(steps) >= 1.0
    wall.now = 5.0  # the clock is set back
    assert len(view.look()["samples"]) == 1
    engine.dispose()


def test_recent_durations_are_those_of_the_last_minute(
    sqlite_database: Database,
) -> None:
    engine = made(sqlite_database, SmartPool)
    ticks = _Ticks(0.0)
    view = PoolView("orders", engine, ticks=ticks)
    counts = []
    for _ in range(100):
        engine.connect().close()
        ticks.now += 2.0
        pool = view.look()
        recent = pool["times"]["use"]["recent"]["count"]
        counts.append((pool["recent_seconds"], recent))
    assert counts[0] == (0.0, 0)
    assert counts[5] == (10.0, 5)
    assert counts[-1] == (60.0, 30)
    assert pool["times"]["use"]["count"] == 100
    engine.dispose()
    engine.connect().close()
    ticks.now += 2.0
    assert view.look()["recent_seconds"] == 0, "it is another pool"
    engine.dispose()


def test_quantiles_are_of_the_durations_between_two_looks() -> None:
    def histogram(*durations: float) -> Histogram:
        tally = summed([])
        for seconds in durations:
            tally[bucket_of(seconds)] += 1
        return Histogram(tuple(tally), sum(durations))

    slow = [5.0] * 10
    found = times(histogram(*slow, 0.01, 500.0), histogram(*slow))
    assert (found["count"], found["p50"]) == (12, 5.0)
    recent = found["recent"]
    assert (recent["count"], recent["p50"]) == (2, 0.01)
    assert recent["p99"] is None, "beyond all bounds"
    assert recent["sum"] == pytest.approx(500.01)
