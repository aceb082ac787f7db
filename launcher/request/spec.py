"""A file becomes a job's spec: plain values, defaults filled in, or every mistake that is in it."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from launcher.request.checking import (
    checked,
    model_mistakes,
    part,
    path_mistakes,
    place_mistakes,
    schema_mistakes,
    twice_mistakes,
)
from launcher.request.messages import Location, Mistake, described, refused, shown
from launcher.request.parts import DATABASE, SpecPart, input_of, output_of
from launcher.request.paths import at_home, home_fault, local_path
from launcher.request.reading import load
from pipelines.spec import Config, JobSpec, Rejects
from predictors.errors import ModelNotLoadable
from predictors.finding import check_names

# A spec is a page of text; whoever names a data file instead should be told before it is read to its end.
_MAX_BYTES = 1_000_000
_SCHEMES = ("postgresql", "postgres", "sqlite")


def read_spec(path: str | Path, parallelism: int | None = None) -> JobSpec:
    """Read a job's spec from a file of YAML or JSON, `-` being the standard input.

    Args:
        parallelism: of a job that does not say; None: as `Config` has it.

    Raises:
        RequestError: the file cannot be read, or `parse_spec` refuses it.
    """
    return parse_spec(_text(path), str(path), parallelism)


def read_body(path: str | Path) -> dict[str, Any]:
    """Read the body of a request to the service from such a file. What is in it is for the service to check.

    Raises:
        RequestError: the file cannot be read, or is no mapping.
    """
    return _mapping(_text(path), str(path))


def _text(path: str | Path) -> str:
    try:
        if str(path) == "-":
            data = sys.stdin.buffer.read(_MAX_BYTES + 1)
        else:
            with open(path, "rb") as file:
                data = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise refused(f"{path}: there is no such file; name a job spec in YAML or JSON") from None
    except IsADirectoryError:
        raise refused(f"{path} is a folder; name the job spec inside it") from None
    except OSError as error:
        raise refused(f"{path} cannot be read: {error.strerror}") from error
    if len(data) > _MAX_BYTES:
        raise refused(f"{path} is larger than {_MAX_BYTES:,} bytes; name a job spec, not a data file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise refused(f"{path} is not UTF-8 text (line {line}); save it as UTF-8") from error


def parse_spec(text: str, name: str = "the request", parallelism: int | None = None) -> JobSpec:
    """Read a job's spec from YAML or JSON.

    YAML is read by the rules of its version 1.2: `no`, `on` and dates are text.

    Args:
        name: how messages call the text.
        parallelism: as of `read_spec`.

    Raises:
        RequestError: names every field that is wrong.
    """
    return spec_of(_mapping(text, name), parallelism)


def _mapping(text: str, name: str) -> dict[str, Any]:
    """The values of a text in YAML or JSON."""
    if not text.strip():
        raise refused(f"{name} is empty; it needs model, input and output")
    try:
        values = load(text, name)
    except RecursionError:
        raise refused(f"{name} is nested too deeply; a job spec has two levels") from None
    except ValueError as error:
        # Python reads no number of over 4,300 digits.
        raise refused(f"{name} holds a number that is too long; write a shorter one") from error
    if not isinstance(values, dict):
        raise refused(f"{name} is {described(values)}, not a mapping; it needs model, input and output")
    return values


def spec_of(values: Mapping[Any, Any], parallelism: int | None = None) -> JobSpec:
    """Check a request that was read already.

    Args:
        parallelism: as of `read_spec`.

    Raises:
        RequestError: names every field that is wrong.
    """
    read = checked(SpecPart, values, _mistakes)
    given = input_of(read.input)
    # A table goes where the rows come from.
    named = next((each.name for each in given.connections()), "")
    spec = JobSpec(
        model=read.model.spec(),
        input=given,
        output=output_of(read.output).with_connections(lambda name: name or named),
        rejects=Rejects.from_request(dict(read.rejects)).with_paths(lambda each: local_path(each.path)),
        config=Config(**({} if parallelism is None else {"parallelism": parallelism}) | read.config.given()),
    )
    return spec.with_paths(lambda each: at_home(each.path))


def check_names_free(spec: JobSpec, folder: Path) -> None:
    """Demand that a Python model in `folder` does not import a module there that has the name of one of ours.

    Raises:
        RequestError: it does, and would get ours.
    """
    if not spec.model.runs_code:
        return
    try:
        check_names(spec.model.uri, str(folder))
    except ModelNotLoadable as error:
        raise refused(str(error)) from error


def _mistakes(values: Mapping[Any, Any], known: set[Location]) -> list[Mistake]:
    """What is wrong with the parts taken together."""
    source, output = part(values, "input"), part(values, "output")
    mistakes = model_mistakes(part(values, "model"), known, ("model",), templates=False)
    mistakes += twice_mistakes(output.get("columns"), ("output", "columns"), "column")
    mistakes += path_mistakes(source, ("input",)) + schema_mistakes(source, ("input",))
    for at, path in _paths(values):
        mistakes += place_mistakes(path, at, home_fault)
    for name in ("output", "rejects"):
        mistakes += place_mistakes(part(values, name).get("path"), (name, "path"))
    for name, holder in (("input", source), ("output", output)):
        uri = holder.get("connection")
        if isinstance(uri, str) and uri and not _names_a_database(uri):
            mistakes.append(Mistake((name, "connection"), f"is {shown(uri, secret=True)}; {DATABASE.text}"))
        elif isinstance(uri, str) and (fault := _uri_fault(uri)):
            mistakes.append(Mistake((name, "connection"), f"is {shown(uri, secret=True)}, which {fault}"))
    if output.get("destination") == "table" and output.get("connection") is None and source.get("source") == "parquet":
        line = f"is missing, and the input is no database to take it from; {DATABASE.text}"
        mistakes.append(Mistake(("output", "connection"), line))
    return mistakes


def _paths(values: Mapping[Any, Any]) -> Iterator[tuple[Location, Any]]:
    """All paths of a spec, and where they stand."""
    given, model = part(values, "input").get("path"), part(values, "model")
    if isinstance(given, list):
        yield from ((("input", "path", index), path) for index, path in enumerate(given))
    else:
        yield ("input", "path"), given
    yield ("output", "path"), part(values, "output").get("path")
    yield ("rejects", "path"), part(values, "rejects").get("path")
    if model.get("flavor") != "python":
        yield ("model", "uri"), model.get("uri")


def _uri_fault(uri: str) -> str | None:
    from transforms.connection import Connection  # 2 s, which specs without a database need not wait

    return Connection(uri).fault()


def _names_a_database(uri: str) -> bool:
    scheme, separator, _ = uri.partition("://")
    # A variable may hold the scheme, too; it is expanded only where the connection is opened.
    return "${" in scheme or (bool(separator) and scheme in _SCHEMES)
