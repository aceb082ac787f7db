"""Two launchers that share one store in PostgreSQL: no job runs twice, and one that sleeps can undo nothing."""

import contextlib
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from launcher.errors import Conflict, HomeUnusable, StoreUnavailable
from launcher.home import Home
from launcher.service import Service
from launcher.settings import Settings
from launcher.state.job import Job
from launcher.state.sql import SqlJobStore
from tests.faults.launchers import LauncherProcess, all_over, light_job, most_at_work, until

LIGHT = "tests.faults.light_attempt"
JOBS = 500
PATIENCE_S = 240.0


@pytest.fixture
def store(database: str, tmp_path: Path) -> Iterator[SqlJobStore]:
    store = SqlJobStore.named(database, tmp_path / "unused.db")
    yield store
    store.close()


@pytest.fixture
def launchers(database: str, tmp_path: Path) -> Iterator[list[LauncherProcess]]:
    environment = {
        "PENSTOCK_STORE": database,
        "PENSTOCK_LEASE_S": "3",
        "PENSTOCK_RETRY_WAIT_S": "0.1",
        "BATCH_MAX_CONCURRENT_JOBS": "4",
    }
    started = [LauncherProcess(tmp_path / "home", tmp_path, LIGHT, environment) for _ in range(2)]
    for each in started:
        each.await_warm()
    yield started
    for each in started:
        each.signal(signal.SIGCONT)
        each.kill()


def add(store: SqlJobStore, job: Job) -> None:
    """Add a job as whoever submits one does: again, where the store had to give up on a transaction.

    It does when the machine stands still for 5 s in the midst of one, which this one may, with 2 launchers at 500 jobs.
    """
    try:
        store.add(job, "test")
    except StoreUnavailable:
        store.add(job, "test")


@pytest.mark.timeout(300)
def test_of_500_jobs_none_runs_twice(store: SqlJobStore, launchers: list[LauncherProcess], tmp_path: Path) -> None:
    jobs = [light_job(tmp_path, tenant=f"tenant-{n % 3}") for n in range(JOBS)]
    for job in jobs:
        add(store, job)
    until(lambda: all_over(store, [job.id for job in jobs]), PATIENCE_S, "the jobs")

    for job in jobs:
        ended = store.get(job.id)
        assert (ended.status, ended.attempt) == ("completed", 1), ended.error
        assert [line.split()[0] for line in (tmp_path / "runs" / job.id).read_text().splitlines()] == [
            "ran",
            "published",
        ]
    owners = Counter(store.get(job.id).owner for job in jobs)
    # Both had a share of the work.
    assert set(owners) == {each.id for each in launchers}
    for tenant in range(3):
        own = [job.id for job in jobs if job.tenant == f"tenant-{tenant}"]
        assert most_at_work((job_id, move) for job_id in own for move in store.moves(job_id)) <= 4


@pytest.mark.timeout(300)
def test_a_launcher_that_sleeps_with_its_job_is_given_up_and_cannot_commit_when_it_wakes(
    store: SqlJobStore, launchers: list[LauncherProcess], tmp_path: Path
) -> None:
    first = light_job(tmp_path, "hold it", retry_count=3)
    store.add(first, "test")
    pid = int(until(lambda: (tmp_path / "at-it").exists() and (tmp_path / "at-it").read_text(), PATIENCE_S, "the job"))
    owner = store.get(first.id).owner
    sleeper = next(each for each in launchers if each.id == owner)
    # The whole machine of the launcher stands still: it, its fork server and the job.
    sleeping = [psutil.Process(sleeper.pid), *psutil.Process(sleeper.pid).children(), psutil.Process(pid)]
    for process in sleeping:
        process.suspend()
    until(lambda: store.get(first.id).attempt == 2, PATIENCE_S, "another attempt")
    (tmp_path / "go-it").touch()
    ended = until(lambda: (job := store.get(first.id)).is_over and job, PATIENCE_S, "the end")
    for process in sleeping:
        # The job's own process was killed for it, or is about to be.
        with contextlib.suppress(psutil.NoSuchProcess):
            process.resume()

    assert (ended.status, ended.attempt) == ("completed", 2)
    assert ended.owner != owner
    # What the sleeper still wants to say is refused.
    with pytest.raises(Conflict, match=r"is completed|in attempt 2, not 1"):
        store.move(first.id, ["running", "completed"], "completing", "too late", attempt=1)
    second = light_job(tmp_path)
    store.add(second, "test")
    until(lambda: store.get(second.id).is_over, PATIENCE_S, "the launchers to go on")
    runs = (tmp_path / "runs" / first.id).read_text().splitlines()
    assert [line.rpartition(" pid")[0] for line in runs] == ["ran attempt 1", "ran attempt 2", "published attempt 2"]


@pytest.mark.timeout(300)
def test_a_launcher_that_slept_between_claiming_and_starting_does_not_start(
    store: SqlJobStore, tmp_path: Path, database: str
) -> None:
    job = light_job(tmp_path)
    store.add(job, "test")
    (claimed,) = store.claim("launcher-asleep", 1, 4, lease_s=0.0)
    # Nobody signed on under this name, so the job is given to another attempt.
    launcher = LauncherProcess(tmp_path / "home", tmp_path, LIGHT, {"PENSTOCK_STORE": database})
    launcher.await_warm()
    until(lambda: store.get(job.id).is_over, PATIENCE_S, "the job")

    try:
        ended = store.get(job.id)
        assert (ended.status, ended.attempt, ended.retries) == ("completed", 2, 0)
        with pytest.raises(Conflict):
            store.beat(job.id, claimed.attempt, 30.0, pid=os.getpid())
    finally:
        launcher.kill()


def test_a_launcher_with_another_home_is_refused(database: str, tmp_path: Path) -> None:
    settings = Settings(store_url=database)
    Service(settings, Home(tmp_path / "home"), tmp_path, keyless=True).store.close()

    with pytest.raises(HomeUnusable, match=r"belongs to launchers of another PENSTOCK_HOME than .*/other; share that"):
        Service(settings, Home(tmp_path / "other"), tmp_path, keyless=True)
