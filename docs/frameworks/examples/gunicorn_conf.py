"""gunicorn -c gunicorn_conf.py wsgi_app:app"""

preload_app = True  # imported once, then forked
workers = 2
worker_class = "gthread"
threads = 8


def post_worker_init(worker):
    from wsgi_app import engine

    engine.pool.start()  # in each worker, before its first request


def worker_exit(server, worker):
    from wsgi_app import engine

    engine.pool.stop()
