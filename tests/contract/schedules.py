"""What schedules must do, wherever they are kept."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa

from launcher.errors import ScheduleUnknown, StoreUnavailable
from launcher.state.database import Database
from launcher.state.deliveries import Deliveries
from launcher.state.job import Job, Webhook
from launcher.state.schedules import Schedule, SchedulePosition, Schedules, new_schedule_id, run_id
from launcher.state.sql import SqlJobStore
from launcher.state.store import Filter
from tests.contract.job_store import T0, Clock, queued

BODY = {"model_id": "churn", "input": {"source": "sql", "query": "SELECT '{{ scheduled_at }}' AS größe"}}
TWO, THREE = T0 + timedelta(hours=2), T0 + timedelta(hours=3)


def nightly(schedule_id: str = "sched-1", tenant: str = "acme", created_at: datetime = T0) -> Schedule:
    return Schedule(schedule_id, tenant, "0 2 * * *", "Europe/Berlin", BODY, "submitter", created_at, next_at=TWO)


def run_of(schedule_id: str, scheduled_at: datetime = TWO) -> Job:
    made = queued(run_id(schedule_id, scheduled_at), "acme", scheduled_at)
    return replace(made, schedule_id=schedule_id, scheduled_at=scheduled_at)


class SchedulesContract:
    """Mix with one of `tests.contract.databases`."""

    @pytest.fixture
    def schedules(self, open_database: Callable[[], Database]) -> Schedules:
        return Schedules(open_database())

    @pytest.fixture
    def jobs(self, open_database: Callable[[], Database]) -> SqlJobStore:
        return SqlJobStore(open_database())

    def test_what_was_added_is_got_back_equal(self, schedules: Schedules) -> None:
        full = replace(
            nightly(new_schedule_id()),
            name="nightly",
            enabled=False,
            missed="skip",
            overlap="cancel_running",
            webhook_secret="hush",
            role="admin",
            last_at=T0,
            last_job_id="batch-1",
            last_error="the model is gone",
        )
        schedules.add(full)
        schedules.add(nightly())

        assert schedules.get(full.id) == schedules.get(full.id, "acme") == full
        assert schedules.get("sched-1") == nightly()
        assert "hush" not in repr(full)

    def test_an_unknown_schedule_is_named_and_so_is_another_tenants(self, schedules: Schedules) -> None:
        schedules.add(nightly())
        unknown = "there is no schedule '{}'; `penstock schedules list` shows all"

        for schedule_id, tenant in (("sched-2", None), ("sched-1", "bolt")):
            with pytest.raises(ScheduleUnknown, match=unknown.format(schedule_id)):
                schedules.get(schedule_id, tenant)
            with pytest.raises(ScheduleUnknown, match=unknown.format(schedule_id)):
                schedules.update(schedule_id, tenant, enabled=False)
            with pytest.raises(ScheduleUnknown, match=unknown.format(schedule_id)):
                schedules.delete(schedule_id, tenant)
        assert schedules.get("sched-1") == nightly()

    def test_fields_are_set(self, schedules: Schedules) -> None:
        schedules.add(nightly())
        schedules.add(nightly("sched-2"))
        changed = schedules.update("sched-1", "acme", cron="0 3 * * *", next_at=THREE, job={"model_id": "fraud"})

        assert changed == replace(nightly(), cron="0 3 * * *", next_at=THREE, job={"model_id": "fraud"})
        assert schedules.get("sched-1") == schedules.update("sched-1") == changed
        assert schedules.get("sched-2") == nightly("sched-2")

    def test_pages_are_newest_first_and_do_not_shift(self, schedules: Schedules) -> None:
        for n in (1, 3, 5):
            schedules.add(nightly(f"sched-{n}"))
        schedules.add(nightly("sched-9", created_at=T0 + timedelta(seconds=1)))
        schedules.add(nightly("sched-theirs", "bolt"))
        first = schedules.page("acme", 2)
        schedules.add(nightly("sched-4"))
        schedules.add(nightly("sched-0", created_at=T0 + timedelta(seconds=2)))
        second = schedules.page("acme", 9, SchedulePosition(first[-1].created_at, first[-1].id))

        assert [each.id for each in first] == ["sched-9", "sched-5"]
        assert [each.id for each in second] == ["sched-4", "sched-3", "sched-1"]

    def test_what_is_due_waits_longest_first_unless_paused(self, schedules: Schedules) -> None:
        for n in (3, 1, 2):
            schedules.add(replace(nightly(f"sched-{n}"), next_at=T0 + timedelta(seconds=n)))
        schedules.add(replace(nightly("sched-paused"), next_at=T0, enabled=False))
        schedules.add(replace(nightly("sched-never"), next_at=None))

        assert schedules.due(T0, 9) == []
        assert [each.id for each in schedules.due(T0 + timedelta(seconds=2), 9)] == ["sched-1", "sched-2"]
        assert [each.id for each in schedules.due(TWO, 2)] == ["sched-1", "sched-2"]

    def test_a_time_that_is_fired_makes_its_job_and_goes_on(
        self, schedules: Schedules, jobs: SqlJobStore, open_database: Callable[[], Database], clock: Clock
    ) -> None:
        schedules.add(replace(nightly(), last_error="the model was gone"))
        run = replace(run_of("sched-1"), webhook=Webhook("https://example.org", ("submitted",)))
        fired = schedules.fire("sched-1", TWO, THREE, run, "due at 2:00", webhook_secret="hush")
        clock.now = TWO

        assert fired is True
        assert schedules.get("sched-1") == replace(nightly(), next_at=THREE, last_at=TWO, last_job_id=run.id)
        assert jobs.get(run.id).scheduled_at == TWO
        assert [move.reason for move in jobs.moves(run.id)] == ["due at 2:00"]
        assert [each.id for each in jobs.page(Filter("acme", schedule_id="sched-1"), 9)] == [run.id]
        ((told, secret),) = Deliveries(open_database()).claim(9, 5)
        assert (told.job_id, secret) == (run.id, "hush")

    def test_a_time_may_be_fired_without_a_job(self, schedules: Schedules, jobs: SqlJobStore) -> None:
        schedules.add(replace(nightly(), last_job_id="batch-1"))
        fired = schedules.fire("sched-1", TWO, None, None, "due", skipped="batch-1 is still running")
        expected = replace(nightly(), last_job_id="batch-1", next_at=None, last_at=TWO)

        assert fired is True
        assert schedules.get("sched-1") == replace(expected, last_error="batch-1 is still running")
        assert jobs.jobs() == []

    @pytest.mark.parametrize(
        "meanwhile", [{"next_at": THREE}, {"enabled": False}, {"next_at": None}], ids=["changed", "paused", "ended"]
    )
    def test_what_was_changed_meanwhile_is_not_fired(
        self, schedules: Schedules, jobs: SqlJobStore, meanwhile: dict[str, object]
    ) -> None:
        schedules.add(nightly())
        changed = schedules.update("sched-1", **meanwhile)

        assert schedules.fire("sched-1", TWO, THREE, run_of("sched-1"), "due") is False
        assert schedules.fire("sched-2", TWO, THREE, run_of("sched-2"), "due") is False
        assert schedules.get("sched-1") == changed
        assert jobs.jobs() == []

    def test_a_run_that_is_there_already_is_not_made_twice_and_the_schedule_goes_on(
        self, schedules: Schedules, jobs: SqlJobStore
    ) -> None:
        schedules.add(nightly())
        jobs.add(run_of("sched-1"), "made before")

        assert schedules.fire("sched-1", TWO, THREE, run_of("sched-1"), "due") is False
        assert schedules.get("sched-1").next_at == THREE
        assert [move.reason for move in jobs.moves(run_id("sched-1", TWO))] == ["made before"]

    def test_of_many_launchers_that_fire_the_same_time_one_does(
        self, schedules: Schedules, jobs: SqlJobStore, open_database: Callable[[], Database]
    ) -> None:
        schedules.add(nightly())
        launchers = [Schedules(open_database()) for _ in range(4)]
        start = threading.Barrier(8)

        def fire(n: int) -> bool:
            start.wait()
            return launchers[n % 4].fire("sched-1", TWO, THREE, run_of("sched-1"), f"launcher {n}")

        with ThreadPoolExecutor(8) as threads:
            fired = list(threads.map(fire, range(8)))

        assert fired.count(True) == 1
        (made,) = jobs.jobs()
        assert [move.reason for move in jobs.moves(made.id)] == [f"launcher {fired.index(True)}"]

    def test_a_schedule_does_not_go_on_without_its_job(
        self, schedules: Schedules, open_database: Callable[[], Database]
    ) -> None:
        schedules.add(nightly())
        with open_database().transaction() as connection:
            connection.execute(sa.text("DROP TABLE moves"))

        with pytest.raises(StoreUnavailable):
            schedules.fire("sched-1", TWO, THREE, run_of("sched-1"), "due")
        assert schedules.get("sched-1") == nightly()

    def test_a_deleted_job_is_no_schedules_last_one(self, schedules: Schedules, jobs: SqlJobStore) -> None:
        schedules.add(nightly())
        schedules.fire("sched-1", TWO, THREE, run_of("sched-1"), "due")
        schedules.fire("sched-1", THREE, THREE + (THREE - TWO), run_of("sched-1", THREE), "due")
        first, last = sorted(jobs.jobs(), key=lambda job: str(job.scheduled_at))
        jobs.delete(first.id, ["submitted"])
        before = schedules.get("sched-1")
        jobs.delete(last.id, ["submitted"])
        after = schedules.get("sched-1")

        assert (before.last_job_id, after.last_job_id) == (last.id, None)
        assert after.last_at == before.last_at == THREE

    def test_a_deleted_schedule_leaves_its_jobs(self, schedules: Schedules, jobs: SqlJobStore) -> None:
        schedules.add(nightly())
        schedules.fire("sched-1", TWO, THREE, run_of("sched-1"), "due")
        schedules.delete("sched-1", "acme")

        assert schedules.page("acme", 9) == []
        assert [each.schedule_id for each in jobs.jobs()] == ["sched-1"]
