"""A service without its API, its jobs real ones, and the desk from which a test sends it jobs."""

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from launcher.admission import Caller
from launcher.home import Home
from launcher.request.service import JobRequest, job_request
from launcher.service import Service
from launcher.settings import Settings
from launcher.state.job import Job, Move, Status
from predictors.base import ModelSpec
from tests.faults import managed_models
from tests.faults.launchers import until

# What takes a second on an idle machine may take long on a loaded one.
PATIENCE_S = 120.0


class Launcher:
    """A service in this process, and the folder that all its tenants' folders lie in.

    Args:
        environment: its settings, beside what this process has.
    """

    def __init__(self, home: Path, folder: Path, environment: Mapping[str, str]) -> None:
        self.home = Home(home)
        self.folder = folder
        self._settings = Settings.from_environment({**os.environ, **environment})
        self.start()

    def start(self) -> None:
        """Have a service run, the first or the next on the same home."""
        self.service = Service(self._settings, self.home, self.folder, keyless=True)
        self.service.start()
        assert self.service.forks.wait_until_warm(PATIENCE_S)

    def stop(self) -> None:
        """End the service; jobs that are at work go on."""
        self.service.stop()


@dataclass
class Desk:
    """Where one test works: a tenant, a folder of the tenant's, and a folder of models.

    Args:
        models: where what the models are told and tell lies.
    """

    launcher: Launcher
    tenant: str
    folder: Path
    models: Path
    submitted: list[str] = field(default_factory=list)

    @property
    def service(self) -> Service:
        return self.launcher.service

    def register(self, name: str, features: tuple[str, ...] | None = ("id", "value")) -> str:
        """Make a model of `managed_models` one of the tenant's; returns its id."""
        self.models.mkdir(exist_ok=True)
        shutil.copy(managed_models.__file__, self.models / "desk_models.py")
        spec = ModelSpec(f"desk_models:{name}", "python", features)
        self.service.models.register(self.tenant, name, spec, str(self.models))
        return name

    def request(self, model: str, **body: Any) -> JobRequest:
        """A body that scores the files of `in` into `out`, unless it says otherwise; `config` is as it is given."""
        features = body.pop("features", ("id", "value"))
        given = {
            "model_id": self.register(model, features),
            "input": {"source": "parquet", "path": str(self.folder / "in")},
            "output": {"destination": "parquet", "path": str(self.folder / "out")},
            **body,
        }
        return job_request({name: part for name, part in given.items() if part is not None}, self.service.defaults)

    def submit(self, model: str, **body: Any) -> Job:
        """Send a job, as `request` has it."""
        job = self.service.admission.submit(self.caller, self.request(model, **body))
        return self.watched(job)

    def watched(self, job: Job) -> Job:
        """Have a job that is in the store begun at once, and tidied away with the test."""
        self.submitted.append(job.id)
        self.service.wake()
        return job

    @property
    def caller(self) -> Caller:
        return Caller(self.tenant, "admin")

    def tell(self, name: str, words: Any = "") -> None:
        """Leave word for the models."""
        draft = self.models / f".{name}"
        self.models.mkdir(exist_ok=True)
        draft.write_text(words if isinstance(words, str) else json.dumps(words))
        draft.rename(self.models / name)

    def told(self, name: str) -> list[dict[str, Any]]:
        """What the models have told so far."""
        file = self.models / name
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def await_word(self, name: str, words: int = 1) -> list[dict[str, Any]]:
        """Wait until the models have told as much."""
        return until(lambda: len(said := self.told(name)) >= words and said, PATIENCE_S, name)

    def job(self, job: Job) -> Job:
        return self.service.store.get(job.id)

    def moves(self, job: Job) -> list[Move]:
        return self.service.store.moves(job.id)

    def until(self, job: Job, reached: Callable[[Job], object], what: str) -> Job:
        """Wait until something is so of a job; returns it as it then is."""
        deadline = time.monotonic() + PATIENCE_S
        while not reached(now := self.job(job)):
            told = (now.status, now.error, now.live, self.moves(job), self.log(job))
            assert time.monotonic() < deadline, f"waited in vain for {what}: {told}"
            time.sleep(0.02)
        return now

    def await_status(self, job: Job, status: Status) -> Job:
        return self.until(job, lambda now: now.status == status, status)

    def ended(self, job: Job) -> Job:
        """Wait for the end of a job, and of its processes."""
        over = self.until(job, lambda now: now.is_over, "the end")
        if over.pid is not None:
            until(lambda: not session(over.pid or 0), PATIENCE_S, f"the processes of {over.id}")
        return over

    def completed(self, job: Job) -> Job:
        """Wait for a job to end well."""
        over = self.ended(job)
        assert over.status == "completed", (over.error, self.moves(job), self.log(job))
        return over

    def log(self, job: Job) -> str:
        log = self.launcher.home.job(job.id).log
        return log.read_text() if log.exists() else ""

    def write(self, rows: pa.Table, files: int = 1) -> None:
        """Write the input, each file as long as the others."""
        (self.folder / "in").mkdir(parents=True, exist_ok=True)
        each = len(rows) // files
        for n in range(files):
            pq.write_table(rows.slice(n * each, each), self.folder / "in" / f"{n:03d}.parquet")

    def result(self, folder: str = "out") -> list[tuple[int, float]]:
        """The ids and scores that readers of a folder see."""
        table = pq.read_table(self.folder / folder)
        return sorted(zip(table.column("id").to_pylist(), table.column("score").to_pylist(), strict=True))

    def scored_ids(self) -> list[int]:
        """All ids that a model has answered, in no order; an id as often as it was."""
        return sorted(id_ for call in self.told("calls") for id_ in call["ids"])

    def tidy(self) -> None:
        """Stop what still goes on."""
        for job_id in self.submitted:
            job = self.service.store.get(job_id)
            if not job.is_over:
                self.service.cancel(job)
                self.ended(job)


def numbers(rows: int) -> pa.Table:
    """`id` 0, 1, 2 …, and `value` the same as a float."""
    ids = pa.array(range(rows), pa.int64())
    return pa.table({"id": ids, "value": ids.cast(pa.float64())})


def doubled(ids: range | list[int]) -> list[tuple[int, float]]:
    """What comes of `numbers`."""
    return [(id_, 2.0 * id_) for id_ in ids]


def session(pid: int) -> list[psutil.Process]:
    """The living processes of a session, whoever their parents are."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == pid and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, ProcessLookupError):
            continue
    return found


def is_alive(pid: int) -> bool:
    """Whether a process goes on; one that is only remembered by its parent does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def seconds_between(earlier: datetime | None, later: datetime | None) -> float:
    assert earlier is not None
    assert later is not None
    return (later - earlier).total_seconds()
