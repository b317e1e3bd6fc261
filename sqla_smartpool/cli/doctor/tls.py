"""Drivers that build a TLS context for each connection.

``ssl.create_default_context`` reads all certificates that the system trusts:
some 20 ms of CPU, most of which a connection would be spared by sharing one.
"""

from __future__ import annotations

import ssl
from typing import Any
from typing import Callable
from typing import Iterator
from typing import NamedTuple
from typing import Optional

from sqlalchemy.engine import URL

from .findings import engine_code
from ...sockets import transport_of


class Way(NamedTuple):
    """How a driver is handed a context."""

    #: the argument of its ``connect()``
    argument: str
    #: what spares it the context where nothing is encrypted
    off: Optional[tuple[str, bool]] = None
    #: the socket of one of its connections; None: asyncio's transport
    socket: Optional[Callable[[Any], Any]] = None

    def context_of(self, driver_connection: Any) -> Optional[ssl.SSLContext]:
        """Return the context of a connection; None: it is not encrypted."""
        if self.socket is None:
            transport = transport_of(driver_connection)
            context = transport and transport.get_extra_info("sslcontext")
        else:
            context = getattr(self.socket(driver_connection), "context", None)
        return context if isinstance(context, ssl.SSLContext) else None

    def instead_of(
        self, context: Optional[ssl.SSLContext]
    ) -> dict[str, object]:
        """Return the arguments of a connect that builds no context.

        :param context: of a connection; None: it is not encrypted.
        """
        if context is not None:
            return {self.argument: context}
        return dict([self.off]) if self.off else {}

    def code(self, context: Optional[ssl.SSLContext], url: URL) -> str:
        """Write down how connections can share a context, or do without.

        :param context: what the driver has built; the shared one verifies
            the server as that one does.
        """
        if context is None:
            assert self.off is not None
            return self._engine(*self.off)
        return "\n".join(
            [*_made_like(context, url), self._engine(self.argument)]
        )

    def _engine(self, name: str, value: object = "context") -> str:
        arguments = f'connect_args={{"{name}": {value}}}'
        return engine_code(self.socket is None, arguments)


#: by the package of the connection's class; what is not listed leaves TLS to
#: a library in C, or can be given no context
_WAYS = {
    "asyncmy": Way("ssl"),
    "asyncpg": Way("ssl"),
    "pg8000": Way("ssl_context", ("ssl_context", False), lambda c: c._usock),
    "pymysql": Way("ssl", ("ssl_disabled", True), lambda c: c._sock),
}


def way_of(driver_connection: Any) -> Optional[Way]:
    """Return how the driver is handed a context; None: it is not."""
    package = type(driver_connection).__module__.partition(".")[0]
    return _WAYS.get(package)


def _made_like(context: ssl.SSLContext, url: URL) -> Iterator[str]:
    authority = url.query.get("ssl_ca") or url.query.get("sslrootcert")
    given = f"cafile={authority!r}" if authority else ""
    yield "import ssl"
    yield f"context = ssl.create_default_context({given})"
    if not context.check_hostname:
        yield "context.check_hostname = False"
    if context.verify_mode == ssl.CERT_NONE:
        yield "context.verify_mode = ssl.CERT_NONE"
    usual = ssl.create_default_context().verify_flags
    if usual & ~context.verify_flags & ssl.VERIFY_X509_STRICT:
        yield "context.verify_flags &= ~ssl.VERIFY_X509_STRICT"
    certificate = url.query.get("ssl_cert") or url.query.get("sslcert")
    if certificate:
        key = url.query.get("ssl_key") or url.query.get("sslkey")
        yield f"context.load_cert_chain({certificate!r}, {key!r})"
