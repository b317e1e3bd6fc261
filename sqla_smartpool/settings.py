"""Every argument of the pool: its default, what is allowed, what it means.

An argument is named, defaulted and checked here and nowhere else.
``SmartPool.__init__`` repeats the names only, as SQLAlchemy finds a pool's
arguments by looking at its signature.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from dataclasses import field
from functools import cached_property
import math
from typing import Any
from typing import Callable
from typing import Mapping
from typing import Optional

from sqlalchemy import exc as sa_exc

_TRUE = {"true", "yes", "on", "y", "t", "1"}
_FALSE = {"false", "no", "off", "n", "f", "0"}


def _wrong(name: str, value: object, allowed: str) -> sa_exc.ArgumentError:
    return sa_exc.ArgumentError(f"{name}={value!r}: must be {allowed}")


def _number(
    kind: Callable[[Any], float], name: str, value: object, allowed: str
) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise _wrong(name, value, allowed)
    try:
        number = kind(value)
    except (ValueError, OverflowError):
        # chained, "invalid literal for int()" would only distract
        raise _wrong(name, value, allowed) from None
    if number != number or (not isinstance(value, str) and number != value):
        raise _wrong(name, value, allowed)
    return number


def _checked(
    default: Any,
    kind: Callable[[Any], float],
    allowed: str,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    none: bool = False,
) -> Any:
    """A field for a number; ``allowed`` says in words what is accepted."""

    def check(name: str, value: object) -> Optional[float]:
        if none and (
            value is None
            or (isinstance(value, str) and value.lower() == "none")
        ):
            return None
        number = _number(kind, name, value, allowed)
        if number < least or number <= above or number == math.inf:
            raise _wrong(name, value, allowed)
        return number

    return field(default=default, metadata={"check": check})


def _seconds(default: Optional[float], *, zero: bool, none: bool) -> Any:
    allowed = "a number of seconds " + ("of at least 0" if zero else "above 0")
    return _checked(
        default,
        float,
        allowed + (", or None" if none else ""),
        least=0.0,
        above=-1.0 if zero else 0.0,
        none=none,
    )


def _count(
    default: Optional[int], *, least: int = -(2**31), none: bool = False
) -> Any:
    allowed = "a whole number" + (
        f" of at least {least}" if least >= 0 else ""
    )
    return _checked(
        default,
        int,
        allowed + (", or None" if none else ""),
        least=least,
        none=none,
    )


def _switch(default: bool) -> Any:
    def check(name: str, value: object) -> bool:
        if isinstance(value, str):
            if value.lower() in _TRUE | _FALSE:
                return value.lower() in _TRUE
        elif isinstance(value, bool) or value in (0, 1):
            return bool(value)
        raise _wrong(name, value, "True or False")

    return field(default=default, metadata={"check": check})


@dataclass(frozen=True)
class Settings:
    """The checked arguments of one pool; times are in seconds.

    Numbers and booleans may arrive as text, from an ini file or a URL.

    :raises sqlalchemy.exc.ArgumentError: names the argument, the value and
        what is allowed.
    """

    pool_size: int = _count(5, least=0)
    max_overflow: int = _count(10)
    timeout: Optional[float] = _seconds(30.0, zero=True, none=True)
    use_lifo: bool = _switch(True)
    min_size: int = _count(0, least=0)
    max_size: Optional[int] = _count(None, least=1, none=True)
    keep_alive: Optional[float] = _seconds(900.0, zero=False, none=True)
    max_lifetime: Optional[float] = _seconds(3600.0, zero=False, none=True)
    check_interval: float = _seconds(5.0, zero=False, none=False)
    monitor_batch_size: int = _count(10, least=1)
    ping_after: float = _seconds(30.0, zero=True, none=False)
    ping_timeout: float = _seconds(5.0, zero=False, none=False)
    network_timeout: Optional[float] = _seconds(60.0, zero=False, none=True)
    num_workers: int = _count(3, least=1)
    max_connecting: Optional[int] = _count(None, least=1, none=True)
    reconnect_timeout: float = _seconds(0.0, zero=True, none=False)
    max_waiting: Optional[int] = _count(None, least=0, none=True)
    leak_after: Optional[float] = _seconds(None, zero=False, none=True)
    trace_checkouts: bool = _switch(False)
    pre_ping: bool = _switch(False)
    #: pings come sooner when idle connections are found dead: nobody has said
    #: when they are to come
    learns: bool = _switch(True)

    def __post_init__(self) -> None:
        for item in dataclasses.fields(self):
            value = item.metadata["check"](item.name, getattr(self, item.name))
            object.__setattr__(self, item.name, value)
        ceiling = self.ceiling
        if ceiling is not None and self.min_size > ceiling:
            raise sa_exc.ArgumentError(
                f"min_size={self.min_size} exceeds the ceiling of {ceiling} "
                "open connections; raise max_size (or pool_size + "
                "max_overflow), or lower min_size"
            )
        if ceiling == 0:
            raise sa_exc.ArgumentError(
                f"pool_size={self.pool_size}, max_overflow="
                f"{self.max_overflow}: the pool could not open a connection"
            )

    @classmethod
    def from_arguments(cls, given: Mapping[str, Any]) -> Settings:
        """Check what a user has passed.

        :param given: argument names and values, without those that were
            not passed.
        """
        given = dict(given)
        if given.get("max_size") is not None:
            for name in ("pool_size", "max_overflow"):
                if name in given:
                    raise sa_exc.ArgumentError(
                        f"max_size={given['max_size']!r} and "
                        f"{name}={given[name]!r} both set the ceiling; pass "
                        "max_size alone, or pool_size and max_overflow"
                    )
        if "recycle" in given:
            lifetime = _recycle(given.pop("recycle"))
            other = given.get("max_lifetime", lifetime)
            if cls(max_lifetime=other).max_lifetime != lifetime:
                raise sa_exc.ArgumentError(
                    f"max_lifetime={other!r} and recycle (pool_recycle) are "
                    f"one setting under two names, and {lifetime!r} differs; "
                    "pass one of them"
                )
            given["max_lifetime"] = lifetime
        return cls(**given, learns="ping_after" not in given)

    def changed(self, **changes: Any) -> Settings:
        """Return checked settings in which some values are others."""
        return dataclasses.replace(self, **changes)

    @cached_property
    def ceiling(self) -> Optional[int]:
        """The most connections open at a time; None: no limit."""
        if self.max_size is not None:
            return self.max_size
        if self.pool_size == 0 or self.max_overflow < 0:
            return None
        return self.pool_size + self.max_overflow

    @property
    def size(self) -> int:
        """What ``QueuePool.size()`` says."""
        return self.pool_size if self.max_size is None else self.max_size

    @property
    def traces(self) -> bool:
        """The place of every checkout is kept."""
        return self.trace_checkouts or self.leak_after is not None

    @property
    def proof_window(self) -> float:
        """How long a proof of life holds, in seconds."""
        return 0.0 if self.pre_ping else self.ping_after

    @property
    def connect_timeout(self) -> float:
        """After how many seconds a connect is written off."""
        return self.timeout or 30.0

    @property
    def recycle(self) -> float:
        """``max_lifetime`` as SQLAlchemy spells it: -1 for ever."""
        return -1 if self.max_lifetime is None else self.max_lifetime


def _recycle(value: object) -> Optional[float]:
    allowed = "a number of seconds above 0, or -1 for ever"
    number = _number(float, "recycle", value, allowed)
    if number == -1:
        return None
    if not 0 < number < math.inf:
        raise _wrong("recycle", value, allowed)
    return number
