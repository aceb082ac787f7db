"""A job must not destroy what it reads, or what else it needs: where it writes has to lie apart."""

import os
from collections.abc import Iterator
from pathlib import Path

from pipelines.spec import JobSpec
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
    table = spec.output.table()
    if table is not None and spec.input.reads_table(*table):
        raise OutputError(f"output.table_name {table[1]} is read by the query; write to another table")


def _folders(spec: JobSpec) -> Iterator[tuple[str, str]]:
    """Folders that the job replaces, by the field that names them."""
    return ((each.field, each.path) for each in spec.paths() if each.role == "written")


def _needed(spec: JobSpec, job_folder: Path | None) -> Iterator[tuple[str, str]]:
    """Paths that must outlive the job, and what they are."""
    for each in spec.paths():
        if each.role == "read":
            what = f"the {each.field.partition('.')[0]}"
            yield from ((file, what) for file in (_files(each.path) if each.is_pattern else [each.path]))
    for name in spec.connection_names():
        if Connection(name).dialect == "sqlite":
            yield Connection(name).sqlite_path(), "the database"
    yield os.getcwd(), "the working folder"
    if job_folder is not None:
        yield str(job_folder), "the job's own folder"


def _files(pattern: str) -> list[str]:
    from transforms.sources.files import find_files

    return list(find_files((pattern,)))


def _holds(folder: str, path: str) -> bool:
    """Whether `path` is `folder` or lies in it, links followed."""
    outer, inner = os.path.realpath(folder), os.path.realpath(path)
    return inner == outer or inner.startswith(outer.rstrip(os.sep) + os.sep)
