"""`penstock jobs …`: the jobs of `penstock run` on this machine or, where a service is named, its jobs."""

from datetime import datetime
from typing import Annotated

import typer

from launcher.cli.arguments import JobId, Json, KeyFile, Limit, Server, ServerOrHere, asks_service, is_here

jobs_app = typer.Typer(help="Look at jobs, and delete them.", no_args_is_help=True, rich_markup_mode=None)

_Time = Annotated[
    datetime | None,
    typer.Option(
        formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"],
        metavar="TIME",
        help="Only jobs submitted from, or before, 2025-03-15 or 2025-03-15T10:00:00 (UTC); asks a service only.",
    ),
]


@jobs_app.command("list")
def list_jobs(
    status: Annotated[list[str] | None, typer.Option(help="Only jobs in this state; may be repeated.")] = None,
    model: Annotated[str | None, typer.Option(help="Only jobs of this model; asks a service only.")] = None,
    schedule: Annotated[str | None, typer.Option(help="Only jobs of this schedule; asks a service only.")] = None,
    since: _Time = None,
    until: _Time = None,
    limit: Annotated[int | None, typer.Option(min=1, help="How many at most.  [default: 50 of a service]")] = None,
    server: ServerOrHere = None,
    api_key_file: KeyFile = None,
    as_json: Json = False,
) -> int:
    """List jobs, the newest first."""
    if asks_service(server, api_key_file):
        from launcher.cli import remote

        wanted = remote.Wanted(status or [], model, schedule, since, until, limit)
        return remote.list_jobs(remote.Service(server, api_key_file), wanted, as_json)
    if model or schedule or since or until:
        raise typer.BadParameter("--model, --schedule, --since and --until ask a service; name it by --server")
    from launcher.cli import here

    return here.list_jobs(status or [], as_json, limit)


@jobs_app.command("show")
def show_job(job_id: JobId, server: ServerOrHere = None, api_key_file: KeyFile = None, as_json: Json = False) -> int:
    """Show where a job stands and how it came there."""
    if asks_service(server, api_key_file):
        from launcher.cli import remote

        return remote.show_job(remote.Service(server, api_key_file), job_id, as_json)
    from launcher.cli import here

    return here.show_job(job_id, as_json)


@jobs_app.command("rejects")
def show_rejects(
    job_id: JobId, limit: Limit = 10, server: ServerOrHere = None, api_key_file: KeyFile = None, as_json: Json = False
) -> int:
    """Show the first rows that a job rejected, with the reason."""
    if asks_service(server, api_key_file):
        from launcher.cli import remote

        return remote.show_rows(remote.Service(server, api_key_file), job_id, "rejects", limit, as_json)
    from launcher.cli import here

    return here.show_rejects(job_id, limit, as_json)


@jobs_app.command("results")
def show_results(
    job_id: JobId,
    limit: Limit = 10,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Write all rows into this file instead: .parquet, .csv or .arrow."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace FILE if it is there.")] = False,
    server: Server = None,
    api_key_file: KeyFile = None,
    as_json: Json = False,
) -> int:
    """Show the first rows of a job's result, or write all of them into a file. Asks a service."""
    if is_here(job_id, server, api_key_file):
        from launcher.cli import here

        here.refuse(job_id, "result")
    from launcher.cli import remote

    if output is not None:
        return remote.save_results(remote.Service(server, api_key_file), job_id, output, overwrite, as_json)
    return remote.show_rows(remote.Service(server, api_key_file), job_id, "results", limit, as_json)


@jobs_app.command("events")
def show_events(job_id: JobId, server: Server = None, api_key_file: KeyFile = None, as_json: Json = False) -> int:
    """Print what happens to a job, from its beginning to its end. Asks a service."""
    if is_here(job_id, server, api_key_file):
        from launcher.cli import here

        here.refuse(job_id, "events")
    from launcher.cli import remote

    return remote.show_events(remote.Service(server, api_key_file), job_id, as_json)


@jobs_app.command("delete")
def delete_job(context: typer.Context, job_id: JobId, server: ServerOrHere = None, api_key_file: KeyFile = None) -> int:
    """Remove a job that is over, what is kept of it and what it staged. A result that it published elsewhere stays."""
    if asks_service(server, api_key_file):
        from launcher.cli import remote

        return remote.delete_job(remote.Service(server, api_key_file), job_id)
    from launcher.cli import here

    return here.delete_job(job_id, context.obj.attempt_module)
