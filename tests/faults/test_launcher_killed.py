"""200 jobs of three tenants, while the launcher is killed every few seconds and one worker in each third job."""

import os
import random
import signal
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from launcher.forks.processes import is_running
from launcher.home import Home
from launcher.state.job import Job, new_id
from launcher.state.registry import Connections
from launcher.state.sql import SqlJobStore
from pipelines.spec import Config, JobSpec, ParquetInput, ParquetOutput, Rejects, SqlInput, TableOutput
from predictors.base import ModelSpec
from tests.faults.launchers import LauncherProcess, all_over, most_at_work, until

JOBS, TENANTS, PER_TENANT = 200, 3, 3
ROWS, FILES = 900, 3
BAD = 7  # each 100th row and so many on
PATIENCE_S = 500.0

# Slow enough to be caught at work, and waiting rather than computing.
MODEL = """
import time
import pyarrow as pa

class Twice:
    thread_safe = True
    output_schema = pa.schema([("score", pa.float64())])

    def predict(self, rows):
        values = rows.column("value").to_pylist()
        if any(value < 0 for value in values):
            raise ValueError("a value is negative")
        time.sleep(0.03)
        return pa.record_batch([pa.array([2.0 * value for value in values])], ["score"])
"""


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "slow_model.py").write_text(MODEL)
    ids = np.arange(ROWS)
    values = np.where(ids % 100 == BAD, -1.0, ids.astype(float))
    rows = pa.table({"id": ids, "value": values})
    (tmp_path / "in").mkdir()
    for n in range(FILES):
        pq.write_table(rows.slice(n * ROWS // FILES, ROWS // FILES), tmp_path / "in" / f"{n}.parquet")
    with sqlite3.connect(tmp_path / "numbers.db") as database:
        database.execute("CREATE TABLE numbers (id INTEGER, value REAL)")
        database.executemany("INSERT INTO numbers VALUES (?, ?)", zip(ids.tolist(), values.tolist(), strict=True))
    database.close()
    return tmp_path


@pytest.fixture
def store(work: Path) -> Iterator[SqlJobStore]:
    home = Home(work / "home")
    home.create()
    store = SqlJobStore.at(home.store)
    yield store
    store.close()


def made(work: Path, n: int) -> Job:
    """Job n: two of three go from files to files, the third from a query to a table."""
    given: ParquetInput | SqlInput = ParquetInput((str(work / "in"),))
    wanted: ParquetOutput | TableOutput = ParquetOutput(str(work / "out" / str(n)), columns=("id",))
    if n % 3 == 2:
        given = SqlInput("numbers", "SELECT id, value FROM numbers")
        wanted = TableOutput(f"results-{n}", f"scores_{n}", columns=("id",))
    spec = JobSpec(
        ModelSpec("slow_model:Twice", "python", ("value",)),
        given,
        wanted,
        Rejects(max_reject_ratio=0.5),
        Config(batch_size=50, parallelism=2, retry_count=10),
    )
    job = Job(new_id(), spec, str(work), datetime.now(UTC), tenant=f"tenant-{n % TENANTS}", managed=True)
    return replace(job, model_id="twice", model_version=1)


def result(work: Path, n: int) -> list[tuple[int, float]]:
    if n % 3 == 2:
        with sqlite3.connect(work / f"results-{n}.db") as database:
            return sorted(database.execute(f"SELECT id, score FROM scores_{n}").fetchall())
    table = pq.read_table(work / "out" / str(n)).sort_by("id")
    return list(zip(table.column("id").to_pylist(), table.column("score").to_pylist(), strict=True))


@pytest.mark.timeout(600)
def test_200_jobs_end_exactly_right_though_launcher_and_workers_are_killed(store: SqlJobStore, work: Path) -> None:
    connections = Connections(store.database)
    chance = random.Random(20250315)
    jobs = [made(work, n) for n in range(JOBS)]
    for tenant in range(TENANTS):
        connections.put(f"tenant-{tenant}", "numbers", f"sqlite:///{work}/numbers.db")
    for n, job in enumerate(jobs):
        if n % 3 == 2:
            connections.put(job.tenant, f"results-{n}", f"sqlite:///{work}/results-{n}.db")
        store.add(job, "test")
    victims = {job.id for job in jobs[::3]}
    environment = {"PENSTOCK_RETRY_WAIT_S": "0.1", "BATCH_MAX_CONCURRENT_JOBS": str(PER_TENANT)}
    launchers_killed = workers_killed = 0

    deadline = time.monotonic() + PATIENCE_S
    launcher = LauncherProcess(work / "home", work, environment=environment)
    launcher.await_warm()
    kill_at = time.monotonic() + chance.uniform(2, 6)
    try:
        while not all_over(store, [job.id for job in jobs]):
            assert time.monotonic() < deadline, store.at_work()
            for job in store.at_work():
                # At any moment of its way, the first of it and the last.
                if job.id in victims and job.pid is not None and chance.random() < 0.2:
                    try:
                        if is_running(job.pid, job.pid_started or 0.0):
                            os.kill(job.pid, signal.SIGKILL)
                            victims.discard(job.id)
                            workers_killed += 1
                    except ProcessLookupError:
                        pass
            if time.monotonic() > kill_at:
                launcher.kill()
                launchers_killed += 1
                launcher = LauncherProcess(work / "home", work, environment=environment)
                launcher.await_warm()
                kill_at = time.monotonic() + chance.uniform(2, 6)
            time.sleep(0.02)
        pids = {job.pid for job in map(store.get, [job.id for job in jobs]) if job.pid is not None}
        until(lambda: not any(map(psutil.pid_exists, pids)), 10.0, "the processes to go")
    finally:
        launcher.kill()

    print(f"killed the launcher {launchers_killed} times and {workers_killed} workers")
    assert launchers_killed >= 5
    assert workers_killed >= JOBS // 6
    right = [(n, 2.0 * n) for n in range(ROWS) if n % 100 != BAD]
    for n, job in enumerate(jobs):
        ended = store.get(job.id)
        assert (ended.status, ended.outcome) == ("completed", "with_rejects"), (ended.error, store.moves(job.id))
        assert ended.counts is not None
        assert (ended.counts.scored, ended.counts.rejected) == (len(right), ROWS - len(right))
        assert result(work, n) == right
    for tenant in range(TENANTS):
        own = [job.id for job in jobs if job.tenant == f"tenant-{tenant}"]
        assert 1 <= most_at_work((job_id, move) for job_id in own for move in store.moves(job_id)) <= PER_TENANT
    assert not [path for path in (work / "out").iterdir() if path.name.startswith(".") and path.suffix != ".json"]
