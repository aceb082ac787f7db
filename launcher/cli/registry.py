"""What the commands do that ask a service for models, connections and schedules. Each returns the exit code."""

import getpass
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Protocol, TypeVar

from launcher.cli.exits import DONE
from launcher.cli.remote import Service, followed
from launcher.client import Connection, Misconfigured, Model, Schedule
from launcher.errors import Problem, RequestError
from launcher.report import aligned, dumped, second
from launcher.screen import print_summary

__all__ = [
    "ModelOptions",
    "Service",
    "TimingOptions",
    "create_schedule",
    "delete_connection",
    "delete_model",
    "delete_schedule",
    "list_connections",
    "list_models",
    "list_schedules",
    "pause_schedule",
    "register_model",
    "resume_schedule",
    "run_schedule",
    "set_connection",
    "show_connection",
    "show_model",
    "show_schedule",
]

# Lists are told to machines as the service tells them; a uri is a line.
_MAX_URI_CHARS = 8_192


class _Raw(Protocol):
    @property
    def raw(self) -> Mapping[str, Any]: ...


_R = TypeVar("_R", bound=_Raw)


@dataclass(frozen=True)
class ModelOptions:
    """How a model is fed; None is for the service to decide."""

    flavor: str | None
    features: Sequence[str] | Mapping[str, Sequence[str]] | None
    nulls: str | None
    outputs: Sequence[str] | Mapping[str, str | Sequence[str]] | None
    import_path: str | None
    description: str | None


def features_of(options: Sequence[str] | None) -> Any:
    """`--features a,b` as a list, `--features num=a,b --features cat=c` as a mapping; None where nothing is given."""
    listed, mapped = _names(options)
    if mapped and listed:
        line = f"names {', '.join(listed)} for no input; write INPUT=COLUMN,… for each input, or columns alone"
        raise RequestError([Problem("--features", line)])
    return mapped or listed or None


def outputs_of(options: Sequence[str] | None) -> Any:
    """`--outputs a,b` as a list; with `--outputs a=column` or `--outputs a=column,column` among them, a mapping."""
    listed, mapped = _names(options)
    if not mapped:
        return listed or None
    renamed = {name: columns[0] if len(columns) == 1 else columns for name, columns in mapped.items()}
    return {**{name: name for name in listed}, **renamed}


def _names(options: Sequence[str] | None) -> tuple[list[str], dict[str, list[str]]]:
    """Options that are names, and those that give names to something."""
    listed: list[str] = []
    mapped: dict[str, list[str]] = {}
    for option in options or ():
        name, equals, rest = option.partition("=")
        names = [each.strip() for each in (rest if equals else option).split(",") if each.strip()]
        if equals:
            mapped.setdefault(name.strip(), []).extend(names)
        else:
            listed += names
    return listed, mapped


def _listed(names: Any) -> str | None:
    """Features or outputs on one line."""
    if isinstance(names, Mapping):
        pairs = names.items()
        return "; ".join(f"{name} = {each if isinstance(each, str) else ', '.join(each)}" for name, each in pairs)
    return None if names is None else ", ".join(names)


@dataclass(frozen=True)
class TimingOptions:
    """When a schedule runs; None is for the service to decide."""

    cron: str | None
    timezone: str | None
    missed: str | None
    overlap: str | None


# --- models --------------------------------------------------------------------------------------------------------


def list_models(service: Service, limit: int, as_json: bool) -> int:
    """List models."""
    with service.client() as client:
        return _list(client.models.list(), limit, "models", _model_cells, _MODEL_HEADERS, as_json)


def show_model(service: Service, model_id: str, version: int | None, as_json: bool) -> int:
    """Show a model."""
    with service.client() as client:
        model = client.models.get(model_id, version)
        others = (
            [] if version is not None or as_json else [str(each.version) for each in client.models.versions(model_id)]
        )
    _show(
        model,
        f"{model.model_id} version {model.version}",
        [*_model_lines(model), ("versions", ", ".join(others))],
        as_json,
    )
    return DONE


def register_model(service: Service, model_id: str, uri: str, options: ModelOptions, as_json: bool) -> int:
    """Register a model."""
    with service.client() as client:
        model = client.models.register(model_id, uri, **asdict(options))
    _show(model, f"{model.model_id} version {model.version} is registered", _model_lines(model), as_json)
    return DONE


def delete_model(service: Service, model_id: str, version: int | None) -> int:
    """Delete a model, or one version of it."""
    with service.client() as client:
        client.models.delete(model_id, version)
    print(f"{model_id} is deleted" if version is None else f"{model_id} version {version} is deleted")
    return DONE


_MODEL_HEADERS = ("model", "version", "flavor", "uri", "created")


def _model_cells(model: Model) -> list[Any]:
    return [model.model_id, model.version, model.flavor, model.uri, _second(model.created_at)]


def _model_lines(model: Model) -> list[tuple[str, str | None]]:
    return [
        ("uri", model.uri),
        ("flavor", model.flavor),
        ("features", _listed(model.features)),
        ("nulls", model.nulls),
        ("outputs", _listed(model.outputs)),
        ("imported from", model.import_path),
        ("description", model.description),
        ("created", _second(model.created_at)),
    ]


# --- connections ---------------------------------------------------------------------------------------------------


def list_connections(service: Service, limit: int, as_json: bool) -> int:
    """List connections."""
    with service.client() as client:
        return _list(client.connections.list(), limit, "connections", _connection_cells, _CONNECTION_HEADERS, as_json)


def show_connection(service: Service, name: str, as_json: bool) -> int:
    """Show a connection."""
    with service.client() as client:
        connection = client.connections.get(name)
    _show(connection, connection.name, _connection_lines(connection), as_json)
    return DONE


def set_connection(service: Service, name: str, uri_env: str | None, description: str | None, as_json: bool) -> int:
    """Register a connection."""
    uri = _uri(uri_env)
    with service.client() as client:
        connection = client.connections.set(name, uri, description=description)
    _show(connection, f"{connection.name} is registered", _connection_lines(connection), as_json)
    return DONE


def delete_connection(service: Service, name: str) -> int:
    """Forget a connection."""
    with service.client() as client:
        client.connections.delete(name)
    print(f"{name} is deleted")
    return DONE


_CONNECTION_HEADERS = ("connection", "uri", "description", "updated")


def _connection_cells(connection: Connection) -> list[Any]:
    updated = _second(connection.updated_at)
    return [connection.name, connection.uri, connection.description, updated]


def _connection_lines(connection: Connection) -> list[tuple[str, str | None]]:
    return [
        ("uri", connection.uri),
        ("description", connection.description),
        ("updated", _second(connection.updated_at)),
    ]


def _uri(variable: str | None) -> str:
    """The secret, from where nobody else sees it."""
    if variable is not None:
        uri = os.environ.get(variable, "")
        if not uri.strip():
            raise Misconfigured(f"the variable {variable} that --uri-env names is not set")
        return uri.strip()
    if sys.stdin.isatty():
        uri = getpass.getpass("uri: ")
    else:
        uri = sys.stdin.read(_MAX_URI_CHARS)
    if not uri.strip():
        raise Misconfigured("the standard input has no uri; write it there, or name a variable by --uri-env")
    return uri.strip()


# --- schedules -----------------------------------------------------------------------------------------------------


def list_schedules(service: Service, limit: int, as_json: bool) -> int:
    """List schedules."""
    with service.client() as client:
        return _list(client.schedules.list(), limit, "schedules", _schedule_cells, _SCHEDULE_HEADERS, as_json)


def show_schedule(service: Service, schedule_id: str, as_json: bool) -> int:
    """Show a schedule."""
    with service.client() as client:
        schedule = client.schedules.get(schedule_id)
    lines = [*_schedule_lines(schedule), ("job", dumped(schedule.job))]
    _show(schedule, _schedule_heading(schedule), lines, as_json)
    return DONE


def create_schedule(
    service: Service,
    spec: str,
    timing: TimingOptions,
    name: str | None,
    idempotency_key: str | None,
    as_json: bool,
) -> int:
    """Make a schedule: of a job and the options or, without --cron, of a file that has both."""
    from launcher.request import read_body

    body = read_body(spec)
    given = {key: value for key, value in asdict(timing).items() if value is not None}
    if timing.cron is not None:
        if "schedule" in body:
            raise Misconfigured(f"{spec} has a schedule already; take it out, or leave out --cron")
        body = {"schedule": given, "job": body}
    elif given:
        raise Misconfigured(f"--{next(iter(given))} goes with --cron; write it into {spec}, or give --cron")
    elif "schedule" not in body or "job" not in body:
        raise Misconfigured(f"{spec} needs schedule and job; for a job alone, give --cron")
    with service.client() as client:
        schedule = client.schedules.create_from(body if name is None else {**body, "name": name}, idempotency_key)
    _show(schedule, _schedule_heading(schedule), _schedule_lines(schedule), as_json)
    return DONE


def pause_schedule(service: Service, schedule_id: str, as_json: bool) -> int:
    """Have a schedule not run."""
    with service.client() as client:
        schedule = client.schedules.pause(schedule_id)
    _show(schedule, _schedule_heading(schedule), _schedule_lines(schedule), as_json)
    return DONE


def resume_schedule(service: Service, schedule_id: str, as_json: bool) -> int:
    """Have a schedule run again."""
    with service.client() as client:
        schedule = client.schedules.resume(schedule_id)
    _show(schedule, _schedule_heading(schedule), _schedule_lines(schedule), as_json)
    return DONE


def run_schedule(service: Service, schedule_id: str, wait: bool, as_json: bool) -> int:
    """Run a schedule's job now."""
    with service.client() as client:
        return followed(service, client.schedules.run(schedule_id), wait, as_json)


def delete_schedule(service: Service, schedule_id: str) -> int:
    """Delete a schedule."""
    with service.client() as client:
        client.schedules.delete(schedule_id)
    print(f"{schedule_id} is deleted")
    return DONE


_SCHEDULE_HEADERS = ("schedule", "name", "cron", "timezone", "state", "next run", "last job")


def _schedule_cells(schedule: Schedule) -> list[Any]:
    following = second(schedule.next_runs[0]) if schedule.next_runs else None
    timing = schedule.timing
    state = _state(schedule)
    return [schedule.schedule_id, schedule.name, timing.cron, timing.timezone, state, following, schedule.last_job_id]


def _schedule_lines(schedule: Schedule) -> list[tuple[str, str | None]]:
    timing = schedule.timing
    runs = [("next" if n == 0 else "", second(at)) for n, at in enumerate(schedule.next_runs)]
    return [
        ("name", schedule.name),
        ("cron", f"{timing.cron} ({timing.timezone})"),
        ("missed", timing.missed),
        ("overlap", timing.overlap),
        *runs,
        ("last run", _second(schedule.last_run_at)),
        ("last job", schedule.last_job_id),
        ("last error", schedule.last_error),
    ]


def _schedule_heading(schedule: Schedule) -> str:
    return f"{schedule.schedule_id} is {_state(schedule)}"


def _state(schedule: Schedule) -> str:
    return "enabled" if schedule.enabled else "paused"


def _second(at: datetime | None) -> str | None:
    return None if at is None else second(at)


# --- all of them ---------------------------------------------------------------------------------------------------


def _list(
    found: Iterable[_R],
    limit: int,
    name: str,
    cells: Callable[[_R], list[Any]],
    headers: Sequence[str],
    as_json: bool,
) -> int:
    shown = list(islice(found, limit))
    if as_json:
        print(dumped({name: [each.raw for each in shown]}))
    elif not shown:
        print(f"no {name}")
    else:
        # Ids and uris are to be copied whole.
        print("\n".join(aligned(map(cells, shown), headers, cell_chars=None)))
    return DONE


def _show(each: _Raw, heading: str, lines: Iterable[tuple[str, str | None]], as_json: bool) -> None:
    if as_json:
        print(dumped(each.raw))
    else:
        print_summary(heading, [(label, text) for label, text in lines if text], "completed")
