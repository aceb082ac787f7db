"""The reaper, and processes of attempts that are over, or whose leader is: they go, and nobody else's does."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from launcher.loops.reaper import LEAVE_PATIENCE_S, Reaper
from launcher.settings import Settings
from launcher.state.job import Job, Status
from tests.unit.launcher_parts import PATIENCE_S, Parts, parts, until

# A job's process with the job's lock: it starts a daemon that keeps the lock, and a helper without it, and stays.
PROCESS = """
import json, os, subprocess, sys, time
os.set_inheritable(int(sys.argv[1]), False)
helper = subprocess.Popen(["sleep", "600"], start_new_session=True, stdout=subprocess.DEVNULL)
daemon = os.fork()
if not daemon:
    os.setsid()
    time.sleep(600)
print(json.dumps([daemon, helper.pid]), flush=True)
time.sleep(600)
"""


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Parts]:
    with parts(tmp_path) as made:
        yield made


def reaper(made: Parts) -> Reaper:
    settings = Settings(retry_wait_s=1.0)
    return Reaper(made.home, made.store, settings, launcher_lives=lambda _: True)


@contextmanager
def begun(made: Parts, job: Job) -> Iterator[tuple["subprocess.Popen[str]", list[int]]]:
    """The process of a job that is claimed, and what it has started."""
    lock = made.home.job(job.id).lock(job.id)
    with subprocess.Popen(
        [sys.executable, "-c", PROCESS, str(lock.fd)],
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=[lock.fd],
        env={**os.environ, "PENSTOCK_JOB_ID": job.id},
        start_new_session=True,
    ) as process:
        lock.release()
        assert process.stdout is not None
        others: list[int] = json.loads(process.stdout.readline())
        started = psutil.Process(process.pid).create_time()
        made.store.beat(job.id, job.attempt, 30.0, pid=process.pid, pid_started=started)
        try:
            yield process, others
        finally:
            process.kill()
            for pid in others:
                if psutil.pid_exists(pid):
                    os.kill(pid, 9)


def runs(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_what_is_left_of_a_killed_process_goes_before_its_job_is_put_right(made: Parts) -> None:
    job = made.claimed()
    with begun(made, job) as (process, others):
        process.kill()
        process.wait(PATIENCE_S)
        held = made.home.job(job.id).is_alive()
        made.store.request_cancel(job.id, "enough")
        until(reaper(made).tick)

        assert held
        assert made.store.get(job.id).status == "cancelled"
        assert not any(map(runs, others))


def test_what_the_next_attempt_has_started_is_left(made: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another launcher was faster, all the way."""
    made.at_work()
    stale = made.store.at_work()
    reaper(made).tick()
    made.clock.advance(60)
    (again,) = made.store.claim("launcher-two", 1, 3, 30.0)
    with begun(made, again) as (process, others):
        monkeypatch.setattr(made.store, "at_work", lambda: stale)
        reaper(made).tick()

        assert process.poll() is None
        assert all(map(runs, others))


@pytest.mark.parametrize("to", ["cancelled", "failed", "submitted"])
def test_a_process_that_has_ended_its_attempt_and_does_not_end_is_killed(made: Parts, to: Status) -> None:
    job = made.claimed()
    reaping = reaper(made)
    with begun(made, job) as (process, others):
        reaping.tick()
        made.store.move(job.id, "preparing", to, "says its process", attempt=1)
        reaping.tick()
        if to == "submitted":
            # It cannot be started as long as the lock is held, and is put back.
            made.clock.advance(0.1)
            made.store.claim("launcher-one", 1, 9, 30.0)
            reaping.tick()
            made.store.move(job.id, "preparing", "submitted", "its last process is still there", attempt=2)
        made.clock.advance(LEAVE_PATIENCE_S - 0.1)
        reaping.tick()
        still = process.poll() is None
        made.clock.advance(0.2)
        reaping.tick()
        process.wait(PATIENCE_S)

        assert still
        until(lambda: not any(map(runs, others)))


def test_a_process_that_has_completed_its_job_may_tidy_up(made: Parts, caplog: pytest.LogCaptureFixture) -> None:
    job = made.claimed()
    reaping = reaper(made)
    with begun(made, job) as (process, _):
        reaping.tick()
        made.store.move(job.id, "preparing", "running", "", attempt=1)
        made.store.move(job.id, "running", "completing", "", attempt=1)
        made.store.move(job.id, "completing", "completed", "", attempt=1)
        for _ in range(3):
            made.clock.advance(LEAVE_PATIENCE_S)
            reaping.tick()

        assert process.poll() is None
        assert caplog.messages == []


def test_a_job_that_is_deleted_meanwhile_holds_up_nobody(made: Parts) -> None:
    job = made.at_work()
    made.store.beat(job.id, 1, 3600.0)
    lock = made.home.job(job.id).lock(job.id)
    reaping = reaper(made)
    reaping.tick()
    made.store.move(job.id, "preparing", "cancelled", "", attempt=1)
    made.store.delete(job.id, ["cancelled"])

    assert reaping.tick() == 0
    lock.release()
