"""The examination behind ``check``: what a pool will meet, and what follows.

Written once, as code that looks synchronous; on an event loop SQLAlchemy's
greenlets carry it.  :mod:`.findings` is what is found out, :mod:`.advice`
what follows from it, and decides without asking anybody.
"""
