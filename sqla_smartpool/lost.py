"""Connections that were lost to an exception between any two bytecodes.

One that is neither idle nor in anybody's hands is lost if it stays so.
"""

from __future__ import annotations

import math
from typing import Container
from typing import Iterable
from typing import Optional

from ._sqlalchemy import MODULE
from .record import Record
from .whereabouts import in_hand

#: what nobody seems to have may be on its way for so long, seconds
_DOUBT = 1.0


def find_lost(
    records: Iterable[Record],
    resting: Container[Record],
    now: float,
    patience: float,
) -> tuple[list[Record], float]:
    """Find the connections that are known to be lost.

    :param resting: those that are idle.
    :param patience: one that is on its way for long is not looked for again
        for so many seconds.
    :return: they, and in how many seconds more may be known to be; infinite:
        there is no doubt about the others.
    """
    due: list[Record] = []
    look_in = math.inf
    for record in records:
        left = _doubted_for(record, record in resting, now)
        if left is None:
            continue
        if left > 0:
            look_in = min(look_in, left)
        else:
            due.append(record)
    # one search for all of them, which goes through every object there is;
    # and after all of them were found without a user, or it would be too old
    on_their_way = in_hand(MODULE) if due else set()
    lost: list[Record] = []
    for record in due:
        if id(record) in on_their_way:
            # the reset of one that was dropped, or a listener of "checkin",
            # which may take their time
            record.doubted_at = now + patience
        elif record.idle_since <= record.doubted_at:
            # it has not come home in the meantime
            record.doubted = -1
            lost.append(record)
    return lost, look_in


def _doubted_for(record: Record, resting: bool, now: float) -> Optional[float]:
    """Tell how many seconds more it may be on its way; None: it is at home,
    or somebody has it."""
    # read once: a collection in here may give it back
    holder = record.fairy_ref
    user = holder() if holder is not None else None
    hand = record.handed() if record.handed else None
    if resting or user is not None or (hand and hand.holds(record)):
        record.doubted = -1
        return None
    if record.doubted != record.uses or record.doubted_at < record.idle_since:
        record.doubted, record.doubted_at = record.uses, now
    return max(record.doubted_at + _DOUBT - now, 0.0)
