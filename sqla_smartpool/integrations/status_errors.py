"""The last errors of a pool, without what nobody is to read."""

from __future__ import annotations

from collections import OrderedDict
from functools import cache
import re
import threading
from typing import Any
from typing import Callable
from typing import TypeVar
from urllib.parse import quote
from urllib.parse import quote_plus

from sqlalchemy import event
from sqlalchemy import URL
from sqlalchemy.engine import Engine

from ..exc import PoolTimeoutError
from ..holders import Holder
from ..pool import SmartPool

#: so many different ones are kept
_KEPT = 20
#: of a text that a driver wrote, so many characters
_LENGTH = 500
#: what drivers and programs write of how to connect
_URL = re.compile(r"[\w+.-]+://\S*@\S*")
_SECRET = re.compile(
    r"(?i)\b(\w*(?:password|passwd|pwd|secret|token)\w*\s*[=:]\s*)"
    r"('[^']*'|\"[^\"]*\"|[^\s,;)]+)"
)

_T = TypeVar("_T")


class Errors:
    """Listens to what goes wrong with the pool of an engine.

    :param clock: of the wall, seconds since 1970.
    """

    def __init__(self, engine: Engine, clock: Callable[[], float]) -> None:
        self._clock = clock
        #: when for the first and the last time, and how often; by what it was
        self._seen: OrderedDict[tuple[str, str], tuple[float, float, int]]
        self._seen = OrderedDict()
        self._noting = threading.Lock()
        event.listen(engine, "handle_error", self._on_error)
        if isinstance(engine.pool, SmartPool):
            event.listen(engine, "connect_failed", self._on_connect_failed)
            event.listen(engine, "checkout_timeout", self._on_timeout)
            event.listen(engine, "leak", self._on_leak)

    def told(self) -> list[dict[str, Any]]:
        """The latest first, as plain values."""
        with self._noting:
            seen = list(self._seen.items())
        return [
            {
                "what": what,
                "text": text,
                "first": first,
                "last": last,
                "times": times,
            }
            for (what, text), (first, last, times) in reversed(seen)
        ]

    def _note(self, what: str, text: str) -> None:
        now = self._clock()
        key = what, text.strip()[:_LENGTH]
        with self._noting:
            first, _, times = self._seen.pop(key, (now, now, 0))
            self._seen[key] = first, now, times + 1
            if len(self._seen) > _KEPT:
                self._seen.popitem(last=False)

    def _on_error(self, context: Any) -> None:
        if context.connection is None:
            self._note("connect failed", _worded(context.original_exception))
        elif context.is_disconnect:
            self._note("disconnected", _worded(context.original_exception))

    def _on_connect_failed(
        self, pool: SmartPool, error: BaseException, *_: Any
    ) -> None:
        self._note("connect failed", _worded(error))

    def _on_timeout(self, pool: SmartPool, error: PoolTimeoutError) -> None:
        # what follows differs each time
        text = str(error.args[0]).partition(";")[0]
        if error.diagnosis is not None:
            text += f" (likely cause: {error.diagnosis.cause.value})"
        self._note("checkout failed", text)

    def _on_leak(self, pool: SmartPool, holder: Holder) -> None:
        place = "".join(holder.taken[-1:]) or "an unknown place"
        self._note("leak", f"taken by {holder.name} at {place}")


def _worded(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def hidden(value: _T, url: URL) -> _T:
    """Return plain values without the URL or the password in their texts.

    They come from drivers, from source code and from whoever names tasks.
    """
    words = {str(url.password)} if url.password else set()
    words |= {quote(word, safe="") for word in words}
    words |= {quote_plus(word) for word in words}

    @cache  # holders often stand at the same lines
    def clean_text(text: str) -> str:
        text = _SECRET.sub(r"\1***", _URL.sub("(a URL)", text))
        for word in words:
            text = text.replace(word, "***")
        return text

    def clean(value: Any) -> Any:
        if isinstance(value, str):
            value = clean_text(value)
        elif isinstance(value, dict):
            value = {name: clean(each) for name, each in value.items()}
        elif isinstance(value, list):
            value = [clean(each) for each in value]
        return value

    cleaned: _T = clean(value)
    return cleaned
