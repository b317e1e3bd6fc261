"""The programs in ``docs/frameworks/examples`` as processes, under load."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
import signal
import tempfile
import threading
from typing import Any
from typing import Awaitable
from typing import Callable
from typing import Iterator
from typing import Sequence

import httpx

from tests.lab import scripts
from tests.lab import written
from tests.lab.scripts import Program
from tests.lab.waiting import eventually

EXAMPLES = written.TESTS.parent / "docs" / "frameworks" / "examples"


def environment(server: Any, drivername: str, **query: str) -> dict[str, str]:
    """What an example is told by its environment.

    :param query: more of the URL's query.
    """
    url = server.url(drivername, **query)
    return {
        "DATABASE_URL": url.render_as_string(hide_password=False),
        "PYTHONPATH": f"{EXAMPLES}:{scripts.ROOT}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


class Census(threading.Thread):
    """Knows the most sessions at a time, by the server's word."""

    def __init__(self, server: Any) -> None:
        super().__init__()
        self._server = server
        self._over = threading.Event()
        self.most = 0

    def run(self) -> None:
        while not self._over.wait(0.1):
            self.most = max(self.most, len(self._server.sessions()))

    def __enter__(self) -> Census:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self.join()


class Site:
    """An example that listens, and its database server."""

    def __init__(self, program: Program, server: Any) -> None:
        self.program = program
        self.server = server
        self.address = scripts.listening_at(program)

    def browse(
        self, job: Callable[[httpx.AsyncClient], Awaitable[Any]]
    ) -> Any:
        """Run a job with a client of its own."""

        async def run() -> Any:
            async with httpx.AsyncClient(
                base_url=self.address, timeout=60
            ) as client:
                return await job(client)

        return asyncio.run(run())

    def get(self, paths: Sequence[str], at_once: int = 20) -> list[Any]:
        """Ask for pages, several at once; what they say, in order."""

        async def job(client: httpx.AsyncClient) -> list[Any]:
            places = asyncio.Semaphore(at_once)

            async def get(path: str) -> Any:
                async with places:
                    answer = await client.get(path)
                assert answer.status_code == 200, answer.text
                return answer.json()

            return await asyncio.gather(*map(get, paths))

        return list(self.browse(job))

    def pool(self) -> dict[str, Any]:
        """The statistics of the pool; of one worker's."""
        (stats,) = self.get(["/pool"])
        return dict(stats)

    def doubles(self, requests: int = 120, at_once: int = 20) -> int:
        """Load: all is answered.

        :return: the most sessions that the server had at a time.
        """
        numbers = range(requests)
        with Census(self.server) as census:
            paths = [f"/double/{number}" for number in numbers]
            answers = self.get(paths, at_once)
        assert answers == [2 * number for number in numbers]
        return census.most

    def leave_exports(self, clients: int = 12) -> None:
        """Clients leave in mid-query, before and after the first lines."""

        async def leave(client: httpx.AsyncClient, after_lines: bool) -> None:
            async with client.stream("GET", "/export") as answer:
                assert answer.status_code == 200
                if after_lines:
                    async for _ in answer.aiter_lines():
                        break

        async def job(client: httpx.AsyncClient) -> None:
            await asyncio.gather(
                *[leave(client, number % 2 == 0) for number in range(clients)]
            )

        self.browse(job)

    def stop(self) -> None:
        """As who operates it does; nothing is left, and nothing complains."""
        self.program.process.send_signal(signal.SIGTERM)
        ended = self.program.end()
        # uvicorn ends by the very signal that it was sent
        assert ended.status in (0, -signal.SIGTERM), ended.stderr
        for word in ("Traceback", "ERROR", "Exception"):
            assert word not in ended.stderr, ended.stderr
        eventually(lambda: not self.server.sessions(), message="none is left")


@contextmanager
def serving(
    command: Sequence[str], server: Any, drivername: str
) -> Iterator[Site]:
    """Start an example.

    :param command: of Python, such as ``["-m", "uvicorn", "app:app"]``.
    """
    server.terminate()
    env = environment(server, drivername)
    with tempfile.TemporaryDirectory() as folder:
        # where gunicorn has a socket, which other tests do not touch
        with Program(command, **env, XDG_RUNTIME_DIR=folder) as program:
            yield Site(program, server)
