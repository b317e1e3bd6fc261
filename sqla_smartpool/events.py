"""The events that the pool adds to SQLAlchemy's."""

from __future__ import annotations

from typing import Any
from typing import TYPE_CHECKING

from sqlalchemy import exc as sa_exc
from sqlalchemy.engine import Engine
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.pool import Pool
from sqlalchemy.pool.events import PoolEvents

from .pool import SmartPool

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection

    from .exc import PoolTimeoutError
    from .holders import Holder


class SmartPoolEvents(PoolEvents):
    """Events of a :class:`.SmartPool`, beside those of every pool.

    Listened to as any other event, on the engine, the pool or the class::

        @event.listens_for(engine, "retire")
        def on_retire(dbapi_connection, connection_record, reason):
            log.info("closing %s: %s", dbapi_connection, reason)

    With an :class:`~sqlalchemy.ext.asyncio.AsyncEngine` the target is its
    ``sync_engine``, as always.

    .. versionadded:: 0.1
    """

    _target_class_doc = "SomeEngineOrPool"
    _dispatch_target: type[Pool] = SmartPool

    @classmethod
    def _accept_with(cls, target: Any, identifier: str) -> Any:
        accepted = super()._accept_with(target, identifier)
        if identifier not in cls.__dict__:
            return accepted
        if isinstance(target, type) and issubclass(target, Engine):
            # a listener on the class Engine is for every engine that will
            # ever be; those of them with a smart pool can fire it
            return SmartPool
        kind = accepted if isinstance(accepted, type) else type(accepted)
        if accepted is not None and not issubclass(kind, SmartPool):
            raise sa_exc.InvalidRequestError(
                f"the event {identifier!r} is fired by SmartPool and "
                f"AsyncSmartPool, but this is a {kind.__name__}; create the "
                "engine with poolclass=SmartPool (or AsyncSmartPool)"
            )
        return accepted

    @classmethod
    def _listen(cls, event_key: Any, **kw: Any) -> None:
        if isinstance(event_key.dispatch_target, type):
            # what SQLAlchemy takes from the class of an async pool, True,
            # only instances understand
            kw.setdefault("asyncio", False)
        super()._listen(event_key, **kw)

    def health_check(
        self,
        dbapi_connection: DBAPIConnection,
        connection_record: ConnectionPoolEntry,
    ) -> None:
        """Called in place of the dialect's ping, once anyone listens.

        Any exception means that the connection is unhealthy, and has it
        replaced: a listener may refuse a server that no longer accepts
        writes.  A connection is due ``ping_after`` seconds after its last
        check, used or not.  A transaction that the listener opens is rolled
        back.

        :param dbapi_connection: the connection; for an async engine
            SQLAlchemy's adapted one, which is used without ``await``.
        :param connection_record: its :class:`.ConnectionPoolEntry`.
        """

    def retire(
        self,
        dbapi_connection: DBAPIConnection,
        connection_record: ConnectionPoolEntry,
        reason: str,
    ) -> None:
        """Called before the pool closes a connection of its own accord.

        :param reason: ``"idle"``, ``"lifetime"``, ``"unhealthy"``,
            ``"drain"``, ``"resize"`` or ``"close"``.
        """

    def connect_failed(
        self,
        pool: SmartPool,
        exception: BaseException,
        attempt: int,
        retry_in: float,
    ) -> None:
        """Called when a connect in the background has failed.

        :param exception: what the driver raised.
        :param attempt: how many have failed in a row, this one included.
        :param retry_in: seconds until upkeep tries again by itself.
        """

    def checkout_timeout(
        self, pool: SmartPool, error: PoolTimeoutError
    ) -> None:
        """Called when a checkout has failed for want of a connection.

        :param error: what its caller is about to get, a
            :class:`.PoolTimeoutError` or :class:`.PoolOverloadedError`.
        """

    def leak(self, pool: SmartPool, holder: Holder) -> None:
        """Called once for a connection in use for longer than ``leak_after``.

        Nothing is taken away from whoever has it.

        :param holder: who has it; where it was taken, and where that thread
            or task stands now.
        """
