"""Celery without a server: a broker and results of files."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def settings(folder: Path) -> dict[str, Any]:
    """For worker and client, in a new folder."""
    for name in ("messages", "processed", "results"):
        (folder / name).mkdir(parents=True)
    return {
        "broker_url": "filesystem://",
        "broker_transport_options": {
            "data_folder_in": f"{folder}/messages",
            "data_folder_out": f"{folder}/messages",
            "processed_folder": f"{folder}/processed",
            "store_processed": True,
            "control_folder": f"{folder}/control",
            "polling_interval": 0.05,
        },
        "result_backend": f"file://{folder}/results",
    }


def write(settings: dict[str, Any], file: Path) -> None:
    """As a module for ``config_from_object()``."""
    file.write_text(
        "".join(f"{name} = {value!r}\n" for name, value in settings.items())
    )
