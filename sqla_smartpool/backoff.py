"""When the next connect may be attempted, while connects fail.

Pure: time and chance come in as arguments.
"""

from __future__ import annotations

from typing import Callable
from typing import Iterator
from typing import Optional

#: SQLSTATE class 28, MySQL, Oracle (twice) and SQL Server: wrong credentials
_AUTHENTICATION = {"1045", "ORA-01017", "ORA-28000", "18456"}
#: libpq passes no SQLSTATE on for a failed connect, only the server's text
_AUTHENTICATION_TEXTS = ("authentication failed", "no pg_hba.conf entry")
#: PostgreSQL, MySQL, Oracle, SQL Server: there is no such database
_UNKNOWN_DATABASE = {"3D000", "1049", "ORA-12514", "4060"}


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: Optional[BaseException] = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = (
            getattr(current, "orig", None)
            or current.__cause__
            or current.__context__
        )


def _codes(error: BaseException) -> Iterator[str]:
    """The codes that drivers give their errors, wherever they put them."""
    for link in _chain(error):
        for name in ("sqlstate", "pgcode"):
            yield str(getattr(link, name, None))
        for argument in link.args[:1]:
            if isinstance(argument, dict):  # pg8000
                yield str(argument.get("C"))
            yield str(getattr(argument, "full_code", argument))  # oracledb


def is_authentication_error(error: BaseException) -> bool:
    """Tell whether a connect failed because of its credentials."""
    return any(
        code in _AUTHENTICATION or (len(code) == 5 and code[:2] == "28")
        for code in _codes(error)
    ) or any(
        text in str(link)
        for link in _chain(error)
        for text in _AUTHENTICATION_TEXTS
    )


def is_hopeless(error: BaseException) -> bool:
    """Tell whether connecting again at once could not help."""
    return (
        is_authentication_error(error)
        or any(code in _UNKNOWN_DATABASE for code in _codes(error))
        or any(
            "database" in str(link) and "does not exist" in str(link)
            for link in _chain(error)
        )
    )


class Backoff:
    """Admits attempts to connect; all of them while connects succeed.

    While they fail, attempts come from a bucket: 5, refilled at 10 per
    second, or, so that no account gets locked, 3 refilled at one per 5 s
    after an authentication error.  Upkeep, which nobody waits for, holds
    back longer: exponentially with full jitter up to 5 s (the method:
    Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015),
    or, with wrong credentials, for 30 s and by chance a tenth more.

    :param chance: returns a number from 0 up to 1.
    """

    _FIRST = 0.1  # seconds; doubled with each failure
    _LONGEST = 5.0
    _LOCKED_OUT = 30.0

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        #: connects that failed in a row
        self.failures = 0
        self.failing = False
        #: what the last of them raised, without traceback
        self.error: Optional[BaseException] = None
        #: when upkeep may try again
        self.retry_at = 0.0
        self._failed_at = 0.0
        self._doublings = 0
        self._tokens = 0.0
        self._counted_at = 0.0
        self._locked_out = False

    @property
    def _capacity(self) -> float:
        return 3.0 if self._locked_out else 5.0

    @property
    def _rate(self) -> float:
        return 0.2 if self._locked_out else 10.0

    def delay(self, now: float) -> float:
        """Seconds until the next attempt may begin."""
        if not self.failing:
            return 0.0
        self._refill(now)
        missing = 1.0 - self._tokens
        # whoever waits for now + delay meets with rounding
        return missing / self._rate if missing > 1e-6 else 0.0

    def begin(self, now: float) -> None:
        """An attempt begins."""
        if self.failing:
            self._refill(now)
            self._tokens -= 1.0

    def _refill(self, now: float) -> None:
        self._tokens = min(
            self._capacity,
            self._tokens + (now - self._counted_at) * self._rate,
        )
        self._counted_at = now

    def succeeded(self) -> None:
        self.failures = 0
        self.failing = False
        self.error = None
        self.retry_at = 0.0

    def failed(
        self, now: float, begun: float, error: BaseException, locked_out: bool
    ) -> None:
        """An attempt failed.

        :param begun: when it began.
        :param error: kept as it is, so to be passed without its traceback.
        :param locked_out: it was refused for its credentials.
        """
        if not self.failing:
            self._locked_out = locked_out
            self._tokens, self._counted_at = self._capacity, now
        elif locked_out != self._locked_out:
            self._refill(now)
            self._locked_out = locked_out
            self._tokens = min(self._tokens, self._capacity)
        # several that were under way side by side hold upkeep back once
        if not self.failing or begun >= self._failed_at:
            self._failed_at = now
            self._doublings = self._doublings + 1 if self.failing else 1
            # 2.0**16 is far beyond the longest
            doubled = self._FIRST * 2.0 ** min(self._doublings, 16)
            pause = self._chance() * min(self._LONGEST, doubled)
            if locked_out:
                pause = self._LOCKED_OUT * (1.0 + 0.1 * self._chance())
            self.retry_at = now + pause
        self.failures += 1
        self.failing = True
        self.error = error
