"""What every job store must do. A subclass gives `open_store`; each call opens the same store again."""

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from launcher.errors import Conflict, JobExists, JobUnknown, MoveForbidden
from launcher.state.job import Job, Seconds, new_id
from launcher.state.store import JobStore
from pipelines.spec import Config, JobSpec, ParquetInput, ParquetOutput, Rejects, SqlInput, TableOutput
from predictors.base import ModelSpec
from transforms.counts import Counts

T0 = datetime(2025, 3, 15, 10, 0, 0, 250_000, tzinfo=UTC)
SPEC = JobSpec(
    model=ModelSpec("churn.onnx", "onnx", features=("tenure", "total_charges")),
    input=SqlInput("postgresql://user@host/db", "SELECT 'Zürich' AS city"),
    output=TableOutput("sqlite:///${DB}", "predictions.churn_scores", "overwrite", ("city",)),
    rejects=Rejects("out/rejects", 0.25),
    config=Config(batch_size=7, timeout_minutes=0.5),
)
FILES = JobSpec(
    model=ModelSpec("models:Churn", "python"),
    input=ParquetInput(("a.parquet", "b/*.parquet")),
    output=ParquetOutput("out"),
)


class Clock:
    """A time that moves only when told to."""

    def __init__(self) -> None:
        self.now = T0

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def job(job_id: str | None = None, spec: JobSpec = SPEC, created_at: datetime = T0) -> Job:
    return Job(job_id or new_id(), spec, "/work", created_at)


class JobStoreContract:
    """Subclass as `TestX` with fixtures `clock` (from here) and `open_store` (a function without arguments)."""

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def store(self, open_store: Callable[[], JobStore]) -> JobStore:
        return open_store()

    @pytest.mark.parametrize("spec", [SPEC, FILES], ids=["sql-to-table", "files-to-files"])
    def test_what_was_added_is_got_back_equal(
        self, store: JobStore, open_store: Callable[[], JobStore], spec: JobSpec
    ) -> None:
        added = job(spec=spec)
        store.add(added, "penstock run")

        # Since when it waits, and when it came into its first state, follow from when it was made.
        kept = replace(added, queued_at=T0, times={"submitted": T0})
        assert store.get(added.id) == kept
        assert open_store().get(added.id) == kept

    def test_an_id_is_given_once(self, store: JobStore) -> None:
        store.add(job("batch-1"), "first")

        with pytest.raises(JobExists, match="there is already a job batch-1"):
            store.add(job("batch-1", FILES), "second")
        assert store.get("batch-1").spec == SPEC

    def test_an_unknown_job_is_named(self, store: JobStore) -> None:
        unknown = "there is no job 'batch-x'; `penstock jobs list` shows all"

        with pytest.raises(JobUnknown, match=unknown):
            store.get("batch-x")
        with pytest.raises(JobUnknown, match=unknown):
            store.move("batch-x", "submitted", "preparing", "no")
        with pytest.raises(JobUnknown, match=unknown):
            store.delete("batch-x", ["failed"])
        assert store.moves("batch-x") == []

    def test_jobs_are_listed_newest_first(self, store: JobStore) -> None:
        for n in (2, 1, 3):
            store.add(job(f"batch-{n}", created_at=T0 + timedelta(seconds=n)), "run")
        store.move("batch-2", "submitted", "failed", "no")

        assert [each.id for each in store.jobs()] == ["batch-3", "batch-2", "batch-1"]

    def test_a_job_goes_its_way_and_every_move_is_recorded(self, store: JobStore, clock: Clock) -> None:
        store.add(job("batch-1"), "penstock run")
        way = [("preparing", "started"), ("running", "10 rows in 2 splits"), ("completing", "all rows are staged")]
        for to, reason in way:
            clock.advance(1)
            before = store.get("batch-1").status
            store.move("batch-1", before, to, reason)  # type: ignore[arg-type]
        clock.advance(1)
        counts, seconds = Counts(7, 2, 1), Seconds(1.5, 1, 1, 0.25, 0.5, 0.125)
        done = store.move(
            "batch-1", "completing", "completed", "published", outcome="with_rejects", counts=counts, seconds=seconds
        )

        assert done == store.get("batch-1")
        assert (done.status, done.outcome, done.counts, done.seconds) == ("completed", "with_rejects", counts, seconds)
        assert done.started_at == T0 + timedelta(seconds=1)
        assert done.finished_at == T0 + timedelta(seconds=4)
        assert [(move.source, move.to, move.reason, move.attempt) for move in store.moves("batch-1")] == [
            (None, "submitted", "penstock run", 1),
            ("submitted", "preparing", "started", 1),
            ("preparing", "running", "10 rows in 2 splits", 1),
            ("running", "completing", "all rows are staged", 1),
            ("completing", "completed", "published", 1),
        ]
        assert [move.at for move in store.moves("batch-1")] == [T0 + timedelta(seconds=n) for n in range(5)]

    def test_a_move_from_another_state_than_expected_changes_nothing(self, store: JobStore) -> None:
        store.add(job("batch-1"), "run")
        store.move("batch-1", "submitted", "preparing", "started")

        with pytest.raises(Conflict, match="batch-1 is preparing, not submitted or running") as caught:
            store.move("batch-1", ["submitted", "running"], "failed", "no", error="no")
        assert caught.value.status == "preparing"
        assert store.get("batch-1").error is None
        assert len(store.moves("batch-1")) == 2

    def test_a_move_that_is_not_in_the_table_changes_nothing(self, store: JobStore) -> None:
        store.add(job("batch-1"), "run")

        with pytest.raises(MoveForbidden, match="batch-1 is submitted and cannot become completed"):
            store.move("batch-1", "submitted", "completed", "no")
        assert store.get("batch-1").status == "submitted"

    def test_of_many_that_move_a_job_one_does(self, store: JobStore, open_store: Callable[[], JobStore]) -> None:
        store.add(job("batch-1"), "run")
        stores = [open_store() for _ in range(4)]
        start = threading.Barrier(16)
        won: list[int] = []
        lost: list[str] = []

        def move(n: int) -> None:
            start.wait()
            try:
                stores[n % 4].move("batch-1", "submitted", "preparing", f"thread {n}", pid=n)
                won.append(n)
            except Conflict as conflict:
                lost.append(conflict.status)

        threads = [threading.Thread(target=move, args=(n,)) for n in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(won) == 1
        assert lost == ["preparing"] * 15
        assert store.get("batch-1").pid == won[0]
        assert [move.reason for move in store.moves("batch-1")] == ["run", f"thread {won[0]}"]

    def test_a_deleted_job_is_gone_with_its_moves(self, store: JobStore) -> None:
        store.add(job("batch-1"), "run")
        store.add(job("batch-2"), "run")
        with pytest.raises(Conflict, match="batch-1 is submitted, not completed or failed"):
            store.delete("batch-1", ["completed", "failed"])
        store.move("batch-1", "submitted", "failed", "no")
        store.delete("batch-1", ["completed", "failed"])

        assert [each.id for each in store.jobs()] == ["batch-2"]
        assert store.moves("batch-1") == []
        assert len(store.moves("batch-2")) == 1
