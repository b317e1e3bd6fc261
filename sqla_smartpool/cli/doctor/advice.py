"""What follows from the findings; asks nobody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator
from typing import Optional

from .findings import engine_code
from .findings import Findings
from ...settings import Settings

#: the part of a server's idle limit that a connection may be left idle
_SAFE = 0.8
#: so much CPU of a connect is worth a change of code, seconds
_WORTH = 0.002


@dataclass(frozen=True)
class Advice:
    """One thing to change, and why."""

    #: the setting, or the subject
    about: str
    text: str
    #: how, where it is not plain from the text
    code: str = ""


def advise(
    findings: Findings, settings: Settings, processes: int
) -> list[Advice]:
    """Tell what should be changed; nothing when all is well.

    :param settings: of the pool that the application would have.
    :param processes: that have such a pool each.
    """
    return [
        *_idle(findings, settings),
        *_sessions(findings, settings.ceiling, processes),
        *_prepared(findings),
        *_contexts(findings),
    ]


def _idle(findings: Findings, settings: Settings) -> Iterator[Advice]:
    shared = findings.pooler is not None and findings.pooler.shares_sessions
    if not findings.limits.idle or shared:
        return  # or the limit is that of the pooler's own connections
    name, limit = min(findings.limits.idle.items(), key=lambda item: item[1])
    safe = _SAFE * limit
    keep_alive = settings.keep_alive
    goes_in_time = (
        settings.min_size == 0
        and keep_alive is not None
        and keep_alive + settings.check_interval <= limit
    )
    # upkeep pings ahead of time, but only when it looks, and not what has
    # answered within half of that interval
    left_alone = max(settings.proof_window, 1.5 * settings.check_interval)
    if left_alone <= safe or goes_in_time:
        return
    changes = [f"ping_after={safe:g}"]
    if 1.5 * settings.check_interval > safe:
        changes.append(f"check_interval={safe / 2:g}")
    kept = "for ever" if keep_alive is None else f"for {keep_alive:g} s"
    pool = "AsyncSmartPool" if findings.is_async else "SmartPool"
    yield Advice(
        "ping_after",
        f"The server ends a session that has been idle for {limit:g} s"
        f" ({name}), but the pool keeps an unused connection {kept}"
        " (keep_alive) and may leave it without a ping for"
        f" {left_alone:g} s (ping_after, check_interval): what it finds idle"
        " will often be dead, and has to be opened again. Set"
        f" {', '.join(changes)}, or raise {name}.",
        engine_code(findings.is_async, f"poolclass={pool}", *changes),
    )


def _sessions(
    findings: Findings, ceiling: Optional[int], processes: int
) -> Iterator[Advice]:
    limits, pooler = findings.limits, findings.pooler
    left = limits.left
    if left is None or (pooler is not None and pooler.shares_sessions):
        return
    if ceiling is not None and processes * ceiling <= left:
        return
    wanted = (
        "as many connections as there are callers"
        if ceiling is None
        else f"up to {processes * ceiling} connections"
        f" ({processes} x {ceiling})"
    )
    fits = left // processes
    remedy = f"Set max_size={fits}" if fits else "Have fewer processes"
    yield Advice(
        "max_size",
        f"The application may open {wanted}, but of the"
        f" {limits.connections} sessions that the server has for this user"
        f" {limits.used} are taken and {left} left (if the application is"
        " running now, its own are among those taken): connects will be"
        f" refused when it is busy. {remedy}, raise the server's limit, or"
        " put a pooler that shares sessions in between.",
    )


_UNPREPARED = {
    # the driver's own, and SQLAlchemy's
    "asyncpg": '{"statement_cache_size": 0,'
    ' "prepared_statement_cache_size": 0}',
    "psycopg": '{"prepare_threshold": None}',
}


def _prepared(findings: Findings) -> Iterator[Advice]:
    if findings.pooler is None or not findings.pooler.prepares:
        return
    driver = findings.driver.removesuffix("_async")
    arguments = _UNPREPARED.get(driver)
    yield Advice(
        "prepared statements",
        f"A pooler gives each transaction another session, while {driver}"
        " goes on using statements that it has prepared in an earlier one:"
        ' errors like "prepared statement does not exist" follow, or another'
        " client's statement is run, unless the pooler keeps track of them"
        " (PgBouncer from 1.21 on, with max_prepared_statements). Have none"
        " prepared.",
        engine_code(findings.is_async, f"connect_args={arguments}"),
    )


def _contexts(findings: Findings) -> Iterator[Advice]:
    tls, usual = findings.tls, findings.connect.cpu
    if tls is None or tls.shared is None or usual is None:
        return
    less = tls.shared.cpu or 0.0
    if usual - less < _WORTH:
        return
    cost = (
        f"{1000 * usual:.0f} ms of CPU instead of {1000 * less:.0f} ms,"
        " during which no other thread or task of the process runs"
    )
    if tls.encrypted:
        text = (
            f"{findings.driver} builds a TLS context for every connection: a"
            f" connect takes {cost}. Have all connections share one, which"
            " verifies the server as now; TLS is then required."
        )
    else:
        text = (
            f"{findings.driver} builds a TLS context for every connection,"
            f" although none is encrypted: a connect takes {cost}. Switch TLS"
            " off in the driver, or on in the server."
        )
    yield Advice("TLS", text, tls.code)
