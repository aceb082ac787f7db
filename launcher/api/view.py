"""A job becomes the object that is told of it: the same job the same object, whenever it is looked at."""

import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from launcher.api.answers import dumped
from launcher.report import minutes_of, percentage
from launcher.state.job import Job, shown_counts
from launcher.state.speed import ends_at, sped
from predictors.bounds import lies_in

JOBS_PATH = "/api/v1/inference/batch"
# A rate that is taken earlier says more of the start than of the rows.
_RATE_AFTER_S = 1.0
# An attempt that goes on where another was has to come so far before its own rate tells when it ends.
_RATE_AFTER_SHARE = 0.01
# As many as the store keeps read; some 4 KB each.
_KEPT, _KEPT_BYTES = 1024, 16_384
_WRITTEN: dict[int, tuple[Job, bytes]] = {}
_WRITING = threading.Lock()


def job_object(job: Job, jobs: Path) -> dict[str, Any]:
    """The job as the API tells it.

    What is counted adds up to `processed_rows`, which never falls, not even when another attempt begins. The completion
    is estimated from the mean of the whole attempt, at the time that its counters are from: looked at again without
    news, it is the same.

    Args:
        jobs: the folder of all jobs' folders; what lies in it is the service's own.
    """
    counts = shown_counts(job)
    completion = estimated_completion(job)
    duration_s = _duration_s(job, completion)
    base = f"{JOBS_PATH}/{job.id}"
    return {
        "job_id": job.id,
        "status": job.status,
        "outcome": job.outcome,
        "progress": {
            "total_rows": job.total_rows,
            "processed_rows": counts.total,
            "percentage": percentage(job, counts),
        },
        "started_at": stamp(job.started_at),
        "estimated_completion": stamp(completion),
        "name": job.name,
        "labels": dict(job.labels),
        "model_id": job.model_id,
        "model_version": job.model_version,
        "model_uri": job.spec.model.uri,
        "schedule_id": job.schedule_id,
        "scheduled_at": stamp(job.scheduled_at),
        "retry_of": job.retry_of,
        "attempt": job.attempt,
        "retries": job.retries,
        "next_attempt_at": stamp(job.not_before) if job.status == "submitted" else None,
        "counts": {
            "scored_rows": counts.scored,
            "rejected_rows": counts.rejected,
            "skipped_rows": counts.skipped,
        },
        "kept_rows": kept_rows(job),
        "rows_per_second": _rounded(rows_per_second(job)),
        "input_row_count": job.total_rows,
        "estimated_duration_minutes": minutes_of(duration_s),
        "estimated_duration_seconds": duration_s,
        "error": job.error,
        "notices": [notice.to_json() for notice in job.notices],
        "output": {"destination": job.spec.output.destination, "location": _output_location(job, base, jobs)},
        "rejects_location": _rejects_location(job, base),
        "created_at": stamp(job.created_at),
        "finished_at": stamp(job.finished_at),
        "expired_at": stamp(job.expired_at),
        "timestamps": {status: stamp(at) for status, at in job.times.items()},
        "seconds": _seconds(job),
        "cancel_requested": job.cancel_requested_at is not None,
        "config": dict(vars(job.spec.config)),
        "links": {
            "self": base,
            "events": f"{base}/events",
            "logs": f"{base}/logs",
            "rejects": f"{base}/rejects",
            "results": f"{base}/results",
        },
    }


def job_text(job: Job, jobs: Path) -> bytes:
    """The object as JSON. It is written once for each value of a job, however many look at it."""
    known = _WRITTEN.get(id(job))
    if known is not None and known[0] is job:
        return known[1]
    text = dumped(job_object(job, jobs))
    if len(text) > _KEPT_BYTES:
        return text
    with _WRITING:
        # With the job itself, so that no other can have its id.
        _WRITTEN[id(job)] = (job, text)
        while len(_WRITTEN) > _KEPT:
            del _WRITTEN[next(iter(_WRITTEN))]
    return text


def submission(job: Job) -> dict[str, Any]:
    """What whoever submitted a job is answered."""
    return {
        "job_id": job.id,
        # Perhaps it is at work by now; what was done is that it was submitted.
        "status": "submitted",
        "estimated_duration_minutes": minutes_of(job.estimated_seconds),
        "estimated_duration_seconds": _rounded(job.estimated_seconds),
        "input_row_count": job.total_rows,
    }


def stamp(at: datetime | None) -> str | None:
    """A time as RFC 3339, in UTC, to the millisecond; a whole second without any."""
    if at is None:
        return None
    text = at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return text.replace(".000Z", "Z")


def rows_per_second(job: Job) -> float | None:
    """How fast the last attempt was, or is, all of its time taken together; None before that says something."""
    if job.is_over:
        is_whole = job.counts is not None and job.status == "completed"
        ran = shown_counts(job).total - job.already.total if is_whole else job.live.counts.total
        return ran / job.seconds.run if ran > 0 and job.seconds.run > 0 else None
    if not job.has_run:
        return None
    elapsed_s = _elapsed_s(job)
    ran = job.live.counts.total
    if not ran or elapsed_s < _RATE_AFTER_S or (job.attempt > 1 and ran < _RATE_AFTER_SHARE * (job.total_rows or 0)):
        return None
    return ran / elapsed_s


def estimated_completion(job: Job) -> datetime | None:
    """When a running job has all rows behind it, if it goes on as it did of late; None while that is not known.

    An attempt that goes on where another was begins with the other's speed.
    """
    if job.status != "running" or job.total_rows is None or job.speed is None or job.running_at is None:
        return None
    now = job.live_at or job.running_at
    # Before the first beat of an attempt, its own rows are not told yet.
    speed = sped(job.speed, job.attempt, job.running_at, 0, now)
    left = max(0, job.total_rows - (job.already + job.live.counts).total)
    return ends_at(speed, left, now)


def kept_rows(job: Job) -> int | None:
    """Rows that are staged, so that they are not scored again; None where the last attempt did not come to look."""
    if job.status == "completed" and job.counts is not None:
        return job.counts.total
    if job.expired_at is not None:
        return 0
    kept = job.already.total + job.live.staged
    if not kept and job.attempt > 1 and job.status != "running":
        return None
    return kept if job.total_rows is None else min(kept, job.total_rows)


def _elapsed_s(job: Job) -> float:
    """How long the attempt has been at its rows, as far as its counters are told."""
    end = job.times.get("completing") if job.status == "completing" else job.live_at
    if job.running_at is None or end is None:
        return 0.0
    return (end - job.running_at).total_seconds()


def _duration_s(job: Job, completion: datetime | None) -> float | None:
    """As it was estimated when its rows became known; else as it goes; else as it went."""
    if job.estimated_seconds is not None:
        return round(job.estimated_seconds, 1)
    end = job.finished_at if job.status == "completed" else completion
    if job.started_at is None or end is None:
        return None
    return round(max((end - job.started_at).total_seconds(), 0.1), 1)


def _output_location(job: Job, base: str, jobs: Path) -> str | None:
    output = job.spec.output
    # The name says where; the database's own name comes with the first attempt.
    place = job.output or output.target
    # What rejected rows came to may have been added to a result that the service keeps of another job.
    if job.keeps_result or lies_in(place, str(jobs), below=True):
        # The service's own folder is nobody's business; the rows are there.
        return f"{base}/results" if job.status == "completed" else None
    return place


def _rejects_location(job: Job, base: str) -> str | None:
    if job.rejects is None:
        return None
    # In the job's own folder, they are the service's, too.
    kept = job.managed and f"/{job.id}/" in f"{job.rejects}/"
    return f"{base}/rejects" if kept else job.rejects


def _seconds(job: Job) -> dict[str, float]:
    seconds = dict(vars(job.seconds))
    if not job.is_over:
        seconds |= {"read": job.live.read_s, "score": job.live.score_s, "write": job.live.write_s}
    return {name: round(value, 3) for name, value in seconds.items()}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
