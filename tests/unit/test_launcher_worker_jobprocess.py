"""The process of a managed job, without a launcher: it ends with all it has started, and its moves count once."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from launcher.state.job import Job
from launcher.worker.handover import Handover
from tests.contract.job_store import Clock
from tests.unit.launcher_parts import PATIENCE_S, ROOT, Parts, parts, until

# What a fork of the server does. If told to, the store of the process loses answers first, or the job is cancelled
# just before it begins to publish, or the store's clock is ahead of the machine's.
PROCESS = """
import json, sys
from datetime import timedelta
from launcher.errors import StoreUnavailable
from launcher.state.sql import SqlJobStore
from launcher.worker.jobprocess import run_forked
handover, lock, lost = json.loads(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
real = SqlJobStore.move
def move(self, job_id, expected, to, reason, **rest):
    if to == "completing" and "cancel" in lost:
        lost.remove("cancel")
        self.request_cancel(job_id, "enough")
    moved = real(self, job_id, expected, to, reason, **rest)
    if to in lost:
        lost.remove(to)
        raise StoreUnavailable("server closed the connection unexpectedly")
    return moved
SqlJobStore.move = move
if "ahead" in lost:
    clock = SqlJobStore.clock
    SqlJobStore.clock = lambda self: clock(self) + timedelta(hours=2)
run_forked({**handover, "tenant": "default"}, [lock])
"""


@dataclass
class Desk:
    """Jobs that `stubborn_attempt` makes, each in a process of its own."""

    made: Parts
    folder: Path

    def start(self, *steps: str, lost: str = "") -> tuple[Job, "subprocess.Popen[bytes]"]:
        job = self.made.add()
        spec = replace(job.spec, model=replace(job.spec.model, features=steps))
        self.made.store.update(job.id, ["submitted"], spec=spec)
        folder = self.made.home.job(job.id)
        folder.create()
        self.made.store.claim("launcher-one", 1, 9, 30.0)
        handover = Handover(str(self.made.home.path), job.id, 1, attempt_module="tests.unit.stubborn_attempt")
        lock = folder.lock(job.id)
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", PROCESS, json.dumps(handover.to_json()), str(lock.fd), *lost.split()],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.DEVNULL,
            pass_fds=[lock.fd],
            start_new_session=True,
        )
        lock.release()
        return job, process

    def left(self) -> list[int]:
        """What the model has started and what still runs."""
        pids = self.folder / "pids"
        return [int(pid) for pid in (pids.read_text().split() if pids.exists() else ()) if psutil.pid_exists(int(pid))]

    def await_hold(self) -> None:
        until(lambda: (self.folder / "at").exists())


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    clock = Clock()
    # The process has the machine's.
    clock.now = datetime.now(UTC)
    folder = tmp_path / "work"
    folder.mkdir()
    with parts(tmp_path, clock) as made:
        desk = Desk(made, folder)
        yield desk
        for pid in desk.left():
            os.kill(pid, 9)


@pytest.mark.parametrize("steps", ["closed", "stuck", "shell", "daemon", "closed shell stuck daemon"])
def test_a_job_that_is_cancelled_leaves_no_process(desk: Desk, steps: str) -> None:
    job, process = desk.start(*steps.split(), "hold")
    try:
        desk.await_hold()
        started = desk.left()
        desk.made.store.request_cancel(job.id, "enough")
        until(lambda: desk.made.store.get(job.id).is_over)
        # Of the 5 s that a cancel may take, one is gone with hearing of it.
        process.wait(4)

        assert desk.made.store.get(job.id).status == "cancelled"
        assert len(started) == steps.count("shell") + steps.count("daemon")
        until(lambda: not desk.left())
        assert not desk.made.home.job(job.id).is_alive()
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(("last", "status"), [([], "completed"), (["raises"], "failed")], ids=["completes", "fails"])
def test_a_job_that_ends_by_itself_leaves_no_process(desk: Desk, last: list[str], status: str) -> None:
    job, process = desk.start("shell", "daemon", "stuck", *last)
    try:
        process.wait(PATIENCE_S)

        assert desk.made.store.get(job.id).status == status
        until(lambda: not desk.left())
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("lost", ["running", "completed", "running completed"])
def test_a_move_of_which_only_the_answer_was_lost_is_made_once_and_counts(desk: Desk, lost: str) -> None:
    job, process = desk.start(lost=lost)
    process.wait(PATIENCE_S)
    over = desk.made.store.get(job.id)

    assert (over.status, over.error, over.retries) == ("completed", None, 0)
    assert process.returncode == 0
    assert [move.to for move in desk.made.store.moves(job.id)] == [
        "submitted",
        "preparing",
        "running",
        "completing",
        "completed",
    ]


def test_a_cancel_that_the_process_has_not_heard_of_keeps_it_from_publishing(desk: Desk) -> None:
    job, process = desk.start(lost="cancel")
    process.wait(PATIENCE_S)
    over = desk.made.store.get(job.id)

    assert (over.status, over.outcome, over.error) == ("cancelled", None, None)
    assert "completing" not in [move.to for move in desk.made.store.moves(job.id)]
    assert not (desk.folder / "result").exists()


def test_the_time_is_over_when_the_store_says_so(desk: Desk) -> None:
    job, process = desk.start("hold", lost="ahead")
    process.wait(PATIENCE_S)
    over = desk.made.store.get(job.id)

    assert (over.status, over.outcome) == ("failed", "timed_out")
