"""Where a job's rows go: the sink that its output names, and the folder of its rejects."""

import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from pipelines.spec import JobSpec, ParquetOutput
from predictors.bounds import Bounds, lies_in
from predictors.notices import Notice
from transforms.connection import Connection
from transforms.rejects import RejectFolder
from transforms.sinks.base import Sink
from transforms.sinks.parquet import ParquetSink
from transforms.sources.base import Source

# What a job is called that there is not, and the folder that it does not have.
_NO_JOB = "plan"
_NO_FOLDER = Path("/proc/self/fd/-1/none")


def make_sink(spec: JobSpec, job_id: str, folder: Path, within: Bounds | None = None) -> Sink:
    """The sink that a job's output names.

    Args:
        folder: the job's own.
        within: where the folder of the result has to lie, unless the service chose it; None: anywhere.
    """
    output = spec.output
    if isinstance(output, ParquetOutput):
        bounds = bounds_of((output.path,), folder, within)
        return ParquetSink(output.path, output.mode, job_id, folder, output.appends_to, bounds)
    from transforms.sinks.table import table_sink

    connection = Connection(output.connection, pinned=within is not None)
    return table_sink(connection, output.table_name, output.mode, job_id, folder / "staged", output.appends_to)


def make_rejects(
    spec: JobSpec, job_id: str, folder: Path, source: Source, within: Bounds | None = None
) -> RejectFolder:
    """Where a job's rejects go: the folder that the spec names, or one of the job's own."""
    path = spec.rejects.path or str(folder / "rejects")
    return RejectFolder(path, job_id, source, folder, bounds_of((path,), folder, within))


def bounds_of(paths: Sequence[str], folder: Path, within: Bounds | None) -> Bounds | None:
    """What `paths` are held against: nothing where the service itself chose them, in the folder of this job or another.

    No request names those; see `launcher.reach.confined_spec`.
    """
    jobs = os.path.abspath(folder.parent)
    return None if all(lies_in(os.path.abspath(path), jobs, below=True) for path in paths) else within


def check_destinations(spec: JobSpec, schema: pa.Schema, source: Source, within: Bounds | None = None) -> list[Notice]:
    """Judge the output and the rejects of a job that is not there yet as the job itself would. Writes nothing.

    Args:
        schema: of the rows that would be staged.
        within: as above. A path that lies in a folder closed to requests was chosen by the service.

    Raises:
        PipelineError: one line that says why the job could not write.
    """

    def bounds(path: str) -> Bounds | None:
        own = within is not None and any(lies_in(os.path.abspath(path), closed, below=True) for closed in within.closed)
        return None if own else within

    path = spec.output.path if isinstance(spec.output, ParquetOutput) else ""
    notices = make_sink(spec, _NO_JOB, _NO_FOLDER, bounds(path) if path else within).check(schema)
    if spec.rejects.path is not None:
        rejects = make_rejects(spec, _NO_JOB, _NO_FOLDER, source, bounds(spec.rejects.path))
        notices += rejects.check()
    return notices
