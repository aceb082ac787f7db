"""Processes of jobs, known by pid and start time, and their ends."""

import contextlib
import ctypes
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NoReturn

import psutil

# The start time is computed from the machine's boot time, which moves when the clock is set.
_SAME_START_S = 2.0
# Two looks are enough, but for a process that starts others as fast as it can; a job has 5 s to be gone.
_KILLING_S = 1.0
# prctl(2).
_PR_SET_CHILD_SUBREAPER = 36
# How an exclusive `flock` is told of an open file, and the pid of who took it: proc(5), /proc/PID/fdinfo.
_LOCK = re.compile(r"^lock:\s+\d+: FLOCK\s+\S+\s+WRITE\s+(\d+) ", re.MULTILINE)
# What adopted processes leave is only tidied away beyond so many, and after so long that who would ask has asked.
_ZOMBIES = 100
_ZOMBIES_EVERY_S = 60.0


def machine() -> str:
    """The name of this machine, as launchers sign with it: pids of another one mean nothing here."""
    return re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname()) or "machine"


def machine_of(launcher_id: str) -> str:
    """The machine that a launcher of this id runs on, as `machine` calls it there."""
    return launcher_id.rpartition("-")[0]


def is_running(pid: int, started: float) -> bool:
    """Whether the process of this pid is the one that was started then. A zombie is not."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - started) < _SAME_START_S and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def adopt_orphans() -> None:
    """Keep all that this process will start below it: those whose parent ends become its children, session or not.

    So they are found for as long as it lives. A fork of it does not do the same: each has to ask.
    """
    control(_PR_SET_CHILD_SUBREAPER, 1)


def control(option: int, value: int) -> None:
    """Tell the system something of this process, by prctl(2); where there is no such call, nothing."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def wait_for_orphans(most: int = _ZOMBIES, every_s: float = _ZOMBIES_EVERY_S) -> NoReturn:
    """Keep adopted processes that have ended from piling up, as when a model runs `sh -c 'x &'` for each batch.

    A few stay: nothing tells them from children that a library will yet ask for.
    """
    before: set[int] = set()
    while True:
        time.sleep(every_s)
        zombies = {child.pid for child in psutil.Process().children() if not _is_alive(child)}
        if len(zombies) > most:
            for pid in zombies & before:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
        before = zombies


def kill_rest() -> int:
    """Kill all that this process has started, and whoever else is in the session that it leads. Returns how many."""
    own = psutil.Process()

    def rest() -> Iterator[psutil.Process]:
        yield from _descendants(own)
        if os.getsid(0) == own.pid:
            yield from _others_in_session(own.pid, own.create_time())

    return _kill_all(rest)


def kill_session(pid: int, started: float, lock_file: Path | None = None, marked: str | None = None) -> int:
    """Kill a job's process, which leads a session of its own, and all that it has started. Returns how many there were.

    A process that has taken over the pid of one that ended long ago is left alone. Not found, once the leader is gone:
    what has left the session and got rid of all that it had of the job.

    Args:
        lock_file: the job's lock. Who was handed it down, and holds it, is of the job.
        marked: "NAME=value" in the environment that programs of the job were started with.
    """
    leader: psutil.Process | None = None
    is_taken_over = False
    with contextlib.suppress(psutil.Error):
        found = psutil.Process(pid)
        is_taken_over = abs(found.create_time() - started) >= _SAME_START_S
        if not is_taken_over and _is_alive(found):
            leader = found
            # It starts nothing more, but goes on to adopt, so that the others are found.
            leader.suspend()

    def others() -> Iterator[psutil.Process]:
        if leader is not None:
            yield from _descendants(leader)
        if not is_taken_over:
            yield from _others_in_session(pid, started)
        for other in (*_heirs_of(lock_file), *_carriers_of(marked)):
            if other.pid not in (pid, os.getpid()) and _is_later(other, started):
                yield other

    killed = _kill_all(others)
    return killed if leader is None else killed + _kill_all(lambda: [leader])


def _kill_all(look: Callable[[], Iterable[psutil.Process]]) -> int:
    """Kill what is found until nothing more is: what was started meanwhile is found the next time."""
    killed: set[psutil.Process] = set()
    deadline = time.monotonic() + _KILLING_S
    while (found := set(look()) - killed) and time.monotonic() < deadline:
        for process in found:
            # Each for itself: one that is gone, or another user's, keeps none of the others.
            with contextlib.suppress(psutil.Error):
                process.kill()
        killed |= found
    return len(killed)


def _descendants(process: psutil.Process) -> Iterator[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        yield from filter(_is_alive, process.children(recursive=True))


def _others_in_session(leader: int, started: float) -> Iterator[psutil.Process]:
    for pid in psutil.pids():
        with contextlib.suppress(psutil.Error, ProcessLookupError, PermissionError):
            if pid != leader and os.getsid(pid) == leader:
                process = psutil.Process(pid)
                # A session that is older has only the number in common.
                if _is_alive(process) and _is_later(process, started):
                    yield process


def _heirs_of(lock_file: Path | None) -> Iterator[psutil.Process]:
    """Those that hold the lock on a file and have not taken it themselves, as who only looks after it for a moment."""
    if lock_file is None:
        return
    for pid in psutil.pids():
        with contextlib.suppress(psutil.Error, OSError):
            if _is_heir(Path(f"/proc/{pid}"), pid, lock_file):
                yield psutil.Process(pid)


def _is_heir(proc: Path, pid: int, lock_file: Path) -> bool:
    for fd in os.listdir(proc / "fd"):
        with contextlib.suppress(OSError):
            # The name first: asking after a file may hang, on a server that is away.
            if Path(os.readlink(proc / "fd" / fd)).name == lock_file.name and lock_file.samefile(proc / "fd" / fd):
                lock = _LOCK.search((proc / "fdinfo" / fd).read_text())
                if lock is not None and int(lock[1]) != pid:
                    return True
    return False


def _carriers_of(mark: str | None) -> Iterator[psutil.Process]:
    if mark is None:
        return
    for pid in psutil.pids():
        with contextlib.suppress(psutil.Error, OSError):
            if mark.encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                yield psutil.Process(pid)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _is_later(process: psutil.Process, started: float) -> bool:
    try:
        return bool(process.create_time() > started - _SAME_START_S)
    except psutil.Error:
        return False


def describe_exit(returncode: int) -> str:
    """How a process ended, for people."""
    if returncode < 0:
        try:
            return f"killed by {signal.Signals(-returncode).name}"
        except ValueError:
            return f"killed by signal {-returncode}"
    return f"exit code {returncode}"
