"""The janitor: what of an ended job expires, and what stays."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from launcher.errors import AsideFailed, Conflict, JobAlive, JobUnknown, StoreUnavailable
from launcher.forks.forking import ForkServer
from launcher.home import JobFolder
from launcher.loops.janitor import IDEMPOTENCY_HOURS, Janitor
from launcher.reach.tenant import Reach
from launcher.settings import Settings
from launcher.state.deliveries import Deliveries
from launcher.state.idempotency import Answer, Idempotency, Turn
from launcher.state.job import Job, Status, Webhook
from launcher.state.registry import Connections
from pipelines.spec import ParquetOutput, TableOutput
from tests.contract.job_store import T0
from tests.unit.launcher_parts import FakeForks, Parts, parts, warm_forks

STEPS: tuple[Status, ...] = ("preparing", "running", "completing", "completed")
KEPT = {"lock", "log"}


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    preload = ("launcher.forks.aside", "launcher.worker.discarding", "tests.unit.launcher_fakes")
    with warm_forks(tmp_path_factory.mktemp("forks"), *preload) as server:
        yield server


@dataclass
class World:
    parts: Parts
    forks: Any

    def janitor(self, hours: float = 168.0) -> Janitor:
        settings = Settings(result_ttl_hours=hours)
        database = self.parts.database
        reach = Reach(settings, Connections(database), self.parts.home.path, self.parts.home.path, lambda: True)
        return Janitor(
            self.parts.home,
            self.parts.store,
            Idempotency(database),
            Deliveries(database),
            reach,
            settings,
            self.forks,
            "tests.unit.launcher_fakes",
        )

    def ended(self, job_id: str = "batch-1", status: Status = "completed", hours: float = 169.0, **changes: Any) -> Job:
        """A job that ended so many hours ago, and all that it has left."""
        self.parts.clock.now = datetime.now(UTC) - timedelta(hours=hours)
        job = self.parts.add(job_id, **changes)
        steps = STEPS if status == "completed" else ("preparing", status)
        for step in steps:
            job = self.parts.store.move(job.id, job.status, step, "test")
        self.parts.clock.now = datetime.now(UTC)
        folder = self.folder(job_id)
        folder.create()
        folder.log.write_text("what it said")
        folder.lock_file.touch()
        for name in ("results", "rejects", "snapshot", "input"):
            (folder.path / name).mkdir()
            (folder.path / name / "part-0.parquet").touch()
        for name in ("plan.json", "preparing.json", "published-1.json"):
            (folder.path / name).touch()
        return job

    def folder(self, job_id: str = "batch-1") -> JobFolder:
        return self.parts.home.job(job_id)

    def left(self, job_id: str = "batch-1") -> set[str]:
        return {path.name for path in self.folder(job_id).path.iterdir()}

    def expired(self, job_id: str = "batch-1") -> bool:
        return self.parts.store.get(job_id).expired_at is not None


@pytest.fixture
def world(tmp_path: Path, forks: ForkServer) -> Iterator[World]:
    with parts(tmp_path) as made:
        yield World(made, forks)


def test_what_the_service_kept_of_a_job_goes_and_the_job_stays(world: World) -> None:
    world.ended()
    assert world.janitor().tick() == 1
    job = world.parts.store.get("batch-1")

    assert world.left() == KEPT
    assert world.folder().log.read_text() == "what it said"
    assert job.status == "completed"
    assert job.expired_at is not None
    assert len(world.parts.store.moves("batch-1")) == 5
    assert world.janitor().tick() == 0


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_nothing_goes_before_its_time(world: World, status: Status) -> None:
    world.ended(status=status, hours=167.9)
    before = world.left()

    assert world.janitor().tick() == 0
    assert world.left() == before
    assert world.janitor(hours=167.0).tick() == 1


def test_a_job_that_is_not_over_never_expires(world: World) -> None:
    world.ended(hours=1)
    world.parts.add("batch-2", created_at=datetime.now(UTC) - timedelta(days=90))

    assert world.janitor(hours=0).tick() == 1
    assert not world.expired("batch-2")


def test_what_a_user_had_written_elsewhere_stays(world: World, tmp_path: Path) -> None:
    for name in ("scores", "rejects"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part-0.parquet").touch()
    job = world.ended()
    spec = replace(
        job.spec,
        output=ParquetOutput(str(tmp_path / "scores")),
        rejects=replace(job.spec.rejects, path=str(tmp_path / "rejects")),
    )
    world.parts.store.update("batch-1", ["completed"], spec=spec)
    # Even where it is reached from the job's folder.
    (world.folder().path / "link").symlink_to(tmp_path / "scores")
    assert world.janitor().tick() == 1

    assert (tmp_path / "scores" / "part-0.parquet").exists()
    assert (tmp_path / "rejects" / "part-0.parquet").exists()
    assert world.left() == KEPT


@pytest.mark.parametrize(("status", "discarded"), [("completed", False), ("failed", True), ("cancelled", True)])
def test_what_a_job_that_will_not_go_on_has_staged_is_discarded(world: World, status: Status, discarded: bool) -> None:
    world.ended(status=status)
    world.janitor().tick()

    # The attempt of the tests says so in the folder where it is called.
    assert (world.parts.home.path / "discarded").exists() is discarded
    assert world.left() == KEPT


def test_a_job_that_was_never_started_has_staged_nothing(world: World) -> None:
    world.forks = FakeForks()
    world.parts.clock.now = datetime.now(UTC) - timedelta(days=9)
    world.parts.add()
    world.parts.store.move("batch-1", "submitted", "cancelled", "no")
    world.parts.clock.now = datetime.now(UTC)

    assert world.janitor().tick() == 1
    assert world.forks.tasks == []
    assert world.expired()


def test_a_job_whose_connection_is_gone_expires_all_the_same(world: World, caplog: pytest.LogCaptureFixture) -> None:
    job = world.ended(status="failed")
    world.parts.store.update("batch-1", ["failed"], spec=replace(job.spec, output=TableOutput("gone", "scores")))

    assert world.janitor().tick() == 1
    assert world.left() == KEPT


def test_a_job_that_is_asked_for_again_does_not_expire(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    stale = world.ended(status="failed")
    world.parts.store.move("batch-1", "failed", "submitted", "retried on request")
    before = world.left()
    monkeypatch.setattr(world.parts.store, "expirable", lambda before, limit: [stale])

    assert world.janitor().tick() == 0
    assert world.left() == before
    assert not world.expired()
    assert not (world.parts.home.path / "discarded").exists()


def test_a_job_whose_process_is_still_there_is_left(world: World) -> None:
    world.ended()
    before = world.left()
    lock = world.folder().lock("batch-1")
    try:
        assert world.janitor().tick() == 0
    finally:
        lock.release()
    assert world.left() == before
    assert world.janitor().tick() == 1


def test_a_job_whose_folder_is_gone_expires(world: World) -> None:
    world.ended()
    world.folder().delete()

    assert world.janitor().tick() == 1
    assert world.expired()
    assert not world.folder().path.exists()


def test_a_job_that_cannot_expire_holds_up_no_other(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.ended("batch-1", hours=200)
    world.ended("batch-2")
    unlink: Callable[..., None] = Path.unlink

    def refusing(path: Path, missing_ok: bool = False) -> None:
        if path == world.folder("batch-1").path / "plan.json":
            raise PermissionError(1, "Operation not permitted", str(path))
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refusing)

    janitor = world.janitor()
    assert janitor.tick() == 1
    assert "batch-1 is not tidied away: [Errno 1] Operation not permitted" in caplog.text
    assert world.left("batch-1") > KEPT
    assert world.left("batch-2") == KEPT
    # It has expired all the same, and is looked after now and then.
    assert world.expired("batch-1")
    monkeypatch.setattr(Path, "unlink", unlink)
    janitor.tick()
    assert world.left("batch-1") > KEPT
    world.parts.clock.now += timedelta(hours=1)
    janitor.tick()
    assert world.left("batch-1") == KEPT
    assert world.parts.store.untidied(9) == []


def test_a_store_that_is_away_is_told_to_the_caller(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    job = world.ended(status="failed")
    world.parts.store.update("batch-1", ["failed"], spec=replace(job.spec, output=TableOutput("sales", "scores")))

    def away(*arguments: Any) -> Any:
        raise StoreUnavailable("the store is away")

    monkeypatch.setattr(Connections, "get", away)

    with pytest.raises(StoreUnavailable):
        world.janitor().tick()
    assert "results" in world.left()
    monkeypatch.undo()
    world.janitor().tick()
    assert world.left() == KEPT


def test_old_keys_and_deliveries_are_forgotten(world: World) -> None:
    idempotency, deliveries = Idempotency(world.parts.database), Deliveries(world.parts.database)
    world.parts.clock.now = datetime.now(UTC) - timedelta(hours=200)
    world.parts.add("batch-1", webhook=Webhook("https://example.org", ("submitted",)))
    deliveries.delivered(deliveries.of_job("batch-1")[0].id)
    world.parts.clock.now = datetime.now(UTC) - timedelta(hours=IDEMPOTENCY_HOURS + 1)
    old = idempotency.begin("acme", "old", "hash", 1.0)
    world.parts.clock.now = datetime.now(UTC)
    new = idempotency.begin("acme", "new", "hash", 1.0)
    for key, turn in (("old", old), ("new", new)):
        assert isinstance(turn, Turn)
        idempotency.finish("acme", key, turn, 202, "{}")
    world.janitor().tick()

    assert deliveries.of_job("batch-1") == []
    assert isinstance(idempotency.begin("acme", "old", "hash", 1.0), Turn)
    assert isinstance(idempotency.begin("acme", "new", "hash", 1.0), Answer)


def test_nobody_asks_again_for_a_job_that_is_about_to_go(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.ended(status="failed")
    refused: list[Conflict] = []

    def retry(*asked: Any, **more: Any) -> None:
        with pytest.raises(Conflict) as told:
            world.parts.store.move("batch-1", ["failed"], "submitted", "retried on request")
        refused.append(told.value)

    monkeypatch.setattr("launcher.loops.janitor.call_aside", retry)
    world.janitor().tick()

    assert len(refused) == 1
    assert world.parts.store.get("batch-1").status == "failed"
    assert world.left() == KEPT


@pytest.mark.parametrize("days", [0, 8])
def test_a_destination_that_is_away_is_asked_again_for_a_week(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, days: int
) -> None:
    world.ended(status="failed")
    asked: list[str] = []

    def away(forks: Any, entry: str, *asked_more: Any, **more: Any) -> None:
        asked.append(entry)
        raise AsideFailed("OutputError", "the database is away")

    monkeypatch.setattr("launcher.loops.janitor.call_aside", away)
    janitor = world.janitor()
    janitor.tick()
    world.parts.clock.now += timedelta(days=days, hours=1)
    janitor.tick()
    janitor.tick()

    assert asked == ["launcher.worker.discarding:discard"] * 2
    assert world.left() >= {"plan.json"} if not days else world.left() == KEPT
    assert (world.parts.store.untidied(9) == []) == bool(days)
    assert ("what batch-1 staged stays where it is" in caplog.text) == bool(days)


@pytest.mark.parametrize(("status", "discarded"), [("completed", False), ("failed", True), ("cancelled", True)])
def test_a_purged_job_leaves_nothing(world: World, status: Status, discarded: bool) -> None:
    job = world.ended(status=status)
    kept = world.ended("batch-2", status=status)

    world.janitor().purge(job)

    assert [each.id for each in world.parts.store.jobs()] == ["batch-2"]
    assert world.parts.store.moves("batch-1") == []
    assert (world.parts.home.path / "discarded").exists() is discarded
    assert not world.folder().path.exists()
    assert world.left("batch-2") > KEPT
    with pytest.raises(JobUnknown):
        world.janitor().purge(job)
    assert not kept.expired_at


@pytest.mark.parametrize("step", ["discard", "folder", "record"])
def test_a_purge_that_was_cut_off_is_ended_by_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    job = world.ended(status="failed")
    where: dict[str, tuple[Any, str]] = {
        "discard": (Janitor, "_discard"),
        "folder": (JobFolder, "delete"),
        "record": (type(world.parts.store), "delete"),
    }

    def killed(*asked: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(*where[step], killed)
    with pytest.raises(KeyboardInterrupt):
        world.janitor().purge(job)
    monkeypatch.undo()
    # Shown as one that has expired, and tried again no more.
    assert world.expired()
    with pytest.raises(Conflict):
        world.parts.store.move("batch-1", "failed", "submitted", "retried on request")
    world.janitor().purge(job)

    assert world.parts.store.jobs() == []
    assert not world.folder().path.exists()


def test_a_job_that_is_not_over_is_not_purged(world: World) -> None:
    job = world.parts.at_work()
    with pytest.raises(Conflict):
        world.janitor().purge(job)
    world.parts.store.move("batch-1", "preparing", "cancelled", "test")
    lock = world.folder().lock("batch-1")
    with pytest.raises(JobAlive):
        # Its process has still something to tidy.
        world.janitor().purge(job)
    lock.release()

    assert not world.expired()
    world.janitor().purge(job)


def test_a_job_whose_connection_is_gone_is_purged_but_for_what_it_staged_there(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    job = world.ended(status="failed")
    world.parts.store.update("batch-1", ["failed"], spec=replace(job.spec, output=TableOutput("gone", "scores")))

    world.janitor().purge(world.parts.store.get("batch-1"))

    assert world.parts.store.jobs() == []
    assert (world.parts.home.path / "discarded-apart").exists()
    assert not (world.parts.home.path / "discarded").exists()
    assert "what batch-1 staged stays where it is: there is no connection 'gone'" in caplog.text


@pytest.mark.parametrize("has_run", [True, False])
def test_a_destination_that_is_away_keeps_the_job_whose_rows_it_has(
    world: World, monkeypatch: pytest.MonkeyPatch, has_run: bool
) -> None:
    job = world.ended(status="failed")
    times = {**job.times, **({"running": T0} if has_run else {})}
    world.parts.store.update("batch-1", ["failed"], times=times)

    def away(*asked: Any, **more: Any) -> None:
        raise AsideFailed("OutputError", "the database is away")

    monkeypatch.setattr("launcher.loops.janitor.call_aside", away)
    with pytest.raises(AsideFailed) if has_run else contextlib.nullcontext():
        world.janitor().purge(world.parts.store.get("batch-1"))

    assert bool(world.parts.store.jobs()) is has_run
    assert world.folder().path.exists() is has_run
