"""The places that jobs are disturbed in: one for each kind of sink."""

import sqlite3
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.spec import ParquetInput, ParquetOutput, SqlInput, TableOutput
from tests.faults.killing import ForkingSupervisor
from tests.faults.places import BAD, NULLS, ROWS, Place, Rows, job_spec
from tests.scenes import numbered_rows, write_files
from tests.servers import Postgres


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
        # Manifests stay beside what they tell of.
        lambda: [path.name for path in tmp_path.iterdir() if path.name.startswith(".") and path.suffix != ".json"],
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
