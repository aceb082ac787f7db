"""Pages of results in folders and SQLite tables, and rows as JSON."""

import datetime as dt
import json
import os
import shutil
import subprocess
import sys
from ast import literal_eval
from collections.abc import Iterable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from launcher.errors import LauncherError, ResultGone, ResultUnreadable
from launcher.rows.results import FolderResult, ResultPlace, TableResult, as_arrow_stream, result_page
from launcher.rows.tablepages import TIMEOUT_S, TablesAside
from launcher.rows.values import as_json_rows
from predictors.bounds import Bounds
from tests.api import ASIDE
from tests.contract.sinks import SCHEMA, manifest_of, rows_of, spans_of, split_of, table_of
from tests.unit.launcher_parts import warm_forks
from transforms.batches import ScoredSpan, Span
from transforms.connection import Connection, ConnectionRefused
from transforms.sinks.base import Sink
from transforms.sinks.manifest import manifest_file
from transforms.sinks.mode import Mode
from transforms.sinks.parquet import ParquetSink
from transforms.sinks.table import table_sink


def take_through(sink: Sink, job_id: str, number: int, rows: int = 250) -> pa.Table:
    """Publish split `number`, in parts of 100 rows; the rows."""
    split = split_of(number, rows, 100)
    sink.prepare(SCHEMA)
    for span in spans_of(split):
        sink.stage([span], None)
    sink.publish(manifest_of(sink, job_id, [split]))
    sink.clean()
    return table_of(spans_of(split))


def all_pages(place: ResultPlace, limit: int, are_full: bool = True) -> list[pa.Table]:
    """Every page, by the offsets that the pages give.

    Args:
        are_full: none but the last may be short.
    """
    pages, offset = [], 0
    while True:
        page = result_page(place, offset, limit)
        pages.append(page.rows)
        if page.next_offset is None:
            return pages
        assert not are_full or page.next_offset == offset + limit
        offset = page.next_offset


def refusal(place: ResultPlace) -> str:
    """The line with which a page is refused."""
    with pytest.raises(LauncherError) as refused:
        result_page(place, 0, 10)

    message = str(refused.value)
    assert "\n" not in message
    assert isinstance(refused.value, ResultGone)
    return message


def test_pages_are_read_without_beam() -> None:
    code = "import sys, launcher.rows.results; sys.exit('apache_beam' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("kind", ["folder", "table"])
class TestResultPage:
    """What is the same wherever the result lies."""

    @pytest.fixture(autouse=True)
    def where(self, kind: str, tmp_path: Path) -> None:
        self.kind = kind
        self.folder = tmp_path / "scores"
        self.connection = Connection(f"sqlite:///{tmp_path}/results.db")
        self.jobs = tmp_path / "jobs"

    def publish(
        self, job_id: str, number: int, mode: Mode = "overwrite", appends_to: str | None = None, rows: int = 250
    ) -> pa.Table:
        own = self.jobs / job_id
        own.mkdir(parents=True)
        if self.kind == "folder":
            sink: Sink = ParquetSink(str(self.folder), mode, job_id, own, appends_to)
        else:
            sink = table_sink(self.connection, "scores", mode, job_id, own, appends_to)
        return take_through(sink, job_id, number, rows)

    def place(self, job_id: str) -> ResultPlace:
        if self.kind == "folder":
            return FolderResult(str(self.folder), job_id)
        return TableResult(self.connection, "scores", job_id)

    def remove(self) -> None:
        if self.kind == "folder":
            shutil.rmtree(self.folder)
        else:
            with self.connection.open(autocommit=True) as connection, connection.cursor() as cursor:
                cursor.execute("DROP TABLE scores")

    @pytest.mark.parametrize("limit", [1, 7, 100, 249, 250, 251, 10_000])
    def test_pages_have_every_row_once_in_the_order_of_the_input(self, limit: int) -> None:
        rows = self.publish("job_1", 1)

        pages = all_pages(self.place("job_1"), limit)

        assert [page.num_rows for page in pages] == [min(limit, 250 - start) for start in range(0, 250, limit)]
        assert pa.concat_tables(pages).to_pylist() == rows.to_pylist()

    @pytest.mark.parametrize("offset", [250, 251, 10**9])
    def test_past_the_end_there_are_no_rows_but_their_columns(self, offset: int) -> None:
        self.publish("job_1", 1)

        page = result_page(self.place("job_1"), offset, 10)

        assert page.rows.num_rows == 0
        assert page.rows.schema == result_page(self.place("job_1"), 0, 10).rows.schema
        assert page.next_offset is None

    def test_a_result_without_rows_has_one_page_without_rows(self) -> None:
        self.publish("job_1", 1, rows=0)

        page = result_page(self.place("job_1"), 0, 10)

        assert page.rows.column_names == SCHEMA.names
        assert (page.rows.num_rows, page.next_offset) == (0, None)

    def test_pages_of_a_result_that_was_added_to_show_all_of_it_to_each_job(self) -> None:
        rows = [
            self.publish("job_1", 1),
            self.publish("job_2", 2, "append"),
            self.publish("job_3", 3, "append", "job_2"),
        ]

        for job_id in ("job_1", "job_2", "job_3"):
            assert (
                pa.concat_tables(all_pages(self.place(job_id), 100)).to_pylist() == pa.concat_tables(rows).to_pylist()
            )

    def test_pages_of_a_result_that_was_replaced_are_gone(self) -> None:
        self.publish("job_1", 1)
        self.publish("job_2", 2, "append")
        self.publish("job_3", 3)
        rows = self.publish("job_4", 4, "append")

        said = [refusal(self.place(job_id)) for job_id in ("job_1", "job_2")]

        assert "now holds the result of another job, job_4, which published after job_1" in said[0]
        assert "now holds the result of another job, job_4, which published after job_2" in said[1]
        assert result_page(self.place("job_3"), 250, 250).rows.to_pylist() == rows.to_pylist()

    def test_a_result_that_was_removed_is_gone_also_once_a_job_appends_to_nothing(self) -> None:
        self.publish("job_1", 1)
        self.remove()
        removed = refusal(self.place("job_1"))
        self.publish("job_2", 2, "append")

        assert "job_1" in removed
        assert "now holds the result of another job, job_2" in refusal(self.place("job_1"))

    def test_a_job_that_never_published_has_no_result(self) -> None:
        nothing = refusal(self.place("job_2"))
        self.publish("job_1", 1)

        assert "job_2" in nothing
        assert "now holds the result of another job, job_1" in refusal(self.place("job_2"))

    @pytest.mark.parametrize(("offset", "limit"), [(-1, 10), (0, 0)])
    def test_a_page_that_cannot_be_is_refused(self, offset: int, limit: int) -> None:
        with pytest.raises(ValueError, match="there is no page"):
            result_page(self.place("job_1"), offset, limit)


class TestFolderPages:
    @pytest.fixture(autouse=True)
    def where(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "scores"
        self.job_folder = tmp_path / "job"
        self.job_folder.mkdir()
        self.place = FolderResult(str(self.folder), "job_1")

    def publish(self, *spans: pa.RecordBatch) -> None:
        sink = ParquetSink(str(self.folder), "overwrite", "job_1", self.job_folder)
        sink.prepare(spans[0].schema)
        splits = [split_of(number, rows.num_rows, rows.num_rows) for number, rows in enumerate(spans)]
        for split, rows in zip(splits, spans, strict=True):
            sink.stage([ScoredSpan(Span(split, 0, rows.num_rows, True), rows)], None)
        sink.publish(manifest_of(sink, "job_1", splits))
        sink.clean()

    def lay_down(self, *files: tuple[pa.Table, int]) -> None:
        """A result with these files, in row groups of so many rows."""
        self.folder.mkdir()
        names = [f"part-{number}.parquet" for number in range(len(files))]
        for name, (rows, group_rows) in zip(names, files, strict=True):
            pq.write_table(rows, self.folder / name, row_group_size=group_rows)
        self.write_manifest(names)

    def write_manifest(self, names: list[Any]) -> None:
        manifest = {"job_id": "job_1", "counts": {}, "files": [{"name": name} for name in names]}
        (self.folder / "_manifest.json").write_text(json.dumps(manifest))

    @pytest.mark.parametrize("limit", [3, 1000, 50_000])
    def test_row_groups_are_cut_where_pages_are(self, limit: int) -> None:
        table = pa.Table.from_batches([rows_of(0, 60_000)])
        self.lay_down((table.slice(0, 50_000), 20_000), (table.slice(50_000, 0), 1), (table.slice(50_000), 999))

        for offset in (0, 16_383, 19_999, 20_000, 49_999, 50_998, 59_999):
            page = result_page(self.place, offset, limit)

            assert page.rows.equals(table.slice(offset, limit))
            assert page.next_offset == (offset + limit if offset + limit < 60_000 else None)

    def test_only_the_row_groups_of_the_page_are_read(self) -> None:
        table = pa.Table.from_batches([rows_of(0, 40_000)])
        self.lay_down((table, 10_000))
        file = self.folder / "part-0.parquet"
        groups = [pq.read_metadata(file).row_group(number).column(0) for number in range(4)]
        with open(file, "r+b") as damaged:
            for group in (groups[0], groups[1], groups[3]):
                damaged.seek(group.dictionary_page_offset or group.data_page_offset)
                damaged.write(b"\xff" * 64)

        page = result_page(self.place, 20_000, 10_000)

        assert page.rows.equals(table.slice(20_000, 10_000))
        with pytest.raises(ResultUnreadable):
            result_page(self.place, 19_999, 10_000)

    def test_large_rows_make_short_pages(self) -> None:
        texts = [f"{n}" + "x" * 1024 * 1024 for n in range(40)]
        table = pa.table({"id": list(range(40)), "text": texts})
        self.lay_down((table.slice(0, 30), 30), (table.slice(30), 5))
        pages = all_pages(self.place, 100, are_full=False)

        assert [text for page in pages for text in page["text"].to_pylist()] == texts
        assert all(1 <= page.num_rows <= 16 for page in pages)

    def test_texts_that_stand_in_the_file_once_are_not_all_decoded(self) -> None:
        text = "x" * 100_000
        column = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000, pa.int32()), pa.array([text]))
        self.folder.mkdir()
        table = pa.table({"id": list(range(20_000)), "text": column})
        # A plain text in the schema, as that of a published file is.
        pq.write_table(table, self.folder / "part-0.parquet", store_schema=False)
        self.write_manifest(["part-0.parquet"])
        before = pa.default_memory_pool().max_memory()

        page = result_page(self.place, 19_000, 10_000)

        assert pa.default_memory_pool().max_memory() - before < 100 * 1024 * 1024
        assert page.rows["id"].to_pylist() == list(range(19_000, 19_000 + page.rows.num_rows))
        assert set(page.rows["text"].to_pylist()) == {text}
        assert page.rows.schema.field("text").type == pa.string()
        assert page.next_offset == 19_000 + page.rows.num_rows

    def test_files_come_in_the_order_of_the_manifest(self) -> None:
        table = pa.Table.from_batches([rows_of(0, 300)])
        self.lay_down((table.slice(0, 100), 100), (table.slice(100, 100), 100), (table.slice(200), 100))
        self.write_manifest(["part-2.parquet", "part-0.parquet"])

        page = result_page(self.place, 50, 100)

        assert page.rows["id"].to_pylist() == [*range(250, 300), *range(50)]

    def test_a_folder_exchanged_between_manifest_and_files_is_looked_at_again(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import launcher.rows.results as results

        self.publish(rows_of(0, 100))
        look, looks = results.read_manifest, []

        def look_and_exchange(folder: Path) -> dict[str, Any] | None:
            manifest = look(folder)
            looks.append(manifest)
            if len(looks) == 1:
                sink = ParquetSink(str(self.folder), "overwrite", "job_2", self.job_folder / "..")
                take_through(sink, "job_2", 2)
            return manifest

        monkeypatch.setattr(results, "read_manifest", look_and_exchange)

        assert "now holds the result of another job, job_2" in refusal(self.place)

    def test_a_file_that_is_missing_is_named(self) -> None:
        self.publish(rows_of(0, 100))
        (file,) = self.folder.glob("*.parquet")
        file.unlink()

        assert f"lacks {file.name}, which the result of job_1 had" in refusal(self.place)

    @pytest.mark.parametrize("name", ["../secret.parquet", "/etc/hostname", "link.parquet", "sub", "."])
    def test_a_manifest_that_leads_out_of_the_folder_is_not_followed(self, tmp_path: Path, name: str) -> None:
        self.publish(rows_of(0, 100))
        pq.write_table(pa.table({"secret": [1]}), tmp_path / "secret.parquet")
        (self.folder / "link.parquet").symlink_to(tmp_path / "secret.parquet")
        (self.folder / "sub").mkdir()
        manifest_file(self.folder).unlink()
        self.write_manifest([name])

        with pytest.raises(ResultUnreadable, match="is no file of its own, so it is not read"):
            result_page(self.place, 0, 10)

    @pytest.mark.parametrize("text", ["", "[]", '{"job_id": "job_1", "counts": {}, "files": [1]}'])
    def test_a_manifest_that_is_none_of_ours_is_no_result(self, text: str) -> None:
        self.publish(rows_of(0, 100))
        manifest_file(self.folder).write_text(text)

        assert "holds no result any more" in refusal(self.place)

    def test_columns_keep_their_types(self) -> None:
        rows = pa.record_batch(
            {
                "dictionary": pa.array(["x", "y"]).dictionary_encode(),
                "list": pa.array([[1.0, 2.0], None], pa.list_(pa.float32())),
                "decimal": pa.array([Decimal("1.50"), None], pa.decimal128(10, 2)),
                "time": pa.array([0, None], pa.timestamp("us", "UTC")),
            }
        )
        self.publish(rows, rows)

        page = result_page(self.place, 1, 2)

        assert page.rows.schema == rows.schema
        assert page.rows.to_pylist() == [rows.to_pylist()[1], rows.to_pylist()[0]]


class TestFolderPagesWithinBounds(TestFolderPages):
    @pytest.fixture(autouse=True)
    def bound(self, where: None, tmp_path: Path) -> None:
        self.place = replace(self.place, within=Bounds((str(tmp_path),), closed=(str(tmp_path / "closed"),)))

    @pytest.mark.parametrize("is_above", [True, False])
    def test_a_folder_that_leads_elsewhere_is_not_read(self, tmp_path: Path, is_above: bool) -> None:
        self.publish(rows_of(0, 100))
        self.folder.rename(tmp_path / "closed")
        self.folder.symlink_to(tmp_path / "closed")
        if is_above:
            (tmp_path / "above").symlink_to(tmp_path)
            self.place = replace(self.place, path=str(tmp_path / "above" / "closed"))

        with pytest.raises(ResultGone, match="leads elsewhere since job_1 published there"):
            result_page(self.place, 0, 10)

    def test_a_file_that_takes_anothers_name_is_not_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import launcher.rows.results as results

        self.publish(rows_of(0, 100))
        find = results._files

        def find_and_exchange(*args: Any) -> list[Path]:
            found = find(*args)
            (file,) = self.folder.glob("*.parquet")
            file.rename(tmp_path / "secret.parquet")
            file.symlink_to(tmp_path / "secret.parquet")
            return found

        monkeypatch.setattr(results, "_files", find_and_exchange)

        with pytest.raises(ResultUnreadable):
            result_page(self.place, 0, 10)

    def test_no_file_stays_open(self) -> None:
        self.publish(rows_of(0, 100))
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(10):
            result_page(self.place, 0, 10)

        assert len(os.listdir("/proc/self/fd")) <= before


class TestSqlitePages:
    @pytest.fixture(autouse=True)
    def where(self, tmp_path: Path) -> None:
        self.connection = Connection(f"sqlite:///{tmp_path}/results.db")
        self.job_folder = tmp_path / "job"

    def execute(self, *statements: str) -> None:
        with self.connection.open(autocommit=True) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def publish(self, rows: pa.RecordBatch, table: str = "scores") -> TableResult:
        sink = table_sink(self.connection, table, "overwrite", "job_1", self.job_folder)
        split = split_of(1, rows.num_rows, rows.num_rows)
        sink.prepare(rows.schema)
        sink.stage([ScoredSpan(Span(split, 0, rows.num_rows, True), rows)], None)
        sink.publish(manifest_of(sink, "job_1", [split]))
        sink.clean()
        return TableResult(self.connection, table, "job_1")

    def test_large_rows_make_short_pages(self) -> None:
        texts = [f"{n}" + "x" * 1024 * 1024 for n in range(40)]
        place = self.publish(pa.record_batch({"id": list(range(40)), "name": texts}))
        first = result_page(place, 0, 100)

        assert 1 <= first.rows.num_rows <= 16
        assert first.next_offset == first.rows.num_rows
        assert [text for page in all_pages(place, 100, are_full=False) for text in page["name"].to_pylist()] == texts

    def test_a_row_that_is_larger_than_a_page_is_refused(self) -> None:
        place = self.publish(pa.record_batch({"id": [0, 1, 2], "name": ["a", "b", "x" * 20 * 1024 * 1024]}))

        assert result_page(place, 0, 2).rows.num_rows == 2
        with pytest.raises(ResultUnreadable, match="row 3 has 20 MiB, and a page at most 16 MiB; read it from the da"):
            result_page(place, 2, 2)

    def test_rows_are_read_few_at_a_time_where_one_is_large(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import launcher.rows.tablepages as tablepages

        read: list[int] = []
        bounded = tablepages.bounded

        def noted(batches: Iterable[pa.RecordBatch], limit: int) -> tuple[list[pa.RecordBatch], bool]:
            def each() -> Iterator[pa.RecordBatch]:
                for batch in batches:
                    read.append(batch.num_rows)
                    yield batch

            return bounded(each(), limit)

        place = self.publish(pa.record_batch({"id": list(range(40)), "name": ["x" * 3 * 1024 * 1024] * 40}))
        monkeypatch.setattr(tablepages, "bounded", noted)
        page = result_page(place, 0, 40)

        assert page.rows.num_rows == 5
        assert set(read) <= {0, 1}

    @pytest.mark.parametrize("name", ["predictions.scores", "order", 'quo"te', "Übersicht", "%s", "main.t", "?1"])
    def test_a_table_name_is_taken_literally(self, name: str) -> None:
        place = self.publish(rows_of(0, 10), name)

        assert result_page(place, 0, 100).rows.to_pylist() == rows_of(0, 10).to_pylist()

    def test_a_table_is_found_whatever_its_case(self) -> None:
        self.publish(rows_of(0, 10), "Scores")

        assert result_page(TableResult(self.connection, "scores", "job_1"), 0, 100).rows.num_rows == 10

    @pytest.mark.parametrize(
        ("columns", "tail"),
        [
            ("rowid TEXT, id INTEGER, score REAL, name TEXT", ""),
            ("id INTEGER PRIMARY KEY, score REAL, name TEXT", "WITHOUT ROWID"),
            ("rowid TEXT, oid TEXT, _rowid_ TEXT, id INTEGER, score REAL, name TEXT", ""),
        ],
        ids=["a column named rowid", "without rowid", "all its names taken"],
    )
    def test_tables_that_name_their_rows_otherwise_have_pages_too(self, columns: str, tail: str) -> None:
        self.execute(f"CREATE TABLE scores ({columns}) {tail}")
        place = self.publish(rows_of(0, 50))

        pages = pa.concat_tables(all_pages(place, 7))

        assert pages["id"].to_pylist() == list(range(50))

    def test_a_column_has_the_same_type_on_each_page(self) -> None:
        decimals = [Decimal("1.00")] * 3 + [Decimal("1.50")] + [None] * 3
        rows = pa.record_batch(
            {
                "amount": pa.array(decimals, pa.decimal128(9, 2)),
                "score": pa.array([1.0, 2.0, 3.0, 0.5, None, None, None]),
                "on": pa.array([True, False, None, True, None, None, None]),
                "day": pa.array([None, None, None, dt.date(2024, 1, 2), None, None, None], pa.date32()),
                "bytes": pa.array([None, None, None, b"\x00", None, None, None], pa.binary()),
            }
        )
        place = self.publish(rows)

        pages = all_pages(place, 2)

        assert {page.schema for page in [*pages, result_page(place, 100, 1).rows]} == {
            pa.schema(
                {
                    "amount": pa.float64(),
                    "score": pa.float64(),
                    "on": pa.int64(),
                    "day": pa.string(),
                    "bytes": pa.binary(),
                }
            )
        }
        assert pa.concat_tables(pages)["amount"].to_pylist() == [1, 1, 1, 1.5, None, None, None]

    def test_values_that_a_column_was_not_declared_for_are_shown_as_they_are(self) -> None:
        place = self.publish(rows_of(0, 1))
        self.execute(
            "DELETE FROM scores",
            "INSERT INTO scores VALUES (1, 0.5, 'a'), ('one', 'half', x'00ff'), (1.5, 2, 'b')",
        )

        page = result_page(place, 0, 10).rows

        assert page.to_pydict() == {
            "id": ["1", "one", "1.5"],
            "score": ["0.5", "half", "2.0"],
            "name": [b"a", b"\x00\xff", b"b"],
        }

    def test_a_database_that_is_pinned_is_so_in_a_process_of_its_own(self, tmp_path: Path) -> None:
        place = self.publish(rows_of(0, 10))
        (tmp_path / "link.db").symlink_to(tmp_path / "results.db")
        uri = f"sqlite:///{tmp_path}/link.db"

        with warm_forks(tmp_path, *ASIDE) as forks:
            aside = TablesAside(forks, str(tmp_path), {})
            linked = replace(place, connection=Connection(uri))
            assert result_page(linked, 0, 100, aside.read).rows.num_rows == 10
            with pytest.raises(ConnectionRefused, match="leads elsewhere"):
                result_page(replace(place, connection=Connection(uri, pinned=True)), 0, 100, aside.read)

    def test_a_database_whose_file_is_gone_shows_no_result(self, tmp_path: Path) -> None:
        place = self.publish(rows_of(0, 10))
        os.remove(tmp_path / "results.db")

        assert "is gone, and the result of job_1 with it" in refusal(place)

    def test_reading_makes_no_file(self, tmp_path: Path) -> None:
        assert "is gone" in refusal(TableResult(self.connection, "scores", "job_1"))
        assert os.listdir(tmp_path) == []

    def test_a_database_that_is_locked_for_too_long_is_told_in_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        place = self.publish(rows_of(0, 10))
        monkeypatch.setattr("launcher.rows.tablepages.TIMEOUT_S", 0)

        with self.connection.open(autocommit=True) as connection, connection.cursor() as cursor:
            cursor.execute("BEGIN EXCLUSIVE")
            with pytest.raises(ResultUnreadable, match="no answer within 0 s; ask again later"):
                result_page(place, 0, 10)

        assert TIMEOUT_S == 10

    def test_a_connection_that_cannot_be_is_refused(self) -> None:
        with pytest.raises(ConnectionRefused):
            result_page(TableResult(Connection("oracle://host/db"), "scores", "job_1"), 0, 10)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        (pa.array([1, None], pa.int8()), [1, None]),
        (pa.array([2**63 - 1, -(2**63)]), [2**63 - 1, -(2**63)]),
        (pa.array([2**64 - 1], pa.uint64()), [2**64 - 1]),
        (pa.array([0.5, float("nan"), float("inf"), float("-inf"), None]), [0.5, None, None, None, None]),
        (pa.array([0.5, float("nan")], pa.float16()), [0.5, None]),
        (pa.array([True, None]), [True, None]),
        (pa.array([Decimal("12.50"), None], pa.decimal128(9, 2)), ["12.50", None]),
        (pa.array([Decimal("0.0000000001")], pa.decimal128(20, 10)), ["0.0000000001"]),
        (pa.array(["Zürich", None], pa.large_string()), ["Zürich", None]),
        (pa.array(["x", None, "x"]).dictionary_encode(), ["x", None, "x"]),
        (pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array(["x", "y"])), ["x", "x", "y"]),
        (pa.array([b"\x00\xff", None]), ["AP8=", None]),
        (pa.array([b"\x00\xff"], pa.binary(2)), ["AP8="]),
        (pa.array([dt.date(1969, 7, 20), None]), ["1969-07-20", None]),
        (pa.array([dt.date(1969, 7, 20)], pa.date64()), ["1969-07-20"]),
        (pa.array([dt.time(1, 2, 3, 4)]), ["01:02:03.000004"]),
        (
            pa.array([0, 1_500_000, None], pa.timestamp("us")),
            ["1970-01-01T00:00:00", "1970-01-01T00:00:01.500000", None],
        ),
        (pa.array([1], pa.timestamp("ns")), ["1970-01-01T00:00:00.000000001"]),
        (pa.array([-(2**62)], pa.timestamp("s", "UTC")), ["-146138510344-07-14T16:14:56Z"]),
        (pa.array([0, 10**18], pa.timestamp("us")), ["1970-01-01T00:00:00", "33658-09-27T01:46:40"]),
        (pa.array([0, None, 2**31 - 1], pa.int32()).view(pa.date32()), ["1970-01-01", None, "5881580-07-11"]),
        (pa.array([86_400_000_000]).view(pa.time64("us")), ["24:00:00.000000"]),
        (
            pa.array([dt.datetime(2024, 7, 1, 12)], pa.timestamp("ms", "Europe/Paris")),
            ["2024-07-01T12:00:00Z"],
        ),
        (pa.array([3_600_000_005, -500_000, 0, None], pa.duration("us")), ["PT3600.000005S", "-PT0.5S", "PT0S", None]),
        (pa.nulls(2), [None, None]),
        (pa.array([[1.0, float("nan")], None, [], [2.0]]), [[1.0, None], None, [], [2.0]]),
        (pa.array([[1.0, 2.0], None], pa.list_(pa.float32(), 2)), [[1.0, 2.0], None]),
        (pa.array([[[b"a"], None], [[]]]), [[["YQ=="], None], [[]]]),
        (pa.array([[0], [1]], pa.large_list(pa.timestamp("s"))), [["1970-01-01T00:00:00"], ["1970-01-01T00:00:01"]]),
        (
            pa.array([{"a": Decimal("1.5"), "b": [1]}, None, {"a": None, "b": None}]),
            [{"a": "1.5", "b": [1]}, None, {"a": None, "b": None}],
        ),
        (
            pa.array([[("k", 1.5)], None, []], pa.map_(pa.string(), pa.float64())),
            [[{"key": "k", "value": 1.5}], None, []],
        ),
        (pa.array([(1, 2, 3)], pa.month_day_nano_interval()), None),
        (pa.array([b"0123456789abcdef"], pa.uuid()), ["MDEyMzQ1Njc4OWFiY2RlZg=="]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_every_type_is_said_in_json(column: pa.Array, values: list[Any] | None) -> None:
    rows = as_json_rows(pa.table({"x": column}))

    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    if values is not None:
        assert [row["x"] for row in rows] == values


def test_rows_are_shown_exactly_where_there_is_no_pandas() -> None:
    program = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "pandas":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hidden())
import pyarrow as pa
from launcher.client.saving import _as_csv_can
from launcher.rows.values import as_json_rows, as_shown_rows
rows = pa.table({
    "at": pa.array([1, None], pa.timestamp("ns")),
    "zoned": pa.array([1, None], pa.timestamp("ns", "Europe/Berlin")),
    "far": pa.array([2**58, None], pa.timestamp("us")),
    "took": pa.array([1, None], pa.duration("ns")),
    "time": pa.array([1, None], pa.time64("ns")),
    "many": pa.array([[1, None], None], pa.list_(pa.timestamp("ns"))),
    "part": pa.array([{"at": 1}, None], pa.struct([("at", pa.timestamp("ns"))])),
    "x": pa.array([float("nan"), 0.5]),
})
print(as_json_rows(rows))
print(as_shown_rows(rows)[0]["x"])
print(_as_csv_can(rows.select(["many", "part"])).to_pylist())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    told = done.stdout.splitlines()

    at = "1970-01-01T00:00:00.000000001"
    assert done.stderr == ""
    assert literal_eval(told[0]) == [
        {
            "at": at,
            "zoned": f"{at}Z",
            "far": "11103-08-29T17:22:31.711744",
            "took": "PT0.000000001S",
            "time": "00:00:00.000000001",
            "many": [at, None],
            "part": {"at": at},
            "x": None,
        },
        {**dict.fromkeys(["at", "zoned", "far", "took", "time", "many", "part"]), "x": 0.5},
    ]
    assert told[1] == "nan"
    assert literal_eval(told[2]) == [
        {"many": f'["{at}", null]', "part": f'{{"at": "{at}"}}'},
        {"many": None, "part": None},
    ]


def test_json_rows_of_slices_and_chunks_are_those_of_the_table() -> None:
    whole = pa.table({"x": pa.array([[1], None, [2, 3], []] * 3), "y": pa.array([{"a": n} for n in range(12)])})
    table = pa.concat_tables([whole.slice(1, 3), whole.slice(6, 5)])

    assert as_json_rows(table) == table.to_pylist()
    assert as_json_rows(table.slice(0, 0)) == []


def test_an_arrow_stream_holds_the_page() -> None:
    table = pa.concat_tables([pa.Table.from_batches([rows_of(0, 10)]), pa.Table.from_batches([rows_of(10, 5)])])

    assert pa.ipc.open_stream(as_arrow_stream(table)).read_all().equals(table)
    assert pa.ipc.open_stream(as_arrow_stream(table.slice(0, 0))).read_all().schema == table.schema
