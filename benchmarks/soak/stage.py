"""One server with its lanes, and what the plan has in store for it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from contextlib import ExitStack
import threading
import time
from typing import Any
from typing import Callable

from tests.lab.proxy import Proxy
from .faults import Blow
from .faults import OF_POOLS
from .faults import OF_SERVERS
from .faults import OF_WAYS
from .faults import plan
from .faults import Step
from .invariants import Judge
from .lanes import Lane
from .lanes import SIZES

#: until then a pool serves again, and has its floor back; five times what is
#: promised, seconds
HEALS = 5 * 1.3
#: until then the server has found out that a client has left, seconds
_LINGERS = 2.0
#: PostgreSQL ends sessions that have been idle for so long, milliseconds
_IDLE_LIMIT = 600


class Stage:
    """One server, the lanes on it, and a thread that carries out the plan.

    :param server: of :mod:`tests.lab.servers`, running.
    :param proxy: before it.
    """

    def __init__(self, server: Any, proxy: Proxy, judge: Judge) -> None:
        self.server = server
        self.proxy = proxy
        self.name = server.name
        self.judge = judge
        self.lanes: list[Lane] = []
        #: what happens now, for the reader
        self.now = "calm"
        #: by fault: the times that it took the lanes to heal
        self.healed: defaultdict[str, list[float]] = defaultdict(list)
        #: held while the server may be asked nothing
        self.busy = threading.Lock()

    @property
    def proxied(self) -> list[Lane]:
        return [lane for lane in self.lanes if lane.kind.proxied]

    # -- what the server's kind makes different -----------------------------

    def prepare(self) -> None:
        """Make what the workers need; after the lanes are known."""
        columns = "(token VARCHAR(60), fate VARCHAR(10))"
        if self.name == "PostgreSQL":
            self.server.execute(f"CREATE TABLE soak {columns}")
            self.server.execute("GRANT ALL ON soak TO smart")
            return
        for lane in self.lanes:
            base = lane.application
            self.server.execute(f"CREATE DATABASE {base}")
            self.server.execute(f"CREATE TABLE {base}.soak {columns}")

    def written(self, fate: str) -> list[str]:
        """Who has written rows of this fate."""
        tables = {
            "soak" if self.name == "PostgreSQL" else f"{lane.application}.soak"
            for lane in self.lanes
        }
        ask = "SELECT token FROM {} WHERE fate = '{}'"
        return [
            token
            for table in tables
            for (token,) in self.server.execute(ask.format(table, fate))
        ]

    def limit_connections(self, limited: bool) -> None:
        """No more for new ones than about half of what is in use."""
        if self.name == "PostgreSQL":
            limit = 2 * len(self.lanes) if limited else -1
            self.server.execute(f"ALTER ROLE smart CONNECTION LIMIT {limit}")
        else:
            self.server.configure(max_connections=10 if limited else None)

    def limit_idleness(self, limited: bool) -> None:
        if self.name == "PostgreSQL":
            self.server.configure(
                idle_session_timeout=_IDLE_LIMIT if limited else None
            )
            if not limited:
                # who is idle then is held to what was in force as it became so
                time.sleep(_IDLE_LIMIT / 1000)
            return
        self.server.configure(wait_timeout=1 if limited else None)
        for lane in self.lanes:
            # counts for those that are opened from now on
            lane.do(lane.pool.drain)

    # -- the plan -----------------------------------------------------------

    def carry_out(self, is_over: Callable[[], bool]) -> None:
        """Carry out the plan, step by step, until it is over."""
        faults = [*OF_SERVERS, *(OF_WAYS if self.proxied else ())]
        for step in plan(f"{self.judge.seed} {self.name}", faults):
            if is_over():
                return
            self._carry_out(step)
            self.now = "calm"
            time.sleep(step.calm)

    def _carry_out(self, step: Step) -> None:
        pools = [
            (self.lanes[number % len(self.lanes)], blow)
            for number, blow in step.pool
        ]
        names = [blow.fault for blow in step.server]
        names += [f"{blow.fault} ({lane.name})" for lane, blow in pools]
        self.now = f"{step.number}: {' + '.join(names)}"
        with ExitStack() as together:
            if step.server:
                together.enter_context(self.busy)
            jobs = [
                threading.Thread(target=self._strike_server, args=(blow,))
                for blow in step.server
            ]
            jobs += [
                threading.Thread(target=self._strike_pool, args=item)
                for item in pools
            ]
            for job in jobs:
                job.start()
                if job is not jobs[-1]:
                    time.sleep(step.later)
            for job in jobs:
                job.join()
            hit: defaultdict[Lane, list[str]] = defaultdict(list)
            for blow in step.server:
                for lane in self._hit_by(blow):
                    hit[lane].append(blow.fault)
            for lane, blow in pools:
                hit[lane].append(blow.fault)
            self._wait_until_healed(hit)

    def _hit_by(self, blow: Blow) -> list[Lane]:
        return self.proxied if blow.fault in OF_WAYS else self.lanes

    def _strike_server(self, blow: Blow) -> None:
        fault = {**OF_SERVERS, **OF_WAYS}[blow.fault]
        names = [lane.name for lane in self._hit_by(blow)]
        with self.judge.window(blow.fault, fault.allows, names):
            self._strike(fault.strikes, self, blow)

    def _strike_pool(self, lane: Lane, blow: Blow) -> None:
        fault = OF_POOLS[blow.fault]
        with self.judge.window(blow.fault, fault.allows, [lane.name]):
            self._strike(fault.strikes, lane, blow)

    def _strike(
        self, strikes: Callable[[Any, Blow], None], at: Any, blow: Blow
    ) -> None:
        try:
            strikes(at, blow)
        except Exception as error:  # what the pool or the laboratory raises
            self.judge.check(
                "faults can be made good", False, "{}: {!r}", blow, error
            )

    def _wait_until_healed(self, hit: dict[Lane, list[str]]) -> None:
        """
        :param hit: the faults of each lane.
        """
        began = time.monotonic()
        sick = dict.fromkeys(hit)
        while sick and time.monotonic() < began + HEALS:
            for lane in [*sick]:
                if lane.served_since >= began and _is_whole(lane):
                    del sick[lane]
                    for fault in hit[lane]:
                        took = time.monotonic() - began
                        self.healed[fault].append(took)
            time.sleep(0.005)
        for lane, faults in hit.items():
            self.judge.check(
                "the pool heals",
                lane not in sick,
                "{} has not within {} s of {}: {}",
                lane.name,
                HEALS,
                faults,
                lane.pool.stats(),
            )
        self._count_sessions(hit)

    def _count_sessions(self, lanes: Iterable[Lane]) -> None:
        """By the server's word there are no more than there may be."""
        for lane in lanes:
            ends = time.monotonic() + _LINGERS
            while (number := lane.sessions()) > SIZES["max_size"]:
                if time.monotonic() > ends:
                    break
                time.sleep(0.05)
            self.judge.check(
                "no more sessions than max_size",
                number <= SIZES["max_size"],
                "{} has {}",
                lane.name,
                number,
            )


def _is_whole(lane: Lane) -> bool:
    stats = lane.pool.stats()
    return bool(stats.pool_size >= stats.pool_min == SIZES["min_size"])
