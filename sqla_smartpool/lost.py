"""Connections that were lost to an exception between any two bytecodes.

One that is neither idle nor in anybody's hands is lost if it stays so.
"""

from __future__ import annotations

from typing import Optional

from ._sqlalchemy import MODULE
from .record import Record
from .whereabouts import has_in_hand

#: what nobody seems to have may be on its way for so long, seconds
_DOUBT = 1.0


def certain_in(
    record: Record, resting: bool, now: float, patience: float
) -> Optional[float]:
    """Tell how long it takes until a connection is known to be lost.

    :param resting: it is among the idle ones.
    :param patience: whoever has it in hand is not looked for again for so
        long, seconds: that is to go through all objects of the process.
    :return: seconds; 0: it is lost; None: it is not.
    """
    # read once: a collection in here may give it back
    holder = record.fairy_ref
    user = holder() if holder is not None else None
    hand = record.handed() if record.handed else None
    if resting or user is not None or (hand and hand.holds(record)):
        record.doubted = -1
        return None
    if record.doubted != record.uses or record.doubted_at < record.idle_since:
        record.doubted, record.doubted_at = record.uses, now
        return _DOUBT
    if now < record.doubted_at + _DOUBT:
        return record.doubted_at + _DOUBT - now
    if has_in_hand(MODULE, record):
        # the reset of one that was dropped, or a listener of "checkin",
        # which may take their time
        record.doubted_at = now + patience
        return None
    if record.idle_since > record.doubted_at:
        return None  # it has come home in the meantime
    record.doubted = -1
    return 0.0
