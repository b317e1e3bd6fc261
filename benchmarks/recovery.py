"""What callers notice when the database goes, and when it is back.

The faults are those of a proxy on the way to a server that is well, so that
it takes no time to come back; lost packets are lost in a network namespace.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
import time
from typing import Any
from typing import Callable
from typing import Iterator
from typing import Mapping
from typing import Optional
import warnings

import psycopg_pool
from sqlalchemy import create_engine
from sqlalchemy import text
from sqlalchemy.pool import QueuePool

from sqla_smartpool import SmartPool
from tests.lab.network import Network
from tests.lab.proxy import Proxy
from tests.lab.server import Server
from .callers import Callers
from .measure import Benchmark
from .measure import Case
from .measure import Turn
from .quiet import quiet
from .servers import server
from .waits import recorded

_CALLERS, _SIZE = 8, 10
#: before a fault, and after its end, seconds
_BEFORE, _AFTER = 0.5, 1.0
#: for how long who is not served after a fault is waited for, seconds
_PATIENCE = 30.0
_ASK = "SELECT 1"
_LOGS = ("psycopg.pool", "sqla_smartpool", "sqlalchemy.pool")

Ask = Callable[[], object]
#: opens a pool behind a proxy, and returns what makes a request
Candidate = Callable[[Proxy], Any]


@contextmanager
def _engine(
    kind: Any, options: Mapping[str, Any], proxy: Proxy
) -> Iterator[Ask]:
    driver = "postgresql+psycopg"
    engine = create_engine(
        proxy.url(driver),
        connect_args=proxy.server.connect_args(driver),
        poolclass=kind,
        **options,
    )

    def ask() -> None:
        with engine.connect() as connection:
            connection.execute(text(_ASK))

    if isinstance(engine.pool, SmartPool):
        engine.pool.start()
    yield ask
    engine.dispose()


@contextmanager
def _psycopg_pool(proxy: Proxy) -> Iterator[Ask]:
    kind = psycopg_pool.ConnectionPool
    with kind(
        proxy.url("postgresql").render_as_string(hide_password=False),
        kwargs=proxy.server.connect_args("postgresql+psycopg"),
        min_size=_SIZE,
        check=kind.check_connection,
        open=True,
    ) as pool:

        def ask() -> None:
            with pool.connection() as connection:
                connection.execute(_ASK)

        pool.wait()
        yield ask


def _candidates(**smart: Any) -> dict[str, Candidate]:
    options = {"min_size": _SIZE, "max_size": _SIZE, **smart}
    queue = {"pool_size": _SIZE, "max_overflow": 0, "pool_pre_ping": True}
    return {
        "QueuePool(pre_ping)": partial(_engine, QueuePool, queue),
        "psycopg_pool": _psycopg_pool,
        "SmartPool": partial(_engine, SmartPool, options),
    }


@contextmanager
def _watched(
    started: Server, candidate: Candidate, network: Optional[Network] = None
) -> Iterator[tuple[Proxy, Callers]]:
    """Callers of a pool whose connections are all open."""
    proxy = Proxy(started, network.listen() if network else None)
    try:
        with candidate(proxy) as ask:
            callers = Callers(ask, _CALLERS)
            try:
                callers.go()
                time.sleep(_BEFORE)
                yield proxy, callers
            finally:
                # whoever hangs is to notice that, or this would not end
                if network is not None:
                    network.heal()
                proxy.heal()
                proxy.cut(reset=True)
                callers.end()
    finally:
        proxy.close()


def _outage(started: Server, seconds: float, candidate: Candidate) -> Turn:
    """Connections are cut, and new ones refused, for so long."""
    with _watched(started, candidate) as (proxy, callers):
        callers.watch()
        time.sleep(_BEFORE)
        down = callers.now
        proxy.refuse()
        proxy.cut(reset=True)
        before = len(proxy.attempts)
        time.sleep(seconds)
        attempts = len(proxy.attempts) - before
        back = callers.now
        proxy.heal()
        figures = {
            **_served(callers, back),
            "connects/s while it is down": attempts / seconds,
        }
        return _brought(callers, figures, down=down, back=back)


def _idle(
    started: Server,
    rest: float,
    watch: float,
    strike: Callable[[Proxy], object],
    network: Optional[Network],
    candidate: Candidate,
) -> Turn:
    """Something happens while nobody asks; then all ask at once.

    :param rest: seconds for which nobody asks.
    :param watch: seconds for which to look on.
    """
    with _watched(started, candidate, network) as (proxy, callers):
        callers.pause()
        time.sleep(rest)
        strike(proxy)
        callers.watch()
        callers.go()
        figures = {**_served(callers, 0.0, watch)}
        time.sleep(max(0.0, watch - callers.now))
        figures["requests that hang"] = callers.hanging
        return _brought(callers, figures)


def _served(
    callers: Callers, since: float, patience: float = _PATIENCE
) -> dict[str, float]:
    """Wait until all are served, or time is up: that is then the figure."""
    ends = time.monotonic() + patience
    while not callers.all_served_after(since) and time.monotonic() < ends:
        time.sleep(0.01)
    late = callers.served_after(since) or [patience]
    everybody = callers.all_served_after(since)
    return {
        "s until one is served": min(late),
        "s until all are served": max(late) if everybody else patience,
    }


def _brought(
    callers: Callers, figures: Mapping[str, float], **marks: float
) -> Turn:
    time.sleep(_AFTER)
    return Turn(
        {
            **figures,
            "requests failed": callers.failures,
            "longest request, s": callers.longest,
        },
        recorded(callers.waits.copy()),
        callers.timeline(**marks),
    )


def _outages(
    started: Server, lengths: tuple[float, ...], rounds: int
) -> Iterator[Case]:
    candidates = _candidates()
    patient = _candidates(reconnect_timeout=15)["SmartPool"]
    candidates["SmartPool(reconnect_timeout=15)"] = patient
    for seconds in lengths:
        yield Case(
            f"an outage of {seconds:g} s",
            {
                name: partial(_outage, started, seconds, candidate)
                for name, candidate in candidates.items()
            },
            ("QueuePool(pre_ping)",),
            rounds,
        )


def _lose(network: Network, proxy: Proxy) -> None:
    network.drop(proxy.clients)


@contextmanager
def _network() -> Iterator[Optional[Network]]:
    try:
        made = Network()
    except RuntimeError as error:
        warnings.warn(f"recovery: packets are not lost: {error}")
        yield None
        return
    yield made
    made.close()


def cases(quick: bool) -> Iterator[Case]:
    watch = 1.3 if quick else 15.0
    # idle for longer than a proof of life holds
    rest = 0.3
    short: dict[str, Any] = {"ping_after": 0.2}
    if quick:
        short["ping_timeout"] = 0.5
    with (
        server("postgresql") as started,
        _network() as network,
        quiet(*_LOGS),
    ):
        yield from _outages(started, (0.3,) if quick else (1.0, 5.0), 5)
        faults: dict[str, tuple[float, Any, Optional[Network]]] = {
            "idle connections terminated by the server": (
                _AFTER,
                lambda proxy: started.terminate(),
                None,
            ),
            "a peer stalls under idle connections": (
                watch,
                lambda proxy: proxy.stall(new=False),
                None,
            ),
        }
        if network is not None:
            faults["packets of idle connections are lost"] = (
                watch,
                partial(_lose, network),
                network,
            )
        for title, (seconds, strike, where) in faults.items():
            yield Case(
                title,
                {
                    name: partial(
                        _idle, started, rest, seconds, strike, where, candidate
                    )
                    for name, candidate in _candidates(**short).items()
                },
                ("QueuePool(pre_ping)",),
                3,
            )


def long_cases() -> Iterator[Case]:
    with server("postgresql") as started, quiet(*_LOGS):
        yield from _outages(started, (30.0,), 3)


RECOVERY = Benchmark(
    "recovery", "what callers notice of faults", cases, long_cases
)
