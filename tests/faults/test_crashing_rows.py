"""A row that kills the process ends in the rejects; its neighbours are scored, whatever the kind of death."""

from collections.abc import Collection
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from launcher.follow import Interrupts, follow
from launcher.state.job import Job
from pipelines.spec import Config, JobSpec, ParquetInput, ParquetOutput, Rejects
from predictors.base import ModelSpec
from predictors.crashes import CrashRecord
from tests.faults.killing import ForkingSupervisor, await_or_end, finish, kill
from tests.scenes import numbered_rows, write_files

ROWS = 6000


def spec(folder: Path, ratio: float = 1.0, model: str = "Crashing") -> JobSpec:
    return JobSpec(
        ModelSpec(f"tests.faults.crashing_models:{model}", "python", ("value",)),
        ParquetInput((str(folder / "in"),)),
        ParquetOutput(str(folder / "scores"), "overwrite", ("id",)),
        Rejects(str(folder / "rejects"), ratio),
        Config(batch_size=100, parallelism=2),
    )


class Quiet:
    def show(self, *_: object) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def run(supervisor: ForkingSupervisor, asked: JobSpec, folder: Path) -> Job:
    """As `penstock run` does."""
    with Interrupts() as interrupts:
        return follow(supervisor, supervisor.submit(asked, folder), Quiet(), interrupts)


def check(folder: Path, job: Job, rejected: Collection[int]) -> dict[int, tuple[str, str]]:
    """Hold a completed job to each row once; returns the rejected ones, and why."""
    assert (job.status, job.error) == ("completed", None)
    scores = pq.read_table(folder / "scores")
    pairs = sorted(zip(scores.column("id").to_pylist(), scores.column("score").to_pylist(), strict=True))
    assert pairs == [(row, 2.0 * row) for row in range(ROWS) if row not in rejected]
    if not rejected:
        return {}
    rows = pq.read_table(folder / "rejects").to_pylist()
    assert sorted(row["id"] for row in rows) == sorted(rejected)
    return {row["id"]: (row["error_type"], row["error"]) for row in rows}


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ({"out-of-memory": [5999]}, {5999: "SIGKILL"}),
        (
            {"segfaults": [2345, 2346], "exits": [0]},
            {0: "exit code 3", 2345: "SIGSEGV", 2346: "SIGSEGV"},
        ),
    ],
    ids=["out of memory, in the last row", "an exit in the first row, and segmentation faults"],
)
def test_a_row_that_kills_the_process_is_rejected_and_its_neighbours_are_scored(
    tmp_path: Path, supervisor: ForkingSupervisor, ends: dict[str, list[int]], said: dict[int, str]
) -> None:
    write_files(tmp_path / "in", numbered_rows(ROWS))
    for how, rows in ends.items():
        (tmp_path / how).write_text(" ".join(map(str, rows)))
    (tmp_path / "refused").write_text("2300 5000")
    job = run(supervisor, spec(tmp_path), tmp_path)

    reasons = check(tmp_path, job, {*said, 2300, 5000})
    assert reasons == {
        2300: ("ValueError", "a value is refused (tests/faults/crashing_models.py:35 in predict)"),
        5000: ("ValueError", "a value is refused (tests/faults/crashing_models.py:35 in predict)"),
        **{row: ("CrashedModel", f"crashed the model ({how})") for row, how in said.items()},
    }
    assert job.retries == 0


def test_a_process_that_is_killed_while_it_calls_the_model_loses_no_row(
    tmp_path: Path, supervisor: ForkingSupervisor
) -> None:
    write_files(tmp_path / "in", numbered_rows(ROWS))
    (tmp_path / "stays").write_text("3500")
    started = supervisor.submit(spec(tmp_path, ratio=0.0), tmp_path)
    await_or_end(started, (tmp_path / "there").exists)
    kill(started)
    record = CrashRecord(supervisor.folder(started.job.id).path)
    marked = record.marks()
    (tmp_path / "go").touch()
    finish(supervisor.resume(started.job.id))

    # Splits have 2,000 rows.
    assert "000001" in {mark.split for mark in marked}
    check(tmp_path, supervisor.job(started.job.id), ())
    assert record.findings().killed == ()


def test_a_model_that_always_dies_fails_the_job_with_the_signal(tmp_path: Path, supervisor: ForkingSupervisor) -> None:
    write_files(tmp_path / "in", numbered_rows(ROWS))
    (tmp_path / "always").touch()
    job = run(supervisor, spec(tmp_path), tmp_path)
    (tmp_path / "always").unlink()
    # Somebody has mended it.
    finish(supervisor.resume(job.id))

    assert job.status == "failed"
    assert "crashed (SIGABRT) on more than 8 rows" in (job.error or "")
    assert str(tmp_path / "in") in (job.error or "")
    check(tmp_path, supervisor.job(job.id), ())


def test_a_class_that_dies_of_the_first_rows_before_it_has_said_what_it_answers_is_told_to_declare_it(
    tmp_path: Path, supervisor: ForkingSupervisor
) -> None:
    write_files(tmp_path / "in", numbered_rows(ROWS))
    (tmp_path / "segfaults").write_text("3")
    job = run(supervisor, spec(tmp_path, model="Undeclared"), tmp_path)

    assert job.status == "failed"
    assert "declare" in (job.error or "")
