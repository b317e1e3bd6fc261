"""What an examination finds out; times in seconds."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from dataclasses import field
from typing import Any
from typing import Mapping
from typing import Optional
from typing import Union

#: how the pool learns that an idle connection is dead, without a round trip
SIGHTS = {
    "kernel": "its sockets can be peeked at, and the kernel tells when the"
    " server was last heard",
    "peek": "its sockets can be peeked at",
    "driver": "the driver itself tells whether a connection is alive",
    "in process": "the database is in this process: there is no socket",
    "none": "its sockets cannot be peeked at: what was idle for more than"
    " 1 s is pinged at checkout",
}


@dataclass(frozen=True)
class Timing:
    """The median of several measurements."""

    median: float
    times: int
    #: of the thread that connects; None: was not measured
    cpu: Optional[float] = None


@dataclass(frozen=True)
class Limits:
    """What the server allows, as far as a pool has to do with it."""

    product: str
    #: False: nothing is known of such a server, or it does not tell
    known: bool = False
    #: why it does not tell
    refusal: str = ""
    #: sessions that this user may have at the same time, with all others
    connections: Optional[int] = None
    #: how many there are, without those of this examination
    used: Optional[int] = None
    #: after how long a session without a transaction is ended, by the
    #: setting's name; only what is in force
    idle: Mapping[str, float] = field(default_factory=dict)
    #: what else was read, by the setting's name, as the server shows it
    settings: Mapping[str, Union[str, int, float]] = field(
        default_factory=dict
    )

    @property
    def left(self) -> Optional[int]:
        """How many more sessions there may be."""
        if self.connections is None or self.used is None:
            return None
        return max(0, self.connections - self.used)

    @property
    def vanished_noticed_after(self) -> Optional[float]:
        """When the server's kernel gives up a client that does not answer;
        None: unknown, or there is no network in between."""
        idle, interval, probes = (
            float(self.settings.get(f"tcp_keepalives_{name}", 0))
            for name in ("idle", "interval", "count")
        )
        return idle + interval * probes or None


@dataclass(frozen=True)
class Pooler:
    """What sits between this client and PostgreSQL, such as PgBouncer."""

    #: "transaction": several clients were seen to share one session.
    #: "session": they were not
    mode: str
    #: the driver prepares statements in a session that may not be the next
    #: statement's
    prepares: bool = False

    @property
    def shares_sessions(self) -> bool:
        return self.mode == "transaction"


@dataclass(frozen=True)
class Tls:
    """How connections are encrypted, where Python's ``ssl`` does it."""

    encrypted: bool
    #: a connect with one context for all or, where nothing is encrypted, with
    #: none; None: the driver cannot be told so, or does so already
    shared: Optional[Timing] = None
    #: how to have it so
    code: str = ""


@dataclass(frozen=True)
class Findings:
    """All that was found out about one database and its driver."""

    dialect: str
    driver: str
    driver_version: str
    #: it is one for event loops
    is_async: bool
    #: one of :data:`SIGHTS`
    sight: str
    connect: Timing
    ping: Timing
    limits: Limits
    #: None: none was seen, or none was looked for
    pooler: Optional[Pooler] = None
    #: None: the driver does not encrypt by Python's ``ssl``
    tls: Optional[Tls] = None

    def as_dict(self) -> dict[str, Any]:
        """Return all of it, for ``--json``."""
        found = dataclasses.asdict(self)
        found["limits"]["left"] = self.limits.left
        found["async"] = found.pop("is_async")
        return found


def engine_code(is_async: bool, *arguments: str) -> str:
    """Write down how an engine is made that is given something besides."""
    create = "create_async_engine" if is_async else "create_engine"
    return f"{create}({', '.join(['url', *arguments, '...'])})"
