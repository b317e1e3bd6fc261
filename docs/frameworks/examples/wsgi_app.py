"""DATABASE_URL=postgresql+psycopg://… \
gunicorn -c gunicorn_conf.py wsgi_app:app"""

import json
import os

from sqlalchemy import create_engine, text

from sqla_smartpool import PoolTimeoutError, SmartPool

engine = create_engine(
    os.environ["DATABASE_URL"],
    poolclass=SmartPool,
    min_size=2,
    max_size=5,
)
DOUBLE = text("SELECT 2 * :n FROM pg_sleep(0.01)")  # takes its time


def double(number):
    with engine.connect() as connection:
        return connection.scalar(DOUBLE, {"n": number})


def app(environ, start_response):
    headers = [("Content-Type", "application/json")]
    path = environ["PATH_INFO"]
    try:
        if path == "/pool":
            answer = {"process": os.getpid(), **engine.pool.stats().as_dict()}
        else:
            answer = double(int(path.rpartition("/")[2]))
    except PoolTimeoutError:
        start_response("503 Busy", [*headers, ("Retry-After", "1")])
        return [b'"busy"']
    start_response("200 OK", headers)
    return [json.dumps(answer).encode()]
