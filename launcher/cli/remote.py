"""What the commands do that ask a service for jobs, once they are parsed. Each returns the exit code."""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Literal

from launcher.cli.exits import DONE, FAILED, INTERRUPTED
from launcher.cli.told import estimate_lines, event_line, heading_of, job_cells, moves, summary
from launcher.client import (
    AnswerUnreadable,
    Client,
    Job,
    JobStatus,
    Misconfigured,
    PenstockError,
    RequestRefused,
    ServerFailed,
    ServerUnavailable,
    StillRunning,
    Unauthorized,
    Unwritable,
)
from launcher.logs import text_line
from launcher.report import LISTED, Reason, aligned, dumped, duration, second
from launcher.screen import counting_rows, print_summary

# Reasons are counted among so many rejected rows, which are fetched for it.
_COUNTED_ROWS = 20_000
_TOP_REASONS = 3
_LISTED_JOBS = 50
# Errors of which the request is not to blame.
_NOT_OURS = (ServerUnavailable, ServerFailed, AnswerUnreadable, StillRunning, Unwritable)


@dataclass(frozen=True)
class Service:
    """The service that is asked.

    Args:
        server: its URL; None: PENSTOCK_SERVER, or the one on this machine.
        key_file: where the API key is; None: in PENSTOCK_API_KEY.
    """

    server: str | None
    key_file: str | None

    @contextmanager
    def client(self) -> Iterator[Client]:
        """A client of it, for as long as the block lasts.

        Raises:
            Misconfigured: the address or the key cannot be used.
        """
        with Client(self.server, self._key()) as client:
            yield client

    @property
    def words(self) -> str:
        """What a command has to be called with to ask the same service, with a blank before it."""
        given = {"--server": self.server, "--api-key-file": self.key_file}
        return "".join(f" {name} {value}" for name, value in given.items() if value)

    def _key(self) -> str | None:
        if self.key_file is None:
            return None
        try:
            with open(self.key_file, encoding="utf-8") as file:
                return file.read()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise Misconfigured(f"--api-key-file {self.key_file} cannot be read: {reason}") from None


@dataclass(frozen=True)
class Wanted:
    """The jobs that a list is to show; times without a zone are UTC."""

    statuses: list[str]
    model_id: str | None
    schedule_id: str | None
    since: datetime | None
    until: datetime | None
    limit: int | None


def submit(service: Service, spec: str, wait: bool, idempotency_key: str | None, as_json: bool) -> int:
    """Submit a job; one with a schedule is scheduled."""
    from launcher.request import read_body

    body = read_body(spec)
    with service.client() as client:
        if body.get("schedule") is not None:
            if wait:
                raise Misconfigured(f"{spec} has a schedule, so it has no end; leave out --wait")
            scheduled = client.schedules.submit(body, idempotency_key)
            runs = [("next", second(at)) if n == 0 else ("", second(at)) for n, at in enumerate(scheduled.next_runs)]
            look = ("look", f"penstock schedules show {scheduled.schedule_id}{service.words}")
            _tell(scheduled.raw, f"{scheduled.schedule_id} scheduled", [*runs, look], "scheduled", as_json)
            return DONE
        job = client.submit(body, idempotency_key)
        return followed(service, job, wait, as_json)


def followed(service: Service, job: Job, wait: bool, as_json: bool) -> int:
    """Tell of a job that was just submitted or, with `wait`, of how it ended."""
    if wait:
        return _waited(service, job, as_json)
    taken = job.submission
    lines: list[tuple[str, str]] = []
    if taken is None:
        raise ValueError(f"{job.id} was submitted by somebody else")
    if taken.input_row_count is not None:
        lines.append(("rows", f"{taken.input_row_count:,}"))
    if taken.estimated_duration_seconds is not None:
        lines.append(("time", f"about {duration(taken.estimated_duration_seconds)}"))
    elif taken.estimated_duration_minutes is not None:
        lines.append(("time", f"about {taken.estimated_duration_minutes:,} min"))
    lines.append(("look", f"penstock jobs show {job.id}{service.words}"))
    _tell(taken.raw, f"{job.id} {taken.status}", lines, taken.status, as_json)
    return DONE


def estimate(service: Service, spec: str, as_json: bool) -> int:
    """Tell what a job would take."""
    from launcher.request import read_body

    body = read_body(spec)
    with service.client() as client:
        told = client.estimate(body)
    print(dumped(told.raw) if as_json else "\n".join(estimate_lines(told)))
    return DONE


def cancel(service: Service, job_id: str, as_json: bool) -> int:
    """Cancel a job."""
    with service.client() as client:
        status = client.job(job_id).cancel()
    if as_json:
        print(dumped(status.raw))
    elif status.status == "cancelled":
        print(f"{job_id} is cancelled")
    else:
        print(f"{job_id} was told to stop; it is gone within five seconds")
    return DONE


def delete_job(service: Service, job_id: str) -> int:
    """Remove a job."""
    with service.client() as client:
        client.job(job_id).purge()
    print(f"{job_id} is deleted")
    return DONE


def retry(
    service: Service, job_id: str, only_rejected: bool, max_reject_ratio: float | None, wait: bool, as_json: bool
) -> int:
    """Go on with a job, or score its rejected rows again."""
    with service.client() as client:
        job = client.job(job_id).retry(only_rejected, max_reject_ratio)
        if wait:
            return _waited(service, job, as_json)
        status = job.seen or job.status()
    lines = [("rejects", f"those of {job_id} are scored again")] if job.id != job_id else []
    lines.append(("look", f"penstock jobs show {job.id}{service.words}"))
    _tell(status.raw, f"{job.id} {status.status}", lines, status.status, as_json)
    return DONE


def logs(service: Service, job_id: str, follow: bool, tail: int | None, as_json: bool) -> int:
    """Print a job's log; as JSON, one object with all lines or, while it is followed, one for each."""
    with service.client() as client:
        lines = client.job(job_id).logs(follow, tail)
        if as_json and not follow:
            print(dumped({"lines": list(lines)}))
            return DONE
        for line in lines:
            print(dumped({"line": line}) if as_json else text_line(line), flush=follow)
    return DONE


def list_jobs(service: Service, wanted: Wanted, as_json: bool) -> int:
    """List jobs, the newest first."""
    limit = wanted.limit or _LISTED_JOBS
    with service.client() as client:
        found = client.jobs(
            status=wanted.statuses,
            model_id=wanted.model_id,
            schedule_id=wanted.schedule_id,
            since=_utc(wanted.since),
            until=_utc(wanted.until),
            # One more tells whether there are more.
            page_size=limit + 1,
        )
        seen = [job.seen for job in islice(found, limit + 1) if job.seen is not None]
    shown = seen[:limit]
    if as_json:
        print(dumped({"jobs": [each.raw for each in shown]}))
    elif not shown:
        print("no such jobs" if wanted != Wanted([], None, None, None, None, wanted.limit) else "no jobs")
    else:
        print("\n".join(aligned(map(job_cells, shown), LISTED)))
        if len(seen) > limit:
            print(f"and more; --limit {2 * limit} shows some of them", file=sys.stderr)
    return DONE


def show_job(service: Service, job_id: str, as_json: bool) -> int:
    """Show where a job stands and how it came there."""
    with service.client() as client:
        job = client.job(job_id)
        status = job.status()
        if as_json:
            print(dumped(status.raw))
            return DONE
        lines = summary(status, _reasons(job, status), service.words, whole=True)
    print_summary(heading_of(status), lines, status.status)
    print()
    print("\n".join(aligned(moves(status), ["at", "state"], cell_chars=None)))
    return DONE


def show_rows(service: Service, job_id: str, what: Literal["rejects", "results"], limit: int, as_json: bool) -> int:
    """Show the first rows that a job rejected, or those of its result."""
    with service.client() as client:
        job = client.job(job_id)
        rows = list(job.rejects(limit) if what == "rejects" else job.results(limit))
    if as_json:
        print(dumped({what: rows}))
    elif not rows:
        print(f"{job_id} rejected no row" if what == "rejects" else f"the result of {job_id} has no row")
    else:
        print("\n".join(aligned((row.values() for row in rows), list(rows[0]))))
    return DONE


def save_results(service: Service, job_id: str, file: str, overwrite: bool, as_json: bool) -> int:
    """Write all rows of a job's result into a file."""
    with service.client() as client, counting_rows(sys.stderr) as told:
        rows = client.job(job_id).save_results(file, overwrite, told)
    print(
        dumped({"job_id": job_id, "file": file, "rows": rows}) if as_json else f"{file} has {rows:,} rows of {job_id}"
    )
    return DONE


def show_events(service: Service, job_id: str, as_json: bool) -> int:
    """Print what happens to a job, until it is over."""
    with service.client() as client:
        for event in client.job(job_id).events():
            line = dumped({"event": event.kind, "data": event.data}) if as_json else event_line(event)
            if line is not None:
                print(line, flush=True)
    return DONE


def told(error: PenstockError) -> tuple[list[str], bool]:
    """An error as lines, and whether the request is to blame."""
    if isinstance(error, Unauthorized):
        return [
            "the service wants an API key that it knows; set PENSTOCK_API_KEY, or name a file by --api-key-file"
        ], True
    lines = list(map(str, error.errors)) if isinstance(error, RequestRefused) else []
    return lines or [str(error)], not isinstance(error, _NOT_OURS)


def _waited(service: Service, job: Job, as_json: bool) -> int:
    status = job.wait(show_progress=True)
    if as_json:
        print(dumped(status.raw))
    else:
        lines = summary(status, _reasons(job, status), service.words)
        print_summary(heading_of(status), lines, status.status)
    sys.stdout.flush()
    if status.status == "failed":
        print(f"error: {job.id} failed: {status.error}", file=sys.stderr)
    if status.status == "completed":
        return DONE
    return INTERRUPTED if status.status == "cancelled" else FAILED


def _reasons(job: Job, status: JobStatus) -> list[Reason]:
    """The most frequent reasons among the first rejected rows; none where they cannot be read."""
    if not status.is_over or not status.counts.rejected_rows:
        return []
    try:
        rows = list(job.rejects(_COUNTED_ROWS))
    except PenstockError:
        return []
    seen = Counter((_cell(row, "error_type"), _cell(row, "error")) for row in rows)
    among = f"of the first {len(rows):,}: " if _COUNTED_ROWS <= len(rows) < status.counts.rejected_rows else ""
    return [Reason(among + kind, error, count) for (kind, error), count in seen.most_common(_TOP_REASONS)]


def _cell(row: Mapping[str, Any], name: str) -> str:
    """A cell of ours: where the input has a column of the same name, ours is called otherwise."""
    return str(row.get(f"penstock_{name}", row.get(name)))


def _utc(at: datetime | None) -> datetime | None:
    return at if at is None or at.tzinfo is not None else at.replace(tzinfo=UTC)


def _tell(raw: Mapping[str, Any], heading: str, lines: list[tuple[str, str]], status: str, as_json: bool) -> None:
    if as_json:
        print(dumped(raw))
    else:
        print_summary(heading, lines, status)
