"""What ``docs/status.rst`` tells to write works, and asks who comes."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import Any
from typing import Optional

import httpx
import pytest

from tests.lab.pages import Block
from tests.lab.pages import blocks
from tests.lab.pages import DOCS

#: the check for all of them, and a program for each heading
_, CHECK, STARLETTE, FLASK, WSGI = [
    block
    for block in blocks(DOCS / "status.rst")
    if block.language == "python" and not block.hidden
]


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


@pytest.mark.parametrize(
    "program", [STARLETTE, FLASK, WSGI], ids=lambda block: block.title
)
def test_the_program_shows_the_page_to_operators_only(
    program: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STATUS_PASSWORD", "open sesame")
    names: dict[str, Any] = {"__name__": "program"}
    for block in (CHECK, program):
        block.run(names)
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
