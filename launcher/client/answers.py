"""What the service tells, as values. What a newer service tells beyond them is in `raw`, and harms nothing."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from launcher.client.errors import AnswerUnreadable
from predictors.notices import Notice

TERMINAL = frozenset({"completed", "failed", "cancelled"})

_T = TypeVar("_T")


@dataclass(frozen=True)
class Progress:
    """How much of a job is done; numbers are None while they are not known."""

    total_rows: int | None
    processed_rows: int
    percentage: int | None


@dataclass(frozen=True)
class RowCounts:
    """Rows accounted for; together they are `Progress.processed_rows`."""

    scored_rows: int
    rejected_rows: int
    skipped_rows: int


@dataclass(frozen=True)
class Output:
    """Where a result goes: the kind of place, and the place, once it is known."""

    destination: str | None
    location: str | None


@dataclass(frozen=True)
class JobStatus:
    """Where a job stands. Times are aware and UTC; what is not known, or not yet, is None.

    Args:
        job_id: which job.
        status: submitted, preparing, running, completing, completed, failed or cancelled.
        outcome: how it ended: clean or with_rejects; timed_out, out_of_memory, too_many_rejects,
            request_wrong or error.
        progress: rows done of rows to do.
        counts: rows scored, rejected and skipped.
        kept_rows: rows that are staged: a retry does not score them again.
        rows_per_second: of this attempt.
        estimated_completion: when it is likely to be over.
        error: why it failed, in one line.
        notices: what is said about its data: passed over, unified, rounded, clamped.
        output: where its result goes.
        rejects_location: where its rejected rows are.
        attempt: 1 for the first.
        retries: attempts that the service made by itself.
        next_attempt_at: it waits at least until then.
        retry_of: the job whose rejected rows it scores again.
        schedule_id, scheduled_at: the schedule that made it, and the time it was due.
        expired_at: when what the service kept of it was deleted.
        timestamps: when it last came into each state.
        seconds: where the time of its last attempt went.
        cancel_requested: it was told to stop, and has not stopped yet.
        config: how it runs.
        raw: the answer as it came.
    """

    job_id: str
    status: str
    outcome: str | None
    progress: Progress
    counts: RowCounts
    kept_rows: int | None
    rows_per_second: float | None
    started_at: datetime | None
    estimated_completion: datetime | None
    created_at: datetime | None
    finished_at: datetime | None
    error: str | None
    notices: tuple[Notice, ...]
    output: Output
    rejects_location: str | None
    name: str | None
    labels: Mapping[str, str]
    model_id: str | None
    model_version: int | None
    model_uri: str | None
    schedule_id: str | None
    scheduled_at: datetime | None
    retry_of: str | None
    attempt: int
    retries: int
    next_attempt_at: datetime | None
    input_row_count: int | None
    estimated_duration_minutes: int | None
    estimated_duration_seconds: float | None
    expired_at: datetime | None
    timestamps: Mapping[str, datetime]
    seconds: Mapping[str, float]
    cancel_requested: bool
    config: Mapping[str, Any]
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def is_over(self) -> bool:
        """Whether it has ended, well or not."""
        return self.status in TERMINAL


@dataclass(frozen=True)
class Submission:
    """What the service says when it has taken a job in.

    Args:
        job_id: which job.
        status: `submitted`.
        estimated_duration_minutes, estimated_duration_seconds, input_row_count: None where the rows were not known
            within a second.
        raw: the answer as it came.
    """

    job_id: str
    status: str
    estimated_duration_minutes: int | None
    estimated_duration_seconds: float | None
    input_row_count: int | None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True)
class Scheduled:
    """What the service says when it has taken in a job with a schedule: its id, and when it runs next."""

    schedule_id: str
    next_runs: tuple[datetime, ...]
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True)
class Event:
    """One event of a job's life, as it is told while it happens.

    Args:
        kind: `state` or `progress`; a newer service may have more.
        data: what it tells.
        id: where to go on from; None for one that is not to be resumed from.
    """

    kind: str
    data: Mapping[str, Any]
    id: str | None = None


@dataclass(frozen=True)
class Seconds:
    """How long something takes: at best, most likely, at worst."""

    low: float | None
    likely: float | None
    high: float | None


@dataclass(frozen=True)
class Sample:
    """What was tried for an estimate.

    Args:
        rows: how many.
        predictions: the first of them, scored.
        refused: why some of them would be rejected.
    """

    rows: int
    predictions: tuple[Mapping[str, Any], ...]
    refused: tuple[str, ...]


@dataclass(frozen=True)
class Column:
    """A column of a result."""

    column: str
    type: str


@dataclass(frozen=True)
class Estimate:
    """What a job would take, from a timed sample.

    Args:
        rows: of its input.
        seconds: how long it would take.
        estimated_duration_minutes, estimated_duration_seconds: how long most likely.
        memory_gb: how much memory it would take.
        assumptions: what has to hold for that, in words.
        sample: what was tried.
        output: the columns of its result.
        notices: what is said about its data.
        raw: the answer as it came.
    """

    rows: int | None
    seconds: Seconds
    memory_gb: float | None
    assumptions: tuple[str, ...]
    sample: Sample
    output: tuple[Column, ...]
    notices: tuple[Notice, ...]
    estimated_duration_minutes: int | None = None
    estimated_duration_seconds: float | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True)
class Model:
    """One version of a registered model; see the service's `ModelBody` for what the fields mean."""

    model_id: str
    version: int
    uri: str
    flavor: str | None
    features: tuple[str, ...] | Mapping[str, tuple[str, ...]] | None
    nulls: str | None
    import_path: str | None
    description: str | None
    created_at: datetime | None
    outputs: tuple[str, ...] | Mapping[str, str | tuple[str, ...]] | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True)
class Connection:
    """A registered connection. Its uri is masked: the service never tells it again."""

    name: str
    uri: str
    description: str | None
    created_at: datetime | None
    updated_at: datetime | None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True)
class Timing:
    """When a schedule runs.

    Args:
        cron: five fields.
        timezone: a name of the tz database.
        enabled: whether it runs.
        missed: what becomes of runs that were due while nobody was there to run them: run_once or skip.
        overlap: what a run does while the one before is not over: queue, skip or cancel_running.
    """

    cron: str
    timezone: str
    enabled: bool
    missed: str | None
    overlap: str | None


@dataclass(frozen=True)
class Schedule:
    """A job that runs again and again.

    Args:
        schedule_id: which schedule.
        name: what the user calls it.
        timing: when it runs.
        job: what each run submits.
        enabled: False while it is paused.
        next_runs: the next times, as far as they are told.
        last_run_at, last_job_id, last_error: of its last run.
        raw: the answer as it came.
    """

    schedule_id: str
    name: str | None
    timing: Timing
    job: Mapping[str, Any]
    enabled: bool
    next_runs: tuple[datetime, ...]
    last_run_at: datetime | None
    last_job_id: str | None
    last_error: str | None
    created_at: datetime | None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


class Told:
    """The values of an answer, by name; what is of another type than it has to be is an `AnswerUnreadable`.

    Args:
        values: a JSON object.
        request: whose answer it is, for messages.
    """

    def __init__(self, values: Any, request: str) -> None:
        if not isinstance(values, Mapping):
            raise AnswerUnreadable(request, "holds something else where an object belongs; update `penstock`")
        self.values: Mapping[str, Any] = values
        self._request = request

    def _value(self, name: str, kinds: tuple[type, ...], what: str) -> Any:
        value = self.values.get(name)
        if value is None or (isinstance(value, kinds) and not (isinstance(value, bool) and bool not in kinds)):
            return value
        raise AnswerUnreadable(self._request, f"has a {name} that is no {what}; update `penstock`")

    def text(self, name: str) -> str | None:
        """A text, or None."""
        value: str | None = self._value(name, (str,), "text")
        return value

    def needed(self, name: str) -> str:
        """A text that has to be there."""
        value = self.text(name)
        if value is None:
            raise AnswerUnreadable(self._request, f"has no {name}; is that Penstock?")
        return value

    def whole(self, name: str) -> int | None:
        """A whole number, or None."""
        value = self._value(name, (int, float), "number")
        return None if value is None or not math.isfinite(value) else int(value)

    def number(self, name: str) -> float | None:
        """A number, or None."""
        value = self._value(name, (int, float), "number")
        return None if value is None else float(value)

    def truth(self, name: str) -> bool:
        """A truth value; False where there is none."""
        return bool(self._value(name, (bool,), "truth value"))

    def time(self, name: str) -> datetime | None:
        """A time, or None."""
        text = self.text(name)
        return None if text is None else self._time(text, name)

    def times(self, name: str) -> tuple[datetime, ...]:
        """A list of times."""
        return tuple(self._time(each, name) for each in self.listed(name))

    def _time(self, text: Any, name: str) -> datetime:
        try:
            at = datetime.fromisoformat(text)
        except (TypeError, ValueError) as error:
            raise AnswerUnreadable(self._request, f"has a {name} that is no time; update `penstock`") from error
        if at.tzinfo is None:
            raise AnswerUnreadable(self._request, f"has a {name} without a time zone; update `penstock`")
        return at

    def mapping(self, name: str) -> dict[str, Any]:
        """An object; empty where there is none."""
        return dict(self._value(name, (Mapping,), "object") or {})

    def listed(self, name: str) -> list[Any]:
        """A list; empty where there is none."""
        return list(self._value(name, (list,), "list") or [])

    def inner(self, name: str) -> "Told":
        """An object, to be read likewise; empty where there is none."""
        return Told(self.mapping(name), self._request)

    def all(self, name: str, read: Callable[["Told"], _T]) -> tuple[_T, ...]:
        """A list of objects, each read by `read`."""
        return tuple(read(Told(each, self._request)) for each in self.listed(name))


def read_job(told: Told) -> JobStatus:
    """Where a job stands."""
    progress, counts, output = told.inner("progress"), told.inner("counts"), told.inner("output")
    stamps = told.inner("timestamps")
    return JobStatus(
        job_id=told.needed("job_id"),
        status=told.needed("status"),
        outcome=told.text("outcome"),
        progress=Progress(
            progress.whole("total_rows"), progress.whole("processed_rows") or 0, progress.whole("percentage")
        ),
        counts=RowCounts(*(counts.whole(name) or 0 for name in ("scored_rows", "rejected_rows", "skipped_rows"))),
        kept_rows=told.whole("kept_rows"),
        rows_per_second=told.number("rows_per_second"),
        started_at=told.time("started_at"),
        estimated_completion=told.time("estimated_completion"),
        created_at=told.time("created_at"),
        finished_at=told.time("finished_at"),
        error=told.text("error"),
        notices=_read_notices(told),
        output=Output(output.text("destination"), output.text("location")),
        rejects_location=told.text("rejects_location"),
        name=told.text("name"),
        labels={name: str(value) for name, value in told.mapping("labels").items()},
        model_id=told.text("model_id"),
        model_version=told.whole("model_version"),
        model_uri=told.text("model_uri"),
        schedule_id=told.text("schedule_id"),
        scheduled_at=told.time("scheduled_at"),
        retry_of=told.text("retry_of"),
        attempt=told.whole("attempt") or 1,
        retries=told.whole("retries") or 0,
        next_attempt_at=told.time("next_attempt_at"),
        input_row_count=told.whole("input_row_count"),
        estimated_duration_minutes=told.whole("estimated_duration_minutes"),
        estimated_duration_seconds=told.number("estimated_duration_seconds"),
        expired_at=told.time("expired_at"),
        timestamps={name: at for name in stamps.values if (at := stamps.time(name)) is not None},
        seconds={name: value for name, value in told.mapping("seconds").items() if isinstance(value, int | float)},
        cancel_requested=told.truth("cancel_requested"),
        config=told.mapping("config"),
        raw=told.values,
    )


def _read_notices(told: Told) -> tuple[Notice, ...]:
    return told.all(
        "notices", lambda each: Notice(each.needed("code"), each.text("message") or "", each.whole("count") or 1)
    )


def read_submission(told: Told) -> Submission:
    """What the service says when it has taken a job in."""
    return Submission(
        told.needed("job_id"),
        told.needed("status"),
        told.whole("estimated_duration_minutes"),
        told.number("estimated_duration_seconds"),
        told.whole("input_row_count"),
        told.values,
    )


def read_scheduled(told: Told) -> Scheduled:
    """What the service says when it has taken in a job with a schedule."""
    return Scheduled(told.needed("schedule_id"), told.times("next_runs"), told.values)


def read_estimate(told: Told) -> Estimate:
    """What a job would take."""
    seconds, sample = told.inner("seconds"), told.inner("sample")
    return Estimate(
        told.whole("rows"),
        Seconds(seconds.number("low"), seconds.number("likely"), seconds.number("high")),
        told.number("memory_gb"),
        tuple(map(str, told.listed("assumptions"))),
        Sample(
            sample.whole("rows") or 0,
            sample.all("predictions", lambda row: row.values),
            tuple(map(str, sample.listed("refused"))),
        ),
        told.all("output", lambda column: Column(column.needed("column"), column.needed("type"))),
        _read_notices(told),
        told.whole("estimated_duration_minutes"),
        told.number("estimated_duration_seconds"),
        told.values,
    )


def read_model(told: Told) -> Model:
    """One version of a model."""
    return Model(
        told.needed("model_id"),
        told.whole("version") or 1,
        told.needed("uri"),
        told.text("flavor"),
        _names(told, "features"),
        told.text("nulls"),
        told.text("import_path"),
        told.text("description"),
        told.time("created_at"),
        _names(told, "outputs"),
        told.values,
    )


def _names(told: Told, name: str) -> Any:
    """A list of names, or a mapping to them, if it is there."""
    value = told.values.get(name)
    if isinstance(value, Mapping):
        return {str(key): each if isinstance(each, str) else tuple(map(str, each)) for key, each in value.items()}
    return None if value is None else tuple(map(str, told.listed(name)))


def read_connection(told: Told) -> Connection:
    """A connection, its uri masked."""
    return Connection(
        told.needed("name"),
        told.needed("uri"),
        told.text("description"),
        told.time("created_at"),
        told.time("updated_at"),
        told.values,
    )


def read_schedule(told: Told) -> Schedule:
    """A schedule."""
    timing = told.inner("schedule")
    return Schedule(
        told.needed("schedule_id"),
        told.text("name"),
        Timing(
            timing.needed("cron"),
            timing.text("timezone") or "UTC",
            timing.truth("enabled"),
            timing.text("missed"),
            timing.text("overlap"),
        ),
        told.mapping("job"),
        told.truth("enabled"),
        told.times("next_runs"),
        told.time("last_run_at"),
        told.text("last_job_id"),
        told.text("last_error"),
        told.time("created_at"),
        told.values,
    )


# The most entries of a list that the service gives at once.
LIST_LIMIT = 500


def pages(ask: Callable[[str | None], Told], name: str) -> Iterator[Sequence[Any]]:
    """The lists of an answer that comes in pages, one after the other.

    Args:
        ask: gets the page at a cursor; None is the first.
        name: of the list.

    Raises:
        AnswerUnreadable: a page leads to itself.
    """
    cursor: str | None = None
    while True:
        told = ask(cursor)
        yield told.listed(name)
        before, cursor = cursor, told.text("next_cursor")
        if cursor is None:
            return
        if cursor == before:
            raise AnswerUnreadable(f"the list of {name}", "has the same cursor twice; it would never end")
