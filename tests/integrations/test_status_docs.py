"""What ``docs/status.rst`` tells to write works, and asks who comes."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
import re
from textwrap import dedent
from typing import Any
from typing import Optional

import httpx
import pytest

from tests.lab import written

PAGE = written.TESTS.parent / "docs" / "status.rst"
#: a heading, and the program below it
_PROGRAM = re.compile(
    r"^(?P<title>.+)\n=+\n(?:(?!^=+$)[\s\S])*?"
    r"^\.\. code-block:: python\n(?P<source>(?:\n| {4}.*\n)+)",
    re.M,
)
PROGRAMS = {
    found["title"]: dedent(found["source"])
    for found in _PROGRAM.finditer(PAGE.read_text(encoding="utf-8"))
}


async def _asked(app: Any, path: str, password: Optional[str]) -> Any:
    auth = password and ("operator", password)
    asynchronous = inspect.iscoroutinefunction(
        app if inspect.isfunction(app) else type(app).__call__
    )
    if not asynchronous:
        with httpx.Client(
            transport=httpx.WSGITransport(app), base_url="http://app"
        ) as sync_client:
            return sync_client.get(path, auth=auth)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://app"
    ) as client:
        return await client.get(path, auth=auth)


def test_every_program_is_found() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert len(PROGRAMS) == page.count("code-block:: python") == 4


@pytest.mark.parametrize("title", [*PROGRAMS][1:])
def test_the_program_shows_the_page_to_operators_only(
    title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STATUS_PASSWORD", "open sesame")
    names: dict[str, Any] = {"__name__": "program"}
    for part in ([*PROGRAMS][0], title):
        exec(compile(PROGRAMS[part], part, "exec"), names)
    for path in ("", "page.js", "json"):
        for password in (None, "open says me", "open sesame"):
            asked = _asked(names["app"], f"/pools/{path}", password)
            answer = asyncio.run(asked)
            if password == "open sesame":
                assert answer.status_code == 200, (path, answer.text)
            else:
                assert answer.status_code == 401
                assert "Basic" in answer.headers["WWW-Authenticate"]
    assert [pool["name"] for pool in answer.json()["pools"]] == ["orders"]
