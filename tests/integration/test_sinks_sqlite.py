"""A SQLite table as a sink."""

import datetime as dt
import resource
import shutil
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from adbc_driver_manager import dbapi

import transforms.opening
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
from tests.rights import as_nobody, let_in
from tests.tables import DEADLINE_S, execute, read_table, refusal, span_with, until, write
from transforms.connection import Connection
from transforms.counts import Counts
from transforms.errors import LedgerError, OutputError, RowsRefused
from transforms.sinks.columns import LEDGER_TABLE
from transforms.sinks.mode import Mode
from transforms.sinks.sqlite import SqliteTableSink
from transforms.sinks.table import table_sink


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


def limited(size_bytes: int, call: Callable[..., object], *args: object) -> str | None:
    """What `call` is refused with when no file may grow past `size_bytes`, as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, size_bytes))
    try:
        call(*args)
    except OutputError as error:
        return str(error)
    return None


NOT_UTF8 = pa.Array.from_buffers(pa.string(), 2, pa.array([b"ab", b"\xff"]).buffers())
UUIDS = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16], pa.binary(16)))


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
        monkeypatch.setattr(transforms.opening, "SQLITE_BUSY_MS", 50)

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
        let_in(tmp_path)

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
            ("id INTEGER, score REAL", "it has no column name; add one that can take string, or leave it out ("),
            ("id TEXT, score REAL, name TEXT", "its column id is TEXT and cannot take int64"),
            ("id INTEGER, score INTEGER, name TEXT", "its column score is INTEGER and cannot take float"),
            ("id INTEGER, score REAL, name BIGINT", "its column name is BIGINT and cannot take string"),
            ("id INTEGER, score REAL, name TEXT, more TEXT NOT NULL", "its column more is NOT NULL without a default"),
            ("id INTEGER, score REAL, name TEXT AS ('x')", "the database computes column name by itself"),
            (
                "id INT, score REAL, name TEXT, key INTEGER PRIMARY KEY) WITHOUT ROWID --",
                "its column key is NOT NULL without a default",
            ),
        ],
    )
    def test_a_table_whose_columns_do_not_fit_is_refused_before_any_row_is_read(self, columns: str, said: str) -> None:
        execute(self.uri, f"CREATE TABLE scores ({columns})")

        assert said in refusal(lambda: self.sink().prepare(SCHEMA))
        assert not self.folder.exists()

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("best", "this is a view"),
            (LEDGER_TABLE.upper(), "is where jobs are recorded"),
            ("SQLite_scores", "SQLite's own"),
        ],
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

    @pytest.mark.parametrize(
        ("columns", "trigger", "said"),
        [
            ("id INTEGER UNIQUE ON CONFLICT IGNORE, score REAL, name TEXT", None, "ON CONFLICT clauses"),
            (
                "id INT, score REAL, name TEXT",
                "CREATE TRIGGER t BEFORE INSERT ON scores BEGIN SELECT 1; END",
                "triggers",
            ),
        ],
        ids=["conflict", "trigger"],
    )
    def test_a_table_that_may_leave_rows_out_is_said_beforehand(
        self, columns: str, trigger: str | None, said: str
    ) -> None:
        execute(self.uri, f"CREATE TABLE scores ({columns})", *([trigger] if trigger else []))

        (notice,) = self.sink().check(SCHEMA)
        assert notice.code == "rows_may_be_changed"
        assert notice.message.startswith(f"table scores has {said} of its own, which may change rows")

    def test_a_row_is_judged_by_its_place_whatever_its_columns_are_called(self) -> None:
        execute(self.uri, "CREATE TABLE scores (rowid INTEGER CHECK (rowid < 10))")
        rows = pa.record_batch({"rowid": [5, 50]})
        sink = self.sink()
        sink.prepare(rows.schema)

        with pytest.raises(RowsRefused) as refused:
            sink.stage([span_with(rows)], None)
        assert [row.row for row in refused.value.rows] == [1]

    def test_more_columns_than_a_table_has_are_found_out_beforehand(self) -> None:
        columns = pa.schema([(f"c{number}", pa.int64()) for number in range(2001)])

        assert "the output has 2,001 columns, and a table of SQLite at most 2,000" in refusal(
            lambda: self.sink().prepare(columns)
        )

    def test_strict_tables_are_filled_like_others(self) -> None:
        execute(self.uri, f"{self.TABLE} STRICT", self.OLD)

        write(self.sink(), rows_of(0, 10))

        assert execute(self.uri, "SELECT count(*) FROM scores") == [(10,)]

    def test_column_names_that_differ_in_case_alone_are_refused(self) -> None:
        schema = pa.schema([("id", pa.int64()), ("ID", pa.int64())])

        assert "column id comes more than once" in refusal(lambda: self.sink().prepare(schema))

    def test_column_names_are_kept_as_they_are(self) -> None:
        names = ["Customer ID", "select", 'quo"te', "größe", "a.b", "%s", "$1"]

        write(self.sink(), pa.record_batch([pa.array([1])] * len(names), names=names))

        assert read_table(self.uri, "scores").column_names == names

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
            (pa.array([2**31 - 1], pa.int32()).view(pa.date32()), "TEXT", ("text", "5881580-07-11")),
            (pa.array([86_400_000_000]).view(pa.time64("us")), "TEXT", ("text", "24:00:00.000000")),
            (pa.array([10**18], pa.timestamp("us", "UTC")), "TEXT", ("text", "33658-09-27 01:46:40.000000Z")),
            (pa.array([[10**18]], pa.list_(pa.timestamp("us"))), "TEXT", ("text", '["33658-09-27T01:46:40.000000"]')),
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
                ("text", '[0.5, "Infinity"]'),
            ),
            (pa.array([[[1], []]]), "TEXT", ("text", "[[1], []]")),
            (pa.array([{"a": 2**60 + 1}]), "TEXT", ("text", '{"a": 1152921504606846977}')),
            (UUIDS, "TEXT", ("text", "30303030-3030-3030-3030-303030303030")),
            (pa.array([1], pa.timestamp("ns")), "TEXT", ("text", "1970-01-01 00:00:00.000000001")),
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
            (pa.dense_union([pa.field("a", pa.int64())]), "SQLite has no place for column x (dense_union<"),
            (pa.list_(pa.dense_union([pa.field("a", pa.int64())])), "SQLite has no place for column x (list<"),
            (pa.duration("s"), "SQLite has no place for column x (duration[s])"),
        ],
    )
    def test_types_that_sqlite_has_no_place_for_are_refused(self, type: pa.DataType, said: str) -> None:
        assert said in refusal(lambda: self.sink().prepare(pa.schema([("x", type)])))

    @pytest.mark.parametrize(
        ("column", "declared", "said"),
        [
            (pa.array([1, 2**63], pa.uint64()), "INTEGER", "column x: 9223372036854775808 is out of range for SQLite"),
            (pa.array([1, 2**53 + 1]), "REAL", "column x: 9007199254740993 has more digits than REAL keeps"),
            (NOT_UTF8, "TEXT", "column x: text that is not UTF-8"),
            (pa.array([1, None]), "INTEGER NOT NULL", "column x is NOT NULL in the table"),
            (pa.array([1, None]), "INTEGER PRIMARY KEY", "column x is NOT NULL in the table"),
            (pa.array([Decimal(1), Decimal(2**63)]), "INTEGER", "9223372036854775808 is out of range for SQLite's 64"),
            (pa.array([1.0, float("nan")]), "REAL NOT NULL", "column x is NOT NULL in the table"),
            (pa.array([1, 0]), "INTEGER CHECK (x > 0)", "CHECK constraint failed: x > 0"),
            (pa.array(["abc", "abcd"]), "TEXT UNIQUE CHECK (length(x) < 4)", "CHECK constraint failed: length(x) < 4"),
        ],
        ids=["range", "digits", "bytes", "null", "key", "decimal", "NaN", "check", "length"],
    )
    def test_a_value_that_does_not_fit_is_refused_by_its_row(self, column: pa.Array, declared: str, said: str) -> None:
        execute(self.uri, f"CREATE TABLE scores (x {declared})")
        rows = pa.record_batch({"x": column})
        sink = self.sink()
        sink.prepare(rows.schema)

        with pytest.raises(RowsRefused) as refused:
            sink.stage([span_with(rows.slice(0, 1)), span_with(rows)], None)

        (row,) = refused.value.rows
        assert (row.span, row.row, row.error_type) == (1, 1, "RefusedByDestination")
        assert said in row.reason
        assert sink.all_notes() == []

    @pytest.mark.parametrize(
        ("column", "declared", "code", "kept"),
        [
            (pa.array([0.5, float("nan"), None]), "REAL", "nan_as_null", 0.5),
            (pa.array([Decimal("0.5"), Decimal("1234567890123456.77")]), "REAL", "rounded", 0.5),
            (pa.array([[0.5], [float("nan")]]), "TEXT", "rounded", "[0.5]"),
        ],
        ids=["NaN", "decimal", "JSON"],
    )
    def test_values_that_sqlite_changes_are_counted(
        self, column: pa.Array, declared: str, code: str, kept: Any
    ) -> None:
        execute(self.uri, f"CREATE TABLE scores (x {declared})")
        rows = pa.record_batch({"x": column})
        sink = self.sink()
        said = [notice.code for notice in sink.check(rows.schema)]

        write(sink, rows)
        again = self.sink(job_id="job_2")
        again.prepare(rows.schema)
        again.stage([span_with(rows)], None)

        (note,) = again.all_notes()
        assert said == ["may_be_rounded"] * (column.type == pa.decimal128(18, 2))
        assert [(notice.code, notice.count) for notice in note.notices] == [(code, 1)]
        assert execute(self.uri, "SELECT x FROM scores LIMIT 1") == [(kept,)]

    @pytest.mark.parametrize("mode", ["overwrite", "append"])
    def test_a_key_that_is_taken_is_named_by_the_rows_that_have_it(self, mode: Mode) -> None:
        execute(self.uri, "CREATE TABLE scores (id INTEGER UNIQUE, score REAL, name TEXT)", self.OLD)
        sink = self.sink(mode=mode)
        sink.prepare(SCHEMA)
        split = split_of(1, 4, 4)
        rows = pa.record_batch(
            [pa.array([7, 3, 8, 7]), pa.nulls(4, pa.float32()), pa.nulls(4, pa.string())], schema=SCHEMA
        )
        sink.stage([span_with(rows)], None)

        said = refusal(lambda: sink.publish(manifest_of(sink, "job_1", [split])))

        place = f"{split.uri}:{split.first_row}"
        assert f"{place[:-1]}3: UNIQUE constraint failed: scores.id (as {place} has it, 7)" in said
        assert (f"{place[:-1]}1: UNIQUE constraint failed: scores.id (3 is in the table already)" in said) == (
            mode == "append"
        )
        assert execute(self.uri, "SELECT count(*) FROM scores") == [(3,)]
