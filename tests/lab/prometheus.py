"""A Prometheus server of the tests' own."""

from __future__ import annotations

import os
from pathlib import Path
import shutil
import signal
from typing import Any

import httpx

from tests.lab import processes
from tests.lab.server import free_port
from tests.lab.waiting import eventually

_CONFIGURATION = """
global:
  scrape_interval: 1s
  evaluation_interval: 1s
rule_files: [rules.yml]
scrape_configs:
  - job_name: test
    static_configs:
      - targets: ["127.0.0.1:{port}"]
"""


class Prometheus:
    """A server that scrapes one port of this machine each second.

    :param target: the port.
    :param rules: a file of alerts.
    :raises FileNotFoundError: Prometheus is not installed.
    """

    def __init__(self, target: int, rules: Path) -> None:
        program = tool("prometheus")
        self._folder = folder = processes.new_folder()
        configuration = folder / "prometheus.yml"
        configuration.write_text(_CONFIGURATION.format(port=target))
        shutil.copy(rules, folder / "rules.yml")
        for path in folder.iterdir():
            processes.own(path)
        self._log = folder / "log"
        address = f"127.0.0.1:{free_port()}"
        self._client = httpx.Client(
            base_url=f"http://{address}", trust_env=False, timeout=10
        )
        self._process = processes.ServerProcess(
            [
                program,
                f"--config.file={configuration}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={address}",
            ],
            folder,
            self._log,
            signal.SIGKILL,
        )

    def wait_until_ready(self) -> None:
        eventually(self._ready, 60.0, "Prometheus is ready")

    def _ready(self) -> bool:
        if not self._process.running:
            raise RuntimeError(f"has ended:\n{self._log.read_text()[-2000:]}")
        try:
            return self._client.get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def ask(self, path: str, **parameters: Any) -> Any:
        """Ask the HTTP API.

        :param path: behind ``/api/v1/``.
        :return: what stands under ``data``.
        :raises AssertionError: Prometheus answers with an error.
        """
        answer = self._client.get(f"/api/v1/{path}", params=parameters).json()
        assert answer["status"] == "success", (path, parameters, answer)
        return answer["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that an expression has at this moment."""
        result: list[dict[str, Any]]
        result = self.ask("query", query=expression)["result"]
        return result

    def close(self) -> None:
        self._client.close()
        if not self._process.stop(signal.SIGTERM, 10.0):
            self._process.kill()
        shutil.rmtree(self._folder)


def tool(name: str) -> str:
    """The path of one of Prometheus's programs.

    :raises FileNotFoundError: it is not installed.
    """
    found = shutil.which(name, path=f"{os.environ.get('PATH')}:/usr/bin")
    if found is None:
        raise FileNotFoundError(f"{name} is not installed; Debian: prometheus")
    return found
