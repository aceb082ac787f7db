"""The reaper: what it makes of jobs whose process is gone, hangs or has to go."""

import logging
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
import sqlalchemy as sa

from launcher.errors import StoreUnavailable
from launcher.forks.processes import is_running
from launcher.loops.reaper import PATIENCE_S as JOB_PATIENCE_S
from launcher.loops.reaper import Reaper, verdict
from launcher.settings import Settings
from launcher.state import tables
from launcher.state.job import Job
from tests.contract.job_store import T0, queued
from tests.unit.launcher_parts import NOBODY, PATIENCE_S, Parts, parts, python, until
from transforms.counts import Counts
from transforms.telemetry import Telemetry

LATER = T0 + timedelta(seconds=1)
EARLIER = T0 - timedelta(seconds=1)
PATIENCE = timedelta(seconds=JOB_PATIENCE_S)
SOON = T0 + PATIENCE


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Parts]:
    with parts(tmp_path) as made:
        yield made


def reaper(made: Parts, lives: bool = False, starting: str = "", **settings: Any) -> Reaper:
    return Reaper(
        made.home,
        made.store,
        Settings(**{"retry_wait_s": 10.0, **settings}),
        launcher_lives=lambda owner: lives,
        is_starting=lambda job: job.id == starting,
    )


def at_work(**changes: Any) -> Job:
    return replace(queued("batch-1"), **{"status": "running", "lease_until": LATER, "pid": 7, **changes})


# --- the verdict -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("job", "alive", "leader_runs", "owner_lives", "what"),
    [
        pytest.param(at_work(), True, True, True, "leave", id="works"),
        pytest.param(at_work(), True, True, False, "leave", id="works on without its launcher"),
        pytest.param(at_work(pid=None), True, False, True, "leave", id="has not said its pid yet"),
        pytest.param(at_work(lease_until=EARLIER), True, True, True, "kill", id="silent"),
        pytest.param(at_work(lease_until=None), True, True, True, "leave", id="without a lease"),
        pytest.param(at_work(), True, False, True, "kill", id="only children of it live"),
        pytest.param(at_work(cancel_requested_at=T0 - PATIENCE), True, True, True, "leave", id="told to stop"),
        pytest.param(at_work(cancel_requested_at=EARLIER - PATIENCE), True, True, True, "kill", id="told, and goes on"),
        pytest.param(at_work(deadline_at=T0 - PATIENCE), True, True, True, "leave", id="its time is over"),
        pytest.param(at_work(deadline_at=EARLIER - PATIENCE), True, True, True, "kill", id="its time is over by far"),
        pytest.param(at_work(), False, False, True, "settle", id="died"),
        pytest.param(at_work(), False, False, False, "settle", id="died with its launcher"),
        pytest.param(at_work(pid=None), False, False, True, "leave", id="about to be started"),
        pytest.param(at_work(pid=None), False, False, False, "settle", id="its launcher died over it"),
        pytest.param(at_work(pid=None, lease_until=EARLIER), False, False, True, "settle", id="not started in time"),
        pytest.param(at_work(pid=None, lease_until=None), False, False, True, "settle", id="without any lease"),
    ],
)
def test_what_is_done_about_a_job(job: Job, alive: bool, leader_runs: bool, owner_lives: bool, what: str) -> None:
    assert verdict(job, alive=alive, leader_runs=leader_runs, owner_lives=owner_lives, now=T0) == what


def test_nobody_is_silent_to_one_who_has_not_listened() -> None:
    silent = at_work(lease_until=EARLIER)
    late = replace(silent, deadline_at=EARLIER - PATIENCE)

    assert verdict(silent, alive=True, leader_runs=True, owner_lives=True, now=T0, listening=False) == "leave"
    assert verdict(late, alive=True, leader_runs=True, owner_lives=True, now=T0, listening=False) == "kill"


# --- settling ----------------------------------------------------------------------------------------------------


def test_a_job_whose_process_died_is_tried_again_and_that_counts(made: Parts) -> None:
    made.at_work()
    reaping = reaper(made, lives=True)
    reaping.note_exit(NOBODY, -9)
    settled = reaping.tick()
    job = made.store.get("batch-1")

    assert settled == 1
    assert (job.status, job.attempt, job.retries, job.pid) == ("submitted", 2, 1, None)
    assert job.not_before is not None
    assert 5 <= (job.not_before - T0).total_seconds() <= 10
    reason = made.reasons()[-1]
    assert reason.startswith(f"its process died (pid {NOBODY}, killed by SIGKILL); retry 1 of 3 in ")
    assert reaping.tick() == 0


def test_how_a_process_of_another_launcher_ended_is_not_known(made: Parts) -> None:
    made.at_work()
    reaper(made).tick()

    assert made.reasons()[-1].startswith(f"its process died (pid {NOBODY}); retry 1 of 3 in ")


def test_a_job_that_was_never_started_waits_again_at_once_and_that_does_not_count(made: Parts) -> None:
    made.claimed()
    settled = reaper(made, lives=False).tick()
    job = made.store.get("batch-1")

    assert settled == 1
    assert (job.status, job.attempt, job.retries, job.not_before) == ("submitted", 2, 0, T0)
    assert made.reasons()[-1] == "its launcher did not start it in 0.0 s"


def test_a_job_that_is_about_to_be_started_is_left(made: Parts) -> None:
    made.claimed()

    assert reaper(made, lives=True).tick() == 0
    assert reaper(made, lives=False, starting="batch-1").tick() == 0
    made.clock.advance(31)
    # A launcher that has slept over it.
    assert reaper(made, lives=True, starting="batch-1").tick() == 0
    assert reaper(made, lives=True).tick() == 1


def test_a_job_that_was_tried_often_enough_fails(made: Parts) -> None:
    made.at_work(config={"retry_count": 2}, retries=2)
    reaper(made).tick()
    job = made.store.get("batch-1")

    assert (job.status, job.outcome) == ("failed", "error")
    assert job.error == (
        f"its process died (pid {NOBODY}) for the 3rd time before the first row; `penstock retry batch-1` starts again"
    )


def test_a_job_that_was_to_stop_is_cancelled_however_it_ended(made: Parts) -> None:
    made.at_work(config={"retry_count": 3})
    made.store.request_cancel("batch-1", "enough")
    reaper(made).tick()
    job = made.store.get("batch-1")

    assert (job.status, job.outcome, job.error) == ("cancelled", None, None)
    assert made.reasons()[-1].startswith("cancelled on request before the first row")


def test_a_job_that_was_to_stop_before_it_was_started_is_cancelled(made: Parts) -> None:
    made.claimed()
    made.store.request_cancel("batch-1", "enough")
    reaper(made).tick()

    assert made.store.get("batch-1").status == "cancelled"


def test_a_job_whose_time_is_over_fails_with_that_outcome(made: Parts) -> None:
    made.at_work(config={"timeout_minutes": 0.5})
    made.clock.advance(30)
    reaper(made).tick()
    job = made.store.get("batch-1")

    assert (job.status, job.outcome) == ("failed", "timed_out")
    assert job.error is not None
    assert job.error.startswith("timed out after config.timeout_minutes 0.5")


def test_rows_that_are_kept_are_told(made: Parts) -> None:
    job = made.at_work(config={"retry_count": 0})
    made.store.move(job.id, "preparing", "running", "100 rows", total_rows=100, already=Counts(10))
    progress = made.home.job(job.id).progress
    Telemetry(str(progress), 1).counters().add(scored=40, staged=30)
    Telemetry(str(progress), 1).counters().flush()
    reaper(made).tick()
    ended = made.store.get(job.id)

    assert ended.status == "failed"
    assert ended.error is not None
    assert "40 rows are kept, `penstock retry batch-1` goes on" in ended.error
    assert ended.counts == Counts(50)


@pytest.mark.parametrize(
    ("cancelled", "retry_count", "status"),
    [(False, 3, "submitted"), (False, 0, "failed"), (True, 3, "failed")],
    ids=["tried again", "given up", "told to stop"],
)
def test_what_may_be_visible_is_never_called_cancelled(
    made: Parts, cancelled: bool, retry_count: int, status: str
) -> None:
    job = made.at_work(config={"retry_count": retry_count})
    made.store.move(job.id, "preparing", "running", "100 rows", total_rows=100)
    made.store.move(job.id, "running", "completing", "all rows are staged")
    if cancelled:
        made.store.request_cancel(job.id, "enough")
    reaper(made).tick()
    ended = made.store.get(job.id)

    assert ended.status == status
    if status == "failed":
        assert "whether the result is visible is not known" in (ended.error or "")


def test_a_job_that_waits_and_whose_time_is_over_fails(made: Parts) -> None:
    made.at_work(config={"timeout_minutes": 1})
    made.store.move("batch-1", "preparing", "submitted", "again")
    made.clock.advance(61)
    assert reaper(made).tick() == 1
    job = made.store.get("batch-1")

    assert (job.status, job.outcome) == ("failed", "timed_out")
    assert job.error == (
        "timed out after config.timeout_minutes 1, waiting to be tried again; "
        "what is staged is kept, `penstock retry batch-1` goes on"
    )


def test_a_wish_to_stop_that_meets_another_attempt_is_not_lost(made: Parts) -> None:
    """Told to stop, an attempt fails in passing before it has heard of it."""
    job = made.at_work()
    made.store.request_cancel(job.id, "enough")
    after = made.store.move(job.id, "preparing", "submitted", "the database is away; retry 1 of 3", attempt=1)

    assert after.status == "cancelled"
    assert [move.to for move in made.store.moves(job.id)][-2:] == ["submitted", "cancelled"]
    assert made.store.move(job.id, "cancelled", "submitted", "retried on request").status == "submitted"


# --- processes ---------------------------------------------------------------------------------------------------

HOLDER = """
import fcntl, os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(fd, fcntl.LOCK_EX)
print("on", flush=True)
time.sleep(600)
"""


def test_a_process_that_does_not_end_is_killed_and_its_job_put_right(
    made: Parts, caplog: pytest.LogCaptureFixture
) -> None:
    job = made.claimed()
    reaping = reaper(made, lives=True)
    with python(HOLDER, str(made.home.job(job.id).lock_file)) as process:
        assert process.stdout is not None
        process.stdout.readline()
        started = psutil.Process(process.pid).create_time()
        made.store.beat(job.id, 1, 30.0, pid=process.pid, pid_started=started)
        assert reaping.tick() == 0
        made.store.request_cancel(job.id, "enough")
        made.clock.advance(JOB_PATIENCE_S + 0.1)
        with caplog.at_level(logging.WARNING):
            until(reaping.tick)
        process.wait(PATIENCE_S)

        assert not is_running(process.pid, started)
    assert made.store.get(job.id).status == "cancelled"
    assert caplog.messages == ["batch-1: 1 processes that had to go were killed"]


def test_who_has_slept_gives_jobs_time_to_be_heard_of(made: Parts) -> None:
    """The store was away for longer than a lease, or the machine slept: no process could say anything."""
    job = made.claimed()
    reaping = reaper(made, lives=True)
    with python(HOLDER, str(made.home.job(job.id).lock_file)) as process:
        assert process.stdout is not None
        process.stdout.readline()
        started = psutil.Process(process.pid).create_time()
        made.store.beat(job.id, 1, 30.0, pid=process.pid, pid_started=started)
        reaping.tick()
        made.clock.advance(100)
        reaping.tick()
        still = is_running(process.pid, started)
        for _ in range(6):
            made.clock.advance(1)
            reaping.tick()
        process.wait(PATIENCE_S)

        # It has not said anything since.
        assert still
        assert not is_running(process.pid, started)


# Holds its lock, says nothing, and computes; once there is a certain file it does nothing any more.
COMPUTING = """
import fcntl, os, sys, time
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(fd, fcntl.LOCK_EX)
print("on", flush=True)
while not os.path.exists(sys.argv[2]):
    sum(range(10_000))
print("idle", flush=True)
time.sleep(600)
"""


def test_a_process_that_computes_is_not_taken_for_dead_though_it_is_silent(made: Parts, tmp_path: Path) -> None:
    """As where C code keeps the interpreter's lock, so that no other thread can say that the job lives."""
    job = made.claimed()
    reaping = reaper(made, lives=True)
    with python(COMPUTING, str(made.home.job(job.id).lock_file), str(tmp_path / "enough")) as process:
        assert process.stdout is not None
        process.stdout.readline()
        running = psutil.Process(process.pid)
        made.store.beat(job.id, 1, 30.0, pid=process.pid, pid_started=running.create_time())
        reaping.tick()
        for _ in range(60):
            made.clock.advance(4)
            spent = running.cpu_times().user
            until(lambda spent=spent: running.cpu_times().user > spent)  # type: ignore[misc]
            assert reaping.tick() == 0
        (tmp_path / "enough").touch()
        process.stdout.readline()
        until(lambda: reaping.tick() or made.store.get(job.id).status == "submitted")
        process.wait(PATIENCE_S)

    after = made.store.get(job.id)
    reason = "its process was silent for over 30 s (PENSTOCK_LEASE_S), and was killed; retry 1 of 3"
    assert (after.status, after.retries) == ("submitted", 1)
    assert made.reasons(job.id)[-1].startswith(reason)
    # Where people look first.
    assert reason in made.home.job(job.id).log.read_text()


def test_a_job_that_waits_and_was_told_to_stop_is_cancelled(made: Parts) -> None:
    """As by the next run of its schedule, should whoever fired that have died at once."""
    job = made.add(schedule_id="sched-1")
    with made.database.transaction() as connection:
        connection.execute(sa.update(tables.jobs).values(cancel_requested_at=made.clock.now))

    assert reaper(made).tick() == 1
    assert made.store.get(job.id).status == "cancelled"
    assert made.reasons(job.id)[-1] == "cancelled for the next run of its schedule"


def test_a_job_whose_lock_somebody_else_has_is_left_to_them(made: Parts) -> None:
    made.at_work()
    lock = made.home.job("batch-1").lock("batch-1")
    try:
        assert reaper(made).tick() == 0
    finally:
        lock.release()
    assert made.store.get("batch-1").status == "preparing"


def test_of_many_reapers_one_puts_a_job_right(made: Parts) -> None:
    for n in range(8):
        made.at_work(f"batch-{n}")
    together = threading.Barrier(4)

    def reap(_: int) -> int:
        own = reaper(made)
        together.wait(PATIENCE_S)
        return sum(own.tick() for _ in range(4))

    with ThreadPoolExecutor(4) as threads:
        settled = sum(threads.map(reap, range(4)))

    assert settled == 8
    for n in range(8):
        assert [move.to for move in made.store.moves(f"batch-{n}")] == ["submitted", "preparing", "submitted"]
        assert made.store.get(f"batch-{n}").retries == 1


def test_a_job_that_goes_on_meanwhile_is_left(made: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was put right by another, and claimed anew, after this one had looked."""
    made.at_work()
    stale = made.store.at_work()
    reaper(made).tick()
    made.clock.advance(60)
    (again,) = made.store.claim("launcher-two", 1, 3, 30.0)
    monkeypatch.setattr(made.store, "at_work", lambda: stale)
    reaper(made).tick()

    assert made.store.get("batch-1") == again


def test_a_folder_that_cannot_be_opened_holds_up_no_other_job(made: Parts, caplog: pytest.LogCaptureFixture) -> None:
    made.at_work("batch-1")
    made.at_work("batch-2")
    lock_file = made.home.job("batch-1").lock_file
    lock_file.unlink(missing_ok=True)
    # Links in a circle.
    os.symlink(lock_file, lock_file)

    assert reaper(made).tick() == 1
    assert made.store.get("batch-2").status == "submitted"
    assert "batch-1 could not be put right: " in caplog.text


def test_a_store_that_is_away_is_told_to_the_caller(made: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    made.at_work()

    def away(job_id: str) -> Job:
        raise StoreUnavailable("the store is away")

    monkeypatch.setattr(made.store, "get", away)

    with pytest.raises(StoreUnavailable):
        reaper(made).tick()
    # Nobody holds the job's lock.
    assert not made.home.job("batch-1").is_alive()


def test_a_job_without_a_folder_is_put_right_too(made: Parts) -> None:
    made.at_work()
    made.home.job("batch-1").delete()

    assert reaper(made).tick() == 1


def test_a_job_of_another_machine_is_left_while_its_lock_is_held_and_put_right_when_it_is_not(made: Parts) -> None:
    owner = "elsewhere-01234567"
    there = Reaper(made.home, made.store, Settings(), launcher_lives=lambda _: False, machine="here")
    made.store.add(replace(queued("batch-1"), status="submitted"), "test")
    (job,) = made.store.claim(owner, 1, 3, lease_s=1.0)
    # The pid of somebody else here: of this very test.
    made.store.beat(job.id, 1, 1.0, pid=os.getpid(), pid_started=psutil.Process().create_time())
    made.clock.advance(3600)
    folder = made.home.job(job.id)
    folder.create()
    lock = folder.lock(job.id)
    there.tick()
    held = made.store.get(job.id)
    lock.release()
    there.tick()

    assert (held.status, held.attempt) == ("preparing", 1)
    assert made.store.get(job.id).status != "preparing"
