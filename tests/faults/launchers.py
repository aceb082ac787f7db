"""Launchers that are killed, and what a test does beside them: submit jobs, look at the store, wait."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from launcher import ATTEMPT
from launcher.state.job import AT_WORK, Job, Move, new_id
from launcher.state.sql import SqlJobStore
from pipelines.spec import Config, JobSpec, ParquetInput, ParquetOutput
from predictors.base import ModelSpec

ROOT = Path(__file__).parents[2]
_T = TypeVar("_T")


class LauncherProcess:
    """A launcher in a process of its own."""

    def __init__(
        self, home: Path, work: Path, attempt: str = ATTEMPT, environment: dict[str, str] | None = None
    ) -> None:
        self._log = open(work / "launcher.log", "ab")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.launcher_alone", str(home), str(work), "--attempt", attempt],
            cwd=ROOT,
            # The fork server has to find the attempts of tests.
            env={
                **os.environ,
                **(environment or {}),
                "PYTHONPATH": str(ROOT),
                "PENSTOCK_JOB_ENVIRONMENT": "PYTHONPATH",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self.id: str | None = None

    @property
    def pid(self) -> int:
        return self._process.pid

    def await_warm(self) -> None:
        """Wait until it can start jobs."""
        assert self._process.stdout is not None
        word, _, self.id = self._process.stdout.readline().strip().partition(" ")
        assert word == "warm", "the launcher did not start"

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """As a machine that runs out of memory would: no word, no time to tidy up."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                stream.close()


def light_job(work: Path, *steps: str, tenant: str = "default", **config: Any) -> Job:
    """A job for `light_attempt`."""
    job_id = new_id()
    (work / "in.parquet").touch()
    spec = JobSpec(
        ModelSpec("light:Model", "python", steps),
        ParquetInput((str(work / "in.parquet"),)),
        ParquetOutput(str(work / "out")),
        config=Config(**config),
    )
    return Job(job_id, spec, str(work), datetime.now(UTC), tenant=tenant, managed=True)


def until(reached: Callable[[], _T], patience_s: float, what: str) -> _T:
    """Poll until something is so; returns it."""
    deadline = time.monotonic() + patience_s
    while not (answer := reached()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)
    return answer


def all_over(store: SqlJobStore, ids: Iterable[str]) -> bool:
    return all(store.get(job_id).is_over for job_id in ids)


def most_at_work(moves: Iterable[tuple[str, Move]]) -> int:
    """The most jobs that were at work at once, by the recorded moves of some jobs."""
    steps = []
    for job_id, move in moves:
        was, now = move.source in AT_WORK, move.to in AT_WORK
        if was != now:
            # Of two at the same microsecond the one that ends comes first.
            steps.append((move.at, now, job_id))
    most = at_work = 0
    for _, begins, _ in sorted(steps):
        at_work += 1 if begins else -1
        most = max(most, at_work)
    return most
