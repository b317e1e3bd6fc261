"""One run, from the start of the servers to the last look."""

from __future__ import annotations

from contextlib import ExitStack
import gc
import sys
import threading
import time
import traceback
from typing import Any
from typing import Callable

from rich.progress import Progress

from tests.lab.proxy import Proxy
from tests.lab.servers import MariaDB
from tests.lab.servers import PostgreSQL
from .invariants import Judge
from .lanes import KINDS
from .lanes import Lane
from .lanes import TIMEOUT
from .load import Worker
from .stage import Stage
from .watch import Collector
from .watch import Logs
from .watch import Resources
from .watch import Watch

_SERVERS: Any = (PostgreSQL, MariaDB)
#: until then all workers have left, seconds
_LEAVE_WITHIN = 20.0
#: until then nothing of the pools is left, seconds
_GONE_WITHIN = 5.0
#: what memory may grow by, once the run has warmed up, MiB
_MEMORY = 24.0


class Run:
    """One run.

    :param drivers: the names of the lanes.
    :param workers: how many there are in each.
    :param stack: what is to be cleaned up is pushed here.
    """

    def __init__(
        self, judge: Judge, drivers: list[str], workers: int, stack: ExitStack
    ) -> None:
        self.seconds = 0.0
        self._judge = judge
        self._is_over = threading.Event()
        self._all_have_left = threading.Event()
        self._threads: list[threading.Thread] = []
        self.resources = Resources()
        self.stages = [
            self._stage(kind, drivers, stack)
            for kind in _SERVERS
            if any(KINDS[name].server == kind.name for name in drivers)
        ]
        self._lanes = [lane for stage in self.stages for lane in stage.lanes]
        for lane in self._lanes:
            lane.workers = [Worker(lane, number) for number in range(workers)]
        gc.disable()  # see Collector
        stack.callback(gc.enable)
        self._collector = Collector()
        self._logs = Logs(judge, self._lanes, self._collector)
        self._watch = Watch(self.stages, judge, self.resources)

    def _stage(self, kind: Any, drivers: list[str], stack: ExitStack) -> Stage:
        server = stack.enter_context(kind())
        proxy = Proxy(server)
        stack.callback(proxy.close)
        stage = Stage(server, proxy, self._judge)
        stage.lanes = [
            Lane(
                name,
                server,
                (proxy if KINDS[name].proxied else server).port,
                self._judge,
            )
            for name in drivers
            if KINDS[name].server == kind.name
        ]
        stage.prepare()
        return stage

    def begin(self) -> None:
        self._logs.install()
        self.resources.look()
        self._threads_before = set(threading.enumerate())
        for lane in self._lanes:
            lane.start()
        self._judge.begun = time.monotonic()
        for stage in self.stages:
            self._start(stage.carry_out, self._is_over)
        self._start(self._watch.run, self._all_have_left)
        self._start(self._collector.run, self._all_have_left)

    def _start(self, job: Any, ends: threading.Event) -> None:
        thread = threading.Thread(target=job, args=(ends.is_set,))
        thread.start()
        self._threads.append(thread)

    def go_on(self, seconds: float, progress: Progress) -> None:
        """Until the time is over, or somebody has seen enough."""
        bar = progress.add_task("", total=seconds)
        begun = self._judge.begun
        try:
            while (now := time.monotonic()) < begun + seconds:
                faults = "; ".join(stage.now for stage in self.stages)
                done = sum(lane.waits.number for lane in self._lanes)
                wrong = len(self._judge.violations)
                progress.update(
                    bar,
                    completed=now - begun,
                    description=f"{done} checkouts, {wrong} violations;"
                    f" {faults}",
                )
                time.sleep(0.2)
        except KeyboardInterrupt:
            pass
        self._is_over.set()

    # -- the end ------------------------------------------------------------

    def end(self) -> None:
        """Have everything come home, and see that nothing is left."""
        for thread in self._threads[: len(self.stages)]:
            thread.join()
        self.seconds = time.monotonic() - self._judge.begun
        for lane in self._lanes:
            lane.leaving = True
        self._wait("workers leave", self._at_work, _LEAVE_WITHIN)
        self._all_have_left.set()
        for thread in self._threads:
            thread.join()
        gc.collect()
        for lane in self._lanes:
            self._wait("all comes home", lambda: _still_out(lane))
            self._count_requests(lane)
            lane.do(lane.pool.stop)
        for stage in self.stages:
            self._expect_nothing("no state leaks", stage.written("rollback"))
            self._wait("no session is left", stage.server.sessions)
        for lane in self._lanes:
            self._expect_nothing(
                "no connection is left", lane.books.opened - lane.books.closed
            )
            self._expect_nothing("no task is left", lane.close_loop())
        # the timekeeper stays until a last look at slow connects is due
        self._wait("no thread is left", self._threads_left, TIMEOUT + 5.0)
        self._check_growth()
        gc.collect()
        self._logs.uninstall()

    def _expect_nothing(self, name: str, left: object) -> None:
        self._judge.check(name, not left, "{}", left)

    def _wait(
        self,
        name: str,
        left: Callable[[], Any],
        seconds: float = _GONE_WITHIN,
    ) -> None:
        """Wait until nothing is left."""
        ends = time.monotonic() + seconds
        while (found := left()) and time.monotonic() < ends:
            time.sleep(0.02)
        self._expect_nothing(name, found)

    def _at_work(self) -> list[str]:
        return [
            f"{visit.token} in its {visit.phase}{_stack(visit.thread)}"
            for lane in self._lanes
            for visit in lane.visits.copy()
        ] + [lane.name for lane in self._lanes if lane.is_at_work()]

    def _count_requests(self, lane: Lane) -> None:
        """A checkout that was cancelled need not be counted."""
        asked = sum(worker.asked for worker in lane.workers)
        cancelled = sum(worker.cancelled for worker in lane.workers)
        counted = sum(pool.stats().requests_num for pool in lane.pools)
        self._judge.check(
            "stats add up",
            asked - cancelled <= counted <= asked,
            "{}: {} checkouts, {} of them cancelled, {} counted",
            lane.name,
            asked,
            cancelled,
            counted,
        )

    def _threads_left(self) -> list[str]:
        now = set(threading.enumerate())
        return [str(thread) for thread in now - self._threads_before]

    def _check_growth(self) -> None:
        early, late, _ = self.resources.growth(self.resources.memory)
        self._judge.check(
            "memory is bounded",
            late - early < _MEMORY,
            "{:.0f} MiB early, {:.0f} MiB late",
            early,
            late,
        )
        before = self.resources.descriptors[0]
        self.resources.look()
        after = self.resources.descriptors[-1]
        self._judge.check(
            "no descriptor is left",
            after <= before,
            "{} before, {} after",
            before,
            after,
        )


def _still_out(lane: Lane) -> str:
    """What callers have of a lane's pools, if anything."""
    for pool in lane.pools:
        stats = pool.stats()
        if stats.pool_in_use or stats.requests_waiting:
            return f"{lane.name}: {stats}"
    return ""


def _stack(thread: int) -> str:
    frame = sys._current_frames().get(thread)
    if frame is None:
        return ""
    return "\n" + "".join(traceback.format_stack(frame)[-8:])
