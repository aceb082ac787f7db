"""A PostgreSQL table as a sink, on a real server."""

import pickle
import re
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from adbc_driver_manager import dbapi

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
from tests.tables import DEADLINE_S, execute, postgres_sink, read_table, refusal, span_with, until, write
from transforms.batches import ScoredSpan, Span
from transforms.connection import Connection, ConnectionRefused
from transforms.counts import Counts
from transforms.errors import LedgerError
from transforms.sinks.columns import LEDGER_TABLE
from transforms.sinks.mode import Mode
from transforms.sinks.postgres import PostgresSink
from transforms.sinks.table import table_sink

# Key of the advisory lock by which a test holds up the server in the middle of a statement.
HOLD = 4711


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

    @pytest.mark.parametrize(
        ("kept_by", "is_kept"),
        [
            ("SELECT 1", False),
            (f"GRANT SELECT ON {LEDGER_TABLE} TO PUBLIC", True),
            (f"CREATE VIEW jobs AS SELECT job FROM {LEDGER_TABLE}", True),
            ("another job", True),
            ("a publication", True),
        ],
    )
    def test_the_table_of_jobs_goes_with_the_last_job_that_published_nothing(
        self, schema: str, kept_by: str, is_kept: bool
    ) -> None:
        sink = postgres_sink(schema)
        sink.prepare(SCHEMA)
        if kept_by == "another job":
            postgres_sink(schema, "others", job_id="job_2").prepare(SCHEMA)
        elif kept_by == "a publication":
            write(postgres_sink(schema, "others", job_id="job_2"), rows_of(0, 10))
        else:
            execute(schema, kept_by)

        for _ in range(2):
            sink.discard()

        assert execute(schema, f"SELECT to_regclass('{LEDGER_TABLE}') IS NOT NULL") == [(is_kept,)]
        sink.prepare(SCHEMA)

    @pytest.mark.parametrize("there", ["", "CREATE TABLE scores (id bigint PRIMARY KEY)"], ids=["new", "of keys"])
    def test_more_columns_than_a_table_has_are_found_out_beforehand(self, schema: str, there: str) -> None:
        names = [f"c{number}" for number in range(1601 if not there else 1598)]
        wide = pa.schema([("id", pa.int64()), *((name, pa.bool_()) for name in names)])
        if there:
            listed = ", ".join(f"ADD {name} boolean" for name in names)
            execute(schema, there, f"ALTER TABLE scores {listed}")
        sink = postgres_sink(schema)

        for act in (sink.check, sink.prepare):
            said = refusal(lambda act=act: act(wide))  # type: ignore[misc]
            assert re.search(
                r"the output has 1,\d+ columns.*, and a table of PostgreSQL at most 1,600; list fewer", said
            )
        assert sink.check(pa.schema(list(wide)[:1598])) == []

    def test_appended_rows_that_break_a_unique_index_leave_the_old_ones(self, schema: str) -> None:
        execute(schema, self.TABLE, "CREATE UNIQUE INDEX by_id ON scores (id)", self.OLD)
        sink = postgres_sink(schema, mode="append")
        sink.prepare(SCHEMA)
        splits = [split_of(1, 2, 2), split_of(2, 5, 5)]
        sink.stage([ScoredSpan(Span(splits[1], 0, 5, True), rows_of(-2, 5))], None)
        sink.stage([ScoredSpan(Span(splits[0], 0, 2, True), rows_of(49, 2))], None)

        said = refusal(lambda: sink.publish(manifest_of(sink, "job_1", splits)))

        taken = "is in the table already (unique index by_id)"
        named = [(1_000_000, 49), (1_000_001, 50), (2_000_003, 1), (2_000_004, 2)]
        assert 'duplicate key value violates unique constraint "by_id"' in said
        assert "; ".join(f"input:{row}: (id) = ({id_}) {taken}" for row, id_ in named) in said
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
            ("pg_catalog.scores", "permission denied"),
            ("Mixed", 'write "Mixed" in output.table_name'),
            ("best", "this is a view"),
            ("watched", "rows of bets (bets_id_fkey) refer to it"),
            ("parent", "table child inherits from it, and its rows would be deleted, too"),
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
            "CREATE TABLE parent (id bigint, score real, name text)",
            "CREATE TABLE child () INHERITS (parent)",
        )

        assert said in refusal(lambda: postgres_sink(database, written).prepare(SCHEMA))
        assert execute(database, "SELECT relname::text FROM pg_class WHERE relname LIKE '\\_penstock%'") == []

    @pytest.mark.parametrize(
        ("columns", "said"),
        [
            ("id bigint, score real", "it has no column name; add one that can take string, or leave it out ("),
            ("id text, score real, name text", "its column id is text and cannot take int64"),
            ("id bigint, score bigint, name text", "its column score is bigint and cannot take float"),
            ("id bigint, score real[], name text", "its column score is real[] and cannot take float"),
            ("id bigint, score real, name bytea", "its column name is bytea and cannot take string"),
            ("id bigint, score real, name integer", "its column name is integer and cannot take string"),
            ("id bigint, score real, name text, more text NOT NULL", "its column more is NOT NULL without a default"),
            ("id bigint, score real, name text, more present", "its column more is NOT NULL without a default"),
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
        execute(schema, "CREATE DOMAIN present AS text NOT NULL", f"CREATE TABLE scores ({columns})")

        assert said in refusal(lambda: postgres_sink(schema).prepare(SCHEMA))

    def test_a_table_of_another_schema_in_the_search_path_is_not_passed_over(self, schema: str) -> None:
        name = f"t_{uuid.uuid4().hex[:8]}"
        execute(schema, f"CREATE TABLE public.{name} (id bigint)")
        sink = postgres_sink(f"{schema},public", name)

        assert f"there is a {name} in the search_path" in refusal(lambda: sink.prepare(SCHEMA))

    def test_columns_with_defaults_need_not_be_written(self, schema: str) -> None:
        execute(
            schema,
            "CREATE DOMAIN kind AS text NOT NULL DEFAULT 'plain'",
            "CREATE TABLE scores (key serial PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(), name text, score real,"
            " spare text, sort kind, id bigint NOT NULL)",
        )

        write(postgres_sink(schema), rows_of(0, 10))

        assert execute(schema, "SELECT count(key), count(at), count(spare), max(id) FROM scores") == [(10, 10, 0, 9)]

    @pytest.mark.parametrize(
        ("own", "said"),
        [
            ("CREATE TRIGGER leaves BEFORE INSERT ON scores FOR EACH ROW EXECUTE FUNCTION leave()", "triggers"),
            ("CREATE RULE leaves AS ON INSERT TO scores WHERE NEW.id > 5 DO INSTEAD NOTHING", "rules"),
        ],
        ids=["trigger", "rule"],
    )
    def test_a_table_that_may_leave_rows_out_is_said_beforehand(self, schema: str, own: str, said: str) -> None:
        execute(
            schema,
            self.TABLE,
            "CREATE FUNCTION leave() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
            own,
        )

        (notice,) = postgres_sink(schema).check(SCHEMA)
        assert notice.code == "rows_may_be_changed"
        assert notice.message.startswith(f"table scores has {said} of its own, which may change rows")

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
            "CREATE FUNCTION public.day() RETURNS date LANGUAGE sql AS 'SELECT current_date'",
            "REVOKE EXECUTE ON FUNCTION public.day() FROM public",
            "CREATE TABLE predictions.scores (id bigint, score real, name text, key serial)",
            "ALTER TABLE predictions.scores ADD COLUMN day date DEFAULT public.day()",
        )
        table = refusal(lambda: sink.prepare(SCHEMA))
        execute(database, f"GRANT INSERT, DELETE ON predictions.scores TO {role}")
        sequence = refusal(lambda: sink.prepare(SCHEMA))
        execute(database, f"GRANT USAGE ON SEQUENCE predictions.scores_key_seq TO {role}")
        function = refusal(lambda: sink.prepare(SCHEMA))
        execute(database, f"GRANT EXECUTE ON FUNCTION public.day() TO {role}")
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
        assert f'column key has by default: GRANT USAGE ON SEQUENCE predictions.scores_key_seq TO "{role}"' in sequence
        assert f'column day has by default: GRANT EXECUTE ON FUNCTION day() TO "{role}"' in function
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
