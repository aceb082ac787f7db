"""A job that is stopped, or fails, keeps all that it has scored: the next attempt scores none of it again."""

import threading
import time
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from launcher.state.job import Job
from pipelines.spec import Config, JobSpec, ParquetInput, ParquetOutput, Rejects
from predictors.base import ModelSpec
from predictors.errors import WrongAnswer
from tests.faults.killing import ForkingSupervisor, await_or_end, finish
from tests.scenes import SCORES, numbered_rows, write_files

ROWS = 4000
# With spans of 1,000 rows and splits of two, the second split is scored by half when the model stops.
SCORED = 3000


class Stopping:
    """Twice the value, of the rows before the last span; there it does as `order` says, until there is a file `go`."""

    input_schema: ClassVar[pa.Schema] = pa.schema([pa.field("value", pa.float64())])
    output_schema: ClassVar[pa.Schema] = SCORES

    def predict(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        if rows.column("value")[0].as_py() >= SCORED and not Path("go").exists():
            # For what is behind it to be scored in the meantime.
            Path("there").touch()
            if Path("order").read_text() == "raise":
                raise WrongAnswer("no more")
            threading.Event().wait(600)
        return pa.RecordBatch.from_arrays([pa.array(rows.column("value").to_numpy() * 2)], schema=SCORES)


def spec(folder: Path, timeout_minutes: float = 60.0) -> JobSpec:
    return JobSpec(
        ModelSpec("tests.faults.test_stopping:Stopping", "python", ("value",)),
        ParquetInput((str(folder / "in"),)),
        ParquetOutput(str(folder / "scores"), "overwrite", ("id",)),
        Rejects(str(folder / "rejects"), 0.0),
        Config(batch_size=1000, parallelism=1, timeout_minutes=timeout_minutes),
    )


@pytest.mark.parametrize(
    ("why", "order", "status", "error"),
    [
        ("cancel", "wait", "cancelled", "cancelled by SIGTERM"),
        ("deadline", "wait", "failed", "timed out"),
        ("error", "raise", "failed", "no more"),
    ],
    ids=["cancelled", "timed out", "failed"],
)
def test_what_is_scored_when_a_job_is_stopped_is_kept(
    tmp_path: Path, supervisor: ForkingSupervisor, why: str, order: str, status: str, error: str
) -> None:
    write_files(tmp_path / "in", numbered_rows(ROWS))
    (tmp_path / "order").write_text(order)
    started = supervisor.submit(spec(tmp_path, timeout_minutes=0.07 if why == "deadline" else 60.0), tmp_path)
    await_or_end(started, (tmp_path / "there").exists)
    stopped_at = time.monotonic()
    if why == "cancel":
        started.cancel()
    finish(started)
    took_s = time.monotonic() - stopped_at
    stopped = supervisor.job(started.job.id)
    reason = supervisor.moves(started.job.id)[-1].reason
    (tmp_path / "go").touch()
    # With time enough for the rest.
    supervisor._store.update(started.job.id, [stopped.status], spec=spec(tmp_path))
    finish(supervisor.resume(started.job.id))
    done: Job = supervisor.job(started.job.id)

    assert stopped.status == status
    assert error in reason
    if why != "error":
        assert f"{SCORED:,} rows are kept" in reason
        assert took_s < 5 + (60 * 0.07 if why == "deadline" else 0)
    assert done.status == "completed"
    assert done.already.total == SCORED
    scores = pq.read_table(tmp_path / "scores")
    assert sorted(scores.column("score").to_pylist()) == [2.0 * row for row in range(ROWS)]
