"""How often connects are attempted while they fail."""

from __future__ import annotations

import pytest

from sqla_smartpool.backoff import Backoff
from sqla_smartpool.backoff import is_authentication_error
from sqla_smartpool.backoff import is_hopeless

DOWN = OSError("connection refused")


class DriverError(Exception):
    sqlstate = None


def attempts_within(
    backoff: Backoff, seconds: float, locked_out: bool
) -> list[float]:
    """Callers try whenever they may; every attempt fails at once."""
    now, made = 0.0, []
    backoff.failed(now, now, DOWN, locked_out)
    while True:
        delay = backoff.delay(now)
        if now + delay > seconds:
            return made
        now += delay
        backoff.begin(now)
        made.append(now)
        backoff.failed(now, now, DOWN, locked_out)


@pytest.mark.pain("storm while down")
@pytest.mark.parametrize(
    "locked_out, bucket, rate", [(False, 5, 10.0), (True, 3, 0.2)]
)
def test_attempts_stay_within_the_bucket(
    locked_out: bool, bucket: int, rate: float
) -> None:
    made = attempts_within(Backoff(lambda: 0.5), 60.0, locked_out)
    assert made[:bucket] == [0.0] * bucket
    for seconds in (1, 10, 60):
        count = sum(when <= seconds for when in made)
        assert abs(count - (bucket + rate * seconds)) <= 1


def test_a_success_ends_the_limits() -> None:
    backoff = Backoff(lambda: 0.5)
    attempts_within(backoff, 3.0, False)
    assert backoff.delay(3.0) > 0
    assert backoff.error is DOWN
    backoff.succeeded()
    assert backoff.delay(3.0) == 0
    assert backoff.retry_at == 0
    assert backoff.error is None


def test_upkeep_holds_back_exponentially_with_full_jitter_to_a_cap() -> None:
    now, bounds = 0.0, []
    backoff = Backoff(lambda: 1.0)
    for _ in range(20):
        backoff.failed(now, now, DOWN, False)
        bounds.append(backoff.retry_at - now)
        now = backoff.retry_at
    assert bounds[:3] == pytest.approx([0.2, 0.4, 0.8])
    assert all(b >= a - 1e-6 for a, b in zip(bounds, bounds[1:]))
    assert bounds[-1] == pytest.approx(5.0)
    lucky = Backoff(lambda: 0.0)
    lucky.failed(7.0, 7.0, DOWN, False)
    assert lucky.retry_at == 7.0


def test_with_wrong_credentials_upkeep_tries_at_most_once_in_30_s() -> None:
    for chance, pause in ((0.0, 30.0), (1.0, 33.0)):
        backoff, now = Backoff(lambda: chance), 0.0
        for _ in range(5):
            backoff.failed(now, now, DOWN, True)
            assert backoff.retry_at - now == pytest.approx(pause)
            now = backoff.retry_at


def test_failures_side_by_side_hold_upkeep_back_once() -> None:
    backoff = Backoff(lambda: 1.0)
    for _ in range(50):
        backoff.failed(10.0, 9.0, DOWN, False)
    assert backoff.failures == 50
    assert backoff.retry_at == pytest.approx(10.2)


def error(*args: object, sqlstate: object = None) -> DriverError:
    made = DriverError(*args)
    made.sqlstate = sqlstate  # type: ignore[assignment]
    return made


@pytest.mark.parametrize(
    "refused",
    [
        error("no", sqlstate="28P01"),
        error({"S": "FATAL", "C": "28000"}),
        error(1045, "Access denied"),
        error(18456, "Login failed"),
        error('FATAL:  password authentication failed for user "x"'),
    ],
)
def test_wrong_credentials_are_told_from_an_outage(
    refused: DriverError,
) -> None:
    wrapped = RuntimeError("wrapped")
    wrapped.__cause__ = refused
    assert is_authentication_error(refused)
    assert is_authentication_error(wrapped)
    assert is_hopeless(refused)
    assert not is_authentication_error(DOWN)
    assert not is_hopeless(DOWN)


def test_an_unknown_database_is_hopeless_but_locks_no_account() -> None:
    for unknown in (
        error("x", sqlstate="3D000"),
        error(1049, "Unknown database"),
        error('FATAL:  database "nope" does not exist'),
    ):
        assert is_hopeless(unknown)
        assert not is_authentication_error(unknown)
