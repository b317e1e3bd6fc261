"""``check``: what a pool will meet at a database, and what to change."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
from typing import Any
from typing import Iterator
from typing import Sequence

from rich.console import Console
from sqlalchemy import create_engine
from sqlalchemy import Engine
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import create_async_engine

from . import connecting
from . import database
from . import masked
from .arguments import add_database
from .arguments import add_json
from .arguments import count
from .doctor.advice import Advice
from .doctor.advice import advise
from .doctor.examination import AT_A_TIME
from .doctor.examination import examine
from .doctor.findings import Findings
from .doctor.findings import SIGHTS
from .doctor.findings import Timing
from .. import AsyncSmartPool
from .. import SmartPool
from .._sqlalchemy import greenlet_spawn
from ..plugin import SmartPoolPlugin
from ..settings import Settings

HELP = "examine a database and what the pool will meet there"
DESCRIPTION = (
    "Connect to a database, measure, read the server's limits, and say which"
    " settings do not go together. Exit status: 0 when all is well, 1 when"
    " there is advice, 2 when the database cannot be reached."
)

#: how long a connect may take, seconds
TIMEOUT = 15.0

#: of the pool that is examined with
_ROOM: dict[str, Any] = {"max_size": AT_A_TIME, "pool_timeout": TIMEOUT}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``check``."""
    add_database(
        parser, may_say=", where plugin=smartpool may set the pool's arguments"
    )
    parser.add_argument(
        "--processes",
        metavar="N",
        type=count(1),
        default=1,
        help="processes of the application, each with a pool of its own"
        " (default: %(default)s)",
    )
    parser.add_argument(
        "--max-size",
        metavar="M",
        type=count(1),
        help="most connections of each pool (default: what the URL says, or"
        " else the pool's own default)",
    )
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Examine the database and print what was found.

    :return: 0, or 1 when there is advice.
    :raises CommandError: when the database cannot be reached.

    """
    with database(arguments.url, arguments.is_async) as url:
        with connecting(url):
            settings = _settings(url, arguments)
            findings = (
                asyncio.run(_examine_tasks(url))
                if arguments.is_async
                else _examine_threads(url)
            )
        found = advise(findings, settings, arguments.processes)
        if arguments.json:
            document = {
                "command": "check",
                "url": masked(url),
                "processes": arguments.processes,
                "max_size": settings.ceiling,
                **findings.as_dict(),
                "advice": [dataclasses.asdict(each) for each in found],
            }
            print(json.dumps(document, indent=2))
        else:
            if not (arguments.url or os.environ.get("DATABASE_URL")):
                print("no URL and no DATABASE_URL: a temporary SQLite file")
            _print(url, findings, found)
    return 1 if found else 0


def _settings(url: URL, arguments: argparse.Namespace) -> Settings:
    """Return those of the pool that the application would have."""
    size = {"max_size": arguments.max_size} if arguments.max_size else {}
    engine: Engine
    if arguments.is_async:
        engine = create_async_engine(
            url, **_poolclass(url, AsyncSmartPool), **size
        ).sync_engine
    else:
        engine = create_engine(url, **_poolclass(url, SmartPool), **size)
    assert isinstance(engine.pool, SmartPool)
    return engine.pool.settings


def _poolclass(url: URL, pool: type[SmartPool]) -> dict[str, Any]:
    # else the plugin would leave the arguments in the URL aside
    return {} if _is_plugged(url) else {"poolclass": pool}


def _bare(url: URL) -> URL:
    """Return the URL without arguments of the pool, for a pool of ours."""
    return (
        SmartPoolPlugin(url, {}).update_url(url) if _is_plugged(url) else url
    )


def _is_plugged(url: URL) -> bool:
    return "smartpool" in url.normalized_query.get("plugin", ())


def _examine_threads(url: URL) -> Findings:
    engine = create_engine(_bare(url), poolclass=SmartPool, **_ROOM)
    try:
        return examine(engine)
    finally:
        engine.dispose()


async def _examine_tasks(url: URL) -> Findings:
    engine = create_async_engine(_bare(url), poolclass=AsyncSmartPool, **_ROOM)
    try:
        return await greenlet_spawn(examine, engine.sync_engine)
    finally:
        await engine.dispose()


def _print(url: URL, findings: Findings, advice: Sequence[Advice]) -> None:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(masked(url))
    for label, words in _lines(findings):
        console.print(f"  {label:<12}{words}")
    if not advice:
        console.print("All is well.")
    for number, each in enumerate(advice, start=1):
        console.print(f"\n{number}. {each.about}: {each.text}")
        for line in each.code.splitlines():
            console.print(f"       {line}")


def _lines(findings: Findings) -> Iterator[tuple[str, str]]:
    driver = f"{findings.driver} {findings.driver_version}".rstrip()
    yield "driver", f"{driver}; {SIGHTS[findings.sight]}"
    yield "connect", _time(findings.connect)
    if findings.tls is not None:
        yield "TLS", "yes" if findings.tls.encrypted else "no"
    yield "ping", _time(findings.ping)
    limits = findings.limits
    yield "server", limits.product
    if not limits.known:
        yield "limits", limits.refusal or "not known for this database"
    elif limits.connections is not None:
        yield "sessions", (
            f"{limits.used} of {limits.connections} taken, {limits.left} left"
        )
    for name, value in limits.settings.items():
        yield "", f"{name} = {value}"
    noticed = limits.vanished_noticed_after
    if noticed is not None:
        yield "", (
            f"a client that has vanished keeps its session for {noticed:g} s"
            " (tcp_keepalives_*)"
        )
    if findings.dialect == "postgresql":
        pooler = findings.pooler
        yield "pooler", _POOLERS[None if pooler is None else pooler.mode]


_POOLERS = {
    None: "none seen between here and PostgreSQL",
    "session": "PgBouncer or another one is in between; clients were not"
    " seen to share sessions (pool_mode=session)",
    "transaction": "PgBouncer or another one is in between, and clients share"
    " sessions (pool_mode=transaction or statement): the limits above are"
    " those of its sessions, not of its clients",
}


def _time(timing: Timing) -> str:
    cpu = "" if timing.cpu is None else f", {1000 * timing.cpu:.1f} ms of CPU"
    return f"{1000 * timing.median:.2f} ms{cpu} (median of {timing.times})"
