"""Run programs as processes of their own and take their wall clock, CPU time and memory."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.folders import REPOSITORY, penstock_home

Command = Sequence[str]

# Far beyond the slowest program at full size (Ray Data, some minutes): only a hung one is stopped.
TIMEOUT_S = 1800
# Ray takes some seconds to go once its driver is done.
GRACE_S = 15
SAMPLE_EVERY_S = 0.05
# An idle desktop or container stays below; one foreign busy thread on 4 cores does not.
QUIET_PERCENT = 15
QUIET_SAMPLE_S = 0.5
LOG_TAIL_LINES = 15


class ProgramFailed(Exception):
    """A measured program ended with an error or was stopped; the message holds the end of its output."""


@dataclass(frozen=True)
class PeakMemory:
    """The most memory a program held at once (RSS), sampled while it ran."""

    tree_bytes: int  # all its processes together
    process_bytes: int  # the largest of them


def python(module: str, *arguments: str | Path) -> list[str]:
    """The command for `python -m benchmarks.<module>` in this environment."""
    return [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]


def environment() -> dict[str, str]:
    """What every measured program finds in its environment."""
    variables = os.environ | {
        "PYTHONPATH": str(REPOSITORY),
        "PENSTOCK_HOME": str(penstock_home()),
        "RAY_USAGE_STATS_ENABLED": "0",
        "DAFT_ANALYTICS_ENABLED": "0",
        "DO_NOT_TRACK": "1",
    }
    # An installed program has its bytecode beside it; without this, one run from a checkout would compile it each time.
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    return variables


def wall_s(commands: Sequence[Command], log: Path) -> float:
    """Run `commands` side by side and give the seconds until the last one ends.

    Raises:
        ProgramFailed: one ended with another status than 0, or not within `TIMEOUT_S`.
    """
    with _only_ours():
        start = time.perf_counter()
        _run(commands, log)
        return time.perf_counter() - start


def cpu_s(command: Command, log: Path) -> float:
    """Run `command` and give the CPU seconds, user and system, of it and of the processes it waited for."""
    with _only_ours():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        _run([command], log)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def peak_memory(command: Command, log: Path) -> PeakMemory:
    """Run `command` and look at the memory of all its processes, orphans included, every `SAMPLE_EVERY_S`.

    Memory that two processes share is counted twice, as RSS does.
    """
    peak = PeakMemory(0, 0)
    done = threading.Event()

    def sample(others: set[psutil.Process]) -> None:
        nonlocal peak
        while not done.wait(SAMPLE_EVERY_S):
            sizes_bytes = [_rss_bytes(process) for process in _descendants() - others]
            peak = PeakMemory(
                max(peak.tree_bytes, sum(sizes_bytes)), max(peak.process_bytes, max(sizes_bytes, default=0))
            )

    with _only_ours() as others:
        sampler = threading.Thread(target=sample, args=[others])
        sampler.start()
        try:
            _run([command], log)
        finally:
            done.set()
            sampler.join()
    return peak


def wait_for_quiet(patience_s: float) -> bool:
    """Wait until other programs leave the machine alone, at most about `patience_s`; whether they do."""
    deadline = time.monotonic() + patience_s
    while psutil.cpu_percent(interval=QUIET_SAMPLE_S) > QUIET_PERCENT:
        if time.monotonic() > deadline:
            return False
    return True


def empty_folder(folder: Path) -> Path:
    """Make `folder` afresh."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _run(commands: Sequence[Command], log: Path) -> None:
    with log.open("w") as output:
        processes = [
            subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            for command in commands
        ]
        # A timer, because `wait(timeout)` polls, up to 50 ms late.
        timer = threading.Timer(TIMEOUT_S, _kill_all, [processes])
        timer.start()
        try:
            statuses = [process.wait() for process in processes]
        finally:
            timer.cancel()
            _kill_all(processes)
    if any(statuses):
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])
        raise ProgramFailed(f"{' '.join(commands[0])}\nended with status {max(statuses, key=abs)}; {log} ends:\n{tail}")


def _kill_all(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.kill()
        process.wait()


@contextmanager
def _only_ours() -> Iterator[set[psutil.Process]]:
    """Yield the processes that were there before; at the end, end all that came after, so that none slows the next."""
    others = _descendants()
    try:
        yield others
    finally:
        _, alive = psutil.wait_procs(_descendants() - others, timeout=GRACE_S)
        for process in alive:
            print(f"  left running, ended now: {process.pid} {_command_line(process)}", file=sys.stderr)
            _kill(process)
        psutil.wait_procs(alive, timeout=GRACE_S)


def _descendants() -> set[psutil.Process]:
    return set(psutil.Process().children(recursive=True))


def _rss_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return "(gone)"


def _kill(process: psutil.Process) -> None:
    try:
        process.send_signal(signal.SIGKILL)
    except psutil.NoSuchProcess:
        return
