"""The shapes of the answers, for OpenAPI. Answers are not made from them: a test holds the two together."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from launcher.state.job import Outcome, Status

# RFC 3339, in UTC.
Time = Annotated[
    str,
    Field(
        pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{3})?Z$",
        json_schema_extra={"format": "date-time"},
        examples=["2025-03-15T10:00:00Z"],
    ),
]
Rows = Annotated[int, Field(ge=0, examples=[500_000])]


class Answer(BaseModel):
    """An object of which every key is known."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)


class ProblemField(Answer):
    """One mistake of a request."""

    field: Annotated[str, Field(description="Where; empty: the whole request.", examples=["config.batch_size"])]
    message: Annotated[
        str, Field(description="The rest of the sentence.", examples=["is 0; use a whole number of at least 1"])
    ]


class ProblemDetails(Answer):
    """What is wrong, and what to do (RFC 9457)."""

    type: Annotated[str, Field(examples=["https://penstock.dev/problems/not-found"])]
    title: Annotated[str, Field(examples=["There is no such thing"])]
    status: Annotated[int, Field(ge=400, le=599, examples=[404])]
    detail: Annotated[str, Field(examples=["there is no job 'batch-0123456789'; `penstock jobs list` shows all"])]
    instance: Annotated[str, Field(examples=["/api/v1/inference/batch/batch-0123456789"])]
    errors: Annotated[
        list[ProblemField], Field(default_factory=list, description="Each mistake; of invalid requests only.")
    ]
    remedy: Annotated[str, Field(examples=["`penstock jobs list` shows all."])]


class SubmittedJob(Answer):
    """A job that waits in the queue."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "job_id": "batch-0123456789",
                    "status": "submitted",
                    "estimated_duration_minutes": 15,
                    "estimated_duration_seconds": 870.0,
                    "input_row_count": 500_000,
                }
            ]
        }
    )

    job_id: Annotated[str, Field(examples=["batch-0123456789"])]
    status: Literal["submitted"]
    estimated_duration_minutes: Annotated[
        int | None,
        Field(description="From its start to its end; null if its rows were not known within a second.", examples=[15]),
    ]
    estimated_duration_seconds: Annotated[float | None, Field(ge=0, description="The same.", examples=[870.0])]
    input_row_count: Annotated[
        Rows | None, Field(description="Null if it was not known within a second; the job has it later.")
    ]


class ScheduledJob(Answer):
    """A job that will be run again and again."""

    job_id: None
    status: Literal["scheduled"]
    estimated_duration_minutes: None
    estimated_duration_seconds: None
    input_row_count: None
    schedule_id: Annotated[str, Field(examples=["sched-0123456789"])]
    next_runs: Annotated[list[Time], Field(description="The next five; none while it is paused.")]


class Progress(Answer):
    """How far a job is."""

    total_rows: Annotated[Rows | None, Field(description="Null until it is known.")]
    processed_rows: Annotated[Rows, Field(description="Scored, rejected or skipped; it never falls.")]
    percentage: Annotated[int | None, Field(ge=0, le=100, examples=[65])]


class JobCounts(Answer):
    """Where the rows went; they add up to `processed_rows`."""

    scored_rows: Rows
    rejected_rows: Rows
    skipped_rows: Rows


class OutputPlace(Answer):
    """Where the result is, or will be."""

    destination: Literal["table", "parquet"]
    location: Annotated[
        str | None,
        Field(description="A table, a folder, or a path of this API.", examples=["predictions.churn_scores"]),
    ]


class JobSeconds(Answer):
    """Where the time of the last attempt went; the last three are added up over threads."""

    prepare: Annotated[float, Field(ge=0)]
    run: Annotated[float, Field(ge=0)]
    complete: Annotated[float, Field(ge=0)]
    read: Annotated[float, Field(ge=0)]
    score: Annotated[float, Field(ge=0)]
    write: Annotated[float, Field(ge=0)]


class JobConfig(Answer):
    """How a job runs."""

    batch_size: int
    parallelism: int
    max_memory_gb: float
    timeout_minutes: float
    retry_count: int
    runner: Literal["direct"]


class JobLinks(Answer):
    """Paths of this API about the job."""

    self: str
    events: str
    logs: str
    rejects: str
    results: str


class JobNotice(Answer):
    """What is said about data that was passed over, unified, rounded or clamped."""

    code: Annotated[str, Field(examples=["files_passed_over"])]
    message: str
    count: Annotated[int, Field(ge=1, description="Of files, rows or values, as the message says.")]


class JobAnswer(Answer):
    """A job."""

    job_id: Annotated[str, Field(examples=["batch-0123456789"])]
    status: Annotated[Status, Field(examples=["running"])]
    outcome: Annotated[Outcome | None, Field(description="How it ended.", examples=["with_rejects"])]
    progress: Progress
    started_at: Time | None
    estimated_completion: Annotated[Time | None, Field(description="If it goes on as it did.")]
    name: str | None
    labels: dict[str, str]
    model_id: str | None
    model_version: int | None
    model_uri: Annotated[str, Field(examples=["/models/churn.onnx"])]
    schedule_id: str | None
    scheduled_at: Annotated[Time | None, Field(description="The time that its schedule made it for.")]
    retry_of: Annotated[str | None, Field(description="The job whose rejected rows it scores again.")]
    attempt: Annotated[int, Field(ge=1)]
    retries: Annotated[int, Field(ge=0, description="Attempts made without being asked, since it was last asked for.")]
    next_attempt_at: Time | None
    counts: JobCounts
    kept_rows: Annotated[Rows | None, Field(description="Staged: they are not scored again.")]
    rows_per_second: Annotated[float | None, Field(ge=0, examples=[41_000.0])]
    input_row_count: Rows | None
    estimated_duration_minutes: Annotated[int | None, Field(ge=1, examples=[15])]
    estimated_duration_seconds: Annotated[
        float | None, Field(ge=0, description="As estimated when its rows became known.", examples=[870.0])
    ]
    error: Annotated[str | None, Field(description="Why it failed, in one line.")]
    notices: list[JobNotice]
    output: OutputPlace
    rejects_location: str | None
    created_at: Time
    finished_at: Time | None
    expired_at: Annotated[Time | None, Field(description="When what the service kept of it was deleted.")]
    timestamps: Annotated[dict[Status, Time], Field(description="When it last came into each state.")]
    seconds: JobSeconds
    cancel_requested: bool
    config: JobConfig
    links: JobLinks


class JobPage(Answer):
    """Jobs, the newest first."""

    jobs: list[JobAnswer]
    next_cursor: Annotated[str | None, Field(description="Null on the last page.")]


class StateEvent(Answer):
    """The data of an event `state`; its id is the number of the move."""

    job_id: str
    status: Status
    previous_status: Status | None
    reason: str
    attempt: int
    at: Time


class LogPage(Answer):
    """Lines of a job's log."""

    lines: Annotated[list[str], Field(examples=[['{"level": "INFO", "message": "100 rows", "attempt": 1}']])]
    next_offset: Annotated[int, Field(ge=0, description="`offset` of the next request.")]
    complete: Annotated[bool, Field(description="The job is over, and there is no more.")]


class RowPage(Answer):
    """Rows of a table."""

    rows: Annotated[list[dict[str, Any]], Field(examples=[[{"customer_id": 17, "churn": 0.25}]])]
    next_cursor: Annotated[str | None, Field(description="Null on the last page.")]


class EstimateSeconds(Answer):
    """How long the job would take."""

    low: Annotated[float, Field(ge=0)]
    likely: Annotated[float, Field(ge=0)]
    high: Annotated[float, Field(ge=0)]


class EstimateSample(Answer):
    """What was tried: the first rows."""

    rows: Rows
    predictions: list[dict[str, Any]]
    refused: Annotated[list[str], Field(description="Why some of them could not be scored.")]


class OutputColumn(Answer):
    """A column of the result, and its Arrow type."""

    column: Annotated[str, Field(examples=["churn"])]
    type: Annotated[str, Field(examples=["float"])]


class EstimateAnswer(Answer):
    """What a job would take."""

    rows: Rows
    estimated_duration_minutes: Annotated[int, Field(ge=1, examples=[15])]
    estimated_duration_seconds: Annotated[float, Field(ge=0, description="The likely ones.", examples=[870.0])]
    seconds: EstimateSeconds
    memory_gb: Annotated[float, Field(ge=0)]
    assumptions: list[str]
    sample: EstimateSample
    output: list[OutputColumn]
    notices: list[JobNotice]


class ModelAnswer(Answer):
    """A version of a registered model."""

    model_id: Annotated[str, Field(examples=["churn"])]
    version: Annotated[int, Field(ge=1, examples=[3])]
    uri: Annotated[str, Field(examples=["/models/churn.onnx"])]
    flavor: Literal["onnx", "python"]
    features: Annotated[list[str] | dict[str, list[str]] | None, Field(examples=[["tenure", "monthly_charges"]])]
    nulls: Annotated[str, Field(examples=["reject"])]
    outputs: Annotated[list[str] | dict[str, str | list[str]] | None, Field(examples=[{"variable": "churn_score"}])]
    import_path: str | None
    description: str | None
    created_at: Time


class ModelPage(Answer):
    """The newest version of each model, by id."""

    models: list[ModelAnswer]
    next_cursor: str | None


class ModelVersions(Answer):
    """All versions of a model, the newest first."""

    versions: list[ModelAnswer]


class ConnectionAnswer(Answer):
    """A connection, without its secrets."""

    name: Annotated[str, Field(examples=["warehouse"])]
    uri: Annotated[str, Field(examples=["postgresql://*****:*****@db.example.com/warehouse"])]
    description: str | None
    created_at: Time
    updated_at: Time


class ConnectionPage(Answer):
    """Connections, by name."""

    connections: list[ConnectionAnswer]
    next_cursor: str | None


class TimingAnswer(Answer):
    """When a schedule is due."""

    cron: Annotated[str, Field(examples=["0 2 * * *"])]
    timezone: Annotated[str, Field(examples=["Europe/Berlin"])]
    enabled: bool
    missed: Literal["run_once", "skip"]
    overlap: Literal["queue", "skip", "cancel_running"]


class ScheduleAnswer(Answer):
    """A schedule."""

    schedule_id: Annotated[str, Field(examples=["sched-0123456789"])]
    name: str | None
    schedule: TimingAnswer
    job: Annotated[dict[str, Any], Field(description="The body that each run submits, without its webhook's secret.")]
    enabled: bool
    next_runs: Annotated[list[Time], Field(description="The next five; none while it is paused.")]
    last_run_at: Time | None
    last_job_id: str | None
    last_error: Annotated[str | None, Field(description="Why no job was made of the time that was due last.")]
    created_at: Time


class SchedulePage(Answer):
    """Schedules, the newest first."""

    schedules: list[ScheduleAnswer]
    next_cursor: str | None


class Health(Answer):
    """The process lives."""

    status: Literal["ok"]


class Readiness(Answer):
    """Whether jobs can be taken and started."""

    status: Literal["ready", "not_ready"]
    store: Literal["ok", "unavailable"]
    fork_server: Literal["warm", "cold"]
    disk: Literal["ok", "unusable"]
    reason: str | None
