"""The commands that ask a service: jobs are submitted and steered, and what jobs name is registered."""

import enum
from typing import Annotated

import typer

from launcher.cli.arguments import (
    Body,
    IdempotencyKey,
    JobId,
    Json,
    KeyFile,
    Limit,
    Server,
    ServerOrHere,
    is_here,
)

__all__ = ["add_commands"]

_Wait = Annotated[bool, typer.Option("--wait", help="Wait for its end, and show how far it is. Ctrl-C leaves it.")]
_ScheduleId = Annotated[str, typer.Argument(metavar="SCHEDULE", help="As `penstock schedules list` shows it.")]
_ModelId = Annotated[str, typer.Argument(metavar="MODEL", help="What jobs call it.")]
_Version = Annotated[int | None, typer.Option(min=1, help="Which version.")]
_Name = Annotated[str, typer.Argument(metavar="NAME", help="What jobs call it.")]
_Description = Annotated[str | None, typer.Option(help="For people.")]


class _Only(enum.Enum):
    """The rows that a retry is about."""

    rejected = "rejected"


def _group(help: str) -> typer.Typer:
    return typer.Typer(help=help, no_args_is_help=True, rich_markup_mode=None)


models_app = _group("Register models with a service, list and delete them.")
connections_app = _group("Register databases with a service, list and delete them.")
schedules_app = _group("Have a service run jobs again and again.")


def add_commands(app: typer.Typer) -> None:
    """Add all of them to the program."""
    for command in (submit, estimate, cancel, retry, logs):
        app.command()(command)
    app.add_typer(models_app, name="models")
    app.add_typer(connections_app, name="connections")
    app.add_typer(schedules_app, name="schedules")


# --- jobs ----------------------------------------------------------------------------------------------------------


def submit(
    spec: Body,
    wait: _Wait = False,
    idempotency_key: IdempotencyKey = None,
    server: Server = None,
    api_key_file: KeyFile = None,
    as_json: Json = False,
) -> int:
    """Submit a job to a service. One with a schedule is run again and again."""
    from launcher.cli import remote

    return remote.submit(remote.Service(server, api_key_file), spec, wait, idempotency_key, as_json)


def estimate(spec: Body, server: Server = None, api_key_file: KeyFile = None, as_json: Json = False) -> int:
    """Ask a service what a job would take: rows, time, memory. Nothing is written."""
    from launcher.cli import remote

    return remote.estimate(remote.Service(server, api_key_file), spec, as_json)


def cancel(job_id: JobId, server: Server = None, api_key_file: KeyFile = None, as_json: Json = False) -> int:
    """Cancel a service's job. It ends within five seconds; what is staged is kept for a retry."""
    if is_here(job_id, server, api_key_file):
        from launcher.cli import here

        here.refuse(job_id, "cancel")
    from launcher.cli import remote

    return remote.cancel(remote.Service(server, api_key_file), job_id, as_json)


def retry(
    job_id: JobId,
    only: Annotated[
        _Only | None, typer.Option(help="Score only the rows again that it rejected, as another job.")
    ] = None,
    max_reject_ratio: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Bear this share of rejected rows from now on.")
    ] = None,
    wait: _Wait = False,
    server: Server = None,
    api_key_file: KeyFile = None,
    as_json: Json = False,
) -> int:
    """Go on with a service's job that failed or was cancelled. Staged rows are not scored again."""
    if is_here(job_id, server, api_key_file):
        from launcher.cli import here

        here.refuse(job_id, "retry")
    from launcher.cli import remote

    service = remote.Service(server, api_key_file)
    return remote.retry(service, job_id, only is _Only.rejected, max_reject_ratio, wait, as_json)


def logs(
    job_id: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job is over.")] = False,
    tail: Annotated[int | None, typer.Option(min=1, max=10_000, help="Only the last lines.")] = None,
    server: ServerOrHere = None,
    api_key_file: KeyFile = None,
    as_json: Json = False,
) -> int:
    """Print the log of a job, for people; --json keeps the lines as they are."""
    if is_here(job_id, server, api_key_file):
        from launcher.cli import here

        return here.logs(job_id, follow, tail, as_json)
    from launcher.cli import remote

    return remote.logs(remote.Service(server, api_key_file), job_id, follow, tail, as_json)


# --- models --------------------------------------------------------------------------------------------------------


@models_app.command("list")
def list_models(limit: Limit = 500, server: Server = None, api_key_file: KeyFile = None, as_json: Json = False) -> int:
    """List models, the newest version of each."""
    from launcher.cli import registry

    return registry.list_models(registry.Service(server, api_key_file), limit, as_json)


@models_app.command("show")
def show_model(
    model_id: _ModelId,
    version: _Version = None,
    server: Server = None,
    api_key_file: KeyFile = None,
    as_json: Json = False,
) -> int:
    """Show a model; without --version the newest one, and which there are."""
    from launcher.cli import registry

    return registry.show_model(registry.Service(server, api_key_file), model_id, version, as_json)


@models_app.command("register")
def register_model(
    model_id: _ModelId,
    uri: Annotated[str, typer.Argument(metavar="URI", help="A file that the service can read, or module:Class.")],
    flavor: Annotated[str | None, typer.Option(help="onnx or python; found out from the uri where it tells.")] = None,
    features: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN,…", help="The columns that it reads, in its order, or INPUT=COLUMN,…; may be repeated."
        ),
    ] = None,
    nulls: Annotated[str | None, typer.Option(help="What a null or NaN among them does: reject, pass or fail.")] = None,
    outputs: Annotated[
        list[str] | None,
        typer.Option(metavar="OUTPUT,…", help="The outputs that become columns, or OUTPUT=COLUMN,…; may be repeated."),
    ] = None,
    import_path: Annotated[str | None, typer.Option(help="The folder that the module is imported from.")] = None,
    description: _Description = None,
    server: Server = None,
    api_key_file: KeyFile = None,
    as_json: Json = False,
) -> int:
    """Register a model, or a further version of one."""
    from launcher.cli import registry

    columns, kept = registry.features_of(features), registry.outputs_of(outputs)
    return registry.register_model(
        registry.Service(server, api_key_file),
        model_id,
        uri,
        registry.ModelOptions(flavor, columns, nulls, kept, import_path, description),
        as_json,
    )


@models_app.command("delete")
def delete_model(
    model_id: _ModelId, version: _Version = None, server: Server = None, api_key_file: KeyFile = None
) -> int:
    """Delete a model, or one version of it. One that is in use stays."""
    from launcher.cli import registry

    return registry.delete_model(registry.Service(server, api_key_file), model_id, version)


# --- connections ---------------------------------------------------------------------------------------------------


@connections_app.command("list")
def list_connections(
    limit: Limit = 500, server: Server = None, api_key_file: KeyFile = None, as_json: Json = False
) -> int:
    """List connections, without their secrets."""
    from launcher.cli import registry

    return registry.list_connections(registry.Service(server, api_key_file), limit, as_json)


@connections_app.command("show")
def show_connection(name: _Name, server: Server = None, api_key_file: KeyFile = None, as_json: Json = False) -> int:
    """Show a connection, without its secrets."""
    from launcher.cli import registry

    return registry.show_connection(registry.Service(server, api_key_file), name, as_json)


@connections_app.command("set")
def set_connection(
    name: _Name,
    # No argument: every user of the machine sees the words of a command.
    uri_env: Annotated[
        str | None,
        typer.Option(metavar="VARIABLE", help="Take the uri from this variable.  [default: read from stdin]"),
    ] = None,
    description: _Description = None,
    server: Server = None,
    api_key_file: KeyFile = None,
    as_json: Json = False,
) -> int:
    """Register a database under a name, in place of the one that has it. Its uri is a secret, and not an argument."""
    from launcher.cli import registry

    return registry.set_connection(registry.Service(server, api_key_file), name, uri_env, description, as_json)


@connections_app.command("delete")
def delete_connection(name: _Name, server: Server = None, api_key_file: KeyFile = None) -> int:
    """Forget a connection. One that is in use stays."""
    from launcher.cli import registry

    return registry.delete_connection(registry.Service(server, api_key_file), name)


# --- schedules -----------------------------------------------------------------------------------------------------


@schedules_app.command("list")
def list_schedules(
    limit: Limit = 500, server: Server = None, api_key_file: KeyFile = None, as_json: Json = False
) -> int:
    """List schedules, the newest first."""
    from launcher.cli import registry

    return registry.list_schedules(registry.Service(server, api_key_file), limit, as_json)


@schedules_app.command("show")
def show_schedule(
    schedule_id: _ScheduleId, server: Server = None, api_key_file: KeyFile = None, as_json: Json = False
) -> int:
    """Show a schedule, when it runs next, and how its last run went."""
    from launcher.cli import registry

    return registry.show_schedule(registry.Service(server, api_key_file), schedule_id, as_json)


@schedules_app.command("create")
def create_schedule(
    spec: Body,
    cron: Annotated[
        str | None, typer.Option(help="When, such as '0 2 * * *'; without it, SPEC has schedule and job.")
    ] = None,
    timezone: Annotated[str | None, typer.Option(help="Of --cron, such as Europe/Berlin.  [default: UTC]")] = None,
    missed: Annotated[str | None, typer.Option(help="Of runs missed while it was down: run_once or skip.")] = None,
    overlap: Annotated[str | None, typer.Option(help="While one still runs: queue, skip or cancel_running.")] = None,
    name: Annotated[str | None, typer.Option(help="What you call it.")] = None,
    idempotency_key: IdempotencyKey = None,
    server: Server = None,
    api_key_file: KeyFile = None,
    as_json: Json = False,
) -> int:
    """Make a schedule of a job. The job's texts may hold {{ scheduled_at }}."""
    from launcher.cli import registry

    timing = registry.TimingOptions(cron, timezone, missed, overlap)
    service = registry.Service(server, api_key_file)
    return registry.create_schedule(service, spec, timing, name, idempotency_key, as_json)


@schedules_app.command("pause")
def pause_schedule(
    schedule_id: _ScheduleId, server: Server = None, api_key_file: KeyFile = None, as_json: Json = False
) -> int:
    """Have a schedule not run until it is resumed."""
    from launcher.cli import registry

    return registry.pause_schedule(registry.Service(server, api_key_file), schedule_id, as_json)


@schedules_app.command("resume")
def resume_schedule(
    schedule_id: _ScheduleId, server: Server = None, api_key_file: KeyFile = None, as_json: Json = False
) -> int:
    """Have a schedule run again."""
    from launcher.cli import registry

    return registry.resume_schedule(registry.Service(server, api_key_file), schedule_id, as_json)


@schedules_app.command("run")
def run_schedule(
    schedule_id: _ScheduleId,
    wait: _Wait = False,
    server: Server = None,
    api_key_file: KeyFile = None,
    as_json: Json = False,
) -> int:
    """Run a schedule's job once, now."""
    from launcher.cli import registry

    return registry.run_schedule(registry.Service(server, api_key_file), schedule_id, wait, as_json)


@schedules_app.command("delete")
def delete_schedule(schedule_id: _ScheduleId, server: Server = None, api_key_file: KeyFile = None) -> int:
    """Delete a schedule. Jobs that it has made stay."""
    from launcher.cli import registry

    return registry.delete_schedule(registry.Service(server, api_key_file), schedule_id)
