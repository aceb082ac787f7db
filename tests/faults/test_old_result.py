"""A job that fails or is cancelled leaves the old result as it was, and a resume goes on from what it had staged."""

import itertools
import os
import signal
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from launcher.state.job import Job
from pipelines.spec import ParquetOutput
from tests.faults.killing import ForkingSupervisor, await_or_end, finish
from tests.faults.places import (
    EXPECTED,
    EXPECTED_REJECTS,
    OLD,
    ROWS,
    Place,
    Rows,
    check_finished,
    noted_rows,
    rejects,
)
from tests.scenes import Doubler
from transforms.counts import Counts

# Calls of the model; it takes about 600 to score all rows.
HALF = 300


class Recorder(Doubler):
    """Writes down which values it scored, in the file `scored`."""

    def predict(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        scores = super().predict(rows)
        values = rows["value"].to_pylist()
        with open("scored", "ab", buffering=0) as file:
            file.write(struct.pack(f"{len(values)}d", *values))
        return scores


class Breaking(Recorder):
    """Gives a score too few from half of the calls on, until there is a file `mended`."""

    def load(self) -> None:
        self.calls: Iterator[int] = itertools.count()

    def predict(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        if next(self.calls) >= HALF and not os.path.exists("mended"):
            return super().predict(rows).slice(1)
        return super().predict(rows)


class Waiting(Recorder):
    """Waits from half of the calls on for somebody to write to the pipe `gate`, until there is a file `mended`."""

    def load(self) -> None:
        self.calls: Iterator[int] = itertools.count()

    def predict(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        if next(self.calls) >= HALF and not os.path.exists("mended"):
            Path("held").touch()
            Path("gate").read_bytes()
        return super().predict(rows)


class Forbidden(Recorder):
    """Is not to be asked once there is a file `mended`; whom it refuses would be among the rejects."""

    def predict(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        if os.path.exists("mended"):
            raise AssertionError("these rows were scored already")
        return super().predict(rows)


@dataclass(frozen=True)
class Stopped:
    """A job that ended before it published.

    Args:
        job: as it was then.
        staged: rows that the ledger had.
        rows, files: what readers saw.
        rejects: what lay where rejected rows are shown; None for nothing.
    """

    job: Job
    staged: int | None
    rows: Rows
    files: list[tuple[str, int, int]]
    rejects: Rows | None


def with_model(place: Place, model: type, **changes: float) -> Place:
    spec = place.spec
    model_spec = replace(spec.model, uri=f"{__name__}:{model.__name__}")
    return replace(place, spec=replace(spec, model=model_spec, rejects=replace(spec.rejects, **changes)))


def stopped(place: Place, supervisor: ForkingSupervisor, job_id: str) -> Stopped:
    job = supervisor.job(job_id)
    shown = rejects(job) if os.path.exists(str(job.spec.rejects.path)) else None
    return Stopped(job, noted_rows(supervisor, job_id), place.read(), files(place), shown)


def resume(supervisor: ForkingSupervisor, job_id: str, folder: Path, ratio: float | None = None) -> Job:
    """Another attempt, with the model mended; the job at its end. `scored` holds what this attempt scored."""
    (folder / "mended").touch()
    (folder / "scored").write_bytes(b"")
    finish(supervisor.resume(job_id, max_reject_ratio=ratio))
    return supervisor.job(job_id)


def check_went_on(before: Stopped, after: Job, folder: Path) -> None:
    """The resume took over what was staged, and scored the other rows once; the result shows that these were all."""
    scored = [value for (value,) in struct.iter_unpack("d", (folder / "scored").read_bytes())]

    assert after.already.total == before.staged
    assert len(scored) == len(set(scored)) == len(EXPECTED) - after.already.scored


def files(place: Place) -> list[tuple[str, int, int]]:
    """The files of a result that is a folder: names, inodes, times of the last change."""
    output = place.spec.output
    if not isinstance(output, ParquetOutput):
        return []
    return sorted((file.name, file.stat().st_ino, file.stat().st_mtime_ns) for file in Path(output.path).iterdir())


def test_a_job_over_its_ratio_leaves_the_old_result_and_a_resume_publishes_without_a_call(
    place: Place, supervisor: ForkingSupervisor, tmp_path: Path
) -> None:
    place = with_model(place, Forbidden, max_reject_ratio=0.0)
    before = files(place)

    started = supervisor.submit(place.spec, tmp_path)
    finish(started)
    failed = stopped(place, supervisor, started.job.id)
    finish(supervisor.resume(started.job.id))
    still_failed, still_left = supervisor.job(started.job.id), place.read()
    resumed = resume(supervisor, started.job.id, tmp_path, ratio=0.01)

    assert (failed.job.status, failed.job.outcome) == ("failed", "too_many_rejects")
    assert "9 of 60,000 rows were rejected" in str(failed.job.error)
    assert failed.job.counts == Counts(scored=len(EXPECTED), rejected=len(EXPECTED_REJECTS))
    assert failed.staged == ROWS
    assert (failed.rows, failed.files) == (OLD, before)
    assert failed.rejects == EXPECTED_REJECTS
    assert (still_failed.status, still_failed.error, still_left) == ("failed", failed.job.error, OLD)
    check_went_on(failed, resumed, tmp_path)
    check_finished(place, supervisor, resumed.id)


def test_a_job_whose_model_fails_half_way_leaves_the_old_result_and_a_resume_scores_the_rest(
    place: Place, supervisor: ForkingSupervisor, tmp_path: Path
) -> None:
    place = with_model(place, Breaking)
    before = files(place)

    started = supervisor.submit(place.spec, tmp_path)
    finish(started)
    failed = stopped(place, supervisor, started.job.id)
    resumed = resume(supervisor, started.job.id, tmp_path)

    assert (failed.job.status, failed.job.outcome) == ("failed", "error")
    assert "each row needs exactly one answer" in str(failed.job.error)
    assert failed.staged is not None
    assert 0 < failed.staged < ROWS
    assert failed.rejects is None
    assert (failed.rows, failed.files) == (OLD, before)
    check_went_on(failed, resumed, tmp_path)
    check_finished(place, supervisor, resumed.id)


def test_a_cancelled_job_leaves_the_old_result_and_a_resume_scores_the_rest(
    place: Place, supervisor: ForkingSupervisor, tmp_path: Path
) -> None:
    place = with_model(place, Waiting)
    before = files(place)
    os.mkfifo(tmp_path / "gate")

    started = supervisor.submit(place.spec, tmp_path)
    await_or_end(started, (tmp_path / "held").exists)
    await_or_end(started, lambda: bool(noted_rows(supervisor, started.job.id)))
    status = supervisor.peek(started.job.id).status
    os.kill(started._process.pid, signal.SIGTERM)
    finish(started)
    cancelled = stopped(place, supervisor, started.job.id)
    resumed = resume(supervisor, started.job.id, tmp_path)

    assert status == "running"
    assert (cancelled.job.status, cancelled.job.outcome, cancelled.job.error) == ("cancelled", None, None)
    assert cancelled.staged is not None
    assert 0 < cancelled.staged < ROWS
    assert cancelled.rejects is None
    assert (cancelled.rows, cancelled.files) == (OLD, before)
    check_went_on(cancelled, resumed, tmp_path)
    check_finished(place, supervisor, resumed.id)
