"""DATABASE_URL=postgresql+psycopg://… gunicorn --threads 8 flask_app:app"""

import os

from flask import Flask, jsonify
from sqlalchemy import create_engine, text

from sqla_smartpool import PoolTimeoutError, SmartPool

engine = create_engine(
    os.environ["DATABASE_URL"],
    poolclass=SmartPool,
    min_size=2,
    max_size=5,
)
DOUBLE = text("SELECT 2 * :n FROM pg_sleep(0.01)")  # takes its time
app = Flask(__name__)


@app.get("/double/<int:number>")
def double(number):
    with engine.connect() as connection:
        answer = connection.scalar(DOUBLE, {"n": number})
    return jsonify(answer)  # sent without a connection


@app.get("/pool")
def pool():
    return engine.pool.stats().as_dict()


@app.errorhandler(PoolTimeoutError)
def busy(error):
    return jsonify("busy"), 503, {"Retry-After": "1"}
