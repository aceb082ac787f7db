"""kill -9 at any moment, then resume: no row is lost or doubled, none scored again, nothing half-visible."""

import random
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from launcher.errors import JobAlive
from launcher.state.job import Job
from pipelines.spec import Config, JobSpec, ParquetInput, ParquetOutput, Rejects, SqlInput, TableOutput
from predictors.base import ModelSpec
from tests.faults.killing import ForkingSupervisor, await_or_end, finish, kill
from tests.scenes import numbered_rows, write_files
from tests.servers import Postgres
from transforms.counts import Counts

ROWS = 60_000
BAD = [17, 1000, 1001, 30_500, 59_999]
NULLS = [0, 2, 20_000, 59_000]
OLD = [(-1, -1.0)]
EXPECTED = [(i, 2.0 * i) for i in range(ROWS) if i not in {*BAD, *NULLS}]
Rows = list[tuple[Any, ...]]


@dataclass(frozen=True)
class Place:
    """One kind of input and output: how a job is asked for, and what readers of its output see."""

    spec: JobSpec
    read: Callable[[], Rows]
    leftovers: Callable[[], list[str]]


def job_spec(folder: Path, source: Any, output: Any) -> JobSpec:
    return JobSpec(
        ModelSpec("tests.scenes:Doubler", "python", ("value",)),
        source,
        output,
        Rejects(str(folder / "rejects"), 0.01),
        Config(batch_size=100, parallelism=2),
    )


@pytest.fixture
def parquet(tmp_path: Path) -> Place:
    write_files(tmp_path / "in", numbered_rows(ROWS, BAD, NULLS), files=20, row_group_rows=3000)
    (tmp_path / "scores").mkdir()
    pq.write_table(pa.table({"id": [-1], "score": [-1.0]}), tmp_path / "scores" / "old.parquet")
    return Place(
        job_spec(
            tmp_path,
            ParquetInput((str(tmp_path / "in"),)),
            ParquetOutput(str(tmp_path / "scores"), "overwrite", ("id",)),
        ),
        lambda: sorted(tuple(row.values()) for row in pq.read_table(tmp_path / "scores").to_pylist()),
        lambda: [path.name for path in tmp_path.iterdir() if path.name.startswith(".")],
    )


@pytest.fixture
def sqlite(tmp_path: Path) -> Place:
    file = tmp_path / "numbers.db"
    with sqlite3.connect(file) as database:
        database.execute("CREATE TABLE numbers (id INTEGER PRIMARY KEY, value REAL, note TEXT)")
        rows = numbered_rows(ROWS, BAD, NULLS).to_pylist()
        database.executemany("INSERT INTO numbers VALUES (?, ?, ?)", [tuple(row.values()) for row in rows])
        database.execute("CREATE TABLE scores (id INTEGER, score REAL)")
        database.execute("INSERT INTO scores VALUES (-1, -1.0)")
    database.close()
    connection = f"sqlite:///{file}"

    def ask(sql: str) -> Rows:
        connected = sqlite3.connect(file, timeout=30)
        try:
            return connected.execute(sql).fetchall()
        finally:
            connected.close()

    tables = (
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT IN ('numbers', 'scores', 'penstock_ledger')"
    )
    return Place(
        job_spec(
            tmp_path,
            SqlInput(connection, "SELECT id, value, note FROM numbers"),
            TableOutput(connection, "scores", "overwrite", ("id",)),
        ),
        lambda: ask("SELECT id, score FROM scores ORDER BY id"),
        lambda: [name for (name,) in ask(tables)],
    )


@pytest.fixture
def postgresql(tmp_path: Path, postgres: Postgres) -> Place:
    uri = postgres.database()
    bad, nulls = (f"'{{{','.join(map(str, rows))}}}'" for rows in (BAD, NULLS))
    value = f"CASE WHEN i = ANY ({bad}) THEN -1.0 - i WHEN i = ANY ({nulls}) THEN NULL ELSE i END::float8 AS value"
    series = f"generate_series(0, {ROWS - 1}) AS i"
    postgres.execute(f"CREATE TABLE numbers AS SELECT i AS id, {value}, 'row ' || i AS note FROM {series}", uri)
    postgres.execute("CREATE TABLE scores (id bigint, score float8)", uri)
    postgres.execute("INSERT INTO scores VALUES (-1, -1)", uri)
    tables = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    return Place(
        job_spec(
            tmp_path,
            SqlInput(uri, "SELECT id, value, note FROM numbers"),
            TableOutput(uri, "scores", "overwrite", ("id",)),
        ),
        lambda: postgres.execute("SELECT id, score FROM scores ORDER BY id", uri),
        lambda: sorted({name for (name,) in postgres.execute(tables, uri)} - {"numbers", "scores", "penstock_ledger"}),
    )


@pytest.fixture(params=["parquet", "sqlite", "postgresql"])
def place(request: pytest.FixtureRequest) -> Place:
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


@pytest.fixture
def supervisor(tmp_path: Path) -> ForkingSupervisor:
    return ForkingSupervisor(tmp_path / "home")


def rejects(job: Job) -> Rows:
    table = pq.read_table(job.spec.rejects.path)
    return sorted((row["id"], row["note"], row["error_type"], row["error"]) for row in table.to_pylist())


EXPECTED_REJECTS = sorted(
    [(i, f"row {i}", "ValueError", "a value is negative") for i in BAD]
    + [(i, f"row {i}", "NullFeature", "column value is null") for i in NULLS]
)


def check_finished(place: Place, supervisor: ForkingSupervisor, job_id: str) -> None:
    job = supervisor.job(job_id)
    assert (job.status, job.outcome, job.error) == ("completed", "with_rejects", None)
    assert job.counts == Counts(scored=len(EXPECTED), rejected=len(EXPECTED_REJECTS))
    assert place.read() == EXPECTED
    assert rejects(job) == EXPECTED_REJECTS
    assert place.leftovers() == []


def test_an_undisturbed_run_gives_each_row_once(place: Place, supervisor: ForkingSupervisor, tmp_path: Path) -> None:
    started = supervisor.submit(place.spec, tmp_path)
    finish(started)

    check_finished(place, supervisor, started.job.id)


def test_killed_at_twenty_moments_a_job_resumes_to_the_same_rows(
    place: Place, supervisor: ForkingSupervisor, tmp_path: Path
) -> None:
    seed = int(time.time())
    print("seed", seed)
    chance = random.Random(seed)
    began = time.monotonic()
    finish(supervisor.submit(place.spec, tmp_path))
    whole_s = time.monotonic() - began
    print("whole", whole_s)
    result = place.read()
    assert result == EXPECTED
    seen: set[str] = set()
    for moment in range(20):
        started = supervisor.submit(place.spec, tmp_path)
        job_id = started.job.id
        if moment % 4 == 3:
            # While publishing.
            await_or_end(started, lambda job_id=job_id: supervisor.peek(job_id).status in ("completing", "completed"))
            started.wait(chance.uniform(0, 0.05))
        else:
            started.wait(chance.uniform(0, whole_s * 1.05))
        seen.add(supervisor.peek(job_id).status)
        kill(started)
        assert place.read() == result
        while supervisor.job(job_id).status != "completed":
            staged = noted_rows(supervisor, job_id)
            resumed = supervisor.resume(job_id)
            finish(resumed)
            job = supervisor.job(job_id)
            assert job.error is None
            assert job.already.total == staged or staged is None
            live = supervisor.live(job)
            assert live.scored + live.rejected == (ROWS - job.already.total if job.already.total < ROWS else 0)
        check_finished(place, supervisor, job_id)
    assert {"running", "completing"} <= seen, seen


def noted_rows(supervisor: ForkingSupervisor, job_id: str) -> int | None:
    """Rows that the ledger has, asked of the sink itself; None before there is a plan."""
    from launcher.attempt import make_sink
    from transforms.ledger import count

    folder = supervisor.folder(job_id).path
    if not (folder / "plan.json").exists():
        return None
    return count(make_sink(supervisor.peek(job_id), folder).all_notes()).total


def test_a_living_job_cannot_be_resumed(place: Place, supervisor: ForkingSupervisor, tmp_path: Path) -> None:
    started = supervisor.submit(place.spec, tmp_path)
    await_or_end(started, lambda: supervisor.peek(started.job.id).status == "running")

    with pytest.raises(JobAlive, match="is still running"):
        supervisor.resume(started.job.id)
    finish(started)
    check_finished(place, supervisor, started.job.id)
