"""The timekeeper: which jobs it makes of schedules, and when it makes none."""

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from launcher.admission import Admission
from launcher.errors import RequestError, StoreUnavailable
from launcher.forks.forking import Forks
from launcher.loops.timekeeper import Timekeeper
from launcher.reach.tenant import Reach
from launcher.request.service import Defaults
from launcher.settings import Settings
from launcher.state.job import Job
from launcher.state.registry import Connections, Models
from launcher.state.schedules import Schedule, Schedules, run_id
from pipelines.spec import ParquetInput
from predictors.base import ModelSpec
from tests.api import warm_looks
from tests.unit.launcher_parts import PATIENCE_S, FakeForks, Parts, parts

# Half past midnight in Berlin: yesterday, in UTC.
DUE = datetime(2025, 3, 15, 23, 30, tzinfo=UTC)
REGISTER_MODEL = "register it by `penstock models register` or POST /api/v1/models"
DAY = timedelta(days=1)
BODY = {"model_id": "churn", "input": {"source": "parquet", "path": "in.parquet"}}


@dataclass
class World:
    parts: Parts
    work: Path
    # Where inputs are counted; nowhere.
    looks: Forks = field(default_factory=lambda: FakeForks(is_warm=False))

    def timekeeper(self) -> Timekeeper:
        settings = Settings()
        connections = Connections(self.parts.database)
        reach = Reach(settings, connections, self.parts.home.path, self.work, lambda: False)
        models = Models(self.parts.database)
        admission = Admission(self.parts.home, self.parts.store, models, reach, settings, FakeForks(), self.looks)
        return Timekeeper(self.parts.store, self.schedules, admission, Defaults())

    @property
    def schedules(self) -> Schedules:
        return Schedules(self.parts.database)

    def add(self, schedule_id: str = "sched-1", body: Mapping[str, Any] = BODY, **changes: Any) -> Schedule:
        made: dict[str, Any] = {"next_at": DUE, "role": "submitter", "created_at": self.parts.clock.now, **changes}
        schedule = Schedule(schedule_id, "acme", "30 0 * * *", "Europe/Berlin", body, **made)
        self.schedules.add(schedule)
        return schedule

    def at(self, when: datetime) -> int:
        """What a look at a time makes."""
        self.parts.clock.now = when
        return self.timekeeper().tick()

    def jobs(self, schedule_id: str = "sched-1") -> list[Job]:
        found = [job for job in self.parts.store.jobs() if job.schedule_id == schedule_id]
        return sorted(found, key=lambda job: job.scheduled_at or DUE)

    def schedule(self, schedule_id: str = "sched-1") -> Schedule:
        return self.schedules.get(schedule_id)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    work = tmp_path / "work"
    work.mkdir()
    pq.write_table(pa.table({"id": [1]}), work / "in.parquet")
    with parts(tmp_path) as made:
        Models(made.database).register("acme", "churn", ModelSpec("churn.onnx", "onnx"))
        yield World(made, work)


# --- firing ------------------------------------------------------------------------------------------------------


def test_nothing_is_made_before_its_time(world: World) -> None:
    world.add()

    assert world.at(DUE - timedelta(seconds=1)) == 0
    assert world.jobs() == []


def test_a_job_is_made_when_it_is_due_and_the_schedule_goes_on(world: World) -> None:
    world.looks = warm_looks()
    world.add(webhook_secret="hush-hush")
    assert world.at(DUE) == 1
    assert world.at(DUE + timedelta(seconds=1)) == 0
    (job,) = world.jobs()
    schedule = world.schedule()

    assert (job.id, job.status, job.tenant, job.managed) == (run_id("sched-1", DUE), "submitted", "acme", True)
    assert (job.scheduled_at, job.model_id, job.total_rows) == (DUE, "churn", 1)
    assert world.parts.reasons(job.id) == ["schedule sched-1, due 2025-03-15T23:30:00+00:00"]
    assert world.parts.store.webhook_secret(job.id) == "hush-hush"
    assert (schedule.next_at, schedule.last_at, schedule.last_job_id, schedule.last_error) == (
        DUE + DAY,
        DUE,
        job.id,
        None,
    )


def test_of_two_timekeepers_one_makes_the_job(world: World) -> None:
    for n in range(10):
        world.add(f"sched-{n}")
    world.parts.clock.now = DUE
    together = threading.Barrier(2)

    def tick(keeper: Timekeeper) -> int:
        together.wait(PATIENCE_S)
        return keeper.tick()

    with ThreadPoolExecutor(2) as threads:
        made = list(threads.map(tick, [world.timekeeper(), world.timekeeper()]))

    assert sum(made) == 10
    assert len(world.parts.store.jobs()) == 10


def test_a_daily_job_reads_its_own_day(world: World) -> None:
    for day in ("2025-03-16", "2025-03-15"):
        pq.write_table(pa.table({"id": [1, 2]}), world.work / f"{day}.parquet")
    body = {
        "model_id": "churn",
        "input": {"source": "parquet", "path": ["{{ scheduled_date }}.parquet", "{{ scheduled_date - 1d }}.parquet"]},
        "name": "of {{ scheduled_at | %d.%m. %H:%M }}, {{ job_id }}",
    }
    world.add(body=body)
    assert world.at(DUE) == 1
    (job,) = world.jobs()

    assert job.spec.input == ParquetInput((f"{world.work}/2025-03-16.parquet", f"{world.work}/2025-03-15.parquet"))
    assert job.name == f"of 16.03. 00:30, {job.id}"
    # The body stays as it was written.
    assert world.schedule().job == body


def test_a_schedule_that_is_paused_is_not_due(world: World) -> None:
    world.add(enabled=False)

    assert world.at(DUE + 3 * DAY) == 0
    assert world.schedule().next_at == DUE


def test_a_schedule_that_is_paused_meanwhile_makes_no_job(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = world.add()
    world.schedules.update("sched-1", enabled=False)
    monkeypatch.setattr(Schedules, "due", lambda self, now, limit: [schedule])

    assert world.at(DUE) == 0
    assert world.jobs() == []


# --- missed runs -------------------------------------------------------------------------------------------------


def test_runs_that_were_missed_are_made_up_for_by_the_last(world: World) -> None:
    world.add(missed="run_once")
    assert world.at(DUE + 3 * DAY + timedelta(hours=5)) == 1
    (job,) = world.jobs()

    assert job.scheduled_at == DUE + 3 * DAY
    assert world.schedule().next_at == DUE + 4 * DAY
    assert world.schedule().last_error is None


def test_runs_that_were_missed_are_skipped_where_that_is_wished(world: World) -> None:
    world.add(missed="skip")
    assert world.at(DUE + 3 * DAY + timedelta(hours=5)) == 0
    schedule = world.schedule()

    assert world.jobs() == []
    assert (schedule.next_at, schedule.last_error) == (
        DUE + 4 * DAY,
        "missed 2025-03-18T23:30:00+00:00, and missed runs are skipped",
    )
    assert world.at(DUE + 4 * DAY) == 1
    assert world.schedule().last_error is None


def test_who_is_late_by_less_than_a_minute_has_missed_nothing(world: World) -> None:
    world.add(missed="skip")

    assert world.at(DUE + timedelta(seconds=59)) == 1


def test_who_was_looking_all_the_while_has_missed_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = world.timekeeper()
    world.parts.clock.now = DUE - timedelta(seconds=1)
    keeper.tick()
    for n in range(5):
        world.add(f"sched-{n}", missed="skip")
    make = Timekeeper.make

    def slow(*asked: Any) -> Job:
        # As where each has its rows counted.
        world.parts.clock.advance(40)
        return make(*asked)

    monkeypatch.setattr(Timekeeper, "make", slow)
    world.parts.clock.now = DUE

    assert keeper.tick() == 5
    # On a machine that slept nobody looked.
    world.parts.clock.now = DUE + DAY + timedelta(hours=1)
    assert keeper.tick() == 0


def test_the_last_run_is_the_one_that_was_made(world: World) -> None:
    world.add(missed="run_once")
    world.at(DUE + 3 * DAY + timedelta(hours=5))

    assert world.schedule().last_at == DUE + 3 * DAY


# --- overlaps ----------------------------------------------------------------------------------------------------


def test_a_run_waits_for_the_one_before(world: World) -> None:
    world.add(overlap="queue")
    assert [world.at(DUE), world.at(DUE + DAY)] == [1, 1]
    (first,) = world.parts.store.claim("launcher-one", 9, 9, 30.0)

    assert [job.status for job in world.jobs()] == ["preparing", "submitted"]
    assert world.parts.store.claim("launcher-one", 9, 9, 30.0) == []
    world.parts.store.move(first.id, "preparing", "failed", "no")
    assert [job.scheduled_at for job in world.parts.store.claim("launcher-one", 9, 9, 30.0)] == [DUE + DAY]


def test_a_run_is_skipped_while_the_one_before_is_not_over(world: World) -> None:
    world.add(overlap="skip")
    assert [world.at(DUE), world.at(DUE + DAY)] == [1, 0]
    schedule = world.schedule()
    (first,) = world.jobs()

    assert schedule.last_error == f"the run before {(DUE + DAY).isoformat()} is not over"
    assert (schedule.last_job_id, schedule.next_at) == (first.id, DUE + 2 * DAY)
    world.parts.store.move(first.id, "submitted", "cancelled", "no")
    assert world.at(DUE + 2 * DAY) == 1


def test_a_run_stops_those_before_it(world: World) -> None:
    world.add(overlap="cancel_running")
    other = world.add("sched-2")
    world.at(DUE)
    (at_work,) = world.parts.store.claim("launcher-one", 1, 9, 30.0)
    world.at(DUE + DAY)
    world.at(DUE + 2 * DAY)
    first, second, third = world.jobs(at_work.schedule_id or "")

    if at_work.schedule_id == other.id:
        assert first.cancel_requested_at is None
        first, second, third = world.jobs()
    assert first.cancel_requested_at is not None
    assert second.cancel_requested_at is not None
    assert third.cancel_requested_at is None
    # Whoever looks after those that wait ends them; until then none of them is started.
    assert {job.id for job in world.parts.store.overdue()} == {
        job.id for job in (first, second) if job.status == "submitted"
    }
    world.parts.store.move(at_work.id, "preparing", "failed", "no")
    assert second.id not in {job.id for job in world.parts.store.claim("launcher-one", 9, 9, 30.0)}


def test_a_run_that_comes_late_stops_none_that_is_after_it(world: World) -> None:
    world.add(overlap="cancel_running")
    world.at(DUE + DAY)
    (later,) = world.jobs()
    # As by another launcher that slept between looking and firing.
    world.schedules.update("sched-1", next_at=DUE)
    world.at(DUE + timedelta(seconds=1))

    assert world.parts.store.get(later.id).cancel_requested_at is None


# --- what cannot be made -----------------------------------------------------------------------------------------


def test_a_body_that_is_wrong_by_now_is_told_and_the_schedule_goes_on(world: World) -> None:
    world.add()
    world.schedules.update("sched-1", job={**BODY, "model_id": "other"})
    assert world.at(DUE) == 0
    schedule = world.schedule()

    assert world.jobs() == []
    assert schedule.last_error == f"model_id 'other' is not registered; {REGISTER_MODEL}"
    assert (schedule.next_at, schedule.last_job_id) == (DUE + DAY, None)


def test_all_that_is_wrong_is_told_in_one_line(world: World) -> None:
    world.add(body={**BODY, "config": {"batch_size": 0}, "name": "", "no": 1})
    world.at(DUE)
    error = world.schedule().last_error

    assert error is not None
    assert "\n" not in error
    assert error.count("; ") >= 2
    assert "config.batch_size" in error


def test_a_file_that_is_not_there_on_that_day_is_told(world: World) -> None:
    world.looks = warm_looks()
    world.add(body={**BODY, "input": {"source": "parquet", "path": "{{ scheduled_date }}.parquet"}})
    world.at(DUE)

    assert world.schedule().last_error == f"input.path {world.work}/2025-03-16.parquet: there is no such file or folder"


def test_a_schedule_may_do_what_the_key_may_that_wrote_it(world: World) -> None:
    code = {**BODY, "model_id": None, "model": {"uri": "churn:Model"}}
    world.add("sched-1", code)
    world.add("sched-2", code, role="admin")

    assert world.at(DUE) == 1
    assert "an admin key registers such a model" in (world.schedule("sched-1").last_error or "")
    assert world.schedule("sched-2").last_error is None


def test_a_store_that_is_away_for_a_moment_costs_no_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.add()

    def away(*arguments: Any) -> Any:
        raise StoreUnavailable("the store is away")

    with monkeypatch.context() as patch:
        patch.setattr(Models, "get", away)
        with pytest.raises(StoreUnavailable):
            world.at(DUE)

    assert world.schedule().next_at == DUE
    assert world.at(DUE + timedelta(seconds=1)) == 1


def test_a_schedule_that_breaks_holds_up_no_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.add("sched-1", {**BODY, "name": "breaks"})
    world.add("sched-2")
    estimated = Admission._estimated_s

    def breaking(self: Admission, tenant: str, asked: Any, rows: int | None) -> float | None:
        if not world.parts.store.jobs() and world.schedule("sched-1").next_at == DUE:
            raise ZeroDivisionError("division by zero")
        return estimated(self, tenant, asked, rows)

    monkeypatch.setattr(Admission, "_estimated_s", breaking)

    assert world.at(DUE) == 1
    assert world.schedule("sched-1").last_error == "no job could be made of it: ZeroDivisionError"
    assert world.schedule("sched-1").next_at == DUE + DAY


# --- on request --------------------------------------------------------------------------------------------------


def test_a_run_on_request_is_a_job_beside_the_times(world: World) -> None:
    schedule = world.add(webhook_secret="hush-hush")
    job = world.timekeeper().run_now(schedule, "batch-0123456789")
    again = world.timekeeper().run_now(schedule, "batch-0123456789")

    assert job == again
    assert (job.id, job.schedule_id, job.scheduled_at) == ("batch-0123456789", "sched-1", world.parts.clock.now)
    assert world.parts.reasons(job.id) == ["schedule sched-1, run on request"]
    assert world.parts.store.webhook_secret(job.id) == "hush-hush"
    assert world.schedule().next_at == DUE
    assert len(world.jobs()) == 1


def test_a_run_on_request_says_what_is_wrong(world: World) -> None:
    schedule = world.add(body={**BODY, "model_id": "other"})

    with pytest.raises(RequestError, match="'other' is not registered"):
        world.timekeeper().run_now(schedule, "batch-0123456789")
