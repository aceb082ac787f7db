"""What is told about a job: one JSON object for machines, a few labelled lines for people."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pyarrow as pa

from launcher.state.job import TERMINAL, Job, Seconds, Status
from launcher.worker.progress import Live, Snapshot, counts_of, kept_rows
from predictors.notices import Notice
from transforms.counts import Counts, bearable_ratio

# Cells of a table are cut to this, so that a row of many columns stays readable.
_CELL_CHARS = 40
_NUMBER_MARKS = str.maketrans("", "", "-+,.e%")


class PlannedFeature(Protocol):
    """How one column reaches the model; see `launcher.estimate.look.Feature`."""

    @property
    def column(self) -> str: ...
    @property
    def given(self) -> str: ...
    @property
    def fed_as(self) -> str: ...


class PlanReport(Protocol):
    """What is shown of a plan; see `launcher.estimate.look.PlanReport`, whose import costs that of Beam."""

    @property
    def rows(self) -> int: ...
    @property
    def splits(self) -> int: ...
    @property
    def features(self) -> Sequence[PlannedFeature]: ...
    @property
    def output(self) -> Sequence[tuple[str, str]]: ...
    @property
    def predictions(self) -> pa.Table: ...
    @property
    def refused(self) -> list[str]: ...
    @property
    def sample_rows(self) -> int: ...
    @property
    def sample_rejected_rows(self) -> int: ...
    @property
    def seconds(self) -> tuple[float, float]: ...
    @property
    def likely_s(self) -> float: ...
    @property
    def memory_bytes(self) -> int: ...
    @property
    def assumptions(self) -> Sequence[str]: ...
    @property
    def notices(self) -> Sequence[Notice]: ...


@dataclass(frozen=True)
class Standing:
    """How far a job is, whoever told it.

    Args:
        job_id: which job.
        status: where it stands.
        total_rows: rows of its input; None until they are known.
        counts: rows accounted for.
        rows_per_s: of this attempt; None before it has any.
        snapshot: how far the copy of the query's rows is, while preparing.
        expected_s: how long it will yet take, where whoever tells of it knows better than by rows and rate, as of a job
            that scores rows again that were accounted for.
    """

    job_id: str
    status: Status
    total_rows: int | None
    counts: Counts
    rows_per_s: float | None = None
    snapshot: Snapshot | None = None
    expected_s: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether it has ended, well or not."""
        return self.status in TERMINAL

    @property
    def left_s(self) -> float | None:
        """How long it will yet take; None where that is not known."""
        if self.expected_s is not None or self.total_rows is None or not self.rows_per_s:
            return self.expected_s
        return (self.total_rows - self.counts.total) / self.rows_per_s


class Reason(NamedTuple):
    """Why rows were rejected, and how many for that reason."""

    error_type: str
    error: str
    rows: int


def job_json(job: Job, live: Live) -> dict[str, Any]:
    """The job as `--json` prints it. Numbers that are not known yet are None."""
    counts = counts_of(job, live)
    seconds = asdict(job.seconds)
    if not job.is_over:
        seconds |= {"read": live.read_s, "score": live.score_s, "write": live.write_s}
    return {
        "job_id": job.id,
        "name": job.name,
        "model_id": job.model_id,
        "model_version": job.model_version,
        "model_uri": job.spec.model.uri,
        "status": job.status,
        "outcome": job.outcome,
        "progress": {
            "total_rows": job.total_rows,
            "processed_rows": counts.total,
            "percentage": percentage(job, counts),
        },
        "counts": {
            "total_rows": job.total_rows,
            "scored_rows": counts.scored,
            "rejected_rows": counts.rejected,
            "skipped_rows": counts.skipped,
        },
        "output": job.output,
        "rejects": job.rejects,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "estimated_duration_minutes": minutes_of(job.estimated_seconds),
        "estimated_duration_seconds": None if job.estimated_seconds is None else round(job.estimated_seconds, 1),
        "started_at": timestamp(job.started_at),
        "finished_at": timestamp(job.finished_at),
        "error": job.error,
        "notices": [notice.to_json() for notice in job.notices],
    }


def listed(
    job_id: str,
    name: str | None,
    model: str | None,
    status: str,
    outcome: str | None,
    created_at: datetime | None,
    total_rows: int | None,
    percentage: int | None,
    rejected_rows: int,
    output: str | None,
) -> list[str | None]:
    """A job's cells in a list of jobs, under `LISTED`."""
    return [
        job_id,
        name,
        model,
        f"{status} (rejects)" if outcome == "with_rejects" else status,
        None if created_at is None else second(created_at),
        None if total_rows is None else f"{total_rows:,}",
        None if percentage is None else f"{percentage}%",
        f"{rejected_rows:,}",
        output,
    ]


LISTED = ("job", "name", "model", "status", "created", "rows", "done", "rejected", "output")


def model_words(model_id: str | None, version: int | None, uri: str | None) -> str | None:
    """A job's model in a list: its id and version, or the end of its URI, which says which it is."""
    if model_id is not None:
        return model_id if version is None else f"{model_id} v{version}"
    return uri and (uri if len(uri) <= _CELL_CHARS else f"…{uri[1 - _CELL_CHARS :]}")


def minutes_of(seconds: float | None) -> int | None:
    """A duration in whole minutes, rounded up."""
    return None if seconds is None else max(1, math.ceil(seconds / 60))


def second(at: datetime) -> str:
    """A time as ISO 8601, in UTC, to the second."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def percentage(job: Job, counts: Counts) -> int | None:
    """Rows accounted for out of 100, rounded down; None while the number of rows is not known."""
    return _percentage(job.status, job.total_rows, counts)


def _percentage(status: Status, total_rows: int | None, counts: Counts) -> int | None:
    if total_rows is None:
        return None
    if total_rows == 0:
        return 100 if status == "completed" else 0
    return 100 * counts.total // total_rows


def timestamp(at: datetime | None) -> str | None:
    """A time as ISO 8601, in UTC, to the millisecond."""
    return None if at is None else at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def progress_line(job: Job, live: Live, snapshot: Snapshot | None, rows_per_s: float | None) -> str:
    """How far a living job is, for people.

    Args:
        snapshot: how far the copy of the query's rows is, while preparing.
        rows_per_s: of this attempt; None before it has any.
    """
    return standing_line(standing(job, live, snapshot, rows_per_s))


def standing(job: Job, live: Live, snapshot: Snapshot | None, rows_per_s: float | None) -> Standing:
    """How far a job of this machine is; arguments as `progress_line`."""
    return Standing(job.id, job.status, job.total_rows, counts_of(job, live), rows_per_s, snapshot)


def standing_line(job: Standing) -> str:
    """How far a living job is, for people."""
    if job.status == "preparing" and job.snapshot is not None:
        total = f" of about {job.snapshot.total:,}" if job.snapshot.total is not None else ""
        return f"preparing: {job.snapshot.rows:,}{total} rows copied"
    if job.status == "completing":
        return "completing: publishing the result"
    if job.status != "running":
        return job.status
    done, total_rows = job.counts.total, job.total_rows or 0
    parts = [f"{done:,} of {total_rows:,} rows ({_percentage(job.status, job.total_rows, job.counts)}%)"]
    if job.rows_per_s:
        parts.append(f"{job.rows_per_s:,.0f} rows/s")
    if job.left_s is not None:
        parts.append(f"{clock(job.left_s)} left")
    return "running: " + ", ".join([*parts, f"{job.counts.rejected:,} rejected"])


def clock(seconds_left: float) -> str:
    """How long something takes, as 0:07 or 1:02:03."""
    minutes, seconds = divmod(math.ceil(seconds_left), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def title(job: Job) -> str:
    """How a job stands, in a few words."""
    return heading(job.id, job.status, job.outcome, job.seconds)


def heading(job_id: str, status: Status, outcome: str | None, seconds: Seconds) -> str:
    """How a job stands, in a few words."""
    spent = sum((seconds.prepare, seconds.run, seconds.complete))
    if status == "completed":
        rejects = " with rejects" if outcome == "with_rejects" else ""
        return f"{job_id} completed{rejects} in {_seconds(spent)}"
    return f"{job_id} {status} after {_seconds(spent)}" if status in TERMINAL else f"{job_id} {status}"


def summary(job: Job, live: Live, reasons: Sequence[Reason], log: Path) -> list[tuple[str, str]]:
    """What people want to know when a job is over, as labels and texts.

    Args:
        reasons: why rows were rejected, where that is known, the most frequent first.
        log: where the job's process wrote what else there is to know.
    """
    counts = counts_of(job, live)
    lines = []
    if job.total_rows is not None:
        lines.append(("rows", rows_text(job.total_rows, counts, kept_rows(job, live))))
    if job.already.total:
        lines.append(("", f"{job.already.total:,} of them by earlier attempts"))
    if job.status == "completed" and job.seconds.run > 0:
        lines.append(("speed", f"{(counts.total - job.already.total) / job.seconds.run:,.0f} rows/s"))
    lines += times(job.seconds)
    if job.output is not None:
        state = "" if job.status == "completed" else " (not published)"
        # A result that a failed job may have published after all is spoken of in its error.
        lines.append(("output", job.output + ("" if "visible" in (job.error or "") else state)))
    if counts.rejected and (job.status == "completed" or reasons):
        lines.append(("rejects", str(job.rejects)))
        lines += [("", reason_text(reason)) for reason in reasons]
        lines.append(("look", f"penstock jobs rejects {job.id}"))
    lines += notice_lines(job.notices)
    return lines + _remedies(job, counts, log)


def rows_text(total_rows: int, counts: Counts, kept: int | None) -> str:
    """How a job's rows add up, for people.

    Args:
        total_rows: of its input.
        counts: rows accounted for.
        kept: rows that are staged and will not be scored again; None where that is not known.
    """
    parts = f"{counts.scored:,} scored + {counts.rejected:,} rejected + {counts.skipped:,} skipped"
    if counts.total == total_rows:
        return f"{total_rows:,} = {parts}"
    kept_part = "" if kept is None else f"; {kept:,} are kept"
    return f"{total_rows:,}, of which {counts.total:,} = {parts}{kept_part}"


def notice_lines(notices: Iterable[Notice]) -> list[tuple[str, str]]:
    """What was noticed of a job's data, as labels and texts."""
    return [("notice" if at == 0 else "", str(notice)) for at, notice in enumerate(notices)]


def reason_text(reason: Reason) -> str:
    """A reason and its rows, for people."""
    return f"{reason.rows:,} × {reason.error_type}: {reason.error}"


def times(seconds: Seconds) -> list[tuple[str, str]]:
    """Where a job's time went, as labels and texts; nothing before it was spent."""
    if not any((seconds.prepare, seconds.run, seconds.complete)):
        return []
    clocked = {"prepare": seconds.prepare, "run": seconds.run, "complete": seconds.complete}
    threads = {"read": seconds.read, "score": seconds.score, "write": seconds.write}
    lines = [("time", _spent(clocked))]
    if any(threads.values()):
        lines.append(("", f"{_spent(threads)} (all threads together)"))
    return lines


def is_over_for_good(error: str | None) -> bool:
    """Whether going on would meet the same: the model or the input is, or has to be, another than was planned."""
    return error is not None and error.endswith("run the job anew")


def _remedies(job: Job, counts: Counts, log: Path) -> list[tuple[str, str]]:
    if job.status == "cancelled":
        return [("next", f"penstock resume {job.id}")]
    if job.status != "failed":
        return []
    if job.outcome == "request_wrong":
        return [("next", "correct the request and run it again"), ("log", str(log))]
    if is_over_for_good(job.error):
        return [("next", "run the job anew"), ("log", str(log))]
    if too_many_rejects(job, counts):
        return [
            ("next", "mend the rows and run the job again, or publish without them:"),
            ("", f"penstock resume {job.id} --max-reject-ratio {bearable_ratio(counts):g}"),
        ]
    return [("next", f"penstock resume {job.id}"), ("log", str(log))]


def too_many_rejects(job: Job, counts: Counts) -> bool:
    """Whether a failed job has all rows staged and only more rejects than it bears."""
    return (
        job.status == "failed"
        and job.total_rows == counts.total
        and counts.reject_ratio > job.spec.rejects.max_reject_ratio
    )


def _spent(seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {_seconds(value)}" for name, value in seconds.items())


def _seconds(value: float) -> str:
    return f"{value:.1f} s"


def aligned(rows: Iterable[Iterable[Any]], headers: Sequence[str], cell_chars: int | None = _CELL_CHARS) -> list[str]:
    """Lines of a table: a header, then the rows, columns as wide as they need; numbers to the right.

    Args:
        cell_chars: longer cells are cut to this; None leaves them whole.
    """
    values = [[_cell(value, cell_chars) for value in row] for row in rows]
    right = [bool(values) and all(_is_number(row[at]) for row in values) for at in range(len(headers))]
    table = [list(headers), *values]
    widths = [max(len(row[at]) for row in table) for at in range(len(headers))]
    return [
        "  ".join(
            cell.rjust(width) if at_right else cell.ljust(width)
            for cell, width, at_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in table
    ]


def _cell(value: Any, most_chars: int | None) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else "" if value is None else " ".join(str(value).split())
    return text if most_chars is None or len(text) <= most_chars else f"{text[: most_chars - 1]}…"


def _is_number(cell: str) -> bool:
    return not cell or cell.translate(_NUMBER_MARKS).isdecimal()


def plan_json(report: PlanReport) -> dict[str, Any]:
    """A plan as `--json` prints it."""
    from launcher.rows.values import as_json_rows  # 0.1 s, and few commands show rows

    low, high = report.seconds
    features = [{"column": each.column, "type": each.given, "fed_as": each.fed_as} for each in report.features]
    return {
        "rows": report.rows,
        "splits": report.splits,
        "features": features,
        "output": [{"column": name, "type": kind} for name, kind in report.output],
        "predictions": as_json_rows(report.predictions),
        "refused": report.refused,
        "sample_rows": report.sample_rows,
        "estimated_duration_minutes": minutes_of(report.likely_s),
        "estimated_duration_seconds": round(report.likely_s, 1),
        "sample_rejected_rows": report.sample_rejected_rows,
        "seconds": {"low": round(low, 1), "likely": round(report.likely_s, 1), "high": round(high, 1)},
        "memory_bytes": report.memory_bytes,
        "assumptions": list(report.assumptions),
        "notices": [notice.to_json() for notice in report.notices],
    }


def plan_lines(report: PlanReport) -> list[str]:
    """A plan for people."""
    from launcher.rows.values import as_shown_rows  # as above

    features = ([each.column, each.given, each.fed_as] for each in report.features)
    lines = [
        f"rows    {report.rows:,} in {report.splits:,} {'split' if report.splits == 1 else 'splits'}",
        f"time    {time_range(*report.seconds, report.likely_s)} (from a sample of {report.sample_rows:,} rows)",
        f"memory  about {report.memory_bytes / 2**30:.1f} GB",
        "",
        *aligned(features, ["feature", "is", "fed as"]),
        "",
    ]
    lines += sample_lines(report.output, as_shown_rows(report.predictions), report.refused, report.assumptions)
    return lines + noticed_lines(report.notices)


def noticed_lines(notices: Sequence[Notice]) -> list[str]:
    """What was noticed of the data while a plan was made, for people."""
    return ["", "notices", "", *map(str, notices)] if notices else []


def sample_lines(
    output: Iterable[tuple[str, str]],
    predictions: Sequence[Mapping[str, Any]],
    refused: Sequence[str],
    assumptions: Sequence[str],
) -> list[str]:
    """What a look at the first rows of a job has shown, for people.

    Args:
        output: the columns of the result, and their types.
        predictions: the first rows of the result.
        refused: why some of the rows would be rejected.
        assumptions: what has to hold for what was made of it.
    """
    lines = aligned(output, ["output", "type"])
    if predictions:
        lines += ["", "first predictions", "", *aligned((row.values() for row in predictions), list(predictions[0]))]
    if refused:
        lines += ["", "of the first rows, these would be rejected", "", *refused]
    return [*lines, "", "this rests on", "", *assumptions] if assumptions else lines


def time_range(low_s: float, high_s: float, likely_s: float) -> str:
    """How long something takes, for people."""
    return f"{_range(low_s, high_s)}, likely {duration(likely_s)}"


def _range(low_s: float, high_s: float) -> str:
    """A range of time, in minutes where they are many."""
    if high_s < 120:  # two minutes
        return f"{low_s:.0f} to {high_s:.0f} s"
    return f"{low_s / 60:.0f} to {high_s / 60:.0f} min"


def duration(seconds: float) -> str:
    """A time, in minutes where they are many."""
    return f"{seconds:,.0f} s" if seconds < 120 else f"{seconds / 60:,.0f} min"  # two minutes


def dumped(value: Any) -> str:
    """JSON on one line; what JSON cannot say (times, decimals, bytes) as text."""
    return json.dumps(value, default=str, ensure_ascii=False)
