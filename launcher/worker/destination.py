"""Where a job's rows go, judged beforehand; and the folder of its rejects."""

import os
from pathlib import Path

import pyarrow as pa

from pipelines.spec import JobSpec
from predictors.bounds import Bounds, lies_in
from predictors.notices import Notice
from predictors.specvalue import SpecValue
from transforms.place import JobPlace
from transforms.rejects import RejectFolder
from transforms.sources.base import Source

# What a job is called that there is not, and the folder that it does not have.
_NO_JOB = "plan"
_NO_FOLDER = Path("/proc/self/fd/-1/none")


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
