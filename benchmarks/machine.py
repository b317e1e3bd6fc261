"""What a measurement was made on: without that it says nothing."""

from __future__ import annotations

from importlib.metadata import version
import os
import platform

_PACKAGES = ("sqlalchemy", "greenlet", "psycopg_pool")


def described() -> dict[str, str]:
    """Return what tells machines and versions apart."""
    return {
        platform.python_implementation(): platform.python_version(),
        **{package: version(package) for package in _PACKAGES},
        "cores": str(len(os.sched_getaffinity(0))),
        platform.system(): platform.machine(),
    }
