"""What a measurement was made on: without that it says nothing."""

from __future__ import annotations

from importlib.metadata import version
import os
from pathlib import Path
import platform

_PACKAGES = (
    "sqlalchemy",
    "greenlet",
    "psycopg",
    "psycopg_pool",
    "asyncpg",
    "pymysql",
    "DBUtils",
)


def described() -> dict[str, str]:
    """Return what tells machines and versions apart."""
    return {
        platform.python_implementation(): platform.python_version(),
        **{package: version(package) for package in _PACKAGES},
        "cores": str(len(os.sched_getaffinity(0))),
        "processor": _processor(),
        platform.system(): platform.release(),
    }


def _processor() -> str:
    """As the kernel names it, if it does."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:
        return platform.machine()
    names = [line for line in lines if line.startswith("model name")]
    return names[0].partition(": ")[2] if names else platform.machine()
