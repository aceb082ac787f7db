"""What commands are given, as typer reads it, where several commands take the same."""

import os
from datetime import datetime
from typing import Annotated

import typer

Spec = Annotated[str, typer.Argument(metavar="SPEC", help="A job spec in YAML or JSON; - reads the standard input.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change the spec: a dotted key, and a value as in YAML, such as output.path=x or output.columns=[id]; "
        "null takes the key out. May be repeated.",
        show_default=False,
    ),
]
ScheduledAt = Annotated[
    datetime | None,
    typer.Option(
        metavar="TIME",
        formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"],
        help="What {{ scheduled_at }} in the spec stands for, such as 2025-03-15 or 2025-03-15T02:00:00+0100.  "
        "[default: now]",
        show_default=False,
    ),
]
Body = Annotated[
    str, typer.Argument(metavar="SPEC", help="A job for the service in YAML or JSON; - reads the standard input.")
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="A job's id, as `penstock jobs list` shows it.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, for machines.")]
Limit = Annotated[int, typer.Option(min=1, help="How many rows.")]
IdempotencyKey = Annotated[
    str | None, typer.Option(help="The same key with the same request counts once, however often it is sent.")
]
# Not the key itself: every user of the machine sees the words of a command.
KeyFile = Annotated[
    str | None, typer.Option(metavar="FILE", help="Where the API key is read from.  [default: PENSTOCK_API_KEY]")
]
Server = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="The service.  [default: PENSTOCK_SERVER, or http://127.0.0.1:8080]", show_default=False
    ),
]
ServerOrHere = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Ask this service.  [default: PENSTOCK_SERVER; without it, this machine's jobs]"),
]


def asks_service(server: str | None, key_file: str | None) -> bool:
    """Whether a command that could look at this machine's jobs is to ask a service."""
    return bool(server or key_file or os.environ.get("PENSTOCK_SERVER"))


def is_here(job_id: str, server: str | None, key_file: str | None) -> bool:
    """Whether a command that would ask the usual service is about a job that `penstock run` made on this machine."""
    if asks_service(server, key_file):
        return False
    from launcher.cli import here

    return here.has(job_id)
