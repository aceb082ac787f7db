"""Killing what a job has started, wherever it went, and nobody else."""

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
# Starts two that their parents do not outlive, one in its session and one that leaves it; tells their pids.
ORPHANS = """
import os, subprocess, sys, time
from pathlib import Path
from launcher.forks.processes import adopt_orphans, kill_rest, wait_for_orphans

def orphan(session):
    told, tells = os.pipe()
    middle = os.fork()
    if not middle:
        if session:
            os.setsid()
        if not os.fork():
            os.write(tells, str(os.getpid()).encode())
            # All that anybody could know it by.
            os.closerange(0, 100)
            time.sleep(600)
        os._exit(0)
    os.waitpid(middle, 0)
    return int(os.read(told, 10))

def tell(*words):
    print(*words, flush=True)

"""
ADOPTS = ORPHANS + "adopt_orphans()\n"


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


@contextmanager
def running(*command: str, **how: Any) -> Iterator["subprocess.Popen[str]"]:
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **how)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_what_has_left_the_session_is_found_below_who_adopts_it() -> None:
    with python(ADOPTS + "tell(orphan(False), orphan(True)); time.sleep(600)") as job:
        orphans = pids_of(job)
        killed = kill_session(job.pid, psutil.Process(job.pid).create_time())
        job.wait()
        until(lambda: all(map(gone, orphans)))

        assert killed == 3


def test_a_process_ends_all_that_it_has_started_and_goes_on() -> None:
    program = "tell(orphan(False), orphan(True)); tell(kill_rest(), kill_rest()); time.sleep(600)"
    with python(ADOPTS + program) as job:
        orphans = pids_of(job)
        killed = pids_of(job)
        until(lambda: all(map(gone, orphans)))

        assert killed == [2, 0]
        assert job.poll() is None


def test_a_process_ends_who_is_in_its_session_and_not_below_it() -> None:
    with python(ORPHANS + "tell(orphan(False)); tell(kill_rest()); time.sleep(600)") as job:
        (orphan,) = pids_of(job)
        (killed,) = pids_of(job)
        until(lambda: gone(orphan))

        assert killed == 1


def test_a_process_that_leads_no_session_ends_nobody_beside_it() -> None:
    beside = "beside = subprocess.Popen(['sleep', '600']); tell(beside.pid)\n"
    inner = "if not os.fork(): tell(orphan(False)); tell(kill_rest()); os._exit(0)\n"
    with python(ADOPTS + beside + inner + "time.sleep(600)") as job:
        (other,) = pids_of(job)
        (orphan,) = pids_of(job)
        (killed,) = pids_of(job)

        # Whose parent ended, and who is not below it: it adopts nobody itself.
        assert killed == 0
        assert not gone(other)
        assert not gone(orphan)
        kill_session(job.pid, psutil.Process(job.pid).create_time())


def test_adopted_processes_that_have_ended_do_not_pile_up() -> None:
    leave = "for _ in range(20): subprocess.run(['sh', '-c', 'true &'])\n"
    with python(ADOPTS + leave + "tell(0); wait_for_orphans(most=3, every_s=0.02)") as job:
        pids_of(job)

        until(lambda: len(psutil.Process(job.pid).children()) <= 3)


# Starts one that holds the lock on a file on after its end, and tells its pid.
HEIR = """
import os, sys, time
os.set_inheritable(int(sys.argv[1]), False)
if not os.fork():
    os.setsid()
    print(os.getpid(), flush=True)
    time.sleep(600)
time.sleep(600)
"""


@contextmanager
def locked(file: Path) -> Iterator[int]:
    """The lock on a file, as whoever starts a job has it; its number."""
    fd = os.open(file, os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield fd
    finally:
        os.close(fd)


def test_who_was_handed_the_lock_of_a_job_is_found_after_its_leader_has_gone(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    with (
        locked(file) as fd,
        # It only looks, as a launcher does.
        python("import sys, time; file = open(sys.argv[1]); print(flush=True); time.sleep(600)", str(file)) as looker,
        running(sys.executable, "-c", HEIR, str(fd), pass_fds=[fd], start_new_session=True) as job,
    ):
        pids_of(looker)
        (heir,) = pids_of(job)
        started = psutil.Process(job.pid).create_time()
        job.kill()
        job.wait()
        try:
            without = kill_session(job.pid, started)
            # This process took the lock, and lives.
            killed = kill_session(job.pid, started, file)
            until(lambda: gone(heir))

            assert (without, killed) == (0, 1)
            assert looker.poll() is None
        finally:
            if not gone(heir):
                os.kill(heir, 9)


def test_who_was_handed_the_lock_before_the_job_began_is_left_alone(tmp_path: Path) -> None:
    """As the fork server is, for a moment."""
    file = tmp_path / "lock"
    with locked(file) as fd, running("sleep", "600", pass_fds=[fd]) as other:
        assert kill_session(NOBODY, time.time() + 60, file) == 0
        assert other.poll() is None


def test_programs_that_a_job_has_started_are_found_after_its_leader_has_gone() -> None:
    with (
        running("sleep", "600", env={"PENSTOCK_JOB_ID": "batch-1"}, start_new_session=True) as helper,
        running("sleep", "600", env={"PENSTOCK_JOB_ID": "batch-11"}, start_new_session=True) as other,
    ):
        killed = kill_session(NOBODY, psutil.Process(helper.pid).create_time(), marked="PENSTOCK_JOB_ID=batch-1")
        until(lambda: gone(helper.pid))

        assert killed == 1
        assert other.poll() is None


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
