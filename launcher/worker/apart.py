"""A job must not destroy what it reads, or what else it needs: where it writes has to lie apart."""

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from pipelines.spec import JobSpec, ParquetInput, ParquetOutput, SqlInput, TableOutput
from transforms.connection import Connection
from transforms.errors import OutputError


def check_apart(spec: JobSpec, job_folder: Path | None) -> None:
    """Refuse destinations that hold, or are, something else that matters.

    Folders are replaced whole, so an output folder must not hold the input, the model, a database of the job, the
    working folder or Penstock's own, and the rejects must lie apart from the result. A table must not be one that the
    query reads.

    Args:
        job_folder: the job's own folder, once it has one.

    Raises:
        OutputError: names the destination, what it would destroy, and the remedy.
    """
    written = dict(_folders(spec))
    if {"output.path", "rejects.path"} <= written.keys():
        output, rejects = written["output.path"], written["rejects.path"]
        if _holds(output, rejects) or _holds(rejects, output):
            raise OutputError(
                f"rejects.path {rejects} and output.path {output} must lie apart, as each is replaced whole; "
                f"name another folder for the rejects"
            )
    needed = dict(_needed(spec, job_folder))
    for purpose, folder in written.items():
        for path, what in needed.items():
            if _holds(folder, path):
                raise OutputError(f"{purpose} {folder} holds {what} {path}; write to another folder")
    if isinstance(spec.input, SqlInput) and isinstance(spec.output, TableOutput):
        _check_table(spec.input, spec.output)


def _folders(spec: JobSpec) -> Iterator[tuple[str, str]]:
    """Folders that the job replaces, by the field that names them."""
    if isinstance(spec.output, ParquetOutput):
        yield "output.path", spec.output.path
    if spec.rejects.path is not None:
        yield "rejects.path", spec.rejects.path


def _needed(spec: JobSpec, job_folder: Path | None) -> Iterator[tuple[str, str]]:
    """Paths that must outlive the job, and what they are."""
    if isinstance(spec.input, ParquetInput):
        from transforms.sources.files import find_files

        for file in find_files(spec.input.path):
            yield file, "the input"
    for part, what in ((spec.input, "the database"), (spec.output, "the database")):
        connection = getattr(part, "connection", None)
        if connection is not None and Connection(connection).dialect == "sqlite":
            yield Connection(connection).sqlite_path(), what
    if spec.model.flavor == "onnx":
        yield spec.model.uri, "the model"
    yield os.getcwd(), "the working folder"
    if job_folder is not None:
        yield str(job_folder), "the job's own folder"


def _holds(folder: str, path: str) -> bool:
    """Whether `path` is `folder` or lies in it, links followed."""
    outer, inner = os.path.realpath(folder), os.path.realpath(path)
    return inner == outer or inner.startswith(outer.rstrip(os.sep) + os.sep)


def _check_table(source: SqlInput, output: TableOutput) -> None:
    from transforms.sources.query import reads_table

    given, asked = Connection(source.connection), Connection(output.connection)
    if given.dialect == asked.dialect and _database(given) == _database(asked):
        dialect = given.dialect
        if reads_table(source.query, dialect, _folded(output.table_name, dialect)):
            raise OutputError(f"output.table_name {output.table_name} is read by the query; write to another table")


def _database(connection: Connection) -> tuple[object, ...]:
    """What tells one database from another; who logs in does not matter."""
    if connection.dialect == "sqlite":
        return (os.path.realpath(connection.sqlite_path()),)
    uri = urlsplit(connection.expanded())
    # Who names no database gets the one of the user's name.
    return (uri.hostname, uri.port or 5432, uri.path.strip("/") or uri.username, uri.query)


def _folded(table_name: str, dialect: str) -> str:
    """The table's name as the database has it. SQLite takes the whole of it literally, in any case."""
    if dialect == "sqlite":
        return table_name
    import sqlglot

    try:
        parts = sqlglot.exp.to_table(table_name, dialect=dialect).parts
    except sqlglot.errors.SqlglotError:
        return table_name
    return ".".join(part.name if part.args.get("quoted") else part.name.lower() for part in parts)
