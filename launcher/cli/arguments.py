"""What commands are given, as typer reads it, where several commands take the same."""

import os
from typing import Annotated

import typer

Spec = Annotated[str, typer.Argument(metavar="SPEC", help="A job spec in YAML or JSON; - reads the standard input.")]
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
