"""What a service tells, for people: the same labels and tables as for the jobs of `penstock run`."""

from collections.abc import Sequence

from launcher.client import Estimate, Event, JobStatus
from launcher.client.answers import Told, read_job
from launcher.client.showing import standing
from launcher.report import (
    Reason,
    heading,
    is_over_for_good,
    listed,
    model_words,
    notice_lines,
    noticed_lines,
    reason_text,
    rows_text,
    sample_lines,
    second,
    standing_line,
    time_range,
    times,
    timestamp,
)
from launcher.state.job import Seconds
from transforms.counts import bearable_ratio

_SECONDS = ("prepare", "run", "complete", "read", "score", "write")


def heading_of(status: JobStatus) -> str:
    """How a job stands, in a few words."""
    return heading(status.job_id, standing(status).status, status.outcome, _seconds(status))


def job_cells(status: JobStatus) -> list[str | None]:
    """A job's cells in a list of jobs."""
    return listed(
        status.job_id,
        status.name,
        model_words(status.model_id, status.model_version, status.model_uri),
        status.status,
        status.outcome,
        status.created_at,
        status.progress.total_rows,
        status.progress.percentage,
        status.counts.rejected_rows,
        status.output.location,
    )


def moves(status: JobStatus) -> list[tuple[str | None, str]]:
    """When a job last came into each state, in the order of time."""
    return [(timestamp(at), state) for state, at in sorted(status.timestamps.items(), key=lambda each: each[1])]


def summary(status: JobStatus, reasons: Sequence[Reason], words: str, whole: bool = False) -> list[tuple[str, str]]:
    """What people want to know of a job, as labels and texts.

    Args:
        reasons: why rows were rejected, the most frequent first.
        words: what a command has to be called with to ask the same service.
        whole: also what was asked for, and why it failed.
    """
    lines = _asked(status) if whole else []
    counts = standing(status).counts
    if status.progress.total_rows is not None:
        lines.append(("rows", rows_text(status.progress.total_rows, counts, status.kept_rows)))
    if status.status == "completed" and status.rows_per_second:
        lines.append(("speed", f"{status.rows_per_second:,.0f} rows/s"))
    lines += times(_seconds(status))
    if status.output.location is not None:
        state = "" if status.status == "completed" or "visible" in (status.error or "") else " (not published)"
        lines.append(("output", _place(status.output.location) + state))
        if status.status == "completed":
            lines.append(("look", f"penstock jobs results {status.job_id}{words}"))
    if counts.rejected and status.rejects_location and (status.status == "completed" or reasons):
        lines.append(("rejects", _place(status.rejects_location)))
        lines += [("", reason_text(reason)) for reason in reasons]
        lines.append(("look", f"penstock jobs rejects {status.job_id}{words}"))
    lines += notice_lines(status.notices)
    if status.expired_at is not None:
        lines.append(("expired", f"{second(status.expired_at)}: what the service kept of it is deleted"))
    return lines + _next(status, words)


def _asked(status: JobStatus) -> list[tuple[str, str]]:
    model = f"{status.model_id} version {status.model_version}" if status.model_id else None
    labels = ", ".join(f"{name}={value}" for name, value in status.labels.items())
    known = {
        "now": None if status.is_over else standing_line(standing(status)),
        "ready at": status.estimated_completion and second(status.estimated_completion),
        "next try": status.next_attempt_at and second(status.next_attempt_at),
        "error": status.error,
        "name": status.name,
        "labels": labels,
        "model": model,
        "schedule": status.schedule_id,
        "due at": status.scheduled_at and second(status.scheduled_at),
        "retry of": status.retry_of,
        "attempt": str(status.attempt) if status.attempt > 1 else None,
    }
    return [(label, text) for label, text in known.items() if text]


def _place(location: str) -> str:
    """Where something is; what the service keeps is at a path of its API."""
    return "kept by the service" if location.startswith("/api/") else location


def _next(status: JobStatus, words: str) -> list[tuple[str, str]]:
    retry = f"penstock retry {status.job_id}{words}"
    if status.status == "cancelled":
        return [("next", retry)]
    if status.status != "failed":
        return []
    if status.outcome == "request_wrong":
        return [("next", "correct the request and submit it again"), ("log", f"penstock logs {status.job_id}{words}")]
    if is_over_for_good(status.error):
        return [("next", "submit the job anew"), ("log", f"penstock logs {status.job_id}{words}")]
    if status.outcome == "too_many_rejects":
        return [
            ("next", "mend the rows and submit the job again, or publish without them:"),
            ("", f"{retry} --max-reject-ratio {bearable_ratio(standing(status).counts):g}"),
        ]
    return [("next", retry), ("log", f"penstock logs {status.job_id}{words}")]


def estimate_lines(estimate: Estimate) -> list[str]:
    """What a job would take."""
    seconds = estimate.seconds
    lines = [] if estimate.rows is None else [f"rows    {estimate.rows:,}"]
    if seconds.low is not None and seconds.high is not None:
        likely = seconds.high if seconds.likely is None else seconds.likely
        time = time_range(seconds.low, seconds.high, likely)
        lines.append(f"time    {time} (from a sample of {estimate.sample.rows:,} rows)")
    if estimate.memory_gb is not None:
        lines.append(f"memory  about {estimate.memory_gb:.1f} GB")
    output = [(each.column, each.type) for each in estimate.output]
    sample = sample_lines(output, estimate.sample.predictions, estimate.sample.refused, estimate.assumptions)
    return [*lines, "", *sample, *noticed_lines(estimate.notices)]


def event_line(event: Event) -> str | None:
    """An event; None for one of a kind that is not known."""
    if event.kind == "state":
        reason = event.data.get("reason")
        return f"{event.data.get('at')} {event.data.get('status')}" + (f": {reason}" if reason else "")
    if event.kind == "progress":
        status = read_job(Told(event.data, "an event"))
        return None if status.is_over else f"  {standing_line(standing(status))}"
    return None


def _seconds(status: JobStatus) -> Seconds:
    return Seconds(**{name: float(status.seconds.get(name) or 0.0) for name in _SECONDS})
