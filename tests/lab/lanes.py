"""Several clients that live through the same fault, side by side.

A fault that takes its time is waited for once, by all lanes together::

    def body(lane):
        engine = lane.started(min_size=5)
        lane.ready()
        lane.until(fault.over)
        ...

    for case in matrix.TCP:
        lanes.enter(case, body)
    lanes.all_ready()
    ...  # the fault
    lanes.end()
"""

from __future__ import annotations

import asyncio
from pathlib import Path
import threading
import time
import traceback
from typing import Any
from typing import Callable
from typing import NamedTuple
from typing import Optional

import pytest
from sqlalchemy import Engine
from sqlalchemy import TextClause

from sqla_smartpool._sqlalchemy import await_
from sqla_smartpool._sqlalchemy import greenlet_spawn
from tests.lab import matrix
from tests.lab.matrix import Case
from tests.lab.matrix import Client
from tests.lab.waiting import eventually


class Request(NamedTuple):
    """What became of one request; times are of ``time.monotonic``."""

    asked: float
    #: when it had its connection; None: it got none
    got: Optional[float]
    ended: float
    error: Optional[Exception]

    @property
    def took(self) -> float:
        return self.ended - self.asked


class Lane(Client):
    """One of the clients, in a thread of its own."""

    def __init__(self, name: str, case: Case, server: Any, to: Path) -> None:
        super().__init__(case, server, to)
        self.name = name
        self.is_ready = threading.Event()
        self.left_alone = threading.Event()

    def ready(self) -> None:
        """The fault may begin."""
        self.is_ready.set()

    def sleep(self, seconds: float) -> None:
        if self.asynchronous:
            await_(asyncio.sleep(seconds))
        else:
            time.sleep(seconds)

    def until(
        self, condition: Callable[[], Any], seconds: float = 60.0
    ) -> float:
        """Wait for a condition, and return when it was found to hold."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert not self.left_alone.is_set(), "the test has ended"
            assert time.monotonic() < deadline, f"not within {seconds} s"
            self.sleep(0.01)
        return time.monotonic()

    def request(
        self, engine: Engine, statement: TextClause = matrix.ONE
    ) -> Request:
        """Make a request, whatever comes of it."""
        asked, got, error = time.monotonic(), None, None
        try:
            with engine.connect() as connection:
                got = time.monotonic()
                connection.execute(statement)
        except Exception as raised:
            error = raised
        return Request(asked, got, time.monotonic(), error)

    def load(
        self,
        engine: Engine,
        callers: int,
        over: Callable[[], bool],
        statement: TextClause = matrix.ONE,
        pause: float = 0.1,
    ) -> list[Request]:
        """Have callers make requests, with pauses, until it is over."""
        made: list[Request] = []

        def caller() -> None:
            while not over() and not self.left_alone.is_set():
                made.append(self.request(engine, statement))
                self.sleep(pause)

        self.together(*[caller] * callers)
        return made


class Lanes:
    """The lanes of one test."""

    def __init__(self, request: pytest.FixtureRequest, folder: Path) -> None:
        self._request = request
        self._folder = folder
        self._threads: dict[threading.Thread, Lane] = {}
        self._servers: list[Any] = []
        self._failed: list[tuple[Lane, BaseException]] = []

    def server(self, case: Case) -> Any:
        """The server of a case, to which nobody was connected at first."""
        assert case.server is not None
        server = self._request.getfixturevalue(case.server)
        if server not in self._servers:
            self._servers.append(server)
            server.terminate()
        return server

    def enter(
        self, case: Case, body: Callable[[Lane], object], name: str = ""
    ) -> None:
        """Start a lane, whose body is run as a test with a side is."""
        title = f"{case} {name}".strip()
        folder = self._folder / str(len(self._threads))
        folder.mkdir()
        lane = Lane(title, case, self.server(case), folder)
        thread = threading.Thread(
            target=self._run, args=(lane, body), name=title, daemon=True
        )
        self._threads[thread] = lane
        thread.start()

    def _run(self, lane: Lane, body: Callable[[Lane], object]) -> None:
        def live() -> None:
            try:
                body(lane)
            finally:
                lane.dispose()

        try:
            if lane.asynchronous:
                asyncio.run(greenlet_spawn(live))
            else:
                live()
        except BaseException as error:
            self._failed.append((lane, error))
        finally:
            lane.is_ready.set()

    def all_ready(self, seconds: float = 60.0) -> None:
        """Wait until all lanes are ready for the fault."""
        lanes = list(self._threads.values())
        eventually(
            lambda: all(lane.is_ready.is_set() for lane in lanes),
            seconds,
            "all lanes are ready",
        )
        self._raise()

    def end(self, seconds: float = 90.0) -> None:
        """Wait for the lanes to end, and raise what they raised."""
        deadline = time.monotonic() + seconds
        for thread, lane in self._threads.items():
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                late = AssertionError(f"has not ended in {seconds} s")
                self._failed.append((lane, late))
        self._raise()

    def _raise(self) -> None:
        if self._failed:
            told = [
                f"{lane.name}:\n{''.join(traceback.format_exception(error))}"
                for lane, error in self._failed
            ]
            raise AssertionError("\n\n".join(told)) from self._failed[0][1]

    def leave(self) -> None:
        """Have all lanes end, as the test has."""
        for lane in self._threads.values():
            lane.left_alone.set()
        for thread in self._threads:
            thread.join(30.0)
        for server in self._servers:
            server.recover()
            server.terminate()
