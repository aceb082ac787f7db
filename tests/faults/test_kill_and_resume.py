"""kill -9 at any moment, then resume: no row is lost or doubled, none scored again, nothing half-visible."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from launcher.errors import JobAlive
from tests.faults.killing import ForkingSupervisor, await_or_end, finish, kill
from tests.faults.places import EXPECTED, ROWS, Place, check_finished, noted_rows


def test_an_undisturbed_run_gives_each_row_once(place: Place, supervisor: ForkingSupervisor, tmp_path: Path) -> None:
    started = supervisor.submit(place.spec, tmp_path)
    finish(started)

    check_finished(place, supervisor, started.job.id)


def test_killed_at_twenty_moments_a_job_resumes_to_the_same_rows(
    place: Place, supervisor: ForkingSupervisor, tmp_path: Path
) -> None:
    seed = int(time.time())
    print("seed", seed)
    chance = random.Random(seed)
    began = time.monotonic()
    finish(supervisor.submit(place.spec, tmp_path))
    whole_s = time.monotonic() - began
    print("whole", whole_s)
    result = place.read()
    assert result == EXPECTED
    seen: set[str] = set()
    for moment in range(20):
        started = supervisor.submit(place.spec, tmp_path)
        job_id = started.job.id
        if moment % 4 == 3:
            # While publishing, which is a matter of milliseconds: at once, and a little later.
            await_or_end(started, lambda job_id=job_id: supervisor.peek(job_id).status in ("completing", "completed"))
            started.wait(chance.uniform(0, 0.05) if moment % 8 == 7 else 0)
        else:
            started.wait(chance.uniform(0, whole_s * 1.05))
        seen.add(supervisor.peek(job_id).status)
        kill(started)
        assert place.read() == result
        while supervisor.job(job_id).status != "completed":
            staged = noted_rows(supervisor, job_id)
            resumed = supervisor.resume(job_id)
            finish(resumed)
            job = supervisor.job(job_id)
            assert job.error is None
            assert staged in (None, job.already.total)
            live = supervisor.live(job)
            assert live.scored + live.rejected == (ROWS - job.already.total if job.already.total < ROWS else 0)
        check_finished(place, supervisor, job_id)
    assert {"running", "completing"} <= seen, seen


def test_a_living_job_cannot_be_resumed(place: Place, supervisor: ForkingSupervisor, tmp_path: Path) -> None:
    started = supervisor.submit(place.spec, tmp_path)
    await_or_end(started, lambda: supervisor.peek(started.job.id).status == "running")
    pid = supervisor.peek(started.job.id).pid
    assert pid is not None
    # It would be done before anybody has asked.
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(JobAlive, match="is still running"):
            supervisor.resume(started.job.id)
    finally:
        os.kill(pid, signal.SIGCONT)
    finish(started)
    check_finished(place, supervisor, started.job.id)
