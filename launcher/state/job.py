"""A job as a value: what was asked, where it stands, and the moves it may make."""

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from launcher.errors import MoveForbidden
from launcher.state.speed import Speed
from pipelines.spec import JobSpec
from predictors.notices import Notice
from transforms.counts import Counts

Status = Literal["submitted", "preparing", "running", "completing", "completed", "failed", "cancelled"]
# How a job ended: the first two are completed ones, the others tell failed ones apart.
Outcome = Literal["clean", "with_rejects", "timed_out", "out_of_memory", "too_many_rejects", "request_wrong", "error"]

MOVES: Mapping[Status, frozenset[Status]] = {
    "submitted": frozenset({"preparing", "failed", "cancelled"}),
    # Back to submitted: the attempt failed in passing, and the launcher tries again.
    "preparing": frozenset({"running", "failed", "cancelled", "submitted"}),
    "running": frozenset({"completing", "failed", "cancelled", "submitted"}),
    # Publishing has begun: the job may still fail, but what is perhaps visible is never called cancelled.
    "completing": frozenset({"completed", "failed", "submitted"}),
    "completed": frozenset(),
    # A resume.
    "failed": frozenset({"submitted"}),
    "cancelled": frozenset({"submitted"}),
}
STATUSES: tuple[Status, ...] = tuple(MOVES)
TERMINAL: frozenset[Status] = frozenset({"completed", "failed", "cancelled"})
ACTIVE: frozenset[Status] = frozenset(STATUSES) - TERMINAL
# A process works on it, or should.
AT_WORK: frozenset[Status] = ACTIVE - {"submitted"}

# Whose jobs are those of `penstock run`, and of a service that knows no keys.
DEFAULT_TENANT = "default"


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
class Live:
    """What the workers of one attempt have counted, all of them together.

    Args:
        rows_read, scored, rejected, skipped: rows.
        staged: rows that are durable: they will not be read again.
        read_s, score_s, write_s: seconds of all threads together.
        calls, call_s: model calls, and how long they took, added up.
        call_buckets: of these, how many took up to each of `transforms.telemetry.CALL_BUCKETS_S`; the last: longer.
    """

    rows_read: int = 0
    scored: int = 0
    rejected: int = 0
    skipped: int = 0
    staged: int = 0
    read_s: float = 0.0
    score_s: float = 0.0
    write_s: float = 0.0
    calls: int = 0
    call_s: float = 0.0
    call_buckets: tuple[int, ...] = ()

    @property
    def counts(self) -> Counts:
        """Rows that have been through the model."""
        return Counts(self.scored, self.rejected, self.skipped)


@dataclass(frozen=True)
class Webhook:
    """Who is told of a job's moves: `url`, of the moves to `events`. The secret that signs is kept apart."""

    url: str
    events: tuple[Status, ...] = ("completed", "failed", "cancelled")


@dataclass(frozen=True)
class Job:
    """A job. Times are aware and UTC.

    Args:
        id: `batch-` and ten random hex digits.
        spec: what was asked for. In a service connections are named in it, never written out.
        working_dir: the folder that relative paths start from.
        created_at: when it was first submitted.
        status: where it stands.
        outcome: how it ended; None before, and for a cancelled one.
        started_at: when it was first `preparing`.
        finished_at: when it ended; None while it has not, and again after a resume.
        error: why it failed, in one line.
        total_rows: rows of the input; None until they are known.
        counts: rows accounted for when the job ended; None before.
        already: rows that were staged before this attempt began.
        seconds: where the time of the last attempt went.
        output, rejects: where the result and the rejected rows are, or will be; None until they are known.
        attempt: 1 for the first, one more with each further one, whoever asked for it. It is the fencing token: what an
            earlier attempt still wants to say is refused.
        pid, pid_started: the process of the last attempt and its start (seconds since the epoch): a pid alone may be
            somebody else's by now.
        tenant: whose job it is.
        managed: queued, started and watched by a launcher; else by the process that submitted it, as `penstock run`.
        model_id, model_version: the registered model, when it was named by its id.
        name, labels: what the user calls it.
        schedule_id, scheduled_at: the schedule that made it, and the time that it was due.
        retry_of: the job whose rejected rows this one scores again.
        queued_at: since when it waits, or waited last.
        not_before: it waits at least until then.
        retries: attempts that the launcher made by itself since the job was last asked for.
        memory_strikes: attempts that ran out of memory since then.
        deadline_at: when its time is over, all attempts since then together; None before the first.
        cancel_requested_at: when it was told to stop; None while nobody has.
        owner: the launcher that started the attempt.
        lease_until: the attempt is given up for dead if it has not been heard of by then.
        running_at: since when this attempt runs.
        live, live_at: the counters of this attempt, and when they were told.
        shown: rows accounted for, as they were shown last; never fewer are shown again.
        snapshot_rows: rows of the query copied so far, while preparing.
        notices: what was found about the data: while preparing; once it was to be published, while running, too.
        estimated_seconds: how long it was thought to take when its rows became known, from its start to its end.
        speed: how fast it gets on, whatever attempt.
        keeps_result: the result lies in the job's own folder, and goes with it.
        expired_at: when what the service kept of it was deleted.
        webhook: who is told of its moves.
        traceparent: the trace that it was submitted in (W3C Trace Context).
        times: when it last came into each state.
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
    tenant: str = DEFAULT_TENANT
    managed: bool = False
    model_id: str | None = None
    model_version: int | None = None
    name: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    schedule_id: str | None = None
    scheduled_at: datetime | None = None
    retry_of: str | None = None
    queued_at: datetime | None = None
    not_before: datetime | None = None
    retries: int = 0
    memory_strikes: int = 0
    deadline_at: datetime | None = None
    cancel_requested_at: datetime | None = None
    owner: str | None = None
    lease_until: datetime | None = None
    running_at: datetime | None = None
    live: Live = Live()
    live_at: datetime | None = None
    shown: Counts = Counts()
    snapshot_rows: int | None = None
    notices: tuple[Notice, ...] = ()
    estimated_seconds: float | None = None
    speed: Speed | None = None
    keeps_result: bool = False
    expired_at: datetime | None = None
    webhook: Webhook | None = None
    traceparent: str | None = None
    times: Mapping[Status, datetime] = field(default_factory=dict)

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


# What another attempt starts from: nothing of the last one but the job's identity, its plan and its staged rows.
_FRESH: Mapping[str, Any] = {
    "outcome": None,
    "finished_at": None,
    "error": None,
    "counts": None,
    "already": Counts(),
    "seconds": Seconds(),
    "pid": None,
    "pid_started": None,
    "owner": None,
    "lease_until": None,
    "running_at": None,
    "live": Live(),
    "live_at": None,
    "snapshot_rows": None,
    "not_before": None,
}
# What is counted anew when somebody asks for the job again.
_ASKED_AGAIN: Mapping[str, Any] = {
    "retries": 0,
    "memory_strikes": 0,
    "deadline_at": None,
    "cancel_requested_at": None,
}


def new_id() -> str:
    """A fresh job id; among a million, a twin is one in three likely, so adding one must look."""
    return f"batch-{secrets.token_hex(5)}"


def moved(job: Job, to: Status, reason: str, at: datetime, **changes: Any) -> tuple[Job, Move]:
    """`job` after one move, and the record of that move.

    Going to `submitted` begins the next attempt afresh. Times follow from the move.

    Args:
        changes: further fields of the job to set.

    Raises:
        MoveForbidden: the table of moves does not have it.
    """
    if to not in MOVES[job.status]:
        raise MoveForbidden(job.id, job.status, to)
    follows: dict[str, Any] = {"times": {**job.times, to: at}}
    if to == "submitted":
        follows |= {**_FRESH, "attempt": job.attempt + 1, "queued_at": at, "shown": shown_counts(job)}
        follows |= _ASKED_AGAIN if job.is_over else {"retries": job.retries + 1}
    elif to == "preparing":
        deadline = at + timedelta(minutes=min(job.spec.config.timeout_minutes, _LONGEST_MINUTES))
        follows |= {"started_at": job.started_at or at, "deadline_at": job.deadline_at or deadline}
    elif to == "running":
        follows |= {"running_at": at}
    elif to in TERMINAL:
        follows |= {"finished_at": at, "lease_until": None, "cancel_requested_at": None, "shown": shown_counts(job)}
    after = replace(job, status=to, **{**follows, **changes})
    return after, Move(job.status, to, at, reason, after.attempt)


# A hundred years; a time-out beyond would leave the calendar.
_LONGEST_MINUTES = 100 * 365 * 24 * 60


def shown_counts(job: Job) -> Counts:
    """Rows accounted for, to be shown: never fewer than were shown before, not even when another attempt begins.

    What an attempt had scored and not yet staged when it died is scored again; until the next attempt has come as far,
    the numbers stand still.
    """
    now = job.counts
    if now is None:
        now = within_total(job.already + job.live.counts, job.total_rows)
    return now if job.status == "completed" or now.total >= job.shown.total else job.shown


def within_total(counts: Counts, total_rows: int | None) -> Counts:
    """`counts`, at most `total_rows` together: a span scored twice, as after a failed bundle, is counted twice."""
    if total_rows is None or counts.total <= total_rows:
        return counts
    rejected = min(counts.rejected, total_rows)
    skipped = min(counts.skipped, total_rows - rejected)
    return Counts(total_rows - rejected - skipped, rejected, skipped)


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
    resume = f"`penstock {'retry' if job.managed else 'resume'} {job.id}`"
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
