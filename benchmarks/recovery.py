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
from typing import NamedTuple
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
#: for how long who is not served after a fault is waited for, seconds
_PATIENCE = 30.0
#: for how long nobody asks, so that connections are idle, seconds
_REST = 0.3
_ASK = "SELECT 1"
_LOGS = ("psycopg.pool", "sqla_smartpool", "sqlalchemy.pool")


class _Fault(NamedTuple):
    """Something that happens to idle connections.

    :param lasts: they stay of no use, and do not say so.
    """

    title: str
    strike: Callable[[Proxy], object]
    lasts: bool = True
    network: Optional[Network] = None


class _Pace(NamedTuple):
    """How long to look on, in seconds: before a fault, after its end, and
    while connections are of no use."""

    before: float
    after: float
    useless: float


_FULL, _QUICK = _Pace(0.5, 1.0, 15.0), _Pace(0.1, 0.1, 1.2)

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
    started: Server,
    candidate: Candidate,
    pace: _Pace,
    network: Optional[Network] = None,
) -> Iterator[tuple[Proxy, Callers]]:
    """Callers of a pool whose connections are all open."""
    proxy = Proxy(started, network.listen() if network else None)
    try:
        with candidate(proxy) as ask:
            callers = Callers(ask, _CALLERS)
            try:
                callers.go()
                time.sleep(pace.before)
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


def _outage(
    started: Server, seconds: float, pace: _Pace, candidate: Candidate
) -> Turn:
    """Connections are cut, and new ones refused, for so long."""
    with _watched(started, candidate, pace) as (proxy, callers):
        callers.watch()
        time.sleep(pace.before)
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
        time.sleep(pace.after)
        return _brought(callers, figures, down=down, back=back)


def _idle(
    started: Server,
    fault: _Fault,
    pace: _Pace,
    candidate: Candidate,
) -> Turn:
    """Something happens while nobody asks; then all ask at once."""
    with _watched(started, candidate, pace, fault.network) as (proxy, callers):
        callers.pause()
        time.sleep(_REST)
        fault.strike(proxy)
        callers.watch()
        callers.go()
        figures = _served(callers, 0.0, pace.useless)
        if fault.lasts:
            time.sleep(max(0.0, pace.useless - callers.now))
        time.sleep(pace.after)
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
    waits = callers.waits()
    counts = {
        "requests failed": callers.failures,
        "longest request, s": max(waits),
    }
    return Turn(
        {**figures, **counts}, recorded(waits), callers.timeline(**marks)
    )


def _outages(
    started: Server, pace: _Pace, lengths: tuple[float, ...], rounds: int
) -> Iterator[Case]:
    candidates = _candidates()
    patient = _candidates(reconnect_timeout=15)["SmartPool"]
    candidates["SmartPool(reconnect_timeout=15)"] = patient
    for seconds in lengths:
        yield Case(
            f"an outage of {seconds:g} s",
            {
                name: partial(_outage, started, seconds, pace, candidate)
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


def _faults(started: Server, network: Optional[Network]) -> Iterator[_Fault]:
    yield _Fault(
        "idle connections terminated by the server",
        lambda proxy: started.terminate(),
        lasts=False,
    )
    yield _Fault(
        "a peer stalls under idle connections",
        lambda proxy: proxy.stall(new=False),
    )
    if network is not None:
        yield _Fault(
            "packets of idle connections are lost",
            partial(_lose, network),
            network=network,
        )


def cases(quick: bool) -> Iterator[Case]:
    pace = _QUICK if quick else _FULL
    # so that who was idle for long is pinged, as all are with pre_ping
    smart = {"ping_after": _REST / 2, "ping_timeout": 0.5 if quick else 5.0}
    with (
        server("postgresql") as started,
        _network() as network,
        quiet(*_LOGS),
    ):
        lengths = (0.3,) if quick else (1.0, 5.0)
        yield from _outages(started, pace, lengths, 5)
        for fault in _faults(started, network):
            yield Case(
                fault.title,
                {
                    name: partial(_idle, started, fault, pace, candidate)
                    for name, candidate in _candidates(**smart).items()
                },
                ("QueuePool(pre_ping)",),
                3,
            )


def long_cases() -> Iterator[Case]:
    with server("postgresql") as started, quiet(*_LOGS):
        yield from _outages(started, _FULL, (30.0,), 3)


RECOVERY = Benchmark(
    "recovery", "what callers notice of faults", cases, long_cases
)
