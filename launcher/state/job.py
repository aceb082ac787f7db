"""A job as a value: what was asked, where it stands, and the moves it may make."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from launcher.errors import MoveForbidden
from pipelines.spec import JobSpec
from transforms.counts import Counts

Status = Literal["submitted", "preparing", "running", "completing", "completed", "failed", "cancelled"]
Outcome = Literal["clean", "with_rejects"]

MOVES: Mapping[Status, frozenset[Status]] = {
    "submitted": frozenset({"preparing", "failed", "cancelled"}),
    "preparing": frozenset({"running", "failed", "cancelled"}),
    "running": frozenset({"completing", "failed", "cancelled"}),
    # Publishing has begun: the job may still fail, but what is perhaps visible is never called cancelled.
    "completing": frozenset({"completed", "failed"}),
    "completed": frozenset(),
    # A resume.
    "failed": frozenset({"submitted"}),
    "cancelled": frozenset({"submitted"}),
}
STATUSES: tuple[Status, ...] = tuple(MOVES)
TERMINAL: frozenset[Status] = frozenset({"completed", "failed", "cancelled"})
ACTIVE: frozenset[Status] = frozenset(STATUSES) - TERMINAL


@dataclass(frozen=True)
class Seconds:
    """Where the time of the last attempt went.

    Args:
        prepare, run, complete: on the clock, one after the other.
        read, score, write: added up over all threads, so that together they may be more than `run`.
    """

    prepare: float = 0.0
    run: float = 0.0
    complete: float = 0.0
    read: float = 0.0
    score: float = 0.0
    write: float = 0.0


@dataclass(frozen=True)
class Job:
    """A job. Times are aware and UTC.

    Args:
        id: `batch-` and ten random hex digits.
        spec: what was asked for.
        working_dir: the folder that relative paths start from.
        created_at: when it was first submitted.
        status: where it stands.
        outcome: how a completed job went; None before.
        started_at: when it was first `preparing`.
        finished_at: when it ended; None while it has not, and again after a resume.
        error: why it failed, in one line.
        total_rows: rows of the input; None until they are known.
        counts: rows accounted for when the attempt ended; None before. `already` and the progress files say how far a
            living job is.
        already: rows that were staged before this attempt began.
        seconds: where the time of the last attempt went.
        output, rejects: where the result and the rejected rows are, or will be; None until they are known.
        attempt: 1 for the first, one more with each resume.
        pid, pid_started: the process of the last attempt and its start (seconds since the epoch): a pid alone may be
            somebody else's by now.
    """

    id: str
    spec: JobSpec
    working_dir: str
    created_at: datetime
    status: Status = "submitted"
    outcome: Outcome | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error: str | None = None
    total_rows: int | None = None
    counts: Counts | None = None
    already: Counts = Counts()
    seconds: Seconds = Seconds()
    output: str | None = None
    rejects: str | None = None
    attempt: int = 1
    pid: int | None = None
    pid_started: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether it has ended, well or not."""
        return self.status in TERMINAL


@dataclass(frozen=True)
class Move:
    """One step of a job's life. `source` is None for its first."""

    source: Status | None
    to: Status
    at: datetime
    reason: str
    attempt: int


# What a resume starts from: nothing of the last attempt but its identity, its plan and its staged rows.
_FRESH: Mapping[str, Any] = {
    "outcome": None,
    "finished_at": None,
    "error": None,
    "counts": None,
    "already": Counts(),
    "seconds": Seconds(),
    "pid": None,
    "pid_started": None,
}


def new_id() -> str:
    """A fresh job id; among a million, a twin is one in three likely, so adding one must look."""
    return f"batch-{secrets.token_hex(5)}"


def moved(job: Job, to: Status, reason: str, at: datetime, **changes: Any) -> tuple[Job, Move]:
    """`job` after one move, and the record of that move.

    Going to `submitted` starts the next attempt afresh. `started_at` and `finished_at` follow from the move.

    Args:
        changes: further fields of the job to set.

    Raises:
        MoveForbidden: the table of moves does not have it.
    """
    if to not in MOVES[job.status]:
        raise MoveForbidden(job.id, job.status, to)
    follows: dict[str, Any] = {}
    if to == "submitted":
        follows = {**_FRESH, "attempt": job.attempt + 1}
    elif to == "preparing":
        follows = {"started_at": job.started_at or at}
    elif to in TERMINAL:
        follows = {"finished_at": at}
    after = replace(job, status=to, **{**follows, **changes})
    return after, Move(job.status, to, at, reason, after.attempt)
