"""Tables as sinks, on a real PostgreSQL and on SQLite files."""

import datetime as dt
import multiprocessing
import os
import pickle
import resource
import shutil
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from adbc_driver_manager import dbapi

import transforms.connection
from tests.contract.sinks import (
    SCHEMA,
    SinkContract,
    manifest_of,
    rows_of,
    spans_of,
    split_of,
    table_of,
    values_in,
)
from tests.servers import Postgres
from transforms.batches import ScoredSpan, Span
from transforms.connection import Connection, ConnectionRefused
from transforms.counts import Counts
from transforms.errors import LedgerError, OutputError, PipelineError
from transforms.sinks.base import Sink
from transforms.sinks.columns import LEDGER_TABLE
from transforms.sinks.mode import Mode
from transforms.sinks.postgres import PostgresSink
from transforms.sinks.sqlite import SqliteTableSink
from transforms.sinks.table import table_sink

# What a server or a process is given to get somewhere, on a loaded machine.
DEADLINE_S = 60
# Key of the advisory lock by which a test holds up the server in the middle of a statement.
HOLD = 4711


def execute(uri: str, *statements: str) -> list[tuple[Any, ...]]:
    """Run statements, each by itself, and return the rows of the last."""
    rows: list[tuple[Any, ...]] = []
    with Connection(uri).open(autocommit=True) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
            rows = cursor.fetchall() if cursor.description else []
    return rows


def read_table(uri: str, table: str) -> pa.Table:
    with Connection(uri).open(autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {table}")
        return cursor.fetch_arrow_table()


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"


def span_with(rows: pa.RecordBatch) -> ScoredSpan:
    """A whole split that holds `rows`."""
    split = split_of(1, rows.num_rows, rows.num_rows)
    return ScoredSpan(Span(split, 0, rows.num_rows, True), rows)


def write(sink: Sink, rows: pa.RecordBatch, job_id: str = "job_1") -> None:
    """Take `rows` all the way through `sink`."""
    scored = span_with(rows)
    sink.prepare(rows.schema)
    sink.stage([scored], None)
    sink.publish(manifest_of(sink, job_id, [scored.span.split]))
    sink.clean()


def refusal(act: Callable[[], object]) -> str:
    """The message with which `act` is refused; always one line."""
    with pytest.raises(PipelineError) as refused:
        act()

    message = str(refused.value)
    assert "\n" not in message
    return message


@pytest.fixture(scope="module")
def shared_database(postgres: Postgres) -> str:
    return postgres.database()


@pytest.fixture
def schema(shared_database: str) -> str:
    """URI of a database in which this test has a schema of its own, for tests that need no more."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    execute(shared_database, f"CREATE SCHEMA {name}")
    return f"{shared_database}?options=-csearch_path%3D{name}"


@pytest.fixture(scope="session")
def processes() -> ForkServerContext:
    """Makes processes that have imported what sinks need, and can be killed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["transforms.sinks.table", "adbc_driver_postgresql.dbapi"])
    return context


class TestPostgresSink(SinkContract):
    @pytest.fixture(autouse=True)
    def place(self, database: str, tmp_path: Path) -> None:
        self.uri = database
        self.folder = tmp_path
        execute(database, "CREATE SCHEMA predictions")

    def make_sink(self, mode: Mode = "overwrite", job_id: str = "job_1", appends_to: str | None = None) -> PostgresSink:
        sink = table_sink(Connection(self.uri), "predictions.scores", mode, job_id, self.folder, appends_to)
        assert isinstance(sink, PostgresSink)
        return sink

    def read_result(self) -> pa.Table | None:
        try:
            return read_table(self.uri, "predictions.scores")
        except dbapi.ProgrammingError as error:
            if "does not exist" in str(error):
                return None
            raise

    def seed_old_result(self, table: pa.Table) -> None:
        execute(self.uri, "CREATE TABLE predictions.scores (id bigint, score real, name text)")
        with Connection(self.uri).open(autocommit=True) as connection, connection.cursor() as cursor:
            cursor.adbc_ingest("scores", table, mode="append", db_schema_name="predictions")

    def remove_result(self) -> None:
        execute(self.uri, "DROP TABLE predictions.scores")

    def leftovers(self) -> list[str]:
        tables = execute(
            self.uri, "SELECT relname::text FROM pg_class WHERE relnamespace = 'predictions'::regnamespace"
        )
        kept = {"scores", LEDGER_TABLE, f"{LEDGER_TABLE}_pkey", f"{LEDGER_TABLE}_number_seq"}
        return sorted({name for (name,) in tables} - kept)


def postgres_sink(uri: str, table: str = "scores", mode: Mode = "overwrite", job_id: str = "job_1") -> PostgresSink:
    return PostgresSink(Connection(uri), table, mode, job_id)


@pytest.mark.parametrize(
    ("job_id", "name"),
    [
        ("batch-0123456789", "_penstock_batch_0123456789"),
        ("b" * 41, "_penstock_369a91c8d130246f72c251030ab2631d"),
        ("Müller", "_penstock_a78429899bb825ce667d25d92e2cde48"),
    ],
    ids=["ours", "long", "odd"],
)
def test_staging_tables_tell_whose_they_are(schema: str, job_id: str, name: str) -> None:
    sink = postgres_sink(schema, job_id=job_id)
    sink.prepare(pa.schema([("id", pa.int64())]))

    tables = execute(schema, "SELECT tablename::text FROM pg_tables WHERE schemaname = current_schema() ORDER BY 1")
    assert sorted(tables) == [(name,), (f"{name}_notes",), (LEDGER_TABLE,)]


@contextmanager
def held_up(uri: str, table: str, when: str = "true") -> Iterator[None]:
    """Insertions into `table` wait, at the first row for which `when` holds, until the block ends."""
    execute(
        uri,
        f"""CREATE OR REPLACE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_advisory_xact_lock_shared({HOLD}); RETURN NEW; END'""",
        f"CREATE TRIGGER hold BEFORE INSERT ON {table} FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION hold()",
    )
    with Connection(uri).open(autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT pg_advisory_lock({HOLD}) IS NULL")
        cursor.fetchall()
        yield
    execute(uri, f"DROP TRIGGER hold ON {table}")


def is_waiting(uri: str) -> bool:
    waiting = execute(uri, f"SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = {HOLD} AND NOT granted")
    return bool(waiting)


def kill_when_held_up(uri: str, processes: ForkServerContext, act: Callable[..., object], *args: object) -> None:
    """Run `act` in a process, kill that in the middle, and wait for the server to undo what it did."""
    process = processes.Process(target=act, args=args)
    process.start()
    until(lambda: is_waiting(uri))
    process.kill()
    process.join()
    until(lambda: not is_waiting(uri))


class TestPostgresTable:
    """What only a PostgreSQL table can show."""

    OLD = "INSERT INTO scores SELECT n, n / 8.0, 'old' FROM generate_series(1, 50) AS n"
    TABLE = "CREATE TABLE scores (id bigint, score real, name text)"

    def staged(self, uri: str, rows: int = 1000, job_id: str = "job_1", **asked: Any) -> PostgresSink:
        """A sink with all rows of split 1 staged."""
        sink = postgres_sink(uri, job_id=job_id, **asked)
        sink.prepare(SCHEMA)
        assert sink.stage(spans_of(split_of(1, rows, 100)), None)
        return sink

    def test_grants_indexes_triggers_comments_and_views_outlive_an_overwrite(
        self, postgres: Postgres, database: str
    ) -> None:
        reader = postgres.role(database)
        role = reader.partition("//")[2].partition("@")[0]
        execute(
            database,
            self.TABLE,
            "CREATE UNIQUE INDEX by_id ON scores (id)",
            "CREATE VIEW best AS SELECT id FROM scores WHERE score > 100",
            "COMMENT ON TABLE scores IS 'what we think of them'",
            f"GRANT SELECT ON scores, best TO {role}",
            "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql"
            " AS 'BEGIN NEW.name = ''touched''; RETURN NEW; END'",
            "CREATE TRIGGER touch BEFORE INSERT ON scores FOR EACH ROW EXECUTE FUNCTION touch()",
            self.OLD,
        )

        write(postgres_sink(database), rows_of(1000, 500))

        assert execute(reader, "SELECT count(*), min(id), min(name), max(name) FROM scores") == [
            (500, 1000, "touched", "touched")
        ]
        assert execute(reader, "SELECT count(*) FROM best") == [
            (sum(score > 100 for score in rows_of(1000, 500)["score"].to_pylist()),)
        ]
        assert execute(database, "SELECT obj_description('scores'::regclass)") == [("what we think of them",)]
        assert "by_id" in {name for (name,) in execute(database, "SELECT indexname::text FROM pg_indexes")}

    def test_a_snapshot_taken_before_publishing_still_sees_the_old_rows(self, schema: str) -> None:
        execute(schema, self.TABLE, self.OLD)
        sink = self.staged(schema)
        count = "SELECT count(*), min(name) FROM scores WHERE name IS NOT NULL"

        with Connection(schema).open(autocommit=True) as connection, connection.cursor() as cursor:
            cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            before = cursor.execute(count).fetchall()
            sink.publish(manifest_of(sink, "job_1", [split_of(1, 1000, 100)]))
            after = cursor.execute(count).fetchall()

        assert before == after == [(50, "old")]
        assert execute(schema, "SELECT count(*) FROM scores") == [(1000,)]

    def test_readers_are_not_held_up_by_a_publish_that_takes_long(
        self, database: str, processes: ForkServerContext
    ) -> None:
        execute(database, self.TABLE, self.OLD)
        sink = self.staged(database)
        manifest = manifest_of(sink, "job_1", [split_of(1, 1000, 100)])

        with held_up(database, "scores", "NEW.id % 1000 = 500"):
            publishing = processes.Process(target=sink.publish, args=(manifest,))
            publishing.start()
            until(lambda: is_waiting(database))
            meanwhile = execute(database, "SET statement_timeout = '10s'", "SELECT count(*) FROM scores")
        publishing.join()

        assert meanwhile == [(50,)]

    def test_a_process_killed_while_it_stages_leaves_neither_rows_nor_notes(
        self, database: str, processes: ForkServerContext
    ) -> None:
        split = split_of(1, 1000, 100)
        sink = postgres_sink(database)
        sink.prepare(SCHEMA)

        with held_up(database, "_penstock_job_1", "NEW.id % 1000 = 500"):
            kill_when_held_up(database, processes, sink.stage, spans_of(split), None)
            left = sink.all_notes()
        rows = execute(database, "SELECT count(*) FROM _penstock_job_1")
        again = sink.stage(spans_of(split), None)
        sink.publish(manifest_of(sink, "job_1", [split]))

        assert left == []
        assert rows == [(0,)]
        assert again is not None
        assert values_in(read_table(database, "scores")) == values_in(table_of(spans_of(split)))

    @pytest.mark.parametrize("where", ["scores", LEDGER_TABLE], ids=["in the middle", "before the commit"])
    def test_a_process_killed_while_it_replaces_a_table_leaves_the_old_one(
        self, database: str, processes: ForkServerContext, where: str
    ) -> None:
        execute(database, self.TABLE, self.OLD)
        sink = self.staged(database)
        manifest = manifest_of(sink, "job_1", [split_of(1, 1000, 100)])

        with held_up(database, where, "NEW.id % 1000 = 500" if where == "scores" else "true"):
            kill_when_held_up(database, processes, sink.publish, manifest)
            left = execute(database, "SELECT count(*), min(name), max(name) FROM scores")
            published = sink.published()
        sink.publish(manifest)

        assert left == [(50, "old", "old")]
        assert published is None
        assert values_in(read_table(database, "scores")) == values_in(table_of(spans_of(split_of(1, 1000, 100))))

    @pytest.mark.parametrize("where", ["scores", LEDGER_TABLE], ids=["in the middle", "before the commit"])
    def test_a_process_killed_while_it_appends_to_a_table_adds_nothing(
        self, database: str, processes: ForkServerContext, where: str
    ) -> None:
        execute(database, self.TABLE, self.OLD)
        sink = self.staged(database, mode="append")
        manifest = manifest_of(sink, "job_1", [split_of(1, 1000, 100)])

        with held_up(database, where, "NEW.id % 1000 = 500" if where == "scores" else "true"):
            kill_when_held_up(database, processes, sink.publish, manifest)
            left = execute(database, "SELECT count(*), min(name), max(name) FROM scores")
            published = sink.published()
        sink.publish(manifest)

        assert left == [(50, "old", "old")]
        assert published is None
        assert execute(database, "SELECT count(*), count(DISTINCT id) FROM scores") == [(1050, 1050)]

    def test_a_process_killed_while_it_makes_a_table_leaves_none(
        self, database: str, processes: ForkServerContext
    ) -> None:
        sink = self.staged(database)
        manifest = manifest_of(sink, "job_1", [split_of(1, 1000, 100)])

        with held_up(database, LEDGER_TABLE):
            kill_when_held_up(database, processes, sink.publish, manifest)
            there = execute(database, "SELECT to_regclass('scores') IS NOT NULL")
        sink.publish(manifest)

        assert there == [(False,)]
        assert values_in(read_table(database, "scores")) == values_in(table_of(spans_of(split_of(1, 1000, 100))))

    def test_a_connection_that_is_cut_while_publishing_is_told_in_one_line(self, database: str) -> None:
        execute(database, self.TABLE, self.OLD)
        sink = self.staged(database)
        manifest = manifest_of(sink, "job_1", [split_of(1, 1000, 100)])

        with ThreadPoolExecutor() as threads, held_up(database, "scores", "NEW.id % 1000 = 500"):
            publishing = threads.submit(refusal, lambda: sink.publish(manifest))
            until(lambda: is_waiting(database))
            execute(
                database,
                "SELECT pg_terminate_backend(pid) FROM pg_locks"
                f" WHERE locktype = 'advisory' AND objid = {HOLD} AND NOT granted",
            )
            said = publishing.result(DEADLINE_S)
        left = execute(database, "SELECT count(*) FROM scores")
        sink.publish(manifest)

        assert "terminating connection due to administrator command" in said
        assert left == [(50,)]
        assert execute(database, "SELECT count(*) FROM scores") == [(1000,)]

    def test_a_second_publisher_waits_for_the_first_and_then_does_nothing(
        self, database: str, processes: ForkServerContext
    ) -> None:
        execute(database, self.TABLE, self.OLD)
        sink = self.staged(database)
        manifest = manifest_of(sink, "job_1", [split_of(1, 1000, 100)])

        with held_up(database, "scores", "NEW.id % 1000 = 500"):
            both = [processes.Process(target=sink.publish, args=(manifest,)) for _ in range(2)]
            for process in both:
                process.start()
            until(lambda: is_waiting(database))
        for process in both:
            process.join()

        assert [process.exitcode for process in both] == [0, 0]
        assert execute(database, "SELECT count(*) FROM scores") == [(1000,)]

    @pytest.mark.parametrize("outcome", ["COMMIT", "ROLLBACK"])
    def test_a_writer_waits_to_learn_whether_another_notes_the_same_span(self, database: str, outcome: str) -> None:
        sink = postgres_sink(database)
        sink.prepare(SCHEMA)
        spans = spans_of(split_of(1, 300, 100))
        waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"

        with (
            ThreadPoolExecutor() as threads,
            Connection(database).open(autocommit=True) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("BEGIN")
            cursor.execute("INSERT INTO _penstock_job_1_notes VALUES ('000001', 100, 200, false, 100, 0, 0)")
            staging = threads.submit(sink.stage, spans, None)
            until(lambda: bool(execute(database, waiting)))
            cursor.execute(outcome)
            notes = staging.result(DEADLINE_S)

        assert (notes is None) == (outcome == "COMMIT")
        assert execute(database, "SELECT count(*) FROM _penstock_job_1") == [(0 if notes is None else 300,)]

    def test_two_jobs_that_make_the_same_new_table_at_once_leave_the_whole_of_one(self, schema: str) -> None:
        one, two = split_of(1, 1000, 100), split_of(2, 700, 100)
        jobs = {"job_1": one, "job_2": two}

        def run(job_id: str) -> None:
            sink = postgres_sink(schema, job_id=job_id)
            sink.prepare(SCHEMA)
            sink.stage(spans_of(jobs[job_id]), None)
            sink.publish(manifest_of(sink, job_id, [jobs[job_id]]))
            sink.clean()

        with ThreadPoolExecutor() as threads:
            list(threads.map(run, jobs))
        found = values_in(read_table(schema, "scores"))

        assert found in [values_in(table_of(spans_of(split))) for split in jobs.values()]
        assert execute(schema, f"SELECT count(*) FROM {LEDGER_TABLE}") == [(2,)]

    def test_a_job_does_not_publish_again_over_a_later_one(self, schema: str) -> None:
        first = self.staged(schema)
        manifest = manifest_of(first, "job_1", [split_of(1, 1000, 100)])
        first.publish(manifest)
        first.clean()
        write(postgres_sink(schema, job_id="job_2"), rows_of(5, 5), "job_2")

        first.publish(manifest)

        assert values_in(read_table(schema, "scores")) == values_in(pa.Table.from_batches([rows_of(5, 5)]))

    def test_appending_needs_no_right_to_delete_and_leaves_what_refers_to_the_table(
        self, postgres: Postgres, database: str
    ) -> None:
        user = postgres.role(database)
        role = user.partition("//")[2].partition("@")[0]
        execute(
            database,
            f"GRANT CREATE, USAGE ON SCHEMA public TO {role}",
            "CREATE TABLE scores (id bigint PRIMARY KEY, score real, name text)",
            self.OLD,
            "CREATE TABLE bets (id bigint REFERENCES scores ON DELETE CASCADE)",
            "INSERT INTO bets VALUES (1)",
        )
        sink = postgres_sink(user, mode="append")

        refused = refusal(lambda: sink.prepare(SCHEMA))
        execute(database, f"GRANT INSERT ON scores TO {role}")
        write(sink, rows_of(1000, 500))

        assert "no right to add rows to it: GRANT INSERT" in refused
        assert execute(database, "SELECT (SELECT count(*) FROM scores), (SELECT count(*) FROM bets)") == [(550, 1)]

    def test_appended_rows_that_break_a_unique_index_leave_the_old_ones(self, schema: str) -> None:
        execute(schema, self.TABLE, "CREATE UNIQUE INDEX by_id ON scores (id)", self.OLD)
        sink = postgres_sink(schema, mode="append")
        sink.prepare(SCHEMA)
        sink.stage([span_with(rows_of(50, 10))], None)

        said = refusal(lambda: sink.publish(manifest_of(sink, "job_1", [split_of(1, 10, 10)])))

        assert 'duplicate key value violates unique constraint "by_id"' in said
        assert execute(schema, "SELECT count(*) FROM scores") == [(50,)]

    def test_a_table_of_jobs_from_before_there_was_appending_is_used_on(self, schema: str) -> None:
        execute(
            schema,
            f"CREATE TABLE {LEDGER_TABLE} (job text PRIMARY KEY, table_name text NOT NULL, scored bigint NOT NULL,"
            " rejected bigint NOT NULL, skipped bigint NOT NULL, published_at timestamptz NOT NULL,"
            " details jsonb NOT NULL)",
            f"INSERT INTO {LEDGER_TABLE} VALUES ('job_0', current_schema() || '.scores', 1, 0, 0, now(), '{{}}')",
            f'UPDATE {LEDGER_TABLE} SET table_name = format(\'"%s"."scores"\', current_schema())',
            self.TABLE,
            "INSERT INTO scores VALUES (-1)",
        )

        write(PostgresSink(Connection(schema), "scores", "append", "job_1", "job_0"), rows_of(0, 10))

        assert execute(schema, "SELECT count(*) FROM scores") == [(11,)]
        assert execute(schema, f"SELECT job, number, appended FROM {LEDGER_TABLE} ORDER BY number") == [
            ("job_0", 1, False),
            ("job_1", 2, True),
        ]

    def test_rows_that_the_ledger_does_not_count_stop_the_publish(self, schema: str) -> None:
        sink = self.staged(schema)
        execute(schema, "INSERT INTO _penstock_job_1 VALUES (1, 1, 'stray')")

        with pytest.raises(LedgerError, match="1001 rows of 10 spans are staged, but 1000 rows of 10 are to be"):
            sink.publish(manifest_of(sink, "job_1", [split_of(1, 1000, 100)]))

        assert sink.published() is None

    def test_the_ledger_tells_who_published_what(self, database: str) -> None:
        write(postgres_sink(database, "public.scores"), rows_of(0, 10))

        assert execute(
            database,
            "SELECT job, table_name, scored, rejected, skipped, published_at = '2025-03-15 10:00+00', details->>'model'"
            f" FROM {LEDGER_TABLE}",
        ) == [("job_1", '"public"."scores"', 10, 0, 0, True, "sha256:1")]

    @pytest.mark.parametrize("job_id", ["j" * 200, "Job #1; DROP", "ünï", "a_b-c"])
    def test_any_job_id_will_do(self, database: str, job_id: str) -> None:
        write(postgres_sink(database, job_id=job_id), rows_of(0, 10), job_id)

        assert postgres_sink(database, job_id=job_id).published() == Counts(scored=10)
        assert execute(database, "SELECT relname::text FROM pg_class WHERE relname LIKE '\\_penstock%'") == []

    @pytest.mark.parametrize(
        ("written", "kept"),
        [
            ("Scores", "scores"),
            ('"Scores"', "Scores"),
            ("order", "order"),
            ('"two words"', "two words"),
            ('"with.dot"', "with.dot"),
            ('"quo""te"', 'quo"te'),
            ("Übersicht", "Übersicht"),
            ("public.user", "user"),
            ('"Odd Schema"."SELECT"', "SELECT"),
            ("表", "表"),
            ("a" * 63, "a" * 63),
        ],
    )
    def test_a_table_name_is_read_as_in_sql(self, database: str, written: str, kept: str) -> None:
        execute(database, 'CREATE SCHEMA "Odd Schema"')

        for job_id in ("job_1", "job_2"):
            write(postgres_sink(database, written, job_id=job_id), rows_of(0, 10), job_id)

        found = execute(database, "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND reltype > 16384")
        assert sorted(found) == sorted([(kept,), (LEDGER_TABLE,)])

    @pytest.mark.parametrize(
        ("written", "said"),
        [
            ("", "write output.table_name as table or schema.table"),
            ("two words", "write output.table_name as table or schema.table"),
            ("a.b.c", "write output.table_name as table or schema.table"),
            ("1st", "write output.table_name as table or schema.table"),
            ('"open', "write output.table_name as table or schema.table"),
            ("a" * 64, "longer than the 63 bytes"),
            ("ü" * 32, "longer than the 63 bytes"),
            (LEDGER_TABLE, "is where jobs are recorded"),
            ("nowhere.scores", 'there is no schema "nowhere"; make it first: CREATE SCHEMA "nowhere"'),
            ("pg_catalog.scores", "permission denied"),
            ("Mixed", 'write "Mixed" in output.table_name'),
            ("best", "this is a view"),
            ("watched", "rows of bets (bets_id_fkey) refer to it"),
        ],
    )
    def test_a_table_that_cannot_be_written_is_refused_before_any_row_is_read(
        self, database: str, written: str, said: str
    ) -> None:
        execute(
            database,
            'CREATE TABLE "Mixed" (id bigint)',
            "CREATE VIEW best AS SELECT 1 AS id",
            "CREATE TABLE watched (id bigint PRIMARY KEY, score real, name text)",
            "CREATE TABLE bets (id bigint REFERENCES watched ON DELETE CASCADE)",
        )

        assert said in refusal(lambda: postgres_sink(database, written).prepare(SCHEMA))
        assert execute(database, "SELECT relname::text FROM pg_class WHERE relname LIKE '\\_penstock%'") == []

    @pytest.mark.parametrize(
        ("columns", "said"),
        [
            ("id bigint, score real", "it has no column name; add one that can take string"),
            ("id text, score real, name text", "its column id is text and cannot take int64"),
            ("id bigint, score bigint, name text", "its column score is bigint and cannot take float"),
            ("id bigint, score real[], name text", "its column score is real[] and cannot take float"),
            ("id bigint, score real, name bytea", "its column name is bytea and cannot take string"),
            ("id bigint, score real, name integer", "its column name is integer and cannot take string"),
            ("id bigint, score real, name text, more text NOT NULL", "its column more is NOT NULL without a default"),
            (
                "id bigint GENERATED ALWAYS AS IDENTITY, score real, name text",
                "the database computes column id by itself",
            ),
            (
                "id bigint, score real, name text GENERATED ALWAYS AS ('x') STORED",
                "the database computes column name by itself",
            ),
        ],
    )
    def test_a_table_whose_columns_do_not_fit_is_refused_before_any_row_is_read(
        self, schema: str, columns: str, said: str
    ) -> None:
        execute(schema, f"CREATE TABLE scores ({columns})")

        assert said in refusal(lambda: postgres_sink(schema).prepare(SCHEMA))

    def test_a_table_of_another_schema_in_the_search_path_is_not_passed_over(self, schema: str) -> None:
        name = f"t_{uuid.uuid4().hex[:8]}"
        execute(schema, f"CREATE TABLE public.{name} (id bigint)")
        sink = postgres_sink(f"{schema},public", name)

        assert f"there is a {name} in the search_path" in refusal(lambda: sink.prepare(SCHEMA))

    def test_columns_with_defaults_need_not_be_written(self, schema: str) -> None:
        execute(
            schema,
            "CREATE TABLE scores (key serial PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(), name text, score real,"
            " spare text, id bigint NOT NULL)",
        )

        write(postgres_sink(schema), rows_of(0, 10))

        assert execute(schema, "SELECT count(key), count(at), count(spare), max(id) FROM scores") == [(10, 10, 0, 9)]

    def test_partitioned_tables_are_replaced_like_others(self, schema: str) -> None:
        execute(
            schema,
            "CREATE TABLE scores (id bigint, score real, name text) PARTITION BY RANGE (id)",
            "CREATE TABLE low PARTITION OF scores FOR VALUES FROM (0) TO (100)",
            "CREATE TABLE high PARTITION OF scores DEFAULT",
            self.OLD,
        )

        write(postgres_sink(schema), rows_of(50, 100))

        assert execute(schema, "SELECT (SELECT count(*) FROM low), (SELECT count(*) FROM high)") == [(50, 50)]

    def test_every_missing_right_is_named_with_its_remedy(self, postgres: Postgres, database: str) -> None:
        user = postgres.role(database)
        role = user.partition("//")[2].partition("@")[0]
        sink = postgres_sink(user, "predictions.scores")
        other = postgres_sink(database, "predictions.other", job_id="job_2")
        execute(database, "CREATE SCHEMA predictions")
        schema = refusal(lambda: sink.prepare(SCHEMA))
        execute(
            database,
            f"GRANT CREATE, USAGE ON SCHEMA predictions TO {role}",
            "CREATE TABLE predictions.scores (id bigint, score real, name text)",
        )
        table = refusal(lambda: sink.prepare(SCHEMA))
        execute(database, f"GRANT INSERT, DELETE ON predictions.scores TO {role}")
        write(other, rows_of(0, 10), "job_2")
        ledger = refusal(lambda: sink.prepare(SCHEMA))
        execute(
            database,
            f"GRANT SELECT, INSERT ON predictions.{LEDGER_TABLE} TO {role}",
            "ALTER TABLE predictions.scores ENABLE ROW LEVEL SECURITY",
        )
        rows = refusal(lambda: sink.prepare(SCHEMA))
        execute(database, "ALTER TABLE predictions.scores DISABLE ROW LEVEL SECURITY")

        write(sink, rows_of(0, 10))

        assert f'GRANT CREATE, USAGE ON SCHEMA "predictions" TO "{role}"' in schema
        assert 'GRANT INSERT, DELETE ON "predictions"."scores"' in table
        assert f'GRANT SELECT, INSERT ON "predictions"."{LEDGER_TABLE}" TO "{role}"' in ledger
        assert "row security" in rows
        assert execute(database, "SELECT count(*) FROM predictions.scores") == [(10,)]

    @pytest.mark.parametrize("call", ["prepare", "stage", "published"])
    def test_a_wrong_password_is_not_repeated(self, postgres: Postgres, database: str, call: str) -> None:
        uri = postgres.role(database, "s3cret-Pass").replace("s3cret-Pass", "wr0ng-Pass")
        sink = postgres_sink(uri)
        arguments: tuple[Any, ...] = {"prepare": (SCHEMA,), "stage": ([span_with(rows_of(0, 1))], None)}.get(call, ())

        said = refusal(lambda: getattr(sink, call)(*arguments))

        assert "password authentication failed" in said
        assert "wr0ng" not in said + repr(sink) + sink.describe()

    def test_a_password_that_stops_working_is_not_repeated_either(self, postgres: Postgres, database: str) -> None:
        uri = postgres.role(database, "s3cret-Pass")
        role = uri.partition("//")[2].partition(":")[0]
        sink = postgres_sink(uri)
        before = sink.published()
        execute(database, f"ALTER ROLE {role} PASSWORD 'an0ther'")

        with pytest.raises(ConnectionRefused) as refused:
            sink.published()

        assert before is None
        assert "s3cret" not in str(refused.value)

    def test_a_pickled_sink_holds_the_name_of_a_secret_not_its_value(
        self, postgres: Postgres, database: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        uri = postgres.role(database, "s3cret-Pass")
        execute(database, "GRANT CREATE ON SCHEMA public TO PUBLIC")
        monkeypatch.setenv("SCORES_PASSWORD", "s3cret-Pass")
        sink = postgres_sink(uri.replace("s3cret-Pass", "${SCORES_PASSWORD}"))

        write(sink, rows_of(0, 10))
        pickled = pickle.dumps(sink)

        assert b"s3cret" not in pickled
        assert pickle.loads(pickled).published() == Counts(scored=10)

    @pytest.mark.parametrize(
        ("column", "type", "text"),
        [
            (pa.array([-3], pa.int8()), "smallint", "-3"),
            (pa.array([65535], pa.uint16()), "integer", "65535"),
            (pa.array([2**32 - 1], pa.uint32()), "bigint", "4294967295"),
            (pa.array([2**64 - 1], pa.uint64()), "numeric(20,0)", "18446744073709551615"),
            (pa.array([1.5], pa.float16()), "real", "1.5"),
            (pa.array([float("nan")], pa.float32()), "real", "NaN"),
            (pa.array([0.1]), "double precision", "0.1"),
            (pa.array([True]), "boolean", "true"),
            (pa.array([Decimal("-12.50")], pa.decimal128(9, 2)), "numeric(9,2)", "-12.50"),
            (pa.array([Decimal("1.25")], pa.decimal32(5, 2)), "numeric(5,2)", "1.25"),
            (pa.array([Decimal("9" * 60)], pa.decimal256(60, 0)), "numeric(60,0)", "9" * 60),
            (pa.array(["Zürich"]).dictionary_encode(), "text", "Zürich"),
            (pa.array(["Zürich"], pa.large_string()), "text", "Zürich"),
            (pa.array(["Zürich"], pa.string_view()), "text", "Zürich"),
            (pa.array([b"\x00\xff"]), "bytea", "\\x00ff"),
            (pa.array([b"\x00\xff"], pa.binary(2)), "bytea", "\\x00ff"),
            (pa.array([dt.date(1969, 7, 20)]), "date", "1969-07-20"),
            (pa.array([dt.date(1969, 7, 20)], pa.date64()), "date", "1969-07-20"),
            (pa.array([dt.time(1, 2, 3, 4)]), "time without time zone", "01:02:03.000004"),
            (pa.array([1], pa.timestamp("ns")), "timestamp without time zone", "1970-01-01 00:00:00"),
            (pa.array([1], pa.timestamp("s")), "timestamp without time zone", "1970-01-01 00:00:01"),
            (
                pa.array([dt.datetime(2024, 7, 1, 12)], pa.timestamp("ms", "Europe/Paris")),
                "timestamp with time zone",
                "2024-07-01 12:00:00+00",
            ),
            (pa.array([dt.timedelta(hours=1, microseconds=5)]), "interval", "01:00:00.000005"),
            (pa.nulls(1), "text", None),
            (pa.array([[1, None], None]), "bigint[]", "{1,NULL}"),
            (pa.array([[0.5, 1.5]], pa.list_(pa.float32(), 2)), "real[]", "{0.5,1.5}"),
            (pa.array([["a b", "c"]], pa.large_list(pa.string())), "text[]", '{"a b",c}'),
        ],
        ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
    )
    def test_a_new_table_has_the_type_that_fits(
        self, schema: str, column: pa.Array, type: str, text: str | None
    ) -> None:
        write(postgres_sink(schema), pa.record_batch({"x": column}))

        found = execute(schema, "SET TimeZone = 'UTC'", "SELECT pg_typeof(x)::text, x::text FROM scores LIMIT 1")
        (typed,) = execute(
            schema,
            "SELECT format_type(atttypid, atttypmod) FROM pg_attribute"
            " WHERE attrelid = 'scores'::regclass AND attnum = 1",
        )
        assert found[0][1] == text
        assert typed == (type,)

    @pytest.mark.parametrize(
        ("column", "type", "text"),
        [
            (pa.array([7]), "smallint", "7"),
            (pa.array([7], pa.int32()), "double precision", "7"),
            (pa.array([7]), "numeric(5,2)", "7.00"),
            (pa.array([0.125]), "real", "0.125"),
            (pa.array([0.126], pa.float64()), "numeric(5,2)", "0.13"),
            (pa.array([Decimal("1.25")]), "double precision", "1.25"),
            (pa.array(["abc"]), "varchar(3)", "abc"),
            (pa.array(["abc"]), "char(5)", "abc"),
            (pa.array(['{"a": 1}']), "jsonb", '{"a": 1}'),
            (pa.array(['{"a":1}']), "json", '{"a":1}'),
            (pa.array(["00000000-0000-0000-0000-000000000001"]), "uuid", "00000000-0000-0000-0000-000000000001"),
            (pa.array(["10.0.0.0/8"]), "cidr", "10.0.0.0/8"),
            (pa.array(["stay"]), "verdict", "stay"),
            (pa.array([5]), "positive", "5"),
            (pa.array([dt.date(2024, 1, 1)]), "timestamp", "2024-01-01 00:00:00"),
            (pa.array([[1.5]], pa.list_(pa.float64())), "real[]", "{1.5}"),
            (pa.nulls(1), "uuid", None),
            (pa.nulls(1), "integer[]", None),
        ],
        ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
    )
    def test_an_existing_table_is_filled_under_its_own_types(
        self, schema: str, column: pa.Array, type: str, text: str | None
    ) -> None:
        execute(
            schema,
            "CREATE TYPE verdict AS ENUM ('leave', 'stay')",
            "CREATE DOMAIN positive AS integer CHECK (VALUE > 0)",
            f"CREATE TABLE scores (x {type})",
        )

        write(postgres_sink(schema), pa.record_batch({"x": column}))

        assert execute(schema, "SELECT x::text FROM scores") == [(text,)]

    @pytest.mark.parametrize(
        ("column", "type", "said"),
        [
            (pa.array([2**31]), "integer", "column x (int64) does not fit into int32"),
            (pa.array(["abcd"]), "varchar(3)", "column x"),
            (pa.array(["a\0b"]), "text", "column x"),
            (pa.array([0]), "positive", "positive"),
            (pa.array([None], pa.int64()), "integer NOT NULL", 'null value in column "x"'),
            (pa.array([1000]), "numeric(5,2)", "numeric field overflow"),
        ],
        ids=["integer", "length", "nul", "domain", "null", "numeric"],
    )
    def test_a_value_that_does_not_fit_fails_the_part_it_is_in(
        self, schema: str, column: pa.Array, type: str, said: str
    ) -> None:
        execute(
            schema,
            "CREATE DOMAIN positive AS integer CHECK (VALUE > 0)",
            f"CREATE TABLE scores (x {type})",
        )
        rows = pa.record_batch({"x": column})
        sink = postgres_sink(schema)
        sink.prepare(rows.schema)

        assert said in refusal(lambda: sink.stage([span_with(rows)], None))
        assert sink.all_notes() == []

    @pytest.mark.parametrize(
        ("columns", "said"),
        [
            (pa.schema([("x", pa.struct([("a", pa.int64())]))]), "no type for column x (struct<a: int64>)"),
            (pa.schema([("x", pa.list_(pa.list_(pa.int64())))]), "no type for column x (list<"),
            (pa.schema([("x", pa.int64()), ("x", pa.int64())]), "column x comes more than once"),
            (pa.schema([("", pa.int64())]), "a column of the output has no name"),
            (pa.schema([("x" * 64, pa.int64())]), "longer than the 63 bytes"),
            (pa.schema([("ctid", pa.int64())]), '"ctid" conflicts with a system column name'),
        ],
        ids=["struct", "nested", "twice", "unnamed", "long", "system"],
    )
    def test_columns_that_no_table_can_have_are_refused(self, schema: str, columns: pa.Schema, said: str) -> None:
        assert said in refusal(lambda: postgres_sink(schema).prepare(columns))

    def test_column_names_are_kept_as_they_are(self, schema: str) -> None:
        names = ["Customer ID", "select", 'quo"te', "größe", "a.b", "%s", "$1"]

        write(postgres_sink(schema), pa.record_batch([pa.array([1])] * len(names), names=names))

        assert read_table(schema, "scores").column_names == names

    def test_a_table_that_lost_a_column_meanwhile_is_left_as_it_is(self, schema: str) -> None:
        execute(schema, self.TABLE, self.OLD)
        sink = self.staged(schema)
        execute(schema, "ALTER TABLE scores DROP COLUMN name")

        said = refusal(lambda: sink.publish(manifest_of(sink, "job_1", [split_of(1, 1000, 100)])))

        assert "its column name is gone since the job began" in said
        assert execute(schema, "SELECT count(*) FROM scores") == [(50,)]

    def test_rows_that_break_a_unique_index_leave_the_old_ones(self, schema: str) -> None:
        execute(schema, self.TABLE, "CREATE UNIQUE INDEX by_name ON scores (name)", "INSERT INTO scores VALUES (1, 1)")
        sink = postgres_sink(schema)
        rows = pa.record_batch([pa.array([1, 2]), pa.array([1, 2], pa.float32()), pa.array(["x", "x"])], schema=SCHEMA)
        sink.prepare(SCHEMA)
        sink.stage([span_with(rows)], None)

        said = refusal(lambda: sink.publish(manifest_of(sink, "job_1", [split_of(1, 2, 2)])))

        assert 'duplicate key value violates unique constraint "by_name"' in said
        assert execute(schema, "SELECT count(*) FROM scores") == [(1,)]


class TestSqliteTableSink(SinkContract):
    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path) -> None:
        self.uri = f"sqlite:///{tmp_path}/results.db"
        self.folder = tmp_path

    def make_sink(
        self, mode: Mode = "overwrite", job_id: str = "job_1", appends_to: str | None = None
    ) -> SqliteTableSink:
        sink = table_sink(Connection(self.uri), "predictions.scores", mode, job_id, self.folder / job_id, appends_to)
        assert isinstance(sink, SqliteTableSink)
        return sink

    def read_result(self) -> pa.Table | None:
        if not (self.folder / "results.db").exists():
            return None
        try:
            return read_table(self.uri, '"predictions.scores"')
        except dbapi.Error as error:
            if "no such table" in str(error):
                return None
            raise

    def seed_old_result(self, table: pa.Table) -> None:
        execute(self.uri, 'CREATE TABLE "predictions.scores" (id INTEGER, score REAL, name TEXT)')
        with Connection(self.uri).open(autocommit=True) as connection, connection.cursor() as cursor:
            cursor.adbc_ingest("predictions.scores", table, mode="append")

    def remove_result(self) -> None:
        execute(self.uri, 'DROP TABLE "predictions.scores"')

    def leftovers(self) -> list[str]:
        files = {str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()}
        tables = {name for (name,) in execute(self.uri, "SELECT name FROM sqlite_schema WHERE type = 'table'")}
        return sorted((files - {"results.db"}) | (tables - {"predictions.scores", LEDGER_TABLE}))


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without the rights of root, who may write everything."""
    mine = os.geteuid()
    if mine == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(mine)


def limited(size_bytes: int, call: Callable[..., object], *args: object) -> str | None:
    """What `call` is refused with when no file may grow past `size_bytes`, as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, size_bytes))
    try:
        call(*args)
    except OutputError as error:
        return str(error)
    return None


class TestSqliteTable:
    """What only a SQLite table can show."""

    OLD = "INSERT INTO scores SELECT value, value / 8.0, 'old' FROM json_each('[1, 2, 3]')"
    TABLE = "CREATE TABLE scores (id INTEGER, score REAL, name TEXT)"

    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path) -> None:
        self.file = tmp_path / "results.db"
        self.uri = f"sqlite:///{self.file}"
        self.folder = tmp_path / "job"

    def sink(
        self, table: str = "scores", mode: Mode = "overwrite", job_id: str = "job_1", uri: str | None = None
    ) -> SqliteTableSink:
        return SqliteTableSink(Connection(uri or self.uri), table, mode, job_id, self.folder / job_id)

    def staged(self, rows: int = 1000, **asked: Any) -> SqliteTableSink:
        sink = self.sink(**asked)
        sink.prepare(SCHEMA)
        assert sink.stage(spans_of(split_of(1, rows, -(-rows // 10))), None)
        return sink

    def test_indexes_triggers_views_and_declared_types_outlive_an_overwrite(self) -> None:
        execute(
            self.uri,
            "CREATE TABLE scores (name VARCHAR(20), id BIGINT PRIMARY KEY, score DOUBLE, at TEXT DEFAULT 'now')",
            "CREATE INDEX by_score ON scores (score)",
            "CREATE VIEW best AS SELECT id FROM scores WHERE score > 100",
            "CREATE TABLE log (id)",
            "CREATE TRIGGER note AFTER INSERT ON scores BEGIN INSERT INTO log VALUES (NEW.id); END",
            "INSERT INTO scores (id, score) VALUES (1, 200)",
        )
        schema = "SELECT sql FROM sqlite_schema WHERE tbl_name <> 'penstock_ledger' AND sql IS NOT NULL ORDER BY name"
        before = execute(self.uri, schema)

        write(self.sink(), rows_of(1000, 500))

        assert execute(self.uri, schema) == before
        assert execute(self.uri, "SELECT count(*), min(id), min(at) FROM scores") == [(500, 1000, "now")]
        assert execute(self.uri, "SELECT count(*) FROM log") == [(501,)]

    @pytest.mark.parametrize("mode", ["wal", "delete"])
    def test_the_journal_mode_is_left_as_it_is(self, mode: str) -> None:
        execute(self.uri, f"PRAGMA journal_mode = {mode}")

        write(self.sink(), rows_of(0, 10))

        assert execute(self.uri, "PRAGMA journal_mode") == [(mode,)]

    def test_rows_lie_in_the_order_of_the_input(self) -> None:
        splits = [split_of(number, 600, 100) for number in (1, 2)]
        sink = self.sink()
        sink.prepare(SCHEMA)
        for split in reversed(splits):
            spans = spans_of(split)
            sink.stage(spans[1::2], None)
            sink.stage(spans[0::2], None)

        sink.publish(manifest_of(sink, "job_1", splits))

        assert execute(self.uri, "SELECT id FROM scores ORDER BY rowid") == [
            (id,) for split in splits for id in table_of(spans_of(split))["id"].to_pylist()
        ]

    @pytest.mark.parametrize(
        ("there_was_a_table", "mode"),
        [(True, "overwrite"), (True, "append"), (False, "overwrite")],
        ids=["old", "appended", "new"],
    )
    def test_a_process_killed_while_it_publishes_leaves_what_was_there(
        self, processes: ForkServerContext, there_was_a_table: bool, mode: Mode
    ) -> None:
        if there_was_a_table:
            execute(self.uri, self.TABLE, self.OLD)
        # So many rows that the commit is far off when the file begins to grow, past what SQLite keeps in memory.
        rows = 2_000_000
        sink = self.staged(rows, mode=mode)
        manifest = manifest_of(sink, "job_1", [split_of(1, rows, rows // 10)])
        publishing = processes.Process(target=sink.publish, args=(manifest,))

        publishing.start()
        until(lambda: self.file.exists() and self.file.stat().st_size > 4_000_000)
        publishing.kill()
        publishing.join()
        tables = {name for (name,) in execute(self.uri, "SELECT name FROM sqlite_schema")}
        left = execute(self.uri, "SELECT count(*), max(name) FROM scores") if there_was_a_table else None
        published = sink.published()
        sink.publish(manifest)

        assert publishing.exitcode == -signal.SIGKILL
        assert tables == ({"scores"} if there_was_a_table else set())
        assert left == ([(3, "old")] if there_was_a_table else None)
        assert published is None
        total = rows + 3 if mode == "append" else rows
        assert execute(self.uri, "SELECT count(*), count(DISTINCT id) FROM scores") == [(total, total)]

    def test_parts_and_drafts_that_no_note_names_are_not_published(self) -> None:
        sink = self.staged(100)
        (part,) = (self.folder / "job_1" / "parts").iterdir()
        shutil.copy(part, part.with_name("stray.arrow"))
        part.with_name("draft.arrow").write_bytes(b"ARROW1")

        sink.publish(manifest_of(sink, "job_1", [split_of(1, 100, 10)]))

        assert values_in(read_table(self.uri, "scores")) == values_in(table_of(spans_of(split_of(1, 100, 10))))

    def test_a_part_that_lost_the_race_is_removed(self) -> None:
        sink = self.staged(100)

        assert sink.stage(spans_of(split_of(1, 100, 10)), None) is None
        assert len(list((self.folder / "job_1" / "parts").iterdir())) == 1

    def test_counts_that_are_not_what_is_staged_stop_the_publish(self) -> None:
        execute(self.uri, self.TABLE, self.OLD)
        sink = self.staged(100)
        manifest = manifest_of(sink, "job_1", [split_of(1, 100, 10)])

        with pytest.raises(LedgerError, match="100 rows are staged, but 99 are to be published"):
            sink.publish(replace(manifest, counts=Counts(scored=99)))

        assert execute(self.uri, "SELECT count(*) FROM scores") == [(3,)]

    def test_a_job_does_not_publish_again_over_a_later_one(self) -> None:
        first = self.staged(100)
        manifest = manifest_of(first, "job_1", [split_of(1, 100, 10)])
        first.publish(manifest)
        first.clean()
        write(self.sink(job_id="job_2"), rows_of(5, 5), "job_2")

        first.publish(manifest)

        assert values_in(read_table(self.uri, "scores")) == values_in(pa.Table.from_batches([rows_of(5, 5)]))

    def test_the_ledger_tells_who_published_what(self) -> None:
        write(self.sink(), rows_of(0, 10))

        assert execute(self.uri, f"SELECT * FROM {LEDGER_TABLE}") == [
            ("job_1", "scores", 10, 0, 0, "2025-03-15T10:00:00+00:00", '{"model": "sha256:1"}', 0)
        ]

    def test_a_table_of_jobs_from_before_there_was_appending_is_used_on(self) -> None:
        execute(
            self.uri,
            f"CREATE TABLE {LEDGER_TABLE} (job TEXT PRIMARY KEY, table_name TEXT NOT NULL, scored INTEGER NOT NULL,"
            " rejected INTEGER NOT NULL, skipped INTEGER NOT NULL, published_at TEXT NOT NULL, details TEXT NOT NULL)",
            f"INSERT INTO {LEDGER_TABLE} VALUES ('job_0', 'Scores', 3, 0, 0, '', '')",
            self.TABLE,
            self.OLD,
        )

        write(SqliteTableSink(Connection(self.uri), "scores", "append", "job_1", self.folder, "job_0"), rows_of(0, 10))

        assert execute(self.uri, "SELECT count(*) FROM scores") == [(13,)]
        assert execute(self.uri, f"SELECT job, appended FROM {LEDGER_TABLE} ORDER BY rowid") == [
            ("job_0", 0),
            ("job_1", 1),
        ]

    def test_a_publish_waits_for_another_writer(self) -> None:
        execute(self.uri, self.TABLE, self.OLD)
        sink = self.staged(100)
        manifest = manifest_of(sink, "job_1", [split_of(1, 100, 10)])

        with (
            ThreadPoolExecutor() as threads,
            Connection(self.uri).open(autocommit=True) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("BEGIN IMMEDIATE")
            publishing = threads.submit(sink.publish, manifest)
            cursor.execute("INSERT INTO scores VALUES (4, 4, 'late')")
            cursor.execute("COMMIT")
            publishing.result(DEADLINE_S)

        assert values_in(read_table(self.uri, "scores")) == values_in(table_of(spans_of(split_of(1, 100, 10))))

    @pytest.mark.parametrize("lock", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
    def test_a_writer_that_does_not_end_is_told_in_one_line(self, monkeypatch: pytest.MonkeyPatch, lock: str) -> None:
        execute(self.uri, self.TABLE, self.OLD)
        sink = self.staged(100)
        manifest = manifest_of(sink, "job_1", [split_of(1, 100, 10)])
        monkeypatch.setattr(transforms.connection, "SQLITE_BUSY_MS", 50)

        with Connection(self.uri).open(autocommit=True) as connection, connection.cursor() as cursor:
            cursor.execute(lock)
            said = refusal(lambda: sink.publish(manifest))

        assert "another program kept it locked" in said
        assert values_in(read_table(self.uri, "scores")) == [(1, 0.125, "old"), (2, 0.25, "old"), (3, 0.375, "old")]

    def test_a_disk_that_is_full_when_staging_is_told_in_one_line(self, processes: ForkServerContext) -> None:
        sink = self.sink()
        sink.prepare(SCHEMA)

        with ProcessPoolExecutor(1, processes) as pool:
            said = pool.submit(limited, 4096, sink.stage, spans_of(split_of(1, 10_000, 1000)), None).result()

        assert said is not None
        assert "File too large" in said
        assert "\n" not in said
        assert list((self.folder / "job_1" / "parts").iterdir()) == []
        assert sink.all_notes() == []

    def test_a_disk_that_is_full_when_publishing_leaves_the_old_table(self, processes: ForkServerContext) -> None:
        execute(self.uri, self.TABLE, self.OLD)
        sink = self.staged(100_000)
        manifest = manifest_of(sink, "job_1", [split_of(1, 100_000, 10_000)])

        with ProcessPoolExecutor(1, processes) as pool:
            said = pool.submit(limited, 1_000_000, sink.publish, manifest).result()
        left = execute(self.uri, "SELECT count(*), max(name) FROM scores")
        sink.publish(manifest)

        assert said is not None
        assert "disk" in said
        assert "\n" not in said
        assert left == [(3, "old")]
        assert execute(self.uri, "SELECT count(*) FROM scores") == [(100_000,)]

    @pytest.mark.parametrize("what", ["the file", "its folder"])
    def test_a_database_that_may_not_be_written_is_refused_at_once(self, tmp_path: Path, what: str) -> None:
        folder, file = tmp_path / "shut", tmp_path / "shut" / "results.db"
        folder.mkdir()
        sink = self.sink(uri=f"sqlite:///{file}")
        execute(f"sqlite:///{file}", self.TABLE)
        folder.chmod(0o777 if what == "the file" else 0o755)
        file.chmod(0o444 if what == "the file" else 0o666)
        for above in (tmp_path, *tmp_path.parents[:2]):
            above.chmod(above.stat().st_mode | 0o011)

        with as_nobody():
            said = refusal(lambda: sink.prepare(SCHEMA))

        assert f"{file if what == 'the file' else folder} is not writable" in said

    @pytest.mark.parametrize(
        ("path", "said"),
        [
            ("nowhere/results.db", "there is no folder"),
            ("folder", "is not a file"),
            ("text", "this file is not a SQLite database"),
            ("", "a database in memory ends with its process"),
            (":memory:", "a database in memory ends with its process"),
        ],
    )
    def test_what_is_no_database_is_refused_at_once(self, tmp_path: Path, path: str, said: str) -> None:
        (tmp_path / "folder").mkdir()
        (tmp_path / "text").write_text("not a database, but long enough to be told from an empty one " * 20)
        uri = f"sqlite:///{tmp_path}/{path}" if path.strip(":") not in {"", "memory"} else f"sqlite:///{path}"

        assert said in refusal(lambda: self.sink(uri=uri).prepare(SCHEMA))

    @pytest.mark.parametrize(
        "name", ["predictions.scores", "order", "two words", 'quo"te', "Übersicht", "%s", "main.t"]
    )
    def test_a_table_name_is_taken_literally(self, name: str) -> None:
        for job_id in ("job_1", "job_2"):
            write(self.sink(name, job_id=job_id), rows_of(0, 10), job_id)

        assert execute(self.uri, "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY rowid") == [
            (name,),
            (LEDGER_TABLE,),
        ]

    def test_a_table_is_found_whatever_its_case(self) -> None:
        execute(
            self.uri, "CREATE TABLE Scores (ID INTEGER, Score REAL, Name TEXT)", "INSERT INTO Scores VALUES (1, 1, 1)"
        )

        write(self.sink("scores"), rows_of(0, 10))

        assert execute(self.uri, "SELECT count(*), min(ID) FROM Scores") == [(10, 0)]

    @pytest.mark.parametrize(
        ("columns", "said"),
        [
            ("id INTEGER, score REAL", "it has no column name; add one that can take string"),
            ("id TEXT, score REAL, name TEXT", "its column id is TEXT and cannot take int64"),
            ("id INTEGER, score INTEGER, name TEXT", "its column score is INTEGER and cannot take float"),
            ("id INTEGER, score REAL, name BIGINT", "its column name is BIGINT and cannot take string"),
            ("id INTEGER, score REAL, name TEXT, more TEXT NOT NULL", "its column more is NOT NULL without a default"),
            ("id INTEGER, score REAL, name TEXT AS ('x')", "the database computes column name by itself"),
        ],
    )
    def test_a_table_whose_columns_do_not_fit_is_refused_before_any_row_is_read(self, columns: str, said: str) -> None:
        execute(self.uri, f"CREATE TABLE scores ({columns})")

        assert said in refusal(lambda: self.sink().prepare(SCHEMA))
        assert not self.folder.exists()

    @pytest.mark.parametrize(
        ("name", "said"), [("best", "this is a view"), (LEDGER_TABLE.upper(), "is where jobs are recorded")]
    )
    def test_what_is_no_table_of_scores_is_refused(self, name: str, said: str) -> None:
        execute(self.uri, "CREATE VIEW best AS SELECT 1 AS id")

        assert said in refusal(lambda: self.sink(name).prepare(SCHEMA))

    @pytest.mark.parametrize(
        "columns",
        [
            "id INTEGER PRIMARY KEY NOT NULL, score, name ANY",
            "key INTEGER PRIMARY KEY NOT NULL, id INT, score FLOAT, name CHARACTER(20), more TEXT NOT NULL DEFAULT 'x'",
        ],
    )
    def test_columns_that_need_not_be_written_are_left_to_the_table(self, columns: str) -> None:
        execute(self.uri, f"CREATE TABLE scores ({columns.replace('name ANY', 'name')})")

        write(self.sink(), rows_of(0, 10))

        assert execute(self.uri, "SELECT count(*), max(id), max(name) FROM scores") == [(10, 9, "8")]

    def test_strict_tables_are_filled_like_others(self) -> None:
        execute(self.uri, f"{self.TABLE} STRICT", self.OLD)

        write(self.sink(), rows_of(0, 10))

        assert execute(self.uri, "SELECT count(*) FROM scores") == [(10,)]

    @pytest.mark.parametrize(
        ("column", "declared", "kept"),
        [
            (pa.array([-3], pa.int8()), "INTEGER", ("integer", -3)),
            (pa.array([2**63 - 1], pa.uint64()), "INTEGER", ("integer", 2**63 - 1)),
            (pa.array([True]), "INTEGER", ("integer", 1)),
            (pa.array([0.5], pa.float16()), "REAL", ("real", 0.5)),
            (pa.array([0.5], pa.float32()), "REAL", ("real", 0.5)),
            (pa.array([float("nan")]), "REAL", ("null", None)),
            (pa.array([Decimal("-12.50")], pa.decimal128(9, 2)), "NUMERIC", ("real", -12.5)),
            (pa.array([Decimal("12.00")], pa.decimal128(15, 2)), "NUMERIC", ("integer", 12)),
            (
                pa.array([Decimal("1234567890123456.70")], pa.decimal128(18, 2)),
                "TEXT",
                ("text", "1234567890123456.70"),
            ),
            (pa.array(["a\0b"]), "TEXT", ("text", "a\0b")),
            (pa.array(["Zürich"]).dictionary_encode(), "TEXT", ("text", "Zürich")),
            (pa.array(["12"], pa.string_view()), "TEXT", ("text", "12")),
            (pa.array([b"\x00\xff"], pa.binary(2)), "BLOB", ("blob", b"\x00\xff")),
            (pa.array([dt.date(1969, 7, 20)]), "TEXT", ("text", "1969-07-20")),
            (pa.array([dt.time(1, 2, 3, 4)]), "TEXT", ("text", "01:02:03.000004")),
            (pa.array([1], pa.timestamp("s")), "TEXT", ("text", "1970-01-01 00:00:01")),
            (
                pa.array([dt.datetime(2024, 7, 1, 12)], pa.timestamp("ms", "Europe/Paris")),
                "TEXT",
                ("text", "2024-07-01 12:00:00.000Z"),
            ),
            (pa.array([[1, None], None]), "TEXT", ("text", "[1, null]")),
            (
                pa.array([[0.5, float("inf")]], pa.list_(pa.float32(), 2)),
                "TEXT",
                ("text", "[0.5, null]"),
            ),
            (pa.array([[[1], []]]), "TEXT", ("text", "[[1], []]")),
            (pa.array([[dt.date(2024, 1, 1)]]), "TEXT", ("text", '["2024-01-01"]')),
            (pa.nulls(1), "TEXT", ("null", None)),
        ],
        ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
    )
    def test_a_new_table_keeps_what_sqlite_can(self, column: pa.Array, declared: str, kept: tuple[str, Any]) -> None:
        write(self.sink(), pa.record_batch({"x": column}))

        assert execute(self.uri, "SELECT type FROM pragma_table_xinfo('scores')") == [(declared,)]
        assert execute(self.uri, "SELECT typeof(x), x FROM scores LIMIT 1") == [kept]

    @pytest.mark.parametrize(
        ("type", "said"),
        [
            (pa.struct([("a", pa.int64())]), "SQLite has no place for column x (struct<a: int64>)"),
            (pa.list_(pa.struct([("a", pa.int64())])), "SQLite has no place for column x (list<"),
            (pa.duration("s"), "SQLite has no place for column x (duration[s])"),
        ],
    )
    def test_types_that_sqlite_has_no_place_for_are_refused(self, type: pa.DataType, said: str) -> None:
        assert said in refusal(lambda: self.sink().prepare(pa.schema([("x", type)])))

    def test_a_number_too_large_for_sqlite_fails_the_part_it_is_in(self) -> None:
        rows = pa.record_batch({"x": pa.array([2**63], pa.uint64())})
        sink = self.sink()
        sink.prepare(rows.schema)

        assert "column x (uint64) does not fit into int64" in refusal(lambda: sink.stage([span_with(rows)], None))
        assert sink.all_notes() == []

    def test_column_names_that_differ_in_case_alone_are_refused(self) -> None:
        schema = pa.schema([("id", pa.int64()), ("ID", pa.int64())])

        assert "column id comes more than once" in refusal(lambda: self.sink().prepare(schema))

    def test_column_names_are_kept_as_they_are(self) -> None:
        names = ["Customer ID", "select", 'quo"te', "größe", "a.b", "%s", "$1"]

        write(self.sink(), pa.record_batch([pa.array([1])] * len(names), names=names))

        assert read_table(self.uri, "scores").column_names == names
