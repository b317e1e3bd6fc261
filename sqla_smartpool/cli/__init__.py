"""The command line: what its commands share.

The database to work on, and errors of one line without a password in them.
Nothing here needs rich.
"""

from __future__ import annotations

from contextlib import contextmanager
import os
from pathlib import Path
import re
from tempfile import TemporaryDirectory
from typing import Iterator
from typing import Optional
from urllib.parse import quote
from urllib.parse import quote_plus

from sqlalchemy import exc
from sqlalchemy.engine import make_url
from sqlalchemy.engine import URL

MASK = "***"

ASYNC_DRIVERS = {
    "mariadb": "mariadb+aiomysql",
    "mssql": "mssql+aioodbc",
    "mysql": "mysql+aiomysql",
    "oracle": "oracle+oracledb",
    "postgresql": "postgresql+asyncpg",
    "sqlite": "sqlite+aiosqlite",
}

_SECRET_KEY = re.compile("pass|pwd|secret|token|odbc_connect", re.IGNORECASE)

# Both run on to the end of what they could mean: they rather mask too much.
_SECRET_IN_TEXT = (
    re.compile(r"(://[^:/]*:).*(@)", re.DOTALL),
    re.compile(r"(\w*(?:pass|pwd)\w*(?:=|%3d))[^&]*()", re.IGNORECASE),
)


class CommandError(Exception):
    """What the user has to put right: one line, exit status 2."""


@contextmanager
def database(given: Optional[str], is_async: bool) -> Iterator[URL]:
    """Find the database to run on, for as long as the context lasts."""
    given = given or os.environ.get("DATABASE_URL")
    if given:
        yield _with_driver(_parse(given), is_async)
        return
    with TemporaryDirectory(prefix="sqla_smartpool-") as folder:
        file = Path(folder, "stress.sqlite")
        url = URL.create("sqlite", database=str(file))
        yield _with_driver(url, is_async)


@contextmanager
def connecting(url: URL) -> Iterator[None]:
    """Turn whatever comes out of a driver into one line for the user."""
    try:
        yield
    except Exception as error:
        # Drivers raise errors of their own, which have no class in common.
        raise CommandError(
            f"cannot connect to {masked(url)}: {reason(error, url)}"
        ) from error


def masked(url: URL) -> str:
    """Return a URL as it may be shown.

    Without its query, which may hold a password of its own.
    """
    return url.set(query={}).render_as_string(hide_password=True)


def redact(text: str, url: Optional[URL] = None) -> str:
    """Replace every password in a text by ``***``.

    :param text: an error, a command line.
    :param url: masks the passwords in it, in any spelling; what merely looks
        like a URL or a setting with a password is masked without it.

    """
    spellings = {
        spelling
        for secret in (_secrets(url) if url is not None else ())
        for spelling in (
            secret,
            quote(secret),
            quote(secret, safe=""),
            quote(secret, safe=" +"),  # as SQLAlchemy renders it
            quote_plus(secret),
            repr(secret)[1:-1],
        )
    }
    if spellings:
        # The longest first: one spelling may be a part of another.
        longest_first = sorted(spellings, key=len, reverse=True)
        pattern = "|".join(map(re.escape, longest_first))
        text = re.sub(pattern, MASK, text, flags=re.IGNORECASE)
    for looks_secret in _SECRET_IN_TEXT:
        text = looks_secret.sub(rf"\g<1>{MASK}\g<2>", text)
    return text


def reason(error: BaseException, url: URL) -> str:
    """Return what went wrong, in one line and without a password.

    :param error: of SQLAlchemy, of a pool, or of a driver.
    :param url: of the database that was connected to.

    """
    if isinstance(error, exc.TimeoutError) and error.__cause__ is not None:
        error = error.__cause__  # the pool waited, but this is why
    if isinstance(error, exc.DBAPIError) and error.orig is not None:
        error = error.orig
    text = " ".join(words(error, url).split())
    name = type(error).__name__
    # Drivers and SQLAlchemy write sentences, a KeyError does not.
    return text if " " in text else f"{name}: {text}".rstrip(": ")


def words(error: BaseException, url: URL) -> str:
    """Return an error's text without passwords and SQLAlchemy's link."""
    text, *_ = str(error).split("(Background on this error")
    return redact(text, url).strip()


def _parse(given: str) -> URL:
    # SQLAlchemy ends the password at its first "@" and takes the rest of it
    # for the host, which errors would then show.
    if re.match(r"[^:/]*://[^:/]*:[^@]*@.*@", given, re.DOTALL):
        raise CommandError(
            "the database URL has an @ too many: one that belongs to the"
            " password is written %40"
        )
    try:
        url = make_url(given)
    except (exc.ArgumentError, ValueError):
        # What they say may quote a part of the password.
        raise CommandError(
            "the database URL cannot be read: it should look like"
            " dialect+driver://user:password@host:port/database, with special"
            " characters in user and password percent-encoded"
        ) from None
    if url.get_backend_name() == "sqlite" and (
        ":memory:" in (url.database or ":memory:")
        or url.query.get("mode") == "memory"
    ):
        raise CommandError(
            "an SQLite database in memory belongs to one connection: name a"
            " file, as in sqlite:///stress.sqlite"
        )
    return url


def _with_driver(url: URL, is_async: bool) -> URL:
    """Return the URL with a driver that can do what is asked for."""
    if is_async and url.drivername == "sqlite":
        url = url.set(drivername=ASYNC_DRIVERS["sqlite"])
    with connecting(url):
        dialect = url.get_dialect()
        async_dialect = dialect.get_async_dialect_cls(url)
    if is_async and not async_dialect.is_async:
        known = ASYNC_DRIVERS.get(url.get_backend_name())
        example = f", as in {known}://" if known else ""
        raise CommandError(
            f"--async needs an async driver, and {async_dialect.driver} is"
            f" none: name one in the URL{example}"
        )
    if dialect.is_async and not is_async:
        raise CommandError(
            f"{dialect.driver} is an async driver: add --async, or name"
            " another one in the URL"
        )
    return url


def _secrets(url: URL) -> set[str]:
    found = {str(url.password or "")}
    for key, values in url.normalized_query.items():
        if _SECRET_KEY.search(key):
            found.update(values)
    return found - {""}
