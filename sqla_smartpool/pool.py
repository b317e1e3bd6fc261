"""The pool: what SQLAlchemy calls, and what its users call."""

from __future__ import annotations

from functools import partial
from itertools import count
import math
from types import TracebackType
from typing import Any
from typing import Callable
from typing import Optional
from typing import TYPE_CHECKING
import weakref

from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.pool import Pool
from sqlalchemy.pool import PoolProxiedConnection

from ._sqlalchemy import cut_whose_options_are_interrupted
from ._sqlalchemy import let_first_connect_begin
from .checkout import Checkout
from .connecting import Connecting
from .histogram import SHORTEST
from .insight import Insight
from .inventory import Inventory
from .liveness import closing_the_dead
from .liveness import Liveness
from .liveness import quietly
from .milestones import wait_until_empty
from .milestones import wait_until_full
from .record import Record
from .runtime import call_weakly
from .runtime import Runtime
from .runtime import ThreadRuntime
from .settings import Settings
from .stats import CheckResult
from .upkeep import Upkeep

if TYPE_CHECKING:
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from typing_extensions import Self

#: an argument that was not passed; what holds then stands in
#: :class:`.Settings`
_DEFAULT: Any = type("_Default", (), {"__repr__": lambda _: "default"})()

#: every pool of this process, for :mod:`.fork`
all_pools: weakref.WeakSet[SmartPool] = weakref.WeakSet()


class SmartPool(Insight):
    """A connection pool for any dialect, in QueuePool's place.

    ::

        create_engine(url, poolclass=SmartPool, min_size=5, max_size=30)

    Times are in seconds; None means for ever or without limit.  Through
    ``create_engine``, SQLAlchemy's spellings in brackets apply.

    :param creator: opens a DBAPI connection; ``create_engine`` supplies it.
    :param pool_size: with ``max_overflow`` QueuePool's way to say
        ``max_size``; 5.  0: no ceiling.
    :param max_overflow: 10; negative: no ceiling.
    :param timeout: (``pool_timeout``) how long a checkout may take in all,
        waiting, pinging and connecting together; 30.  0: do not queue.
    :param use_lifo: (``pool_use_lifo``) idle connections are reused newest
        first, so that surplus ones age out; True.
    :param min_size: connections kept open at all times once the pool has
        started; 0.
    :param max_size: ceiling on open connections, idle, in use and being
        opened together; by default ``pool_size + max_overflow``.
    :param keep_alive: how long a connection beyond ``min_size`` may sit
        unused before it is closed; 900.
    :param max_lifetime: no connection of this age is handed out; 3600.
        Each is replaced in the background up to 10 % earlier.
    :param recycle: (``pool_recycle``) SQLAlchemy's name for
        ``max_lifetime``; -1: for ever.
    :param check_interval: how often upkeep looks at the pool when nothing
        else wakes it; 5.
    :param monitor_batch_size: the most connections that one upkeep pass
        pings; 10.
    :param ping_after: a connection without proof of life for this long is
        pinged, by upkeep before anyone needs it, or else at checkout; 30, or
        less once connections are found to die of idleness sooner, which is
        logged.  If you pass it, what to pass instead is logged.
    :param pre_ping: (``pool_pre_ping``) ``ping_after=0``: ping at every
        checkout; at the first of a connection unless it was opened or pinged
        within the last second; False.
    :param ping_timeout: after this long without an answer a ping has failed
        and the connection is cut; 5.
    :param network_timeout: within this time the kernel ends what waits for
        a peer that is gone; 60.  None: sockets are left alone.
    :param num_workers: the most connects, pings and closes that upkeep does
        at a time, :meth:`start` apart; 3.
    :param max_connecting: the most connects in flight.  None, for callers: as
        many as connections are open, but at least 10 or 250 a second, none
        that would come later than returns, and no limit while none is open.
        While connects fail it is one.
    :param reconnect_timeout: how long a checkout goes on waiting while
        connects fail, before the driver's error is raised; 0.
    :param max_waiting: the most callers that may wait without a connect
        under way for them; None.
    :param leak_after: after this long in use a connection is reported, once,
        with the place that took it; None.  Nothing is taken away.
    :param trace_checkouts: keep the place of every checkout, for
        :meth:`holders`; False.
    :param echo: (``echo_pool``) log what the pool does, as for ``Pool``.
    :param logging_name: (``pool_logging_name``) as for ``Pool``.
    :param reset_on_return: (``pool_reset_on_return``) as for ``Pool``.
    :param events: (``pool_events``) as for ``Pool``.
    :param dialect: as for ``Pool``.

    :raises sqlalchemy.exc.ArgumentError: an argument is out of range,
        contradicts another or has a wrong type.

    .. versionadded:: 0.1
    """

    # its log stays where people switch on that of SQLAlchemy's pools
    _sqla_logger_namespace = "sqlalchemy.pool.smart.SmartPool"

    def __init__(
        self,
        creator: Any,
        pool_size: int = _DEFAULT,
        max_overflow: int = _DEFAULT,
        timeout: Optional[float] = _DEFAULT,
        use_lifo: bool = _DEFAULT,
        min_size: int = _DEFAULT,
        max_size: Optional[int] = _DEFAULT,
        keep_alive: Optional[float] = _DEFAULT,
        max_lifetime: Optional[float] = _DEFAULT,
        recycle: float = _DEFAULT,
        check_interval: float = _DEFAULT,
        monitor_batch_size: int = _DEFAULT,
        ping_after: float = _DEFAULT,
        pre_ping: bool = _DEFAULT,
        ping_timeout: float = _DEFAULT,
        network_timeout: Optional[float] = _DEFAULT,
        num_workers: int = _DEFAULT,
        max_connecting: Optional[int] = _DEFAULT,
        reconnect_timeout: float = _DEFAULT,
        max_waiting: Optional[int] = _DEFAULT,
        leak_after: Optional[float] = _DEFAULT,
        trace_checkouts: bool = _DEFAULT,
        echo: Any = None,
        logging_name: Optional[str] = None,
        reset_on_return: Any = True,
        events: Any = None,
        dialect: Any = None,
        _dispatch: Any = None,
        _settings: Optional[Settings] = None,
        _runtime: Optional[Runtime] = None,
    ) -> None:
        arguments = locals()
        given = {
            name: arguments[name]
            for name in [*Settings.__dataclass_fields__, "recycle"]
            if arguments.get(name, _DEFAULT) is not _DEFAULT
        }
        # recreate() hands its settings on whole, so that none is forgotten
        settings = _settings or Settings.from_arguments(given)
        self._given_runtime = _runtime
        self.numbers = count(1)
        self._set_up(settings)
        # past QueuePool, whose queue is not needed
        Pool.__init__(
            self,
            creator,
            recycle=settings.recycle,  # type: ignore[arg-type]
            echo=echo,
            logging_name=logging_name,
            reset_on_return=reset_on_return,
            events=events,
            dialect=dialect,
            pre_ping=settings.pre_ping,
            _dispatch=_dispatch,
        )
        all_pools.add(self)

    def _set_up(self, settings: Settings) -> None:
        """Begin with empty books: nothing is derived from the dialect, which
        may be set later, and nothing is opened."""
        self.runtime: Runtime = self._given_runtime or self._new_runtime()
        self._clock, self._who = self.runtime.clock, self.runtime.who
        self._open_eyes()
        connecting = Connecting(self, self.journal)
        liveness = Liveness(self, self.journal)
        self.upkeep = Upkeep(self, connecting, liveness, self.journal)
        self.chores = self.upkeep.chores
        self.checkout = Checkout(
            self,
            connecting,
            liveness,
            self.upkeep,
            self.lookout,
            self.watch_waits,
        )
        self.inventory = Inventory(
            settings,
            self.runtime,
            connect=connecting.beside,
            dismiss=self.chores.dismiss,
            look_again=self._look_again,
        )
        self._thread_bound = None
        self._look_at = math.inf
        self._disposed = False
        self.trace()

    def _new_runtime(self) -> Runtime:
        return ThreadRuntime()

    # -- checkout ----------------------------------------------------------

    def _do_get(self) -> ConnectionPoolEntry:
        """Check a connection out; the whole of it, when one is at hand."""
        inventory = self.inventory
        record: Optional[Record] = None
        if not inventory.waiters:
            try:
                record = inventory.take()
            except IndexError:
                pass  # not in here, or it would be every later error's context
            else:
                now = self._clock()
                peek = record.peek
                if now < record.trusted_until and (peek is None or peek()):
                    record.taken_at = now
                    record.who = self._who()
                    record.uses += 1
                    return record
        return self.checkout.slowly(record)

    # -- checkin -----------------------------------------------------------

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        """Take a connection back; the whole of it, when it is to be kept."""
        assert isinstance(record, Record)
        now = self._clock()
        record.idle_since = now
        used = now - record.taken_at
        record.usage += used
        if used > SHORTEST:
            record.note_long_use(used)
        if record.going is None and record.dbapi_connection is not None:
            inventory = self.inventory
            inventory.take_back(record)
            if record.going is not None and inventory.seize(record):
                # the pool was disposed in between
                self.chores.dismiss(record, record.going)
        else:
            interruption = record.take_interruption()
            self.runtime.on_books(partial(self._return_slowly, record))
            if interruption is not None:
                raise interruption

    def _return_slowly(self, record: Record) -> None:
        inventory = self.inventory
        if record.dbapi_connection is None:
            # invalidated or detached: that is freed room, no connection
            if record.broken:
                inventory.post(inventory.count, "returns_bad")
            inventory.post(inventory.gone, record)
            self.upkeep.wake()
            return
        inventory.tend(record)
        if self._may_stay(record):
            record.going = None
            record.judge()
            inventory.put_back(record)
            # two may have thought so at the same time
            self.upkeep.wake()
        else:
            self.chores.dismiss(record, str(record.going))

    def _may_stay(self, record: Record) -> bool:
        """Tell whether enough others are leaving in its place, or before it:
        where there is no room for successors, callers miss those that go."""
        if record.going == "resize":
            return self.inventory.room_to_be > 0
        return (
            record.going == "lifetime"
            and len(self.chores.replacing) >= self.settings.num_workers
            and self._clock() < record.expires_at
        )

    # -- what SQLAlchemy calls besides -------------------------------------

    def _should_wrap_creator(
        self, creator: Any
    ) -> Callable[[ConnectionPoolEntry], DBAPIConnection]:
        """Have what opens connections say how long the driver took."""
        connect = super()._should_wrap_creator(creator)

        def timed(record: ConnectionPoolEntry) -> DBAPIConnection:
            assert isinstance(record, Record)
            clock = record.pool.runtime.clock
            began = clock()
            connection = connect(record)
            record.connect_time = clock() - began
            return connection

        return timed

    def _create_connection(self) -> ConnectionPoolEntry:
        # not earlier, as an engine sets its dialect when it has its pool
        cut_whose_options_are_interrupted(self._dialect)
        return Record(self)

    def _invalidate(
        self,
        connection: PoolProxiedConnection,
        exception: Optional[BaseException] = None,
        _checkin: bool = True,
    ) -> None:
        """A query has met a disconnect, or a ``checkout`` listener wants all
        connections replaced (``_checkin=False``)."""
        if _checkin:
            self.inventory.post(self.idle_limit.disturbed, self._clock())
            if self.can_ping:
                self.upkeep.suspect_all()
            else:
                self.chores.dismiss_all("unhealthy")
            if getattr(connection, "is_valid", False):
                connection.invalidate(exception)
        else:
            self.chores.dismiss_all("unhealthy")
        self.upkeep.wake()

    def _close_connection(
        self, connection: DBAPIConnection, *, terminate: bool = False
    ) -> None:
        if closing_the_dead.get(False):
            dialect = self._dialect
            end = dialect.do_terminate if terminate else dialect.do_close
            quietly(partial(end, connection), self.logger)
        else:
            super()._close_connection(connection, terminate=terminate)

    def recreate(self) -> Self:
        """Return a new pool with the same arguments and listeners.

        This one, if it has been disposed, is not the engine's any more:
        whoever came while it was being disposed is served, and nothing is
        kept for others.
        """
        self.logger.info("Pool recreating")
        if self._disposed:
            self.upkeep.retire()
        return self.__class__(
            self._creator,
            echo=self.echo,
            logging_name=self._orig_logging_name,
            reset_on_return=self._reset_on_return,
            dialect=self._dialect,
            _dispatch=self.dispatch,
            _settings=self.settings,
            _runtime=self._given_runtime,
        )

    def dispose(self) -> None:
        """Close the idle connections now, and those in use when they return.

        ``engine.dispose()`` puts a new pool in this one's place.  This one,
        if used again, simply starts anew.
        """
        self.upkeep.stop()
        self._disposed = True
        self.inventory.retired = True
        self.chores.dismiss_all("close")
        self.logger.info("Pool disposed. %s", self.status())

    # -- what users call ---------------------------------------------------

    def start(self, wait: bool = True, timeout: float = 30.0) -> None:
        """Open ``min_size`` connections, and look after them from now on.

        Starting twice is harmless.

        :param wait: return when they are open.
        :param timeout: seconds to wait at most.
        :raises PoolTimeoutError: they were not opened in time; its cause is
            what the last connect said.
        """
        self._open_again()
        self.upkeep.begin()
        self.chores.fill()
        if wait:
            wait_until_full(self, timeout)

    def wait(self, timeout: float = 30.0) -> None:
        """Wait until ``min_size`` connections are open: a readiness probe.

        :param timeout: seconds to wait at most.
        :raises PoolTimeoutError: they were not opened in time.
        :raises Exception: the driver's own, at once, when credentials are
            wrong or the database does not exist.
        """
        wait_until_full(self, timeout)

    def stop(self, timeout: float = 10.0) -> None:
        """Close the pool; :meth:`start` opens it again.

        Callers who wait, and all who come later, get a
        :class:`.PoolClosedError`.  What is in use has time to come home, and
        is closed when it does, however late; so is what is being opened.

        :param timeout: seconds to wait for connections in use; a connect that
            takes longer than one second is not waited for.
        """
        inventory = self.inventory
        self.upkeep.stop()
        inventory.close_gates(True)
        self.chores.dismiss_all("close")
        wait_until_empty(self, timeout)

    def check(self) -> CheckResult:
        """Ping every idle connection now, and replace the unhealthy ones."""
        return self.upkeep.check()

    def resize(
        self, min_size: Optional[int] = None, max_size: Optional[int] = None
    ) -> None:
        """Set other limits, which hold at once and survive ``dispose()``.

        Callers who wait are served if there is room now; what is too much is
        closed as it comes home.

        :param min_size: None: as it is.
        :param max_size: None: as it is.
        :raises sqlalchemy.exc.ArgumentError: nothing has been changed.
        """
        changes: dict[str, int] = {}
        if min_size is not None:
            changes["min_size"] = min_size
        if max_size is not None:
            changes["max_size"] = max_size
        self._change_settings(**changes)

    def _change_settings(self, **changes: Any) -> None:
        super()._change_settings(**changes)
        # or a new age would be noticed only at the next look; from any thread
        self.runtime.on_books(self.upkeep.wake)

    def drain(self) -> None:
        """Replace every connection: idle ones now, the others when they come
        back, or are there; callers never see a gap."""
        self.chores.drain()

    def pause(self) -> None:
        """Have checkouts wait, while their timeouts run: for a failover."""
        self.inventory.close_gates(False)

    def resume(self) -> None:
        """End a :meth:`pause`."""
        if not self.inventory.closed:
            self.inventory.open_gates()
            self.upkeep.wake()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: Optional[type[BaseException]],
        exc_value: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.stop()

    # -- in a forked child, or on another event loop --------------------------

    def begin_anew(self) -> None:
        """Forget every connection: they are of another process or loop."""
        let_first_connect_begin(self.dispatch)
        self._set_up(self.settings)

    def _open_again(self) -> None:
        self.upkeep.replaced = self.inventory.retired = False
        if self.inventory.closed:
            self.inventory.open_gates()

    def _look_again(self, seconds: float) -> None:
        """Have the inventory looked at, for whoever waits for the clock."""
        now = self._clock()
        # one that is overdue will not come: whoever was about to set the
        # alarm was interrupted
        if not now - 1.0 <= self._look_at <= now + seconds:
            self._look_at = now + seconds
            method = weakref.WeakMethod(self._look_now)
            self.runtime.call_later(seconds, call_weakly(method))

    def _look_now(self) -> None:
        self._look_at = math.inf
        self.inventory.look()
