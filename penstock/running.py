"""Running jobs on this machine from Python, as `penstock run` does."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from launcher.errors import LauncherError
from launcher.home import Home
from launcher.limits import LocalSettings
from launcher.request.local import local_spec
from launcher.request.spec import check_names_free, read_body
from launcher.state.job import new_id
from launcher.state.sql import SqlJobStore
from launcher.supervisor import StartedJob, Supervisor
from pipelines.spec import JobSpec
from transforms.counts import Counts

# How often a job that runs is looked at, and how long it may take to stop.
_LOOK_S = 0.5
_STOP_S = 10.0


@dataclass(frozen=True)
class Result:
    """A job that completed.

    Args:
        job_id: to be named in `penstock jobs show`.
        outcome: `clean`, or `with_rejects`.
        counts: rows scored, rejected and skipped.
        output, rejects: where they are; the rejects' folder may be relative to the working folder.
    """

    job_id: str
    outcome: str
    counts: Counts
    output: str
    rejects: str | None


class JobFailed(LauncherError):
    """A job failed or was cancelled; what it staged is kept for `penstock resume`.

    Args:
        job_id: which.
        reason: one line.
    """

    def __init__(self, job_id: str, reason: str) -> None:
        super().__init__(job_id, reason)
        self.job_id = job_id
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.job_id} failed: {self.reason}"


def run(spec: Mapping[str, Any] | str | Path, *, scheduled_at: datetime | None = None, **changes: Any) -> Result:
    """Run a job in a process of its own and wait for its end. Ctrl-C cancels it.

    Args:
        spec: a job's spec as a mapping, or the file that holds it. Its paths start from the working folder.
        scheduled_at: what `{{ scheduled_at }}` in it stands for; now, if left out. A naive one is local.
        changes: parts of the spec to take the place of those in it, mapping by mapping: `config={"batch_size": 500}`.

    Raises:
        RequestError: the spec is wrong, or what it names is not as it says; no job was made.
        JobFailed: the job failed.
    """
    job_id = new_id()
    asked = read(spec, changes, job_id, scheduled_at)
    home = Home.from_environment()
    home.create()
    store = SqlJobStore.at(home.store)
    try:
        supervisor = Supervisor(home, store)
        started = supervisor.submit(asked, Path.cwd(), "penstock.run", job_id)
        while True:
            _wait(started)
            # A job whose process dies of a row goes on.
            again = supervisor.go_on(started)
            if again is None:
                break
            started = again
        job = supervisor.settled(supervisor.peek(started.job.id), started.end())
        wrong = supervisor.withdraw(job)
    finally:
        store.close()
    if wrong is not None:
        raise wrong
    if job.status != "completed" or job.counts is None:
        raise JobFailed(job.id, job.error or f"it is {job.status}")
    return Result(job.id, job.outcome or "clean", job.counts, job.output or "", job.rejects)


def read(
    spec: Mapping[str, Any] | str | Path, changes: Mapping[str, Any], job_id: str, scheduled_at: datetime | None
) -> JobSpec:
    """A spec with changes, as `run` takes both.

    Raises:
        RequestError: it is wrong.
    """
    values = spec if isinstance(spec, Mapping) else read_body(spec)
    asked = local_spec(
        _changed(values, changes), (), job_id, scheduled_at, LocalSettings.from_environment().default_parallelism
    )
    check_names_free(asked, Path.cwd())
    return asked


def _changed(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with `changes` in them; mappings are changed, and all else replaced."""
    changed = dict(values)
    for name, change in changes.items():
        old = changed.get(name)
        both = isinstance(old, Mapping) and isinstance(change, Mapping)
        changed[name] = _changed(old, change) if both else change  # type: ignore[arg-type]
    return changed


def _wait(started: StartedJob) -> None:
    try:
        while not started.wait(_LOOK_S):
            pass
    except KeyboardInterrupt:
        started.cancel()
        if not started.wait(_STOP_S):
            started.kill()
        raise
