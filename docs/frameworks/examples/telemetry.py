"""Sentry's and OpenTelemetry's spans, and the pool's metrics."""

import os

from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
import sentry_sdk
from sqlalchemy import create_engine, text

from sqla_smartpool import SmartPool
from sqla_smartpool.integrations.opentelemetry import instrument

# It finds SQLAlchemy by itself.
sentry_sdk.init(os.environ["SENTRY_DSN"], traces_sample_rate=1.0)

engine = create_engine(
    os.environ["DATABASE_URL"],
    poolclass=SmartPool,
    min_size=2,
    max_size=5,
)
# It asks for an older SQLAlchemy than 2.1, without need.
SQLAlchemyInstrumentor().instrument(engine=engine, skip_dep_check=True)
instrument(engine, pool_name="shop")

DOUBLE = text("SELECT 2 * :n FROM pg_sleep(0.01)")  # takes its time


def double(number):
    with sentry_sdk.start_transaction(op="task", name="double"):
        with engine.connect() as connection:
            return connection.scalar(DOUBLE, {"n": number})
