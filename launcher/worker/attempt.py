"""One attempt of a job that scores, inside the job's own process: prepare, run, publish; or remove what is left of it.

What these do is for `pipelines` to say; here they are told which job it is.
"""

from pathlib import Path

import pyarrow as pa

from launcher.state.job import Job
from pipelines.destinations import make_rejects
from pipelines.prepare import Attempt, Prepared, drop_snapshot
from pipelines.prepare import prepare as prepare_spec
from pipelines.running import Result, run
from predictors.bounds import Bounds
from transforms.place import JobPlace
from transforms.sources.base import NoRows
from transforms.sources.input import OnCopied

__all__ = ["Prepared", "Result", "discard", "discard_apart", "drop_snapshot", "prepare", "run"]


def prepare(
    job: Job, folder: Path, on_snapshot: OnCopied = lambda rows, total: None, within: Bounds | None = None
) -> Prepared:
    """Load, open, check and plan; or take up what an earlier attempt planned.

    Args:
        folder: the job's own.
        within: where the files that the job's spec names have to lie whenever one of them is opened, wherever their
            names lead by then; None: anywhere.

    Raises:
        PipelineError, PredictorError: one line that says what is wrong.
    """
    attempt = Attempt(job.attempt, job.memory_strikes)
    return prepare_spec(job.spec, JobPlace(job.id, folder, within), attempt, on_snapshot)


def discard(job: Job, folder: Path) -> None:
    """Remove what the job staged and its snapshot. A published result stays.

    Raises:
        PipelineError: the destination could not be reached to be tidied.
    """
    job.spec.output.sink(JobPlace(job.id, folder)).discard()
    discard_apart(job, folder)


def discard_apart(job: Job, folder: Path) -> None:
    """Remove what the job staged elsewhere than at its destination, which cannot be found any more."""
    make_rejects(job.spec, JobPlace(job.id, folder), NoRows(pa.schema([]))).discard()
    drop_snapshot(folder)
