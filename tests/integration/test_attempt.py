"""An attempt takes up what earlier ones left, whatever that is."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from launcher.state.job import Job
from launcher.worker import attempt
from pipelines.spec import Config, JobSpec, ParquetInput, ParquetOutput, Rejects
from predictors.base import ModelSpec
from tests.scenes import Doubler, numbered_rows, write_files
from transforms.counts import Counts
from transforms.errors import InputChanged
from transforms.publish import AlwaysOpen


class Brittle(Doubler):
    """A predictor that fails the run when it is called in the second attempt."""

    forbidden = False

    def predict(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        if Brittle.forbidden:
            raise AssertionError("these rows were scored already")
        return super().predict(rows)


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Brittle, "forbidden", False)
    write_files(tmp_path / "in", numbered_rows(1000, bad=[7]), files=3)
    (tmp_path / "job").mkdir()
    spec = JobSpec(
        ModelSpec(f"{__name__}:Brittle", "python"),
        ParquetInput(("in",)),
        ParquetOutput("scores", "overwrite", ("id",)),
        Rejects("rejects", 0.1),
        Config(batch_size=10),
    )
    return Job("batch-1", spec, str(tmp_path), datetime.now(UTC))


def test_after_a_kill_behind_publishing_only_the_tidying_is_done(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path("job").absolute()
    first = attempt.run(attempt.prepare(job, folder), AlwaysOpen())
    before = sorted(path.stat().st_ino for path in Path("scores").iterdir())
    # What a kill within the tidying leaves: some of the staging, the notes gone.
    Path(".scores.penstock-batch-1/parts").mkdir(parents=True)
    monkeypatch.setattr(Brittle, "forbidden", True)

    again = attempt.run(attempt.prepare(job, folder), AlwaysOpen())

    assert again.counts == first.counts == Counts(scored=999, rejected=1)
    assert sorted(path.stat().st_ino for path in Path("scores").iterdir()) == before
    assert pq.read_table("rejects")["id"].to_pylist() == [7]
    assert not Path(".scores.penstock-batch-1").exists()


def test_the_stored_plan_is_used_and_a_changed_input_is_named(job: Job) -> None:
    folder = Path("job").absolute()
    planned = attempt.prepare(job, folder)
    write_files(Path("in"), numbered_rows(2000), files=3)

    again = attempt.prepare(job, folder)

    assert again.publication.splits == planned.publication.splits
    with pytest.raises(InputChanged, match=r"in/in-00\.parquet: the file changed after the job was planned"):
        attempt.run(again, AlwaysOpen())


def test_a_model_that_changed_between_attempts_is_refused(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path("job").absolute()
    attempt.prepare(job, folder)
    monkeypatch.setattr(attempt, "_model_sha256", lambda model, within: "another")

    with pytest.raises(InputChanged, match="changed after the job was planned; run the job anew"):
        attempt.prepare(job, folder)


def test_discarding_a_job_leaves_the_old_result_and_nothing_else(job: Job) -> None:
    folder = Path("job").absolute()
    attempt.prepare(job, folder)

    attempt.discard(job, folder)

    assert sorted(path.name for path in Path().iterdir()) == ["in", "job"]
