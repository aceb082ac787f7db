"""Killing what a job has started, wherever it went, and nobody else."""

import os
import subprocess
import time

import psutil
import pytest

from launcher.forks.processes import describe_exit, is_running, kill_session
from tests.unit.launcher_parts import NOBODY, python, until

# Starts a child in its session, one in a process group of its own, and one in a session of its own; tells their pids.
FAMILY = """
import subprocess, sys, time
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
children = [
    subprocess.Popen(sleep),
    subprocess.Popen(sleep, process_group=0),
    subprocess.Popen(sleep, start_new_session=True),
]
print(*(child.pid for child in children), flush=True)
"""
STAYS = FAMILY + "time.sleep(600)"


def gone(pid: int) -> bool:
    """Whether nothing runs under a pid; whoever should ask for its end may not have done so yet."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def pids_of(process: "subprocess.Popen[str]") -> list[int]:
    assert process.stdout is not None
    return [int(pid) for pid in process.stdout.readline().split()]


def test_all_that_a_job_has_started_goes_with_it() -> None:
    with python(STAYS) as job:
        children = pids_of(job)
        killed = kill_session(job.pid, psutil.Process(job.pid).create_time())
        job.wait()

        assert killed == 4
        until(lambda: all(map(gone, children)))


def test_what_stays_in_the_session_goes_after_its_leader_has_gone() -> None:
    with python(FAMILY + "sys.stdin.read()") as job:
        first, second, third = pids_of(job)
        started = psutil.Process(job.pid).create_time()
        job.kill()
        job.wait()
        try:
            killed = kill_session(job.pid, started)
            until(lambda: gone(first) and gone(second))

            assert killed == 2
            # It had left, and nothing tells any more whose it was.
            assert not gone(third)
        finally:
            os.kill(third, 9)


def test_a_leader_that_nobody_has_waited_for_is_no_one_to_kill() -> None:
    with python("print('on', flush=True)") as job:
        started = psutil.Process(job.pid).create_time()
        until(lambda: psutil.Process(job.pid).status() == psutil.STATUS_ZOMBIE)

        assert kill_session(job.pid, started) == 0
        assert not is_running(job.pid, started)


def test_who_has_taken_over_the_pid_is_left_alone() -> None:
    with python(STAYS) as stranger:
        children = pids_of(stranger)
        started = psutil.Process(stranger.pid).create_time()

        assert kill_session(stranger.pid, started - 60) == 0
        assert not is_running(stranger.pid, started - 60)
        assert is_running(stranger.pid, started)
        # The clock of the machine was set by a little.
        assert is_running(stranger.pid, started + 1)
        assert not any(map(gone, children))
        kill_session(stranger.pid, started)


def test_an_older_session_of_the_same_number_is_left_alone() -> None:
    with python(FAMILY + "sys.stdin.read()") as stranger:
        children = pids_of(stranger)
        stranger.kill()
        stranger.wait()
        try:
            # A job of this pid that would have started later than they did.
            assert kill_session(stranger.pid, time.time() + 60) == 0
            assert not any(map(gone, children))
        finally:
            for child in children:
                os.kill(child, 9)


def test_nobody_is_nobody() -> None:
    assert kill_session(NOBODY, 1.0) == 0
    assert not is_running(NOBODY, 1.0)


@pytest.mark.parametrize(
    ("returncode", "told"),
    [(0, "exit code 0"), (3, "exit code 3"), (-9, "killed by SIGKILL"), (-99, "killed by signal 99")],
)
def test_an_end_is_told_for_people(returncode: int, told: str) -> None:
    assert describe_exit(returncode) == told
