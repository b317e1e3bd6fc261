"""DATABASE_URL=postgresql+psycopg://… \
gunicorn --threads 8 flask_sqlalchemy_app:app"""

import os

from flask import Flask, jsonify
from flask_sqlalchemy import SQLAlchemy

from sqla_smartpool import PoolTimeoutError, SmartPool

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
app.config["SQLALCHEMY_ENGINE_OPTIONS"] = {
    "poolclass": SmartPool,
    "min_size": 2,
    "max_size": 5,
}
db = SQLAlchemy(app)

DOUBLE = db.text("SELECT 2 * :n FROM pg_sleep(0.01)")  # takes its time


@app.get("/double/<int:number>")
def double(number):
    return jsonify(db.session.scalar(DOUBLE, {"n": number}))


@app.get("/pool")
def pool():
    return db.engine.pool.stats().as_dict()


@app.errorhandler(PoolTimeoutError)
def busy(error):
    return jsonify("busy"), 503, {"Retry-After": "1"}
