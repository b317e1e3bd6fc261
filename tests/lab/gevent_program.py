"""A program under gevent, which patches everything: a process of its own.

``python -m tests.lab.gevent_program MODE``, with the way to a server in the
environment; see :func:`tests.lab.scripts.way_to`.  It says "disposed" when
nothing of its own should be left at the server, and waits for a line.
"""

import os
import sys

if os.environ.get("LATE"):
    # as when a server of web applications preloads what it is to serve
    import sqla_smartpool  # noqa: F401

from gevent import monkey  # noqa: I100,I202

monkey.patch_all()

import gevent  # noqa: E402,I100,I202

from tests.lab import gevent_scenes  # noqa: E402
from tests.lab.gevent_heart import Heart  # noqa: E402

with Heart() as heart:
    getattr(gevent_scenes, sys.argv[1])()
    heart.wait()
    print("disposed")
    gevent.get_hub().threadpool.apply(sys.stdin.readline)
# nobody else is to blame for what comes on top of the machine's own pauses
assert heart.longest_pause < heart.machines + 1.0, vars(heart)
