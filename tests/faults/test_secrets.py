"""No password in anything that is logged, raised, shown or told, whatever a
connect fails with."""

from __future__ import annotations

import logging
import secrets
import traceback
from typing import Any
from typing import Callable
from typing import NamedTuple

import pytest
from sqlalchemy import Engine
from sqlalchemy import event

from sqla_smartpool import PoolTimeoutError
from tests.lab import matrix
from tests.lab.matrix import Client
from tests.lab.server import free_port

side = matrix.side


#: the engine's own events, and those of SQLAlchemy that tell of connections
EVENTS = [
    *("health_check", "retire", "connect_failed", "checkout_timeout"),
    *("connect", "checkout", "checkin", "close"),
]


class Login(NamedTuple):
    """What an engine logs in with, and what the server says to it."""

    password: str
    database: str = "test"
    port: int = 0


def wrong_password(side: Client) -> Login:
    return Login("s3cr3t-" + secrets.token_hex(8))


def refused(side: Client) -> Login:
    return Login(side.server.password, port=free_port())


def unknown_database(side: Client) -> Login:
    return Login(side.server.password, database="nowhere")


def in_url(side: Client, login: Login, **options: Any) -> Engine:
    url = url_of(side, login).set(password=login.password)
    return side.smart(url, **options)


def in_connect_args(side: Client, login: Login, **options: Any) -> Engine:
    args = {**side.connect_args(), "password": login.password}
    return side.smart(url_of(side, login), connect_args=args, **options)


def in_do_connect(side: Client, login: Login, **options: Any) -> Engine:
    engine = side.smart(url_of(side, login), **options)

    @event.listens_for(engine, "do_connect")
    def connect(
        dialect: Any, record: Any, args: Any, params: dict[str, Any]
    ) -> None:
        params["password"] = login.password

    return engine


def url_of(side: Client, login: Login) -> Any:
    """The URL, without a password."""
    url = side.url().set(database=login.database)._replace(password=None)
    return url.set(port=login.port) if login.port else url


class Ear:
    """Takes down all that an engine's own events tell."""

    def __init__(self, engine: Engine) -> None:
        self.heard: list[str] = []
        for name in EVENTS:
            event.listen(engine, name, self._take_down)

    def _take_down(self, *arguments: Any) -> None:
        for argument in arguments:
            self.heard += told_by(argument)


def told_by(thing: Any) -> list[str]:
    """All that a thing says when it is shown."""
    said = [str(thing), repr(thing)]
    if isinstance(thing, BaseException):
        said += traceback.format_exception(thing)
        said += chain_of(thing)
    return said


def chain_of(error: BaseException) -> list[str]:
    said: list[str] = []
    current: Any = error
    while current is not None:
        said += [str(current), repr(current), repr(current.args)]
        said.append(repr(getattr(current, "orig", None)))
        current = current.__cause__ or current.__context__
    return said


def kept_by(pool: Any) -> list[str]:
    """What a pool and its parts show, with all that the kept error holds."""
    error = pool.inventory.backoff.error
    assert error is not None
    kept = traceback.TracebackException.from_exception(
        error, capture_locals=True
    )
    things = [pool, pool.settings, pool.stats(), pool.stats().as_dict()]
    things += [pool.inventory, pool.upkeep, *pool.inventory.empty]
    things += [vars(pool.inventory), vars(pool.settings)]
    said = [word for thing in things for word in told_by(thing)]
    return [*said, pool.status(), "".join(kept.format())]


def failing(side: Client, engine: Engine) -> list[str]:
    """Have connects fail for callers, for start() and for upkeep; returns
    what could be seen of it."""
    pool: Any = engine.pool
    said: list[str] = []

    def fails(job: Callable[[], object]) -> Exception:
        with pytest.raises(Exception) as raised:
            job()
        said.extend(told_by(raised.value))
        return raised.value

    fails(lambda: engine.connect())
    fails(lambda: side.wait(pool.start(timeout=0.3)))
    pool._change_settings(reconnect_timeout=matrix.LONG, timeout=0.3)
    late = fails(lambda: engine.connect())
    assert isinstance(late, PoolTimeoutError)
    said.extend(told_by(late.last_connect_error))
    return [*said, *kept_by(pool), *told_by(engine), *told_by(engine.url)]


@matrix.on(matrix.TCP)
@pytest.mark.parametrize(
    "where",
    [in_url, in_connect_args, in_do_connect],
    ids=lambda where: where.__name__,
)
@pytest.mark.parametrize(
    "fault",
    [wrong_password, refused, unknown_database],
    ids=lambda fault: fault.__name__,
)
def test_a_connect_that_fails_tells_no_password(
    side: Client,
    fault: Callable[[Client], Login],
    where: Callable[..., Engine],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("sqlalchemy", "sqla_smartpool"):
        caplog.set_level(logging.DEBUG, name)
    login = fault(side)
    engine = where(
        side, login, min_size=1, echo=True, echo_pool="debug", max_size=2
    )
    ear = Ear(engine)
    said = [*failing(side, engine), *ear.heard]
    logged = [repr(vars(record)) for record in caplog.records]
    for record in caplog.records:
        if record.exc_info and record.exc_info[1]:
            logged += told_by(record.exc_info[1])
    assert ear.heard and "Error on connect" in caplog.text
    for words in [*said, *logged, caplog.text]:
        assert login.password not in words


@matrix.on(matrix.TCP)
def test_an_open_connection_tells_no_password(
    side: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("sqlalchemy", "sqla_smartpool"):
        caplog.set_level(logging.DEBUG, name)
    engine = side.smart(min_size=1, echo=True, echo_pool="debug")
    ear = Ear(engine)
    pool: Any = engine.pool
    side.wait(pool.start())
    side.use(engine, 1)
    side.wait(pool.check())
    shown = [pool, pool.inventory.members, pool.stats(), engine]
    said = [word for thing in shown for word in told_by(thing)]
    side.wait(pool.stop())
    assert ear.heard and "checked out from pool" in caplog.text
    for words in [*said, *ear.heard, pool.status(), caplog.text]:
        assert side.server.password not in words
