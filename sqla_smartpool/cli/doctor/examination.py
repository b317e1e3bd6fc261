"""Connect, look and measure."""

from __future__ import annotations

from contextlib import ExitStack
from importlib import metadata
from ssl import SSLContext
import statistics
import time
from typing import Any
from typing import Optional
from typing import Sequence

from sqlalchemy import Connection
from sqlalchemy import Engine
from sqlalchemy import event
from sqlalchemy.engine import URL

from . import limits
from . import pooler
from . import tls
from .findings import Findings
from .findings import Timing
from .findings import Tls
from ...sockets import health_call_of
from ...sockets import line_of

#: how often a connect and a ping are measured
CONNECTS = 5
PINGS = 20
#: so many connections are open at a time
AT_A_TIME = 2


class _Stopwatch:
    """Connects in the engine's stead, and takes the time.

    By the thread's own clock as well: a connect is made by one thread.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._taken: list[tuple[float, float]] = []
        self._instead: dict[str, Any] = {}
        event.listen(engine, "do_connect", self._connect)

    def _connect(
        self, dialect: Any, _: object, args: Any, arguments: Any
    ) -> Any:
        began, cpu = time.perf_counter(), time.thread_time()
        connection = dialect.connect(*args, **{**arguments, **self._instead})
        self._taken.append(
            (time.perf_counter() - began, time.thread_time() - cpu)
        )
        return connection

    def connect(
        self, instead: Optional[dict[str, Any]] = None
    ) -> tuple[float, float]:
        """Open a connection and close it: seconds, and of these on a CPU.

        :param instead: arguments for the driver, in place of the engine's.
        """
        self._instead = instead or {}
        fairy = self._engine.raw_connection()
        fairy.detach()  # its close is one
        fairy.close()
        return self._taken.pop()

    def connects(self) -> Timing:
        """Measure it as often as it takes."""
        return _timing([self.connect() for _ in range(CONNECTS)])


def examine(engine: Engine) -> Findings:
    """Find out what can be found out; to be called where one may wait.

    :param engine: with a smart pool that nobody else uses, which has no
        floor and room for :data:`AT_A_TIME`.
    """
    stopwatch = _Stopwatch(engine)
    with ExitStack() as opened:
        one, other = (
            opened.enter_context(engine.connect()) for _ in range(AT_A_TIME)
        )
        between = pooler.pooler(one, other)
        found = limits.limits(one, ours=AT_A_TIME)
        one.rollback()
        ping = _ping(one)
        driver_connections = [
            connection.connection.driver_connection
            for connection in (one, other)
        ]
        sight = _sight(engine, driver_connections[0])
        way = tls.way_of(driver_connections[0])
        contexts = [
            way.context_of(driver_connection)
            for driver_connection in driver_connections
            if way is not None
        ]
        for connection in (one, other):
            connection.detach()  # what follows is to open new ones
    if way is None:
        connect, encryption = stopwatch.connects(), None
    else:
        connect, encryption = _encrypted_connects(
            stopwatch, engine.url, way, contexts
        )
    return Findings(
        dialect=engine.dialect.name,
        driver=engine.dialect.driver,
        driver_version=_version(driver_connections[0]),
        is_async=engine.dialect.is_async,
        sight=sight,
        connect=connect,
        ping=ping,
        limits=found,
        pooler=between,
        tls=encryption,
    )


def _encrypted_connects(
    stopwatch: _Stopwatch,
    url: URL,
    way: tls.Way,
    contexts: Sequence[Optional[SSLContext]],
) -> tuple[Timing, Optional[Tls]]:
    """Measure connects, and what they would take with a shared context.

    :param contexts: of two connections.
    """
    context, another = contexts
    instead = way.instead_of(context)
    # alternately: whatever else slows this machine slows both
    usual, shared = [], []
    for _ in range(CONNECTS):
        usual.append(stopwatch.connect())
        shared.append(stopwatch.connect(instead))
    if not instead or (context is not None and context is another):
        return _timing(usual), Tls(context is not None)
    return _timing(usual), Tls(
        context is not None, _timing(shared), way.code(context, url)
    )


def _ping(connection: Connection) -> Timing:
    dbapi_connection: Any = connection.connection.dbapi_connection
    taken = []
    for _ in range(PINGS):
        began = time.perf_counter()
        connection.dialect.do_ping(dbapi_connection)
        taken.append(time.perf_counter() - began)
    return Timing(statistics.median(taken), PINGS)


def _timing(taken: Sequence[tuple[float, float]]) -> Timing:
    seconds, cpu = zip(*taken)
    return Timing(
        statistics.median(seconds), len(taken), statistics.median(cpu)
    )


def _sight(engine: Engine, driver_connection: Any) -> str:
    if engine.dialect.name in ("sqlite", "duckdb"):
        return "in process"
    line = line_of(driver_connection)
    if line is not None:
        return "peek" if line.silence() is None else "kernel"
    return "none" if health_call_of(driver_connection) is None else "driver"


def _version(driver_connection: Any) -> str:
    """Return the release of the driver's package, if it is one."""
    package = type(driver_connection).__module__.partition(".")[0]
    for name in metadata.packages_distributions().get(package, ()):
        return metadata.version(name)
    return ""
