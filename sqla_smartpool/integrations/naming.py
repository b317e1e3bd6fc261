"""What a pool is called where more than one is looked at."""

from __future__ import annotations

from itertools import count
from typing import Collection
from typing import Optional

from sqlalchemy import exc as sa_exc
from sqlalchemy.engine import Engine


def name_of(
    engine: Engine, given: Optional[str], taken: Collection[str]
) -> str:
    """Return a name for the pool of an engine.

    It is the one given, or else the pool's ``logging_name``, or else
    ``host:port/database``, without user and password.  The last two are
    numbered when they are taken.

    :raises sqlalchemy.exc.ArgumentError: the name given is taken.
    """
    if given is not None:
        if given in taken:
            raise sa_exc.ArgumentError(
                f"another pool is called {given!r} already, and their numbers "
                "could not be told apart; give each a name of its own"
            )
        return given
    name = engine.pool.logging_name or _place_of(engine)
    numbered = (f"{name} {number}" for number in count(2))
    while name in taken:
        name = next(numbered)
    return name


def _place_of(engine: Engine) -> str:
    url = engine.url
    host = ":".join(str(part) for part in (url.host, url.port) if part)
    parts = (host, url.database)
    return "/".join(part for part in parts if part) or engine.dialect.name
