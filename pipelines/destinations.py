"""Where a job writes, judged beforehand: apart from what it reads and needs, and able to take its rows."""

import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from pipelines.spec import JobSpec
from predictors.bounds import Bounds, lies_in
from predictors.notices import Notice
from predictors.specvalue import SpecValue
from transforms.connection import Connection
from transforms.errors import OutputError
from transforms.place import JobPlace
from transforms.rejects import RejectFolder
from transforms.sources.base import Source

# What a job is called that there is not, and the folder that it does not have.
_NO_JOB = "plan"
_NO_FOLDER = Path("/proc/self/fd/-1/none")


def check_disjoint(spec: JobSpec, job_folder: Path | None) -> None:
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


def make_rejects(spec: JobSpec, place: JobPlace, source: Source) -> RejectFolder:
    """Where a job's rejects go: the folder that the spec names, or one of the job's own."""
    path = spec.rejects.path or str(place.folder / "rejects")
    return RejectFolder(path, place.job_id, source, place.folder, place.bounds_of(path))


def check_destinations(spec: JobSpec, schema: pa.Schema, source: Source, within: Bounds | None = None) -> list[Notice]:
    """Judge the output and the rejects of a job that is not there yet as the job itself would. Writes nothing.

    Args:
        schema: of the rows that would be staged.
        within: where the folders that are written have to lie, unless the service chose them; None: anywhere. A path
            that lies in a folder closed to requests was chosen by the service.

    Raises:
        PipelineError: one line that says why the job could not write.
    """

    def place(part: SpecValue) -> JobPlace:
        paths = [os.path.abspath(each.path) for each in part.paths() if each.role == "written"]
        own = within is not None and any(
            lies_in(path, closed, below=True) for path in paths for closed in within.closed
        )
        return JobPlace(_NO_JOB, _NO_FOLDER, None if own else within)

    notices = spec.output.sink(place(spec.output)).check(schema)
    if spec.rejects.path is not None:
        notices += make_rejects(spec, place(spec.rejects), source).check()
    return notices
