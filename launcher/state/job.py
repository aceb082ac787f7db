"""A job as a value: what was asked, where it stands, and the moves it may make."""

import secrets
from collections.abc import Iterable, Mapping
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

    @property
    def has_run(self) -> bool:
        """Whether the attempt under way has come to its first row, so that `already` and the counters say something."""
        return self.status in ("running", "completing")


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


def has_begun_to_publish(moves: Iterable[Move]) -> bool:
    """Whether some attempt has passed the gate, so that the result may be visible."""
    return any(move.to == "completing" for move in moves)


def stopped_as(job: Job, to: Status, why: str, may_be_visible: bool, kept_rows: int) -> tuple[Status, str]:
    """The state that a stopped job goes to, and one line for people: why, what is kept, and how to go on.

    Args:
        to: `cancelled` or `failed`, as wished; a result that may be visible is never called cancelled.
        why: what stopped it.
        may_be_visible: an attempt has begun to publish.
        kept_rows: rows that are staged.
    """
    resume = f"`penstock resume {job.id}`"
    if may_be_visible:
        return (
            "failed",
            f"{why} after publishing had begun; whether the result is visible is not known, {resume} settles it",
        )
    if not job.has_run:
        if job.attempt > 1:
            return to, f"{why} while preparing; what was staged before is kept, {resume} goes on"
        return to, f"{why} before the first row; {resume} starts again"
    return to, f"{why}; {kept_rows:,} rows are kept, {resume} goes on"
