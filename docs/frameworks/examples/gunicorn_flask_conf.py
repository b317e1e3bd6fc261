"""gunicorn -c gunicorn_flask_conf.py flask_sqlalchemy_app:app"""

worker_class = "gthread"
threads = 20


def post_worker_init(worker):
    from flask_sqlalchemy_app import app, db

    with app.app_context():
        db.engine.pool.start()  # in each worker, before its first request
