"""A program under gevent: run by itself, as it patches everything."""

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402,I100
import sys  # noqa: E402

import gevent  # noqa: E402
from sqlalchemy import create_engine  # noqa: E402
from sqlalchemy import text  # noqa: E402

from sqla_smartpool import SmartPool  # noqa: E402

engine = create_engine(
    os.environ["URL"],
    connect_args=eval(os.environ["CONNECT_ARGS"]),
    poolclass=SmartPool,
    min_size=2,
    max_size=4,
    check_interval=0.05,
    ping_after=0.1,
    pool_timeout=20,
)
engine.pool.start()
served = 0


def work(number: int) -> None:
    global served
    for _ in range(20):
        try:
            with gevent.Timeout(0.02 if number % 3 == 0 else 60):
                with engine.connect() as connection:
                    connection.execute(text("SELECT 1"))
                    gevent.sleep(0.001)
                served += 1
        except gevent.Timeout:
            pass


workers = [gevent.spawn(work, number) for number in range(30)]
gevent.sleep(0.05)
# killed wherever they are: in the queue, in a connect, in a query
gevent.killall(workers[::5])
gevent.joinall(workers)
for worker in workers:
    worker.get(block=False)
print(served > 0)
with gevent.Timeout(60):
    held = [engine.connect() for _ in range(4)]
    for connection in held:
        assert connection.scalar(text("SELECT 1")) == 1
        connection.close()
stats = engine.pool.stats()
print(stats.pool_in_use, stats.requests_waiting, stats.pool_connecting)
engine.dispose()
sys.exit(0)
