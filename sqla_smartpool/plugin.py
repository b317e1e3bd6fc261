"""The pool by a word in the URL, without a change of code."""

from __future__ import annotations

import inspect
from typing import Any

from sqlalchemy.engine import CreateEnginePlugin
from sqlalchemy.engine import URL

from .aiopool import AsyncSmartPool
from .pool import SmartPool

#: what the pool's arguments are called in ``create_engine``, as SQLAlchemy
#: translates them; a bare ``timeout`` in a URL is the driver's
_TRANSLATED = {
    "timeout": "pool_timeout",
    "recycle": "pool_recycle",
    "pre_ping": "pool_pre_ping",
    "use_lifo": "pool_use_lifo",
    "echo": "echo_pool",
    "logging_name": "pool_logging_name",
    "reset_on_return": "pool_reset_on_return",
}


def _options() -> set[str]:
    names = set(inspect.signature(SmartPool.__init__).parameters)
    names -= {"self", "creator", "events", "dialect"}
    return {
        _TRANSLATED.get(name, name)
        for name in names
        if not name.startswith("_")
    }


class SmartPoolPlugin(CreateEnginePlugin):
    """Choose the pool, sync or async, with ``plugins=["smartpool"]`` or in
    the URL::

        postgresql+psycopg://…/db?plugin=smartpool&min_size=5&max_size=20

    A pool class that the program names itself, such as Alembic's
    ``NullPool``, is left in place.

    .. versionadded:: 0.1
    """

    def __init__(self, url: URL, kwargs: dict[str, Any]) -> None:
        super().__init__(url, kwargs)
        self._from_url = sorted(_options() & set(url.query))
        if kwargs.get("poolclass") is None and kwargs.get("pool") is None:
            for name in self._from_url:
                kwargs.setdefault(name, url.query[name])
            asynchronous = kwargs.get("_is_async", False)
            kwargs["poolclass"] = AsyncSmartPool if asynchronous else SmartPool

    def update_url(self, url: URL) -> URL:
        return url.difference_update_query(["plugin", *self._from_url])
