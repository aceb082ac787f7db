"""What a PostgreSQL table refuses: rows become rejects, keys that are taken are named, schemas are made."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.contract.sinks import SCHEMA, manifest_of, rows_of, split_of
from tests.replaying import ReplayingRunner
from tests.scenes import Scene, numbered_rows, scene
from tests.servers import Postgres
from tests.tables import execute, postgres_sink, refusal, span_with, write
from transforms.connection import Connection
from transforms.errors import RowsRefused
from transforms.sinks.columns import LEDGER_TABLE
from transforms.sinks.mode import Mode
from transforms.sinks.postgres import PostgresSink

ROWS = 240


@pytest.fixture
def job(tmp_path: Path) -> Scene:
    """Three files of 80 rows in splits of 80 and spans of 30; four values are negative, which the model refuses."""
    return scene(tmp_path, numbered_rows(ROWS, bad=(5, 100, 101, 239)), job_id="job_1")


def rejected(job: Scene) -> list[tuple[str, str, str]]:
    """Where, what and why of each rejected row."""
    rows = pq.read_table(job.folder / "rejects").to_pylist()
    return [(row["position"].rpartition("/")[2], row["error_type"], row["error"]) for row in rows]


def run(job: Scene, uri: str, mode: Mode = "overwrite", seed: int = 1) -> None:
    """Take the job all the way into the table `scores`, with bundles that fail and are run again."""
    sink = PostgresSink(Connection(uri), "scores", mode, job.job_id)
    ReplayingRunner(seed).run(job.run(sink))


@pytest.mark.parametrize("seed", range(3))
def test_rows_that_the_table_refuses_join_the_rejects_of_the_model(job: Scene, schema: str, seed: int) -> None:
    execute(schema, "CREATE TABLE scores (id bigint CHECK (id NOT IN (6, 7, 99)), score float8 CHECK (score <> 400))")

    run(job, schema, seed=seed)

    table = 'violates check constraint "scores_id_check"'
    found = rejected(job)
    assert [(place, type) for place, type, _ in found] == [
        ("in-00.parquet:5", "ValueError"),
        ("in-00.parquet:6", "RefusedByDestination"),
        ("in-00.parquet:7", "RefusedByDestination"),
        ("in-01.parquet:19", "RefusedByDestination"),
        ("in-01.parquet:20", "ValueError"),
        ("in-01.parquet:21", "ValueError"),
        ("in-02.parquet:40", "RefusedByDestination"),
        ("in-02.parquet:79", "ValueError"),
    ]
    assert found[1][2] == f'new row for relation "scores" {table}'
    rows = pq.read_table(job.folder / "rejects").to_pylist()
    assert [(row["id"], row["note"]) for row in rows] == [(i, f"row {i}") for i in (5, 6, 7, 99, 100, 101, 200, 239)]
    assert execute(schema, "SELECT count(*), count(DISTINCT id) FROM scores") == [(ROWS - 8, ROWS - 8)]


def test_a_column_gone_wrong_costs_tens_of_tries_and_not_thousands(schema: str) -> None:
    execute(schema, "CREATE TABLE scores (id bigint CHECK (id < 5), score real, name text)")
    sink = postgres_sink(schema)
    sink.prepare(SCHEMA)

    with pytest.raises(RowsRefused) as refused:
        sink.stage([span_with(rows_of(0, 2000))], None)

    types = [row.error_type for row in refused.value.rows]
    assert types == ["RefusedByDestination"] * 32 + ["NotWritten"] * (1995 - 32)


@pytest.mark.parametrize("mode", ["overwrite", "append"])
def test_rows_whose_key_is_taken_are_named_by_their_place(job: Scene, schema: str, mode: Mode) -> None:
    execute(
        schema,
        "CREATE TABLE scores (id bigint, score float8)",
        "CREATE UNIQUE INDEX by_tens ON scores ((id / 10 * 10)) WHERE id % 10 IN (3, 7) AND id < 20",
        "INSERT INTO scores VALUES (13, 0)",
    )

    said = refusal(lambda: run(job, schema, mode))

    assert 'duplicate key value violates unique constraint "by_tens"' in said
    assert "in-00.parquet:3, " in said
    assert "in-00.parquet:7: ((id / 10 * 10)) = (0) comes more than once (unique index by_tens)" in said
    assert ("((id / 10 * 10)) = (10) is in the table already" in said) == (mode == "append")
    assert "nothing was published" in said
    assert execute(schema, "SELECT id FROM scores") == [(13,)]


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (
            ["CREATE TABLE known AS SELECT n::bigint AS id FROM generate_series(0, 239) AS n WHERE n <> 81",
             "ALTER TABLE known ADD PRIMARY KEY (id)",
             "CREATE TABLE scores (id bigint REFERENCES known DEFERRABLE INITIALLY DEFERRED, score float8)"],
            "in-01.parquet:1: ",
        ),
        (
            ["CREATE TABLE scores (id bigint, score float8, EXCLUDE USING btree ((id % 200) WITH =))"],
            "in-02.parquet:40: ",
        ),
        (
            ["CREATE TABLE scores (id bigint, score float8) PARTITION BY RANGE (id)",
             "CREATE TABLE low PARTITION OF scores FOR VALUES FROM (0) TO (83)"],
            "in-01.parquet:3: ",
        ),
        (
            ["CREATE TABLE scores (id bigint, score float8, at int DEFAULT 1, CHECK (id <> 82 OR at > 1))"],
            "in-01.parquet:2: ",
        ),
        (
            ["CREATE TABLE scores (id bigint, score float8, part float8 GENERATED ALWAYS AS (1 / (id - 82)) STORED)"],
            "in-01.parquet:2: division by zero",
        ),
    ],
    ids=["foreign key", "exclusion", "partition", "check with a default", "generated"],
)  # fmt: skip
def test_rows_that_are_refused_only_when_published_are_named_by_their_place(
    job: Scene, schema: str, made: list[str], said: str
) -> None:
    execute(schema, *made)

    assert said in refusal(lambda: run(job, schema))
    assert execute(schema, "SELECT count(*) FROM scores") == [(0,)]


def test_what_a_trigger_puts_right_is_not_refused(schema: str) -> None:
    execute(
        schema,
        "CREATE TABLE scores (id bigint, score real, name text NOT NULL)",
        "CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql"
        " AS 'BEGIN NEW.name = coalesce(NEW.name, ''none''); RETURN NEW; END'",
        "CREATE TRIGGER fill BEFORE INSERT ON scores FOR EACH ROW EXECUTE FUNCTION fill()",
    )

    write(
        postgres_sink(schema),
        pa.record_batch([pa.array([1]), pa.nulls(1, pa.float32()), pa.nulls(1, pa.string())], schema=SCHEMA),
    )

    assert execute(schema, "SELECT name FROM scores") == [("none",)]


def test_a_schema_that_does_not_exist_is_made_and_said(database: str) -> None:
    sink = postgres_sink(database, "predictions.scores")
    before = sink.check(SCHEMA)
    made = execute(database, "SELECT to_regnamespace('predictions') IS NOT NULL")

    write(sink, rows_of(0, 10))

    assert [(notice.code, notice.message) for notice in before] == [
        ("schema_created", 'there is no schema "predictions" yet; the job makes it')
    ]
    assert made == [(False,)]
    assert sink.check(SCHEMA) == []
    assert execute(database, "SELECT count(*) FROM predictions.scores") == [(10,)]


def test_two_jobs_that_need_the_same_new_schema_both_find_it(database: str) -> None:
    sinks = [postgres_sink(database, f"fresh.scores_{number}", job_id=f"job_{number}") for number in range(4)]

    with ThreadPoolExecutor() as threads:
        list(threads.map(lambda sink: sink.prepare(SCHEMA), sinks))

    tables = execute(database, "SELECT count(*) FROM pg_tables WHERE schemaname = 'fresh'")
    assert tables == [(2 * len(sinks) + 1,)]


def test_a_job_that_is_refused_leaves_no_schema(database: str) -> None:
    sink = postgres_sink(database, "fresh.scores")

    refusal(lambda: sink.prepare(pa.schema([("ctid", pa.int64())])))

    assert execute(database, "SELECT to_regnamespace('fresh') IS NULL") == [(True,)]


def test_a_schema_that_may_not_be_made_is_refused_with_the_remedy(postgres: Postgres, database: str) -> None:
    user = postgres.role(database)
    role = user.partition("//")[2].partition("@")[0]
    sink = postgres_sink(user, "predictions.scores")

    checked, prepared = refusal(lambda: sink.check(SCHEMA)), refusal(lambda: sink.prepare(SCHEMA))

    assert checked == prepared
    assert f'CREATE SCHEMA "predictions" AUTHORIZATION "{role}", or GRANT CREATE ON DATABASE' in checked


def test_checking_writes_nothing(database: str) -> None:
    postgres_sink(database).check(SCHEMA)

    assert execute(database, f"SELECT to_regclass('{LEDGER_TABLE}') IS NULL") == [(True,)]


def test_a_column_whose_type_changed_meanwhile_is_not_cast_in_silence(schema: str) -> None:
    execute(schema, "CREATE TABLE scores (id bigint, score float8, name text)")
    sink = postgres_sink(schema)
    sink.prepare(SCHEMA)
    sink.stage([span_with(rows_of(0, 10))], None)
    execute(schema, "ALTER TABLE scores ALTER score TYPE numeric(5,1)")

    said = refusal(lambda: sink.publish(manifest_of(sink, "job_1", [split_of(1, 10, 10)])))

    assert "its column score was double precision when the job began and is numeric(5,1) now" in said
