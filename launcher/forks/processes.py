"""Processes of jobs, known by pid and start time, and their ends."""

import contextlib
import os
import re
import signal
import socket
from collections.abc import Iterator

import psutil

# The start time is computed from the machine's boot time, which moves when the clock is set.
_SAME_START_S = 2.0
# Two are enough, but for a process that starts others as fast as it can.
_PASSES = 5


def machine() -> str:
    """The name of this machine, as launchers sign with it: pids of another one mean nothing here."""
    return re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname()) or "machine"


def is_running(pid: int, started: float) -> bool:
    """Whether the process of this pid is the one that was started then. A zombie is not."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - started) < _SAME_START_S and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def kill_session(pid: int, started: float) -> int:
    """Kill a job's process, which leads a session of its own, and all that it has started. Returns how many there were.

    A process that has taken over the pid of one that ended long ago is left alone. Not found: what has left the session
    and whose parent has ended.
    """
    killed: set[int] = set()
    for _ in range(_PASSES):
        # What was started while the others were looked for is found in the next pass.
        found = [process for process in _members(pid, started) if process.pid not in killed]
        for process in found:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)
            killed.add(process.pid)
        if not found:
            break
    return len(killed)


def _members(pid: int, started: float) -> Iterator[psutil.Process]:
    try:
        leader: psutil.Process | None = psutil.Process(pid)
    except psutil.Error:
        leader = None
    if leader is not None:
        with contextlib.suppress(psutil.Error):
            if abs(leader.create_time() - started) >= _SAME_START_S:
                return
            if leader.status() != psutil.STATUS_ZOMBIE:
                # Those that left the session, too.
                yield from leader.children(recursive=True)
                yield leader
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError, PermissionError):
            if process.pid == pid or os.getsid(process.pid) != pid or process.status() == psutil.STATUS_ZOMBIE:
                continue
            # A session that is older has only the number in common.
            if process.create_time() > started - _SAME_START_S:
                yield process


def describe_exit(returncode: int) -> str:
    """How a process ended, for people."""
    if returncode < 0:
        try:
            return f"killed by {signal.Signals(-returncode).name}"
        except ValueError:
            return f"killed by signal {-returncode}"
    return f"exit code {returncode}"
