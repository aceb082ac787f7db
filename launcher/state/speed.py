"""How fast an attempt gets on, of late more than long ago; the next begins with what it has learned. Pure."""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

# What was seen so long ago counts a third; in long attempts, what was seen a third of their time ago.
_FADES_S = 20.0
_FADES_SHARE = 1 / 3
# A speed that is seen earlier says more of the start than of the rows.
_AFTER_S = 1.0


@dataclass(frozen=True)
class Speed:
    """Rows and the seconds that they took, both faded.

    Args:
        rows, seconds: sums.
        attempt: whose rows were seen last.
        done: rows of that attempt, as they were seen last.
        at: when there were so many for the first time.
    """

    rows: float
    seconds: float
    attempt: int
    done: int
    at: datetime


def sped(before: Speed | None, attempt: int, began_at: datetime, done: int, now: datetime) -> Speed:
    """The speed once `done` rows of an attempt are seen at `now`.

    Rows come in pieces, and nothing is learned between two of them.

    Args:
        before: as it was; that of an earlier attempt is where this one begins.
        began_at: when the attempt began with its rows.
    """
    if before is None or before.attempt != attempt:
        known = (0.0, 0.0) if before is None else (before.rows, before.seconds)
        before = Speed(*known, attempt, 0, began_at)
    passed_s = (now - before.at).total_seconds()
    if done <= before.done or passed_s <= 0:
        return before
    fades_s = max(_FADES_S, (now - began_at).total_seconds() * _FADES_SHARE)
    kept = math.exp(-passed_s / fades_s)
    rows = before.rows * kept + done - before.done
    return Speed(rows, before.seconds * kept + passed_s, attempt, done, now)


def ends_at(speed: Speed, left: int, now: datetime) -> datetime | None:
    """When `left` rows more are done, if it goes on so; never before `now`. None while that cannot be told.

    Nothing changes while no row comes, unless none comes for long: then it is the later the longer that is.

    Args:
        left: rows that were not done yet when the speed was seen last.
    """
    silent_s = max(0.0, (now - speed.at).total_seconds() - _FADES_S)
    if speed.rows <= 0 or speed.seconds < _AFTER_S:
        return None
    rate = speed.rows / (speed.seconds + silent_s)
    try:
        return max(speed.at + timedelta(seconds=silent_s + left / rate), now)
    except OverflowError:
        return None
