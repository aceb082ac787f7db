"""A body of the service's API becomes a request: plain values, or every mistake that is in it.

The values are those that `reading.json_body` gives. What stands in the store (whether a model or a connection of the
name is there) and where a path leads is not looked at here.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from launcher.cron import MissedPolicy
from launcher.request.bodies import (
    DEFAULTS,
    MAX_CHARS,
    MAX_COLUMNS,
    MAX_PATHS,
    ConnectionBody,
    Defaults,
    JobBody,
    OverlapPolicy,
    RegisteredModelBody,
    ScheduleBody,
    ScheduleChangeBody,
    ScheduledJobBody,
    TimingBody,
    schema_of,
    schemas,
)
from launcher.request.checking import (
    Between,
    checked,
    model_mistakes,
    part,
    path_mistakes,
    place_mistakes,
    schema_mistakes,
    twice_mistakes,
)
from launcher.request.messages import Location, Mistake, described, refused
from launcher.request.parts import Part, input_of, output_of
from launcher.request.paths import local_path
from launcher.request.reading import json_body
from launcher.state.job import Status
from launcher.templates import meant
from pipelines.spec import Config, Rejects
from predictors.base import ModelSpec
from predictors.flavors import flavor_of
from transforms.sinks.output import Output
from transforms.sources.input import Input

__all__ = [
    "ConnectionRequest",
    "Defaults",
    "JobRequest",
    "ModelRequest",
    "ScheduleChange",
    "ScheduleRequest",
    "Timing",
    "WebhookRequest",
    "connection_request",
    "job_request",
    "json_body",
    "model_request",
    "schedule_change_request",
    "schedule_request",
    "schema_of",
    "schemas",
]

# Where templates would name rows or a result.
_PLACES = (
    ("input", "query"),
    ("input", "path"),
    ("output", "table_name"),
    ("output", "path"),
    ("rejects", "path"),
)
_Shape = TypeVar("_Shape", bound=Part)


@dataclass(frozen=True)
class Timing:
    """When a job runs again and again.

    Args:
        cron: five fields that can be read.
        timezone: a name of the tz database.
        enabled: whether it runs.
        missed: what becomes of runs that were due while nobody was there to run them.
        overlap: what a run does while the one before is not over.
    """

    cron: str
    timezone: str = "UTC"
    enabled: bool = True
    missed: MissedPolicy = "run_once"
    overlap: OverlapPolicy = "queue"


@dataclass(frozen=True)
class WebhookRequest:
    """Who is told of which moves. Two that differ in the secret alone are equal: what is kept of a body lacks it."""

    url: str
    events: tuple[Status, ...]
    secret: str | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class JobRequest:
    """A job as it was asked for, the service's defaults filled in.

    Args:
        model_id: the registered model, or None, and then there is `model`.
        model_version: which version of it; None is the latest.
        input: of a `SqlInput`, `connection` is the name of a registered one; empty where none was named.
        output: likewise; the `path` of a `ParquetOutput` is empty where the service is to keep the result. None where
            nothing was said: the same.
        schedule: when to run it; None is now, and once.
        given: the body as it came, without the webhook's secret.
    """

    model_id: str | None
    model_version: int | None
    model: ModelSpec | None
    input: Input
    output: Output | None
    rejects: Rejects
    config: Config
    schedule: Timing | None
    webhook: WebhookRequest | None
    labels: Mapping[str, str]
    name: str | None
    given: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def to_json(self) -> dict[str, Any]:
        """The body again, nothing filled in: `job_request` makes an equal request of it. It has no secret."""
        return copy.deepcopy(dict(self.given))

    def template(self) -> dict[str, Any]:
        """The body without its schedule: what each run of a schedule submits."""
        return {name: value for name, value in self.to_json().items() if name != "schedule"}


@dataclass(frozen=True)
class ModelRequest:
    """A model to be registered.

    Args:
        import_path: the folder that a Python class is imported from.
    """

    model_id: str
    model: ModelSpec
    import_path: str | None = None
    description: str | None = None


@dataclass(frozen=True)
class ConnectionRequest:
    """A connection to be registered."""

    name: str
    uri: str = field(repr=False)
    description: str | None = None


@dataclass(frozen=True)
class ScheduleRequest:
    """A schedule to be made; `job.schedule` is None."""

    name: str | None
    schedule: Timing
    job: JobRequest


@dataclass(frozen=True)
class ScheduleChange:
    """What is to change of a schedule; None is what stays."""

    cron: str | None = None
    timezone: str | None = None
    enabled: bool | None = None
    missed: MissedPolicy | None = None
    overlap: OverlapPolicy | None = None
    job: JobRequest | None = None


def job_request(values: Any, defaults: Defaults = DEFAULTS) -> JobRequest:
    """Read the body of a job.

    With a `schedule`, its texts may hold templates; those that must be of some pattern are checked once there are none
    left in them.

    Raises:
        RequestError: names every field that is wrong.
    """
    templates = isinstance(values, Mapping) and values.get("schedule") is not None

    def between(values: Mapping[Any, Any], known: set[Location]) -> list[Mistake]:
        return _job_mistakes(values, known, (), templates)

    read = _read(JobBody, values, "input, and model_id or model", between, templates)
    return replace(_job(read, values, defaults), schedule=_timing(read.schedule) if read.schedule else None)


def model_request(values: Any) -> ModelRequest:
    """Read the body that registers a model.

    Raises:
        RequestError: names every field that is wrong.
    """
    read = _read(RegisteredModelBody, values, "model_id and uri", _model_mistakes)
    folder = None if read.import_path is None else local_path(read.import_path)
    return ModelRequest(read.model_id, read.spec(), folder, read.description)


def connection_request(values: Any) -> ConnectionRequest:
    """Read the body that registers a connection. No message shows more of its uri than `Connection.describe` does.

    Raises:
        RequestError: names every field that is wrong.
    """
    read = _read(ConnectionBody, values, "name and uri", lambda values, known: [])
    return ConnectionRequest(read.name, read.uri, read.description)


def schedule_request(values: Any, defaults: Defaults = DEFAULTS) -> ScheduleRequest:
    """Read the body that makes a schedule.

    Raises:
        RequestError: names every field that is wrong.
    """
    read = _read(ScheduleBody, values, "schedule and job", _scheduled_job_mistakes, templates=True)
    return ScheduleRequest(read.name, _timing(read.schedule), _job(read.job, values["job"], defaults))


def schedule_change_request(values: Any, defaults: Defaults = DEFAULTS) -> ScheduleChange:
    """Read the body that changes a schedule; a null says the same as leaving the field out.

    Raises:
        RequestError: names every field that is wrong.
    """
    needs = "what is to change"
    read = _read(ScheduleChangeBody, values, needs, _scheduled_job_mistakes, templates=True)
    job = _job(read.job, values["job"], defaults) if read.job else None
    return ScheduleChange(read.cron, read.timezone, read.enabled, read.missed, read.overlap, job)


def _read(shape: type[_Shape], values: Any, needs: str, between: Between, templates: bool = False) -> _Shape:
    if not isinstance(values, Mapping):
        raise refused(f"the body is {described(values, 'nothing')}, not a JSON object; it needs {needs}")
    return checked(shape, values, between, templates=templates)


# --- what is wrong though each field is right ----------------------------------------------------------------------


def _job_mistakes(values: Mapping[Any, Any], known: set[Location], at: Location, templates: bool) -> list[Mistake]:
    """What is wrong with a job that stands at `at`, its fields taken together."""
    output = part(values, "output")
    has_id, has_model = values.get("model_id") is not None, values.get("model") is not None
    mistakes = model_mistakes(part(values, "model"), known, (*at, "model"), templates, MAX_CHARS, MAX_COLUMNS)
    mistakes += path_mistakes(part(values, "input"), (*at, "input"), MAX_CHARS, MAX_PATHS)
    mistakes += schema_mistakes(part(values, "input"), (*at, "input"), MAX_CHARS, MAX_COLUMNS)
    for name in ("output", "rejects"):
        mistakes += place_mistakes(part(values, name).get("path"), (*at, name, "path"))
    if not templates:
        mistakes += _template_mistakes(values, at)
    mistakes += twice_mistakes(output.get("columns"), (*at, "output", "columns"), "column")
    mistakes += twice_mistakes(part(values, "webhook").get("events"), (*at, "webhook", "events"), "state")
    if has_id and has_model:
        mistakes.append(Mistake((*at, "model"), "stands beside model_id; keep one of them"))
    if not has_id and not has_model and (*at, "model_id") not in known:
        line = "is missing; write the id of a registered model, or model in its place"
        mistakes.append(Mistake((*at, "model_id"), line))
    if has_model and not has_id and values.get("model_version") is not None:
        mistakes.append(Mistake((*at, "model_version"), "belongs to model_id, and there is none; take it out"))
    return mistakes


def _template_mistakes(values: Mapping[Any, Any], at: Location) -> list[Mistake]:
    """The places of rows whose texts hold templates, which nobody fills in without a schedule."""
    mistakes = []
    for name, key in _PLACES:
        place = part(values, name).get(key)
        for text in place if isinstance(place, list) else [place]:
            template = meant(text) if isinstance(text, str) else None
            if template is not None:
                line = f"has {template}, and the job has no schedule that would fill it in; add one, or write its value"
                mistakes.append(Mistake((*at, name, key), line))
                break
    return mistakes


def _scheduled_job_mistakes(values: Mapping[Any, Any], known: set[Location]) -> list[Mistake]:
    job = values.get("job")
    return _job_mistakes(job, known, ("job",), templates=True) if isinstance(job, dict) else []


def _model_mistakes(values: Mapping[Any, Any], known: set[Location]) -> list[Mistake]:
    mistakes = model_mistakes(values, known, (), False, MAX_CHARS, MAX_COLUMNS)
    uri, flavor = values.get("uri"), values.get("flavor")
    if flavor is None and isinstance(uri, str):
        flavor = flavor_of(uri)
    if values.get("import_path") is not None and flavor == "onnx":
        line = "is where a Python class is imported from, and this is an ONNX model; take it out"
        mistakes.append(Mistake(("import_path",), line))
    return mistakes + place_mistakes(values.get("import_path"), ("import_path",))


# --- from what pydantic read to what the service uses --------------------------------------------------------------


def _job(read: ScheduledJobBody, values: Mapping[str, Any], defaults: Defaults) -> JobRequest:
    webhook = None
    if read.webhook:
        webhook = WebhookRequest(read.webhook.url, tuple(read.webhook.events), read.webhook.secret)
    return JobRequest(
        model_id=read.model_id,
        model_version=read.model_version,
        model=read.model.spec() if read.model else None,
        input=input_of(read.input),
        output=None if read.output is None else output_of(read.output),
        rejects=_rejects(read, defaults),
        config=replace(defaults.config, **read.config.given()),
        schedule=None,
        webhook=webhook,
        labels=read.labels,
        name=read.name,
        given=_without_secret(values),
    )


def _rejects(read: ScheduledJobBody, defaults: Defaults) -> Rejects:
    rejects = replace(defaults.rejects, **read.rejects.model_dump(exclude_unset=True))
    return rejects if rejects.path is None else replace(rejects, path=local_path(rejects.path))


def _without_secret(values: Mapping[str, Any]) -> dict[str, Any]:
    kept = copy.deepcopy(dict(values))
    if kept.get("webhook"):
        kept["webhook"].pop("secret", None)
    return kept


def _timing(read: TimingBody) -> Timing:
    return Timing(read.cron, read.timezone, read.enabled, read.missed, read.overlap)
