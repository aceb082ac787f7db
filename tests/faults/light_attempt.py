"""An attempt that imports next to nothing, and leaves a line in `runs/<job>` when it runs and when it publishes.

`model.features`: `hold NAME` waits until `go-NAME` is there; `sleep S` takes a while.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from launcher.state.job import Job
from predictors.notices import Notice
from transforms.counts import Counts

ROWS = 10


class Gate(Protocol):
    def open(self) -> None: ...


@dataclass(frozen=True)
class Prepared:
    job: Job
    folder: Path
    total_rows: int = ROWS
    output: str = "result"
    rejects: str = "rejects"
    already: Counts = Counts()
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True)
class Result:
    counts: Counts
    outcome: str
    seconds: dict[str, float]


def prepare(
    job: Job, folder: Path, on_snapshot: Callable[[int, int | None], object], within: object = None
) -> Prepared:
    _note(job, "ran")
    return Prepared(job, folder)


def run(prepared: Prepared, gate: Gate) -> Result:
    job = prepared.job
    work = _work(job)
    for step in job.spec.model.features or ():
        what, _, argument = step.partition(" ")
        if what == "hold":
            (work / f"at-{argument}").write_text(str(os.getpid()))
            while not (work / f"go-{argument}").exists():
                time.sleep(0.01)
        elif what == "sleep":
            time.sleep(float(argument))
    gate.open()
    _note(job, "published")
    return Result(Counts(ROWS), "clean", {"read": 0.0, "score": 0.0, "write": 0.0})


def discard(job: Job, folder: Path) -> None:
    _note(job, "discarded")


def drop_snapshot(folder: Path) -> None:
    """There is none."""


def _work(job: Job) -> Path:
    """The folder that the job's input names."""
    return Path(job.spec.input.path[0]).parent  # type: ignore[union-attr]


def _note(job: Job, what: str) -> None:
    runs = _work(job) / "runs"
    runs.mkdir(exist_ok=True)
    with open(runs / job.id, "a") as file:
        file.write(f"{what} attempt {job.attempt} pid {os.getpid()}\n")
