"""gunicorn -c gunicorn_gevent_conf.py wsgi_app:app"""

from gevent import monkey

monkey.patch_all()  # before anything else is imported

from gunicorn_conf import *  # noqa: E402,F401,F403,I202

worker_class = "gevent"
worker_connections = 100
