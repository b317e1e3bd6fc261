"""DATABASE_URL=postgresql+psycopg://… celery -A celery_app worker"""

import os

from celery import Celery, signals
from sqlalchemy import create_engine, text

from sqla_smartpool import SmartPool

engine = create_engine(
    os.environ["DATABASE_URL"],
    poolclass=SmartPool,
    min_size=1,
    max_size=5,
)
DOUBLE = text("SELECT 2 * :n FROM pg_sleep(0.01)")  # takes its time

app = Celery("shop")
app.config_from_object("celeryconfig")  # broker_url, …


@signals.worker_process_init.connect  # each process of prefork; solo
def start(**_):
    engine.pool.start(wait=False)


@signals.worker_process_shutdown.connect  # each process of prefork
@signals.worker_shutdown.connect  # threads, solo, and prefork's main process
def stop(**_):
    engine.pool.stop()


@app.task
def double(number):
    with engine.connect() as connection:
        return connection.scalar(DOUBLE, {"n": number})
