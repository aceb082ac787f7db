"""The command line: parse, call, translate. Nothing heavy is imported before a command is known.

Exit codes: 0 done, 1 the job failed, 2 the request is wrong, 130 interrupted.
"""

import enum
import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from launcher import ATTEMPT
from launcher.cli.arguments import JobId, Json, ScheduledAt, Settings, Spec
from launcher.cli.exits import DONE, FAILED, INTERRUPTED, WRONG
from launcher.cli.jobs import jobs_app
from launcher.cli.service import add_commands

# Some versions of typer carry their own copy of click, some do not; this names the class in both.
_UsageError = typer.BadParameter.__mro__[1]

# Where a shell says what it wants completed.
_COMPLETE = "_PENSTOCK_COMPLETE"

app = typer.Typer(
    name="penstock",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Score data with models in bulk, exactly once.",
    add_completion=False,
    no_args_is_help=True,
    # Rich would triple the time of `--help`.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(jobs_app, name="jobs")
keys_app = typer.Typer(help="Make API keys, list and revoke them.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(keys_app, name="keys")


class _Role(enum.Enum):
    """What a key may do; `launcher.state.keys.Role`, which takes longer to import than the help to show."""

    viewer = "viewer"
    submitter = "submitter"
    admin = "admin"


@dataclass(frozen=True)
class _Context:
    """What `main` was called with."""

    attempt_module: str
    debug: bool = False


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"penstock {version('penstock')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """`main` looks for --debug itself, so that it may stand anywhere."""


@app.command()
def run(
    context: typer.Context,
    spec: Spec,
    settings: Settings = None,
    scheduled_at: ScheduledAt = None,
    as_json: Json = False,
) -> int:
    """Run a job and wait for its end. Ctrl-C cancels it; what is staged is kept."""
    from launcher.cli import here

    return here.run(
        here.Given(spec, settings or (), scheduled_at), as_json, context.obj.attempt_module, context.obj.debug
    )


@app.command()
def plan(spec: Spec, settings: Settings = None, scheduled_at: ScheduledAt = None, as_json: Json = False) -> int:
    """Show what a job would do: rows, schema, first predictions, time. Writes nothing."""
    from launcher.cli import here

    return here.plan(here.Given(spec, settings or (), scheduled_at), as_json)


@app.command()
def resume(
    context: typer.Context,
    job_id: JobId,
    max_reject_ratio: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Bear this share of rejected rows from now on.")
    ] = None,
    as_json: Json = False,
) -> int:
    """Go on with a job that failed, was cancelled or died. Staged rows are not scored again."""
    from launcher.cli import here

    return here.resume(job_id, max_reject_ratio, as_json, context.obj.attempt_module)


@app.command()
def serve(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="Where to listen; without any API key only on 127.0.0.1.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8080,
) -> int:
    """Run the service: take jobs over HTTP, run them, keep their schedules. Ctrl-C stops it, its jobs go on."""
    from launcher.serve import serve

    serve(host, port, attempt_module=context.obj.attempt_module)
    return DONE


@keys_app.command("create")
def create_key(
    tenant: Annotated[str, typer.Option(help="Whose jobs, models, connections and schedules it opens.")],
    role: Annotated[
        _Role,
        typer.Option(
            help="viewer looks, submitter changes, admin also brings Python models, which run as the service's user: "
            "in effect the whole service, with the data of all tenants."
        ),
    ],
    name: Annotated[str | None, typer.Option(help="What you call it.")] = None,
    as_json: Json = False,
) -> int:
    """Make a key. Its token is printed once, and kept by nobody."""
    from launcher.cli import keys

    return keys.create_key(tenant, role.value, name, as_json)


@keys_app.command("list")
def list_keys(
    tenant: Annotated[str | None, typer.Option(help="Only of this tenant.")] = None, as_json: Json = False
) -> int:
    """List keys, also revoked ones."""
    from launcher.cli import keys

    return keys.list_keys(tenant, as_json)


@keys_app.command("revoke")
def revoke_key(key_id: Annotated[str, typer.Argument(metavar="KEY", help="Its id, as `list` shows it.")]) -> int:
    """Let a key open nothing any more, within a second."""
    from launcher.cli import keys

    return keys.revoke_key(key_id)


add_commands(app)


def main(arguments: Sequence[str] | None = None, attempt_module: str = ATTEMPT) -> int:
    """Run one command. Returns its exit code; each error is a line on the standard error.

    Args:
        arguments: without the program's name; None: those of this process.
        attempt_module: what the process of a job runs.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    words = [word for word in given if word != "--debug"]
    command = typer.main.get_command(app)
    _prepare_completion()
    _prepare_streams()
    try:
        code = command.main(
            words, "penstock", standalone_mode=False, obj=_Context(attempt_module, debug=len(words) < len(given))
        )
        sys.stdout.flush()
        return code if isinstance(code, int) else DONE
    except BrokenPipeError:
        # Whoever read our output has seen enough, as `head` does; the interpreter flushes once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except (KeyboardInterrupt, typer.Abort):
        print("error: interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if len(words) < len(given):
            raise
        return _told(error)


def _prepare_completion() -> None:
    """Answer a shell that completes a command or, as `bash_source`, wants to know how to ask."""
    wanted = os.environ.get(_COMPLETE, "")
    if not wanted:
        return
    from typer.completion import completion_init  # type: ignore[attr-defined]  # typer calls it where it completes

    completion_init()
    # Click's own order of the words is the one that people know.
    first, _, last = wanted.partition("_")
    if last in ("source", "complete"):
        os.environ[_COMPLETE] = f"{last}_{first}"


def _prepare_streams() -> None:
    """Let output go nowhere where it is closed, and be legible where the terminal lacks a letter."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _told(error: Exception) -> int:
    """Tell an error, in a line for each thing that is wrong. Returns the exit code."""
    if isinstance(error, _UsageError):
        text = error.format_message()  # type: ignore[attr-defined]
        if type(error).__name__ == "NoArgsIsHelpError":
            print(text, file=sys.stderr)
            return WRONG
        lines, code = [text], WRONG
    else:
        from launcher.client.errors import PenstockError
        from launcher.errors import LauncherError, RequestError
        from predictors.errors import PredictorError
        from transforms.errors import PipelineError

        text = " ".join(str(error).split())
        if isinstance(error, RequestError):
            lines, code = str(error).splitlines(), WRONG
        elif isinstance(error, LauncherError):
            lines, code = [text], WRONG
        elif isinstance(error, PenstockError):
            from launcher.cli.remote import told

            lines, is_wrong = told(error)
            code = WRONG if is_wrong else FAILED
        elif isinstance(error, PipelineError | PredictorError):
            lines, code = [text], FAILED
        else:
            lines, code = [f"{type(error).__name__}: {text}; --debug shows where"], FAILED
    for line in lines:
        print(f"error: {line}", file=sys.stderr)
    return code
