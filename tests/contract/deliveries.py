"""What webhooks that wait to be sent must do, wherever they are kept."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from launcher.errors import Conflict, StoreUnavailable
from launcher.state.database import Database
from launcher.state.deliveries import Deliveries
from launcher.state.job import Status, Webhook
from launcher.state.sql import SqlJobStore
from tests.contract.job_store import T0, Clock, come_to, queued

URL = "https://example.org/hook"


class DeliveriesContract:
    """Mix with one of `tests.contract.databases`."""

    @pytest.fixture
    def deliveries(self, open_database: Callable[[], Database]) -> Deliveries:
        return Deliveries(open_database())

    @pytest.fixture
    def jobs(self, open_database: Callable[[], Database]) -> SqlJobStore:
        return SqlJobStore(open_database())

    @staticmethod
    def add(jobs: SqlJobStore, job_id: str = "batch-1", events: tuple[Status, ...] = ("submitted",)) -> None:
        jobs.add(replace(queued(job_id, "acme"), webhook=Webhook(URL, events)), "POST", webhook_secret="hush")

    def test_moves_that_somebody_wants_to_hear_of_are_recorded(
        self, deliveries: Deliveries, jobs: SqlJobStore, clock: Clock
    ) -> None:
        self.add(jobs, events=("running", "failed"))
        jobs.add(queued("batch-2", "acme"), "POST")
        come_to(jobs, "batch-2", "failed")
        jobs.move("batch-1", "submitted", "preparing", "started")
        clock.advance(1)
        jobs.move("batch-1", "preparing", "running", "10 rows")
        clock.advance(1)
        jobs.move("batch-1", "running", "failed", "no", outcome="timed_out")
        running, failed = deliveries.of_job("batch-1")

        assert running.event == {
            "job_id": "batch-1",
            "status": "running",
            "previous_status": "preparing",
            "reason": "10 rows",
            "outcome": None,
            "attempt": 1,
            "at": "2025-03-15T10:00:01.250000Z",
        }
        assert (failed.event["status"], failed.event["outcome"]) == ("failed", "timed_out")
        assert running.id != failed.id
        assert {(each.job_id, each.tenant, each.url, each.tries) for each in (running, failed)} == {
            ("batch-1", "acme", URL, 0)
        }
        assert (running.created_at, failed.created_at) == (T0 + timedelta(seconds=1), T0 + timedelta(seconds=2))
        assert deliveries.of_job("batch-2") == []

    def test_a_move_that_is_refused_tells_nobody(self, deliveries: Deliveries, jobs: SqlJobStore) -> None:
        self.add(jobs, events=("failed",))

        with pytest.raises(Conflict):
            jobs.move("batch-1", "running", "failed", "no")
        assert deliveries.of_job("batch-1") == []

    def test_a_move_that_cannot_be_told_is_not_made(
        self, jobs: SqlJobStore, open_database: Callable[[], Database]
    ) -> None:
        self.add(jobs, events=("failed",))
        with open_database().transaction() as connection:
            connection.execute(sa.text("DROP TABLE deliveries"))

        with pytest.raises(StoreUnavailable):
            jobs.move("batch-1", "submitted", "failed", "no")
        assert jobs.get("batch-1").status == "submitted"
        assert len(jobs.moves("batch-1")) == 1
        assert jobs.totals() == {}

    def test_a_claimed_delivery_is_nobody_elses_for_a_while(
        self, deliveries: Deliveries, jobs: SqlJobStore, clock: Clock
    ) -> None:
        self.add(jobs)
        ((first, secret),) = deliveries.claim(9, lease_s=10)
        clock.advance(9.9)
        assert deliveries.claim(9, 10) == []
        clock.advance(0.1)
        ((again, _),) = deliveries.claim(9, 10)

        assert (first.url, first.tries, secret) == (URL, 1, "hush")
        assert first.next_at == T0 + timedelta(seconds=10)
        assert (again.id, again.event, again.tries) == (first.id, first.event, 2)
        assert deliveries.of_job("batch-1") == [again]
        assert "hush" not in repr(again)

    def test_what_waits_longest_is_claimed_first(self, deliveries: Deliveries, jobs: SqlJobStore, clock: Clock) -> None:
        for n in range(3):
            clock.advance(1)
            jobs.add(replace(queued(f"batch-{n}", "acme", clock.now), webhook=Webhook(URL, ("submitted",))), "POST")

        assert [each.job_id for each, _ in deliveries.claim(2, 10)] == ["batch-0", "batch-1"]
        assert [(each.job_id, secret) for each, secret in deliveries.claim(2, 10)] == [("batch-2", None)]

    def test_what_is_delivered_is_not_sent_again(self, deliveries: Deliveries, jobs: SqlJobStore, clock: Clock) -> None:
        self.add(jobs)
        ((claimed, _),) = deliveries.claim(9, 10)
        clock.advance(1)
        deliveries.delivered(claimed.id)
        # Somebody's answer to an earlier try that was slow.
        deliveries.failed(claimed.id, "timed out", 5)
        clock.advance(3600)
        (kept,) = deliveries.of_job("batch-1")

        assert (kept.delivered_at, kept.next_at, kept.last_error) == (T0 + timedelta(seconds=1), None, None)
        assert deliveries.claim(9, 10) == []

    def test_what_failed_is_sent_again_later_until_it_is_given_up(
        self, deliveries: Deliveries, jobs: SqlJobStore, clock: Clock
    ) -> None:
        self.add(jobs)
        ((claimed, _),) = deliveries.claim(9, 10)
        deliveries.failed(claimed.id, "503", 60)
        clock.advance(59)
        assert deliveries.claim(9, 10) == []
        clock.advance(1)
        ((again, _),) = deliveries.claim(9, 10)
        assert (again.tries, again.last_error) == (2, "503")
        deliveries.failed(claimed.id, "410 Gone", None)
        clock.advance(3600)
        (kept,) = deliveries.of_job("batch-1")

        assert deliveries.claim(9, 10) == []
        assert (kept.next_at, kept.delivered_at, kept.last_error, kept.tries) == (None, None, "410 Gone", 2)

    def test_of_many_that_claim_each_delivery_goes_to_one(
        self, deliveries: Deliveries, jobs: SqlJobStore, open_database: Callable[[], Database]
    ) -> None:
        for n in range(20):
            self.add(jobs, f"batch-{n}")
        launchers = [Deliveries(open_database()) for _ in range(4)]
        start = threading.Barrier(8)

        def claim(n: int) -> list[str]:
            start.wait()
            claimed: list[str] = []
            while some := launchers[n % 4].claim(2, 10):
                claimed += [each.job_id for each, _ in some]
            return claimed

        with ThreadPoolExecutor(8) as threads:
            got = [job_id for claimed in threads.map(claim, range(8)) for job_id in claimed]

        assert sorted(got) == sorted(f"batch-{n}" for n in range(20))

    def test_nothing_is_sent_of_a_deleted_job(self, deliveries: Deliveries, jobs: SqlJobStore) -> None:
        self.add(jobs)
        self.add(jobs, "batch-2")
        jobs.delete("batch-1", ["submitted"])

        assert [(each.job_id, secret) for each, secret in deliveries.claim(9, 10)] == [("batch-2", "hush")]

    def test_old_deliveries_that_are_done_are_swept_away(
        self, deliveries: Deliveries, jobs: SqlJobStore, clock: Clock
    ) -> None:
        for name in ("batch-delivered", "batch-given-up", "batch-waits", "batch-new"):
            clock.advance(1)
            jobs.add(replace(queued(name, "acme", clock.now), webhook=Webhook(URL, ("submitted",))), "POST")
        claimed = {each.job_id: each.id for each, _ in deliveries.claim(9, 10)}
        deliveries.delivered(claimed["batch-delivered"])
        deliveries.failed(claimed["batch-given-up"], "no", None)
        deliveries.delivered(claimed["batch-new"])

        assert deliveries.sweep(T0 + timedelta(seconds=4)) == 2
        assert [name for name in claimed if deliveries.of_job(name)] == ["batch-waits", "batch-new"]
