"""Where jobs that are to be disturbed read and write, and what has to come out."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from launcher.state.job import Job
from pipelines.spec import Config, JobSpec, Rejects
from predictors.base import ModelSpec
from tests.faults.killing import ForkingSupervisor
from transforms.counts import Counts

ROWS = 60_000
BAD = [17, 1000, 1001, 30_500, 59_999]
NULLS = [0, 2, 20_000, 59_000]
OLD = [(-1, -1.0)]
EXPECTED = [(i, 2.0 * i) for i in range(ROWS) if i not in {*BAD, *NULLS}]
Rows = list[tuple[Any, ...]]


@dataclass(frozen=True)
class Place:
    """One kind of input and output: how a job is asked for, and what readers of its output see."""

    spec: JobSpec
    read: Callable[[], Rows]
    leftovers: Callable[[], list[str]]


def job_spec(folder: Path, source: Any, output: Any) -> JobSpec:
    return JobSpec(
        ModelSpec("tests.doubling:Doubler", "python", ("value",)),
        source,
        output,
        Rejects(str(folder / "rejects"), 0.01),
        Config(batch_size=100, parallelism=2),
    )


def rejects(job: Job) -> Rows:
    table = pq.read_table(job.spec.rejects.path)
    return sorted((row["id"], row["note"], row["error_type"], row["error"]) for row in table.to_pylist())


EXPECTED_REJECTS = sorted(
    [(i, f"row {i}", "ValueError", "a value is negative (tests/doubling.py:25 in predict)") for i in BAD]
    + [(i, f"row {i}", "NullFeature", "column value is null") for i in NULLS]
)


def check_finished(place: Place, supervisor: ForkingSupervisor, job_id: str) -> None:
    job = supervisor.job(job_id)
    assert (job.status, job.outcome, job.error) == ("completed", "with_rejects", None)
    assert job.counts == Counts(scored=len(EXPECTED), rejected=len(EXPECTED_REJECTS))
    assert place.read() == EXPECTED
    assert rejects(job) == EXPECTED_REJECTS
    assert place.leftovers() == []


def noted_rows(supervisor: ForkingSupervisor, job_id: str) -> int | None:
    """Rows that the ledger has, asked of the sink itself; None before there is a plan."""
    from transforms.ledger import count
    from transforms.place import JobPlace

    folder = supervisor.folder(job_id).path
    if not (folder / "plan.json").exists():
        return None
    sink = supervisor.peek(job_id).spec.output.sink(JobPlace(job_id, folder))
    return (sink.published() or count(sink.all_notes())).total
