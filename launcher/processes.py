"""Processes of jobs, known by pid and start time, and their ends."""

import contextlib
import os
import signal
from collections.abc import Iterator

import psutil

# The start time is computed from the machine's boot time, which moves when the clock is set.
_SAME_START_S = 2.0


def is_running(pid: int, started: float) -> bool:
    """Whether the process of this pid is the one that was started then. A zombie is not."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - started) < _SAME_START_S and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def kill_session(pid: int, started: float) -> int:
    """Kill a job's process, which leads a session of its own, and all that it has started. Returns how many there were.

    A process that has taken over the pid of one that ended long ago is left alone.
    """
    killed = 0
    for process in list(_members(pid, started)):
        with contextlib.suppress(psutil.Error):
            process.send_signal(signal.SIGKILL)
            killed += 1
    return killed


def _members(pid: int, started: float) -> Iterator[psutil.Process]:
    try:
        leader: psutil.Process | None = psutil.Process(pid)
    except psutil.Error:
        leader = None
    if leader is not None:
        if abs(leader.create_time() - started) >= _SAME_START_S:
            return
        with contextlib.suppress(psutil.Error):
            # Those that left the session, too.
            yield from leader.children(recursive=True)
        yield leader
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError, PermissionError):
            if process.pid != pid and os.getsid(process.pid) == pid:
                yield process


def describe_exit(returncode: int) -> str:
    """How a process ended, for people."""
    if returncode < 0:
        try:
            return f"killed by {signal.Signals(-returncode).name}"
        except ValueError:
            return f"killed by signal {-returncode}"
    return f"exit code {returncode}"
