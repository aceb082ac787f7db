"""What every job store must do. A subclass gives `open_store`; each call opens the same store again."""

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from launcher.errors import Conflict, JobExists, JobUnknown, MoveForbidden
from launcher.state.job import ACTIVE, TERMINAL, Job, Live, Seconds, Status, Webhook, new_id, shown_counts
from launcher.state.speed import Speed
from launcher.state.store import Ended, Filter, JobStore, Past, Position
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


def queued(job_id: str, tenant: str = "default", created_at: datetime = T0, **changes: Any) -> Job:
    """A job that a launcher will claim."""
    return replace(job(job_id, created_at=created_at), tenant=tenant, managed=True, **changes)


def ids(jobs: list[Job]) -> list[str]:
    return [each.id for each in jobs]


# The states on the way of a job that goes well.
WAY: tuple[Status, ...] = ("preparing", "running", "completing", "completed")


def come_to(store: JobStore, job_id: str, status: Status, **changes: Any) -> Job:
    """Move a job that was just submitted to `status`, by way of all states before; `changes` come with the last."""
    way: tuple[Status, ...] = WAY[: WAY.index(status) + 1] if status in WAY else ("preparing", "running", status)
    for to in way[:-1]:
        store.move(job_id, ACTIVE, to, "on")
    return store.move(job_id, ACTIVE, way[-1], "there", **changes)


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

    # --- what is kept -------------------------------------------------------------------------------------------

    def test_every_field_is_got_back_equal(self, store: JobStore) -> None:
        full = replace(
            job("batch-1"),
            managed=True,
            tenant="acme",
            model_id="churn",
            model_version=3,
            name="Zürich, täglich",
            labels={"team": "ö", "b": ""},
            schedule_id="sched-1",
            scheduled_at=T0 + timedelta(seconds=1),
            retry_of="batch-0",
            queued_at=T0 + timedelta(seconds=2),
            not_before=T0 + timedelta(microseconds=3),
            retries=1,
            memory_strikes=2,
            deadline_at=T0 + timedelta(days=4),
            owner="host:1",
            lease_until=T0 + timedelta(seconds=5),
            live=Live(1, 2, 3, 4, 5, 0.5, 1.5, 2.5, 6, 3.5, (7, 8, 9)),
            live_at=T0,
            shown=Counts(1, 2, 3),
            snapshot_rows=2**40,
            estimated_seconds=870.5,
            speed=Speed(1.5, 2.5, 1, 3, T0),
            keeps_result=True,
            webhook=Webhook("https://example.org/hook", ("completed",)),
            traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            times={"submitted": T0},
            pid=2**22,
            pid_started=1742032800.123456,
        )
        store.add(full, "POST", webhook_secret="hush")

        assert store.get("batch-1") == full
        assert "hush" not in repr(store.get("batch-1"))

    def test_a_job_in_any_zone_is_got_back_in_utc(self, store: JobStore) -> None:
        store.add(job("batch-1", created_at=datetime.fromisoformat("2025-03-15T12:30:00+02:00")), "run")

        assert store.get("batch-1").created_at == datetime(2025, 3, 15, 10, 30, tzinfo=UTC)
        assert store.get("batch-1").created_at.utcoffset() == timedelta(0)

    def test_fields_are_set_without_a_move_in_an_expected_state_alone(self, store: JobStore) -> None:
        store.add(queued("batch-1"), "POST")
        come_to(store, "batch-1", "failed")
        updated = store.update("batch-1", ["failed"], expired_at=T0, labels={"a": "b"})

        assert updated == store.get("batch-1")
        assert (updated.expired_at, updated.labels) == (T0, {"a": "b"})
        with pytest.raises(Conflict, match="batch-1 is failed, not completed"):
            store.update("batch-1", ["completed"], labels={})
        assert store.get("batch-1") == updated
        assert store.moves("batch-1")[-1].to == "failed"
        with pytest.raises(JobUnknown):
            store.update("batch-2", ["failed"], expired_at=T0)

    # --- the queue ----------------------------------------------------------------------------------------------

    def test_of_one_tenant_the_job_that_waits_longest_comes_first(self, store: JobStore) -> None:
        for n in (3, 1, 4, 2):
            store.add(queued(f"batch-{n}", created_at=T0 + timedelta(seconds=n)), "POST")

        assert [ids(store.claim("me", 1, 9, 5)) for _ in range(5)] == [
            ["batch-1"],
            ["batch-2"],
            ["batch-3"],
            ["batch-4"],
            [],
        ]

    def test_a_claimed_job_is_preparing_under_a_lease(self, store: JobStore, clock: Clock) -> None:
        store.add(queued("batch-1"), "POST")
        clock.advance(2)
        (claimed,) = store.claim("host:1", 5, 3, lease_s=5)

        assert claimed == store.get("batch-1")
        assert (claimed.status, claimed.attempt, claimed.owner) == ("preparing", 1, "host:1")
        assert claimed.lease_until == T0 + timedelta(seconds=7)
        # config.timeout_minutes of the spec is half a minute.
        assert (claimed.started_at, claimed.deadline_at) == (T0 + timedelta(seconds=2), T0 + timedelta(seconds=32))
        assert [move.to for move in store.moves("batch-1")] == ["submitted", "preparing"]

    def test_no_more_jobs_are_claimed_than_asked_for(self, store: JobStore) -> None:
        for n in range(5):
            store.add(queued(f"batch-{n}"), "POST")

        assert store.claim("me", 0, 9, 5) == []
        assert len(store.claim("me", 2, 9, 5)) == 2
        assert len(store.claim("me", 9, 4, 5)) == 2

    def test_a_job_that_nobody_manages_is_never_claimed(self, store: JobStore) -> None:
        store.add(job("batch-1"), "penstock run")

        assert store.claim("me", 9, 9, 5) == []
        assert store.at_work() == []

    def test_a_job_waits_at_least_until_its_time(self, store: JobStore, clock: Clock) -> None:
        store.add(queued("batch-1", not_before=T0 + timedelta(seconds=10)), "POST")
        store.add(queued("batch-2", created_at=T0 + timedelta(seconds=1)), "POST")

        assert ids(store.claim("me", 9, 9, 5)) == ["batch-2"]
        clock.advance(9.9)
        assert store.claim("me", 9, 9, 5) == []
        clock.advance(0.1)
        (claimed,) = store.claim("me", 9, 9, 5)
        assert (claimed.id, claimed.not_before) == ("batch-1", None)

    def test_tenants_take_turns_however_long_their_queues_are(self, store: JobStore, clock: Clock) -> None:
        lengths = {"long": 30, "short": 6, "one": 1}
        for tenant, length in lengths.items():
            for n in range(length):
                # The long queue was there first.
                store.add(queued(f"batch-{tenant}-{n}", tenant, T0 + timedelta(seconds=len(tenant))), "POST")
        served: list[str] = []
        while claimed := store.claim("me", 1, 2, 5):
            clock.advance(1)
            served.append(claimed[0].tenant)
            # The oldest of two at work ends.
            at_work = sorted(store.at_work(), key=lambda each: each.times["preparing"])
            if len(at_work) == 2:
                store.move(at_work[0].id, "preparing", "failed", "done")

        assert Counter(served) == lengths
        assert set(served[:3]) == set(lengths)
        # While both have jobs that wait, neither is ahead by more than one.
        both = served[:13]
        ahead = [both[:n].count("long") - both[:n].count("short") for n in range(1, 13)]
        assert all(-1 <= each <= 1 for each in ahead)

    def test_the_tenant_with_fewer_jobs_at_work_comes_first(self, store: JobStore) -> None:
        for n in range(3):
            store.add(queued(f"batch-a{n}", "a"), "POST")
        assert len(store.claim("me", 2, 3, 5)) == 2
        for n in range(3):
            store.add(queued(f"batch-b{n}", "b"), "POST")

        assert [each.tenant for each in store.claim("me", 9, 3, 5)] in (["b", "b", "a", "b"], ["b", "b", "b", "a"])

    def test_a_tenant_at_its_limit_waits_and_holds_up_nobody(self, store: JobStore) -> None:
        for tenant in ("a", "b"):
            for n in range(3):
                store.add(queued(f"batch-{tenant}{n}", tenant), "POST")
        assert Counter(each.tenant for each in store.claim("me", 9, 2, 5)) == {"a": 2, "b": 2}
        assert store.claim("me", 9, 2, 5) == []
        store.move("batch-b0", "preparing", "failed", "no")

        assert ids(store.claim("me", 9, 2, 5)) == ["batch-b2"]

    def test_of_many_that_claim_each_job_goes_to_one_and_no_tenant_has_too_many(
        self, store: JobStore, open_store: Callable[[], JobStore]
    ) -> None:
        lengths = {"a": 12, "b": 6, "c": 3}
        for tenant, length in lengths.items():
            for n in range(length):
                store.add(queued(f"batch-{tenant}-{n}", tenant), "POST")
        stores = [open_store() for _ in range(4)]
        start = threading.Barrier(8)
        got: list[str] = []
        most_at_work: Counter[str] = Counter()

        def work(n: int) -> None:
            mine = stores[n % 4]
            start.wait()
            while any(each.status == "submitted" for each in mine.jobs()):
                claimed = mine.claim(f"worker {n}", 2, 2, 5)
                got.extend(ids(claimed))
                at_work = Counter(each.tenant for each in mine.at_work())
                for tenant, count in at_work.items():
                    most_at_work[tenant] = max(most_at_work[tenant], count)
                for each in claimed:
                    mine.move(each.id, "preparing", "failed", "done", attempt=1)

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(work, range(8)))

        assert sorted(got) == sorted(f"batch-{tenant}-{n}" for tenant, length in lengths.items() for n in range(length))
        assert all(count <= 2 for count in most_at_work.values())

    # --- an attempt at work -------------------------------------------------------------------------------------

    def test_a_beat_renews_the_lease_and_tells_how_far_it_is(self, store: JobStore, clock: Clock) -> None:
        store.add(queued("batch-1"), "POST")
        store.claim("me", 1, 1, 5)
        clock.advance(3)
        live = Live(rows_read=10, scored=7, calls=2, call_buckets=(1, 1))

        assert store.beat("batch-1", 1, 5, live=live, snapshot_rows=12) is False
        told = store.get("batch-1")
        assert told.lease_until == told.live_at + timedelta(seconds=5) == T0 + timedelta(seconds=8)  # type: ignore[operator]
        assert (told.live, told.snapshot_rows, told.status) == (live, 12, "preparing")

    def test_a_beat_is_told_that_the_job_is_to_stop(self, store: JobStore) -> None:
        store.add(queued("batch-1"), "POST")
        store.claim("me", 1, 1, 5)
        store.request_cancel("batch-1", "POST cancel")

        assert store.beat("batch-1", 1, 5) is True
        assert store.beat("batch-1", 1, 5) is True

    def test_what_an_attempt_says_that_is_not_the_jobs_any_more_is_refused(self, store: JobStore) -> None:
        store.add(queued("batch-1"), "POST")
        store.claim("first", 1, 1, 5)
        store.move("batch-1", "preparing", "submitted", "its machine was lost", attempt=1)
        store.claim("second", 1, 1, 5)
        before, moves = store.get("batch-1"), store.moves("batch-1")

        with pytest.raises(Conflict, match="batch-1 is in attempt 2, not 1"):
            store.beat("batch-1", 1, 5, live=Live(scored=1))
        with pytest.raises(Conflict, match="batch-1 is in attempt 2, not 1"):
            store.move("batch-1", ["preparing", "running"], "running", "10 rows", attempt=1)
        with pytest.raises(Conflict, match="batch-1 is in attempt 2, not 1"):
            store.move("batch-1", ACTIVE, "failed", "no", attempt=1)
        assert store.get("batch-1") == before
        assert store.moves("batch-1") == moves
        assert store.move("batch-1", "preparing", "running", "10 rows", attempt=2).status == "running"

    @pytest.mark.parametrize("ended", sorted(TERMINAL))
    def test_a_job_that_is_over_beats_no_more(self, store: JobStore, ended: Status) -> None:
        store.add(queued("batch-1"), "POST")
        before = come_to(store, "batch-1", ended)

        with pytest.raises(Conflict, match=f"batch-1 is {ended}, not "):
            store.beat("batch-1", 1, 5)
        assert store.get("batch-1") == before
        with pytest.raises(JobUnknown):
            store.beat("batch-2", 1, 5)

    def test_another_attempt_keeps_its_deadline_and_what_was_shown(self, store: JobStore, clock: Clock) -> None:
        store.add(queued("batch-1"), "POST")
        shown: list[int] = []
        attempts: list[tuple[int, int]] = []
        # Rows staged before, rows this attempt has counted when it is lost.
        for already, scored in [(0, 50), (30, 10), (40, 45)]:
            (claimed,) = store.claim("me", 1, 1, 5)
            shown.append(shown_counts(claimed).total)
            store.move("batch-1", "preparing", "running", "100 rows", total_rows=100, already=Counts(already))
            shown.append(shown_counts(store.get("batch-1")).total)
            store.beat("batch-1", claimed.attempt, 5, live=Live(scored=scored))
            shown.append(shown_counts(store.get("batch-1")).total)
            clock.advance(1)
            back = store.move("batch-1", "running", "submitted", "lost", attempt=claimed.attempt)
            shown.append(shown_counts(back).total)
            attempts.append((back.attempt, back.retries))
            assert (back.live, back.lease_until, back.owner, back.pid) == (Live(), None, None, None)
            assert back.queued_at == clock.now
            assert back.deadline_at == T0 + timedelta(seconds=30)

        assert attempts == [(2, 1), (3, 2), (4, 3)]
        assert shown == sorted(shown)
        assert shown[-1] == 85

    def test_a_job_that_is_asked_for_again_has_its_time_and_its_tries_anew(self, store: JobStore, clock: Clock) -> None:
        store.add(queued("batch-1"), "POST")
        store.claim("me", 1, 1, 5)
        store.move("batch-1", "preparing", "submitted", "lost", memory_strikes=1)
        store.claim("me", 1, 1, 5)
        store.move("batch-1", "preparing", "running", "100 rows", total_rows=100)
        store.beat("batch-1", 2, 5, live=Live(scored=60))
        store.request_cancel("batch-1", "POST cancel")
        # 40 of them are staged.
        ended = store.move("batch-1", "running", "cancelled", "told to", counts=Counts(40))
        clock.advance(3600)
        again = store.move("batch-1", "cancelled", "submitted", "POST retry")
        (claimed,) = store.claim("me", 1, 1, 5)

        assert (ended.cancel_requested_at, ended.finished_at) == (None, T0)
        assert (again.attempt, again.retries, again.memory_strikes, again.deadline_at) == (3, 0, 0, None)
        assert (again.finished_at, again.counts, again.error) == (None, None, None)
        assert claimed.deadline_at == clock.now + timedelta(seconds=30)
        assert claimed.started_at == T0
        assert [shown_counts(each).total for each in (ended, again, claimed)] == [60, 60, 60]

    # --- cancelling ---------------------------------------------------------------------------------------------

    def test_a_job_that_waits_is_cancelled_at_once(self, store: JobStore, clock: Clock) -> None:
        store.add(queued("batch-1"), "POST")
        clock.advance(1)
        cancelled = store.request_cancel("batch-1", "POST cancel")

        assert cancelled == store.get("batch-1")
        assert (cancelled.status, cancelled.finished_at) == ("cancelled", clock.now)
        assert store.moves("batch-1")[-1].reason == "POST cancel"
        assert store.claim("me", 1, 1, 5) == []

    @pytest.mark.parametrize("status", ["preparing", "running", "completing"])
    def test_a_job_at_work_is_told_to_stop_once(self, store: JobStore, clock: Clock, status: Status) -> None:
        store.add(queued("batch-1"), "POST")
        come_to(store, "batch-1", status)
        moves = store.moves("batch-1")
        told = store.request_cancel("batch-1", "POST cancel")
        clock.advance(1)

        assert (told.status, told.cancel_requested_at) == (status, T0)
        assert store.request_cancel("batch-1", "POST cancel") == told == store.get("batch-1")
        assert store.moves("batch-1") == moves

    def test_a_job_that_waits_behind_a_publish_that_had_begun_is_not_called_cancelled(self, store: JobStore) -> None:
        for job_id in ("batch-1", "batch-2"):
            store.add(replace(job(job_id), managed=True), "run")
            for source, to in (("submitted", "preparing"), ("preparing", "running"), ("running", "completing")):
                store.move(job_id, source, to, "on its way")  # type: ignore[arg-type]
        store.move("batch-1", "completing", "submitted", "its process died")
        told = store.request_cancel("batch-1", "cancelled on request")
        store.request_cancel("batch-2", "cancelled on request")
        met = store.move("batch-2", "completing", "submitted", "its process died")

        for ended in (told, met):
            assert (ended.status, ended.outcome, ended.cancel_requested_at) == ("failed", "error", None)
            assert ended.error == (
                "cancelled on request after publishing had begun; whether the result is visible is not known, "
                f"`penstock retry {ended.id}` settles it"
            )

    @pytest.mark.parametrize("ended", sorted(TERMINAL))
    def test_a_job_that_is_over_cannot_be_cancelled(self, store: JobStore, ended: Status) -> None:
        store.add(queued("batch-1"), "POST")
        before = come_to(store, "batch-1", ended)

        with pytest.raises(Conflict) as caught:
            store.request_cancel("batch-1", "POST cancel")
        assert caught.value.status == ended
        assert store.get("batch-1") == before
        with pytest.raises(JobUnknown):
            store.request_cancel("batch-2", "POST cancel")

    # --- lists and numbers --------------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        ("wanted", "expected"),
        [
            (Filter("a"), ["batch-8", "batch-7", "batch-5", "batch-4", "batch-2", "batch-1"]),
            (Filter("b"), ["batch-6", "batch-3", "batch-0"]),
            (Filter("c"), []),
            (Filter("a", statuses=("failed",)), ["batch-4", "batch-1"]),
            (Filter("a", statuses=("failed", "completed")), ["batch-7", "batch-4", "batch-1"]),
            (Filter("a", statuses=("failed", "failed")), ["batch-4", "batch-1"]),
            (Filter("a", model_id="even"), ["batch-8", "batch-4", "batch-2"]),
            (Filter("a", model_id="odd", statuses=("failed",)), ["batch-1"]),
            (Filter("a", model_id="even", statuses=("failed", "submitted")), ["batch-8", "batch-4", "batch-2"]),
            (Filter("a", model_id="no"), []),
            (Filter("a", schedule_id="sched-1"), ["batch-7", "batch-4", "batch-1"]),
            (Filter("a", schedule_id="sched-1", model_id="even"), ["batch-4"]),
            (Filter("b", schedule_id="sched-1"), []),
            (Filter("a", since=T0 + timedelta(seconds=4)), ["batch-8", "batch-7", "batch-5", "batch-4"]),
            (Filter("a", until=T0 + timedelta(seconds=4)), ["batch-2", "batch-1"]),
            (
                Filter("a", ("failed",), "even", "sched-1", T0 + timedelta(seconds=4), T0 + timedelta(seconds=5)),
                ["batch-4"],
            ),
        ],
        ids=lambda value: None if isinstance(value, list) else str(value).removeprefix("Filter"),
    )
    def test_a_page_holds_what_is_wanted_and_pages_add_up_to_all(
        self, store: JobStore, wanted: Filter, expected: list[str]
    ) -> None:
        for n in range(9):
            tenant = "b" if n % 3 == 0 else "a"
            named = {"model_id": "even" if n % 2 == 0 else "odd", "schedule_id": "sched-1" if n % 3 == 1 else None}
            store.add(queued(f"batch-{n}", tenant, T0 + timedelta(seconds=n), **named), "POST")
        for n in (1, 4, 6):
            come_to(store, f"batch-{n}", "failed")
        come_to(store, "batch-7", "completed")
        pages: list[list[Job]] = []
        after: Position | None = None
        while page := store.page(wanted, 2, after):
            pages.append(page)
            after = Position(page[-1].created_at, page[-1].id)

        assert ids(store.page(wanted, 50)) == expected
        assert [each.id for page in pages for each in page] == expected
        assert all(len(page) == 2 for page in pages[:-1])

    @pytest.mark.parametrize("wanted", [Filter("a"), Filter("a", model_id="m")], ids=["plain", "by-model"])
    def test_jobs_that_are_added_meanwhile_do_not_shift_the_next_page(self, store: JobStore, wanted: Filter) -> None:
        # All at one time: the id decides.
        for n in (1, 3, 5, 7):
            store.add(queued(f"batch-{n}", "a", model_id="m"), "POST")
        first = store.page(wanted, 2)
        store.add(queued("batch-6", "a", model_id="m"), "POST")
        store.add(queued("batch-9", "a", T0 + timedelta(seconds=1), model_id="m"), "POST")
        second = store.page(wanted, 2, Position(first[-1].created_at, first[-1].id))

        assert ids(first) == ["batch-7", "batch-5"]
        assert ids(second) == ["batch-3", "batch-1"]
        assert ids(store.page(wanted, 9)) == ["batch-9", "batch-7", "batch-6", "batch-5", "batch-3", "batch-1"]

    def test_jobs_are_counted_by_tenant_and_state(self, store: JobStore) -> None:
        assert store.count_by_status() == {}
        for n, tenant in enumerate("aab"):
            store.add(queued(f"batch-{n}", tenant, schedule_id="sched-1" if tenant == "a" else None), "POST")
        store.add(queued("batch-9", "a", schedule_id="sched-1"), "POST")
        come_to(store, "batch-0", "completed")

        assert store.count_by_status() == {("a", "submitted"): 2, ("a", "completed"): 1, ("b", "submitted"): 1}
        assert store.count("sched-1") == 2
        assert store.count("sched-1", ["completed", "submitted"]) == 3
        assert store.count("sched-2") == 0

    def test_what_is_at_work_is_what_a_process_should_work_on(self, store: JobStore) -> None:
        for status in ("preparing", "running", "completing", "completed", "failed"):
            store.add(queued(f"batch-{status}"), "POST")
            come_to(store, f"batch-{status}", status)  # type: ignore[arg-type]
        store.add(queued("batch-submitted"), "POST")
        store.add(job("batch-unmanaged"), "penstock run")
        come_to(store, "batch-unmanaged", "running")

        assert sorted(ids(store.at_work())) == ["batch-completing", "batch-preparing", "batch-running"]

    def test_a_job_whose_time_is_over_while_it_waits_is_overdue(self, store: JobStore, clock: Clock) -> None:
        for name in ("batch-waits", "batch-works", "batch-new"):
            store.add(queued(name), "POST")
        store.claim("me", 2, 2, 5)
        waits, works = (each.id for each in store.at_work())
        store.move(waits, "preparing", "submitted", "lost")
        clock.advance(30)
        assert store.overdue() == []
        clock.advance(1)

        assert ids(store.overdue()) == [waits]
        assert store.get(works).status == "preparing"

    def test_what_ended_long_ago_and_still_keeps_something_can_expire(self, store: JobStore, clock: Clock) -> None:
        for n in (3, 1, 2, 4, 5):
            store.add(queued(f"batch-{n}"), "POST")
        store.add(job("batch-unmanaged"), "penstock run")
        for name in ("batch-unmanaged", "batch-1", "batch-2", "batch-3", "batch-4"):
            clock.advance(1)
            come_to(store, name, "completed")
        store.update("batch-1", ["completed"], expired_at=clock.now)
        long_ago = T0 + timedelta(seconds=5)

        assert ids(store.expirable(long_ago, 9)) == ["batch-2", "batch-3"]
        assert ids(store.expirable(long_ago, 1)) == ["batch-2"]
        assert store.expirable(T0, 9) == []

    def test_what_has_expired_is_asked_for_by_nobody_and_tidied_away_once(self, store: JobStore, clock: Clock) -> None:
        for n in (1, 2, 3):
            store.add(queued(f"batch-{n}"), "POST")
            come_to(store, f"batch-{n}", "failed")
        store.add(queued("batch-4"), "POST")
        with pytest.raises(Conflict):
            store.expire("batch-4")
        for n in (2, 1):
            clock.advance(1)
            expired = store.expire(f"batch-{n}")
            assert expired.expired_at == clock.now
        clock.advance(1)

        assert store.expire("batch-1") == expired
        assert ids(store.expirable(clock.now, 9)) == ["batch-3"]
        assert ids(store.untidied(9)) == ["batch-2", "batch-1"]
        assert ids(store.untidied(1)) == ["batch-2"]
        assert ids(store.untidied(9, store.get("batch-2").expired_at)) == ["batch-1"]
        store.tidied("batch-2")
        store.tidied("batch-3")
        assert ids(store.untidied(9)) == ["batch-1"]
        with pytest.raises(Conflict):
            store.move("batch-1", "failed", "submitted", "again")
        assert store.move("batch-3", "failed", "submitted", "again").attempt == 2

    def test_a_job_that_was_told_to_stop_does_not_begin_to_publish(self, store: JobStore) -> None:
        for n in (1, 2):
            store.add(queued(f"batch-{n}"), "POST")
        come_to(store, "batch-1", "running")
        store.request_cancel("batch-1", "no")
        with pytest.raises(Conflict, match="batch-1 is told to stop, not running"):
            store.move("batch-1", "running", "completing", "all rows are staged")
        assert store.move("batch-1", "running", "cancelled", "told to").status == "cancelled"
        # What an earlier attempt has begun to show is not taken back.
        come_to(store, "batch-2", "completing")
        store.move("batch-2", "completing", "submitted", "its process died")
        for state in ("preparing", "running"):
            store.move("batch-2", store.get("batch-2").status, state, "again")
        store.request_cancel("batch-2", "no")
        assert store.move("batch-2", "running", "completing", "it was published").status == "completing"

    def test_jobs_that_ended_since_a_time_are_found_the_first_first(self, store: JobStore, clock: Clock) -> None:
        for n in (3, 1, 2):
            store.add(queued(f"batch-{n}", f"tenant-{n}"), "POST")
            clock.now = T0 + timedelta(seconds=n)
            come_to(store, f"batch-{n}", "completed", owner=f"launcher-{n}")
        # Gone in the meantime, waiting again, still at work, and nobody's to start.
        store.update("batch-2", ["completed"], expired_at=T0 + timedelta(seconds=3))
        store.add(queued("batch-4"), "POST")
        come_to(store, "batch-4", "failed")
        store.move("batch-4", "failed", "submitted", "again")
        store.add(queued("batch-5"), "POST")
        come_to(store, "batch-5", "running")
        store.add(job("batch-6"), "penstock run")
        come_to(store, "batch-6", "completed")

        first, second, third = (Ended(f"batch-{n}", 1, f"launcher-{n}", T0 + timedelta(seconds=n)) for n in (1, 2, 3))
        assert store.ended(T0) == [first, second, third]
        assert store.ended(second.finished_at) == [second, third]
        assert store.ended(third.finished_at + timedelta(microseconds=1)) == []

    def test_past_jobs_are_the_last_completed_ones_of_a_version(self, store: JobStore) -> None:
        def ended(n: int, version: int, rows: int, run_s: float, status: Status = "completed") -> None:
            made = queued(f"batch-{n}", "a", T0 + timedelta(seconds=n), model_id="m", model_version=version)
            store.add(made, "POST")
            come_to(store, made.id, status, total_rows=rows, seconds=Seconds(1, run_s, 0.5, score=run_s))

        # Five are looked at, so the first is not.
        for n, rows in enumerate([99_999, 100, 200, 300, 400, 500]):
            ended(n, 1, rows, 2)
        ended(10, 2, 1000, 1)
        ended(11, 1, 7, 9, "failed")
        ended(12, 1, 0, 9)

        assert store.past("a", "m", 1) == [Past(rows, 3.5, 2, 7, 4) for rows in (500, 400, 300, 200, 100)]
        assert store.past("a", "m", 2) == [Past(1000, 2.5, 1, 7, 4)]
        assert store.past("a", "m", 3) == store.past("b", "m", 1) == []
        assert [job.rows for job in store.past_of_all("a")] == [0, 1000, 500, 400, 300, 200, 100, 99_999]
        assert store.past_of_all("b") == []

    def test_totals_hold_each_row_once_while_it_is_scored_and_after(self, store: JobStore) -> None:
        def rows() -> float:
            return store.totals().get(("rows", "scored"), 0)

        for name in ("batch-1", "batch-2"):
            store.add(queued(name), "POST")
        store.add(job("batch-unmanaged"), "penstock run")
        store.claim("me", 2, 2, 5)
        seen = [rows()]
        come_to(store, "batch-unmanaged", "completed", live=Live(scored=1000))
        seen.append(rows())
        for name, scored in (("batch-1", 50), ("batch-2", 7)):
            store.move(name, "preparing", "running", "100 rows")
            store.beat(name, 1, 5, live=Live(scored=scored, rejected=1, calls=2, call_s=0.5, call_buckets=(1, 1)))
            seen.append(rows())
        # Another attempt begins: what the first had scored goes on counting.
        store.move("batch-1", "running", "submitted", "lost")
        seen.append(rows())
        store.claim("me", 1, 9, 5)
        store.move("batch-1", "preparing", "running", "100 rows")
        store.beat("batch-1", 2, 5, live=Live(scored=20))
        seen.append(rows())
        # The last counters come with the move.
        store.move("batch-1", "running", "completing", "all", live=Live(scored=25))
        store.move("batch-1", "completing", "completed", "published", outcome="clean", live=Live(scored=30))
        seen.append(rows())
        store.move("batch-2", "running", "failed", "no", outcome="timed_out")
        seen.append(rows())
        store.delete("batch-1", ["completed"])
        seen.append(rows())
        totals = store.totals()

        assert seen == [0, 0, 50, 57, 57, 77, 87, 87, 87]
        assert totals["rows", "rejected"] == 2
        assert (totals["model_call", "0"], totals["model_call", "1"], totals["model_call_s", ""]) == (2, 2, 1.0)
        assert (totals["jobs_ended", "clean"], totals["jobs_ended", "timed_out"]) == (1, 1)
        assert totals["queue_wait", "0"] == 3

    def test_totals_never_fall_while_jobs_end(self, store: JobStore, open_store: Callable[[], JobStore]) -> None:
        for n in range(20):
            store.add(queued(f"batch-{n}"), "POST")
        other = open_store()
        done = threading.Event()

        def work() -> None:
            try:
                for claimed in other.claim("me", 20, 20, 5):
                    other.move(claimed.id, "preparing", "running", "100 rows")
                    other.beat(claimed.id, 1, 5, live=Live(scored=100))
                    other.move(claimed.id, "running", "failed", "no")
            finally:
                done.set()

        with ThreadPoolExecutor(1) as threads:
            working = threads.submit(work)
            seen: list[float] = []
            while not done.is_set():
                seen.append(store.totals().get(("rows", "scored"), 0))
            working.result()

        assert seen == sorted(seen)
        assert store.totals()["rows", "scored"] == 2000
