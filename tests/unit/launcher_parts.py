"""A launcher's parts without its threads: a home, a store, and jobs at any point of their way."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import psutil

from launcher.forks.forking import Child, ForkServer, Task
from launcher.home import Home
from launcher.state.database import Database
from launcher.state.job import Job
from launcher.state.sql import SqlJobStore
from pipelines.spec import Config, JobSpec, ParquetInput, ParquetOutput, Rejects
from predictors.base import ModelSpec
from tests.contract.job_store import T0, Clock

ROOT = Path(__file__).parents[2]
# A loaded machine takes seconds to start Python.
PATIENCE_S = 90.0
OWNER = "launcher-one"
_T = TypeVar("_T")


def until(reached: Callable[[], _T]) -> _T:
    """Poll until something is so; returns it."""
    deadline = time.monotonic() + PATIENCE_S
    while not (answer := reached()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)
    return answer


@dataclass
class Parts:
    """A home and its store; the store's clock stands still until it is told to go on."""

    home: Home
    store: SqlJobStore
    clock: Clock

    @property
    def database(self) -> Database:
        return self.store.database

    def add(self, job_id: str = "batch-1", secret: str | None = None, **changes: Any) -> Job:
        """A job that waits in its queue."""
        config = Config(**changes.pop("config", {}))
        folder = self.home.job(job_id).path
        spec = JobSpec(
            ModelSpec("fake:Model", "python"),
            ParquetInput((str(self.home.path.parent / "in.parquet"),)),
            ParquetOutput(str(folder / "results")),
            Rejects(),
            config,
        )
        job = replace(Job(job_id, spec, str(folder), self.clock.now, managed=True), **changes)
        self.store.add(job, "test", secret)
        return self.store.get(job_id)

    def claimed(self, job_id: str = "batch-1", owner: str = OWNER, lease_s: float = 30.0, **changes: Any) -> Job:
        """A job that a launcher has claimed and not started."""
        self.add(job_id, **changes)
        self.home.job(job_id).create()
        (job,) = self.store.claim(owner, 1, 100, lease_s)
        assert job.id == job_id
        return job

    def at_work(self, job_id: str = "batch-1", pid: int | None = None, **changes: Any) -> Job:
        """A job whose process, of which nothing is to be found any more, had begun."""
        job = self.claimed(job_id, **changes)
        self.store.beat(job.id, job.attempt, 30.0, pid=pid or NOBODY, pid_started=1.0)
        return self.store.get(job_id)

    def reasons(self, job_id: str = "batch-1") -> list[str]:
        return [move.reason for move in self.store.moves(job_id)]


@contextmanager
def parts(folder: Path, clock: Clock | None = None) -> Iterator[Parts]:
    home = Home(folder / "home")
    home.create()
    clock = clock or Clock()
    store = SqlJobStore.at(home.store, clock)
    yield Parts(home, store, clock)
    store.close()


# No process can have this pid: it is above the largest that the kernel gives (4,194,304).
NOBODY = 5_000_000


@dataclass
class FakeForks:
    """Forks nothing: keeps what it was asked for, and the lock that came with it, as a process would.

    Args:
        failures: raised one after the other, before anything is kept.
    """

    failures: list[Exception] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)
    held: list[int] = field(default_factory=list)
    on_fork: Callable[[Task], object] = lambda task: None
    is_warm: bool = True

    def wait_until_warm(self, timeout_s: float) -> bool:
        return self.is_warm

    def fork(self, task: Task, fds: tuple[int, ...] = (), timeout_s: float = 60.0) -> Child:
        self.on_fork(task)
        if self.failures:
            raise self.failures.pop(0)
        self.tasks.append(task)
        self.held += [os.dup(fd) for fd in fds]
        return Child(NOBODY, T0.timestamp())

    def let_go(self) -> None:
        """As if all processes had ended."""
        while self.held:
            os.close(self.held.pop())


@contextmanager
def warm_forks(folder: Path, *preload: str) -> Iterator[ForkServer]:
    """A real fork server that has imported a little."""
    server = ForkServer(
        preload=preload,
        environment={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
        log=folder / "forkserver.log",
        on_exit=lambda pid, code: None,
        on_lost=lambda: None,
    )
    server.start()
    try:
        assert server.wait_until_warm(PATIENCE_S), (folder / "forkserver.log").read_text()
        yield server
    finally:
        server.close()


@contextmanager
def python(program: str, *words: str, session: bool = True) -> Iterator["subprocess.Popen[str]"]:
    """A Python process, by default of a session of its own; killed with all that is left of it when the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, *words], stdout=subprocess.PIPE, text=True, start_new_session=session
    )
    try:
        yield process
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
