"""Eight processes under load, each with a pool of its own.

Their program is the page's. A line on standard input ends the load.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import threading
from typing import Any

from sqlalchemy import text

from tests.lab.programs import program

PROCESSES = 8
CALLERS = 3
#: requests of each caller after everybody has been told to end
AFTERWARDS = 3
STATEMENT = text("SELECT pg_sleep(0.1)")
BUDGET = program("servers/examples/budget.py")
fork = multiprocessing.get_context("fork")


def call(engine: Any, over: Any, errors: list[str]) -> None:
    parent, afterwards = os.getppid(), iter(range(AFTERWARDS))
    while not over.is_set() or next(afterwards, None) is not None:
        if os.getppid() != parent:
            return  # killed with the test
        try:
            with engine.connect() as connection:
                connection.execute(STATEMENT)
        except Exception as error:
            errors.append(f"{type(error).__name__}: {error}")


def work(number: int, max_size: int, all_started: Any, over: Any) -> Any:
    engine = BUDGET.worker_engine(os.environ["URL"], max_size)
    BUDGET.start_in_turn(engine, number)
    all_started.wait(60.0)
    errors: list[str] = []
    callers = [
        threading.Thread(target=call, args=(engine, over, errors))
        for _ in range(CALLERS)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    stats = engine.pool.stats().as_dict()
    engine.dispose()
    return {"errors": errors, **stats}


def child(*args: Any, results: Any) -> None:
    results.put(work(*args))


def main(max_size: int) -> None:
    # imports the driver, once and for all
    BUDGET.worker_engine(os.environ["URL"], max_size)
    all_started = fork.Barrier(PROCESSES + 1)
    over, results = fork.Event(), fork.Queue()
    children = [
        fork.Process(
            target=child,
            args=(number, max_size, all_started, over),
            kwargs={"results": results},
        )
        for number in range(PROCESSES)
    ]
    for each in children:
        each.start()
    all_started.wait(60.0)
    print("all started")
    sys.stdin.readline()
    over.set()
    print(json.dumps([results.get(timeout=30.0) for _ in children]))
    for each in children:
        each.join()


if __name__ == "__main__":
    main(int(sys.argv[1]))
