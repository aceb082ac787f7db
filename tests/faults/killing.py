"""Jobs whose process is forked from a warm server, so that killing sixty of them takes a minute and not ten."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from launcher.home import Home, JobLock
from launcher.state.job import Job
from launcher.state.sql import SqlJobStore
from launcher.supervisor import StartedJob, Supervisor
from launcher.worker.handover import Handover

# The server imports and nothing else: a parent that had run a pipeline would hang its children.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "launcher.worker.attempt",
        "launcher.worker.jobprocess",
        "transforms.sinks.postgres",
        "transforms.sinks.sqlite",
        "predictors.onnx",
    ]
)
# A job that takes longer hangs.
_PATIENCE_S = 120


def _shorten() -> None:
    """Make spans and splits so short that a little data makes many notes, and a kill finds the job anywhere."""
    import transforms.sources.base as base
    import transforms.sources.parquet as parquet
    import transforms.sources.snapshot as snapshot

    for module in (base, parquet, snapshot):
        vars(module).update(SPAN_ROWS=1000, SPLIT_ROWS=2000)
    vars(snapshot).update(FILE_SPANS=2)


def _live(home: str, job_id: str, working_dir: str) -> None:
    """Be a job's process, as `launcher.worker.jobprocess` is."""
    from launcher.worker.jobprocess import JobProcess

    os.setsid()
    _shorten()
    os.chdir(working_dir)
    with open(Home(Path(home)).job(job_id).log, "ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    folder = Home(Path(home)).job(job_id)
    JobProcess(Handover(home, job_id, attempt=1), folder.lock(job_id)).run()


class _Forked:
    """A forked process, as `subprocess.Popen` shows its own."""

    def __init__(self, process: BaseProcess) -> None:
        self._process = process
        self.pid = process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def terminate(self) -> None:
        self._process.terminate()

    def wait(self, timeout: float) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("job", timeout)
        return self._process.exitcode


class ForkingSupervisor(Supervisor):
    """A supervisor whose jobs start within milliseconds."""

    def __init__(self, home: Path) -> None:
        self.home = Home(home)
        self.home.create()
        super().__init__(self.home, SqlJobStore.at(self.home.store))

    def _start(self, job: Job, lock: JobLock) -> StartedJob:
        # The child takes the lock itself, as soon as the caller lets go of it.
        process = _CONTEXT.Process(target=_live, args=(str(self.home.path), job.id, job.working_dir), daemon=False)
        process.start()
        forked: Any = _Forked(process)
        return StartedJob(job, forked)


def finish(started: StartedJob) -> None:
    """Wait for the job's process to end."""
    assert started.wait(_PATIENCE_S), "the job hangs"


def kill(started: StartedJob) -> None:
    """Kill the job's process and its children, and see it gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(started._process.pid, signal.SIGKILL)
    started.kill()
    finish(started)


def await_or_end(started: StartedJob, happened: Callable[[], bool]) -> None:
    """Poll until something happened, or the job has ended without it."""
    deadline = time.monotonic() + _PATIENCE_S
    while not happened() and not started.wait(0.0005):
        assert time.monotonic() < deadline, "it did not happen, and the job hangs"
