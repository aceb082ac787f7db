"""How long a job will take: a fixed part, and one for each row. Pure: no file, no clock, no model.

Both are learned from past jobs, each by itself: what small jobs cost is their start, and says nothing of a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from launcher.state.store import Past

# What a job costs whose rows take no time, where no past job tells: to be forked, to load a small model, to publish.
# 0.6 s where nothing else runs, 3.4 s were seen where cores were shared with seven others.
USUAL_FIXED_S = 1.5
# What reading and writing a row costs, and a cheap model for it, where nobody knows; and what they cost at most.
_USUAL_ROW_S = 2e-6
_MOST_MOVING_S = 50e-6
# Rows of past jobs tell of jobs of up to twice as many, or of any where they took so long that what a first call costs
# by itself is no great part of it.
_REACH = 2
_ENOUGH_ROWS, _ENOUGH_S = 10_000, 1.0
# A clock that goes wrong, or a job of a thousand years, is no reason to write numbers that nobody can read.
_LEAST_S, _MOST_S = 0.1, 1e9


@dataclass(frozen=True)
class Probe:
    """What a model and its input were seen to cost when they were tried on a few rows.

    Args:
        load_s: loading the model, beyond what is usual.
        call_s, row_s: a call of `n` rows takes `call_s + n * row_s` of one thread.
        moving_s: reading and writing a row.
        threads: how many times as much is scored by all threads together as by one.
    """

    load_s: float = 0.0
    call_s: float = 0.0
    row_s: float = 0.0
    moving_s: float = _USUAL_ROW_S
    threads: float = 1.0

    def rows_s(self, rows: int, batch_size: int) -> float:
        """What so many rows take, in calls of `batch_size`."""
        calls = -(-rows // batch_size)
        # What is one call is one thread's.
        scoring_s = (calls * self.call_s + rows * self.row_s) / max(1.0, min(self.threads, calls))
        return max(scoring_s, rows * self.moving_s)


@dataclass(frozen=True)
class _Parts:
    """What a past job took, taken apart."""

    rows: int
    fixed_s: float
    rows_s: float


def usual_fixed_s(home: Sequence[Past]) -> float:
    """What jobs of this home cost besides their rows, by the median of past ones."""
    return median([_parts(job, USUAL_FIXED_S).fixed_s for job in home]) if home else USUAL_FIXED_S


def is_known(rows: int, past: Sequence[Past]) -> bool:
    """Whether past jobs of the model tell enough, so that it need not be tried."""
    parts = _all_parts(past, USUAL_FIXED_S)
    if not parts:
        return False
    largest = parts[-1]
    return rows <= _REACH * largest.rows or (largest.rows >= _ENOUGH_ROWS and largest.rows_s >= _ENOUGH_S)


def estimated_s(
    rows: int, batch_size: int, past: Sequence[Past], fixed_s: float = USUAL_FIXED_S, probe: Probe | None = None
) -> float:
    """Seconds that a job of `rows` rows takes, from its start to its end.

    Args:
        past: jobs of the same model that ended well, in any order.
        fixed_s: what jobs cost besides their rows; see `usual_fixed_s`.
        probe: what the model was seen to cost, where it was tried.
    """
    parts = _all_parts(past, fixed_s)
    tried_s = (probe or Probe()).rows_s(rows, batch_size)
    if not parts:
        likely_s = fixed_s + (0.0 if probe is None else probe.load_s) + tried_s
        return min(max(likely_s, _LEAST_S), _MOST_S)
    learned_s = rows * sum(each.rows_s for each in parts) / sum(each.rows for each in parts)
    if probe is not None and not is_known(rows, past):
        # In few rows a first call counts for much, which was slow for once.
        learned_s = min(learned_s, tried_s)
    likely_s = median([each.fixed_s for each in parts]) + learned_s
    return min(max(likely_s, _LEAST_S), _MOST_S)


def _all_parts(past: Sequence[Past], fixed_s: float) -> list[_Parts]:
    """Past jobs with rows, taken apart, the smallest first: what it cost besides its rows, the next did, too."""
    parts: list[_Parts] = []
    for job in sorted((job for job in past if job.rows > 0), key=lambda job: job.rows):
        parts.append(_parts(job, fixed_s))
        fixed_s = parts[-1].fixed_s
    return parts


def _parts(job: Past, fixed_s: float) -> _Parts:
    """Take a job apart: what it scored for, and as much of the rest as its rows may have cost, are its rows'."""
    calls = -(-job.rows // job.batch_size)
    scoring_s = min(job.score_s / max(1, min(job.parallelism, calls)), job.seconds)
    moving_s = min(max(job.seconds - scoring_s - fixed_s, 0.0), job.rows * _MOST_MOVING_S)
    return _Parts(job.rows, job.seconds - scoring_s - moving_s, scoring_s + moving_s)
