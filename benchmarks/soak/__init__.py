"""``python -m benchmarks.soak``: random load, and random faults, for as long
as one likes.

The same on every driver at once, threads and event loops, against servers of
the tests' own.  :mod:`.lanes` is a driver under load, :mod:`.load` what its
users do, :mod:`.faults` what happens to the servers and the pools,
:mod:`.stage` when, :mod:`.invariants` and :mod:`.watch` what must hold all
the while, and :mod:`.report` what came of it.
"""
