"""The measurement behind ``tune``: one load on pools of several sizes.

:mod:`.load` measures, :mod:`.curve` finds the knee and says what follows,
:mod:`.plot` draws.
"""
