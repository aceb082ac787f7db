"""An attempt that scores nothing: it does what the job's spec tells it to, so that tests can hold it anywhere.

`model.features` is the list of steps: `prepare ...` while preparing, `run ...` before the gate, `publish ...` behind
it. A step is `<when> <what> <argument>`; files that it leaves or waits for lie in the working folder.

    stage N       rows are staged until the fake ledger has N
    hold NAME     leaves `at-NAME` and waits until `go-NAME` is there
    input|output|other|exit TEXT   raises
    take MB       takes so much memory, and holds it
    child         starts a process that would outlive this one; its pid is in `child`
    die           kills itself
    fill          fills the disk of the job's folder, then fails of it
    print TEXT    says something
    log TEXT      logs an error that TEXT was the cause of, as Beam does
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from launcher.state.job import Job
from predictors.notices import Notice
from transforms.counts import Counts
from transforms.errors import InputError, OutputError, TooManyRejects
from transforms.telemetry import Telemetry

ROWS = 1000


class Gate(Protocol):
    """As `transforms.publish.Gate`, without the seconds that Beam's import takes."""

    def open(self) -> None: ...


@dataclass(frozen=True)
class Prepared:
    job: Job
    folder: Path
    total_rows: int
    output: str
    rejects: str
    already: Counts
    notices: tuple[Notice, ...] = ()


@dataclass(frozen=True)
class Result:
    counts: Counts
    outcome: str
    seconds: dict[str, float]


def prepare(
    job: Job, folder: Path, on_snapshot: Callable[[int, int | None], object], within: object = None
) -> Prepared:
    on_snapshot(250, 1000)
    (folder / "plan.json").touch()
    _do(job, folder, "prepare")
    ledger = _ledger(folder)
    return Prepared(job, folder, ROWS, "result", "rejects", Counts(ledger))


def run(prepared: Prepared, gate: Gate) -> Result:
    job, folder = prepared.job, prepared.folder
    if not Path("result").exists():
        _do(job, folder, "run")
        rejected = ROWS - _ledger(folder)
        if rejected > job.spec.rejects.max_reject_ratio * ROWS:
            telemetry = Telemetry(str(folder / "progress"), job.attempt).counters()
            telemetry.add(rejected=rejected, staged=rejected)
            raise TooManyRejects(f"{rejected} of {ROWS} rows were rejected")
        gate.open()
        gate.open()
        _do(job, folder, "publish")
        Path("result").write_text(job.id)
    scored = _ledger(folder)
    outcome = "clean" if scored == ROWS else "with_rejects"
    return Result(Counts(scored, ROWS - scored), outcome, {"read": 0.25, "score": 0.5, "write": 0.125})


def discard(job: Job, folder: Path) -> None:
    Path("discarded").write_text(job.id)


def discard_apart(job: Job, folder: Path) -> None:
    Path("discarded-apart").write_text(job.id)


def drop_snapshot(folder: Path) -> None:
    (folder / "dropped").touch()


def _ledger(folder: Path) -> int:
    file = folder / "ledger"
    return int(file.read_text()) if file.exists() else 0


def _do(job: Job, folder: Path, when: str) -> None:
    for step in job.spec.model.features or ():
        now, _, step = step.partition(" ")
        if now == when:
            what, _, argument = step.partition(" ")
            _STEPS[what](job, folder, argument)


def _stage(job: Job, folder: Path, rows: str) -> None:
    fresh = max(0, int(rows) - _ledger(folder))
    (folder / "ledger").write_text(str(_ledger(folder) + fresh))
    Telemetry(str(folder / "progress"), job.attempt).counters().add(scored=fresh, staged=fresh, score_s=0.5)


def _hold(job: Job, folder: Path, name: str) -> None:
    Path(f"at-{name}").write_text(str(os.getpid()))
    while not Path(f"go-{name}").exists():
        time.sleep(0.01)


def _raise(kind: Callable[[str], BaseException]) -> Any:
    def step(job: Job, folder: Path, text: str) -> None:
        raise kind(text)

    return step


def _take(job: Job, folder: Path, megabytes: str) -> None:
    held = bytearray(int(megabytes) * 2**20)
    # Touch each page, or none of them is resident.
    held[::4096] = b"x" * len(held[::4096])
    threading.Event().wait()


def _child(job: Job, folder: Path, _: str) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path("child").write_text(str(child.pid))


def _die(job: Job, folder: Path, _: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _fill(job: Job, folder: Path, _: str) -> None:
    try:
        with open(folder / "filler", "wb", buffering=0) as file:
            for size in (65536, 1):
                while True:
                    try:
                        file.write(bytes(size))
                    except OSError:
                        break
        raise OSError("the disk is full")
    except OSError as error:
        raise OutputError("no room is left for the result") from error


def _print(job: Job, folder: Path, text: str) -> None:
    print(text)


def _log(job: Job, folder: Path, text: str) -> None:
    try:
        try:
            raise ValueError(text)
        except ValueError as cause:
            raise OutputError("the destination refuses") from cause
    except OutputError:
        logging.getLogger("apache_beam.runners.common").exception("the step failed")


_STEPS: dict[str, Callable[[Job, Path, str], None]] = {
    "stage": _stage,
    "hold": _hold,
    "input": _raise(InputError),
    "other": _raise(ValueError),
    "exit": _raise(SystemExit),
    "take": _take,
    "child": _child,
    "die": _die,
    "fill": _fill,
    "print": _print,
    "log": _log,
}
