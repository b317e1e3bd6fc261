"""A function that runs on request, and is frozen in between."""

import os

from sqlalchemy import create_engine, text

from sqla_smartpool import SmartPool

# Outside of the handler: made once, and there again after a freeze.
engine = create_engine(
    os.environ["DATABASE_URL"],
    poolclass=SmartPool,
    max_size=1,  # one request at a time
    ping_timeout=1,  # this long until a connection is given up as lost
    pool_timeout=10,  # less than the function's own timeout
)
DOUBLE = text("SELECT 2 * :n FROM pg_sleep(0.01)")  # takes its time


def handler(event, context):
    with engine.connect() as connection:
        return connection.scalar(DOUBLE, {"n": event["number"]})
