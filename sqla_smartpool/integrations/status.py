"""A page that shows connection pools live, to be mounted in an application.

::

    app.mount("/pools", asgi_app({"orders": engine}))

It shows where an application stands and what its database said: let nobody
see it but those who operate the application.  How to do so with the usual
frameworks stands in ``docs/status.rst``.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import wait
from importlib.resources import files
import json
import os
import time
from typing import Any
from typing import Awaitable
from typing import Callable
from typing import Iterable
from typing import Mapping
from typing import MutableMapping
from typing import NamedTuple
from typing import Optional
from typing import TYPE_CHECKING
from typing import Union
from urllib.parse import quote

from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import AsyncEngine

from .status_view import PoolView
from ..histogram import BOUNDS

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse
    from _typeshed.wsgi import WSGIApplication
    from _typeshed.wsgi import WSGIEnvironment

Engines = Union[
    Mapping[str, Union[Engine, AsyncEngine]],
    Iterable[Union[Engine, AsyncEngine]],
]
_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
ASGIApplication = Callable[[_Message, _Receive, _Send], Awaitable[None]]

#: for so long an event loop is waited for that is busy, seconds
_PATIENCE = 1.0
_JSON = "/json"
_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    **{
        f"/{name}": (name, "text/javascript; charset=utf-8")
        for name in ("chart.js", "page.js", "pool.js", "words.js")
    },
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
#: with every answer
_HEADERS = (
    ("Cache-Control", "no-store"),
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; "
        "img-src 'self'; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'",
    ),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
)


def asgi_app(engines: Engines) -> ASGIApplication:
    """Make an ASGI application: a page that shows pools live, and ``json``.

    It reads, never checks a connection out, and takes GET and HEAD only.
    The pool of another event loop is looked at by that loop, so that it is
    safe wherever the page is served.

    :param engines: by the names that the page gives them, or without names;
        sync and async ones, with a SmartPool or with a pool that
        :func:`.observe` can watch.
    :raises sqlalchemy.exc.InvalidRequestError: a pool does not queue, such as
        NullPool and StaticPool.

    .. versionadded:: 0.1
    """
    pages = _Pages(engines)

    async def app(scope: _Message, receive: _Receive, send: _Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close"})
            return
        path, root = scope["path"], scope.get("root_path", "").rstrip("/")
        if root and (path == root or path.startswith(root + "/")):
            path = path[len(root) :]  # else the server has taken it off
        answer = pages.answer(scope["method"], path, root)
        if answer is None:
            answer = await _asked(pages)
        headers = [
            (name.lower().encode("ascii"), value.encode("ascii"))
            for name, value in answer.headers
        ]
        await send(
            {
                "type": "http.response.start",
                "status": answer.status,
                "headers": headers,
            }
        )
        body = b"" if scope["method"] == "HEAD" else answer.body
        await send({"type": "http.response.body", "body": body})

    return app


async def _live(receive: _Receive, send: _Send) -> None:
    """Begin and end with the server, when mounted nowhere."""
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _asked(pages: _Pages) -> _Answer:
    asked = []
    for view in pages.views:
        asked.append(view.ask())
        await asyncio.sleep(0)  # a look takes some ms: others come between
    others = [asyncio.wrap_future(each) for each in asked if not each.done()]
    if others:
        await asyncio.wait(others, timeout=_PATIENCE)
    return pages.json([*zip(pages.views, asked)])


def wsgi_app(engines: Engines) -> WSGIApplication:
    """Make a WSGI application: the same as :func:`asgi_app`.

    :param engines: as there.
    :raises sqlalchemy.exc.InvalidRequestError: as there.

    .. versionadded:: 0.1
    """
    pages = _Pages(engines)

    def app(
        environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        root = environ.get("SCRIPT_NAME", "").encode("latin-1").decode()
        answer = pages.answer(method, environ.get("PATH_INFO", ""), root)
        if answer is None:
            asked = [view.ask() for view in pages.views]
            wait(asked, timeout=_PATIENCE)
            answer = pages.json([*zip(pages.views, asked)])
        start_response(f"{answer.status} {answer.reason}", answer.headers)
        return [] if method == "HEAD" else [answer.body]

    return app


class _Answer(NamedTuple):
    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes


def _answered(
    status: int, reason: str, kind: str, body: bytes, *more: tuple[str, str]
) -> _Answer:
    about = ("Content-Type", kind), ("Content-Length", str(len(body)))
    return _Answer(status, reason, [*_HEADERS, *about, *more], body)


class _Pages:
    """What is answered, however it is asked for."""

    def __init__(self, engines: Engines) -> None:
        self.views = [
            PoolView(
                name,
                (
                    engine.sync_engine
                    if isinstance(engine, AsyncEngine)
                    else engine
                ),
            )
            for name, engine in _named(engines)
        ]
        folder = files(__package__) / "status_page"
        self._files = {
            path: _answered(200, "OK", kind, (folder / name).read_bytes())
            for path, (name, kind) in _FILES.items()
        }

    def answer(self, method: str, path: str, root: str) -> Optional[_Answer]:
        """Answer a request; None: with :meth:`json`.

        :param path: below where the application is mounted.
        :param root: where that is.
        """
        if path and path != _JSON and path not in self._files:
            return _text(404, "Not Found")
        if method not in ("GET", "HEAD"):
            return _text(405, "Method Not Allowed", ("Allow", "GET, HEAD"))
        if not path:
            # or what the page refers to would be sought beside it
            here = quote(root.rpartition("/")[2]) or "."
            return _text(307, "Temporary Redirect", ("Location", here + "/"))
        return None if path == _JSON else self._files[path]

    def json(self, asked: list[tuple[PoolView, Any]]) -> _Answer:
        told = {
            "process": os.getpid(),
            "now": time.time(),
            "bounds": BOUNDS,
            "pools": [view.told(each, _PATIENCE) for view, each in asked],
        }
        body = json.dumps(told, allow_nan=False).encode("ascii")
        return _answered(200, "OK", "application/json", body)


def _text(status: int, reason: str, *more: tuple[str, str]) -> _Answer:
    kind = "text/plain; charset=utf-8"
    return _answered(status, reason, kind, reason.encode("ascii"), *more)


def _named(
    engines: Engines,
) -> Iterable[tuple[str, Union[Engine, AsyncEngine]]]:
    if isinstance(engines, Mapping):
        return engines.items()
    return [
        (engine.pool.logging_name or f"pool {number}", engine)
        for number, engine in enumerate(engines, 1)
    ]
