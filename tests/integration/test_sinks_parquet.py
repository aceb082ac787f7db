"""The Parquet sink keeps the contract of sinks, and what is said of its folders."""

import errno
import json
import os
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.contract.sinks import SCHEMA, SinkContract, manifest_of, spans_of, split_of, table_of
from transforms.counts import Counts
from transforms.errors import OutputError
from transforms.sinks import folder as folders
from transforms.sinks.parquet import ParquetSink

Mode = Literal["overwrite", "error_if_exists"]


class TestParquetSink(SinkContract):
    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "here" / "scores"
        self.folder.parent.mkdir()
        self.jobs = tmp_path / "jobs"

    def make_sink(self, mode: Mode = "overwrite", job_id: str = "job_1") -> ParquetSink:
        (self.jobs / job_id).mkdir(parents=True, exist_ok=True)
        return ParquetSink(str(self.folder), mode, job_id, self.jobs / job_id)

    def read_result(self) -> pa.Table | None:
        # Who lists a folder before it is exchanged and opens after finds the file gone, and looks again.
        while self.folder.exists():
            try:
                return pa.concat_tables([pq.read_table(file) for file in sorted(self.folder.glob("*.parquet"))])
            except FileNotFoundError:
                continue
        return None

    def seed_old_result(self, table: pa.Table) -> None:
        self.folder.mkdir()
        pq.write_table(table, self.folder / "old.parquet")

    def leftovers(self) -> list[str]:
        return [path.name for path in self.folder.parent.iterdir() if path != self.folder]


class TestParquetFolder:
    @pytest.fixture(autouse=True)
    def own(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        self.job_folder = tmp_path_factory.mktemp("job")

    def sink(self, path: Path, mode: Mode = "overwrite", job_id: str = "job_1") -> ParquetSink:
        job_folder = self.job_folder / job_id
        job_folder.mkdir(exist_ok=True)
        return ParquetSink(str(path), mode, job_id, job_folder)

    def published(self, path: Path, job_id: str = "job_1", rows: int = 500) -> ParquetSink:
        sink = self.sink(path, job_id=job_id)
        split = split_of(1, rows=rows, span_rows=100)
        sink.prepare(SCHEMA)
        for span in spans_of(split):
            sink.stage([span], None)
        sink.publish(manifest_of(sink, job_id, [split]))
        sink.clean()
        return sink

    def test_files_and_rows_are_in_the_order_of_the_input(self, tmp_path: Path) -> None:
        self.published(tmp_path / "scores")

        assert pq.read_table(tmp_path / "scores").equals(table_of(spans_of(split_of(1, 500, 100))))

    def test_the_manifest_tells_where_each_file_came_from(self, tmp_path: Path) -> None:
        self.published(tmp_path / "scores")

        manifest = json.loads((tmp_path / "scores" / "_manifest.json").read_text())
        assert (manifest["job_id"], manifest["counts"]) == ("job_1", {"scored": 500, "rejected": 0, "skipped": 0})
        assert [file["from"] for file in manifest["files"]] == [
            [{"input": "input", "rows": [1_000_000 + at, 1_000_000 + at + 100]}] for at in range(0, 500, 100)
        ]
        on_disk = {path.name for path in (tmp_path / "scores").glob("*.parquet")}
        assert {file["name"] for file in manifest["files"]} == on_disk

    def test_a_link_is_followed_and_stays(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to("real")

        self.published(tmp_path / "link")

        assert (tmp_path / "link").is_symlink()
        assert pq.read_table(tmp_path / "real").num_rows == 500

    def test_missing_folders_above_are_made(self, tmp_path: Path) -> None:
        self.published(tmp_path / "a" / "b" / "scores")

        assert os.listdir(tmp_path / "a" / "b") == ["scores"]

    @pytest.fixture
    def no_exchange(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file system that does not know the flags of renameat2, such as NFS."""

        def cannot(source: Path, target: Path, flags: int) -> None:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

        monkeypatch.setattr(folders, "_rename", cannot)

    @pytest.mark.usefixtures("no_exchange")
    @pytest.mark.parametrize("is_new", [True, False], ids=["new folder", "old result"])
    def test_where_folders_cannot_be_exchanged_renames_do(self, tmp_path: Path, is_new: bool) -> None:
        if not is_new:
            (tmp_path / "scores").mkdir()
            (tmp_path / "scores" / "old.parquet").touch()

        sink = self.published(tmp_path / "scores")

        assert pq.read_table(tmp_path / "scores").num_rows == 500
        assert sink.published() == Counts(scored=500)
        assert os.listdir(tmp_path) == ["scores"]

    @pytest.mark.usefixtures("no_exchange")
    @pytest.mark.parametrize("goes_on", [True, False], ids=["resumed", "discarded"])
    def test_a_kill_between_two_renames_loses_no_result(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, goes_on: bool
    ) -> None:
        (tmp_path / "scores").mkdir()
        pq.write_table(pa.table({"id": [-1]}), tmp_path / "scores" / "old.parquet")
        rename, renamed = os.rename, []

        class Killed(BaseException):
            pass

        def killed_after_the_first(source: Path, target: Path) -> None:
            if renamed:
                raise Killed
            rename(source, target)
            renamed.append(target)

        monkeypatch.setattr(os, "rename", killed_after_the_first)
        with pytest.raises(Killed):
            self.published(tmp_path / "scores")
        monkeypatch.setattr(os, "rename", rename)
        assert not (tmp_path / "scores").exists()

        sink = self.sink(tmp_path / "scores")
        assert sink.published() is None
        if goes_on:
            sink.prepare(SCHEMA)
            before = pq.read_table(tmp_path / "scores")["id"].to_pylist()
            sink.publish(manifest_of(sink, "job_1", [split_of(1, rows=500, span_rows=100)]))
            sink.clean()
            after = pq.read_table(tmp_path / "scores").num_rows
        else:
            sink.discard()
            before, after = pq.read_table(tmp_path / "scores")["id"].to_pylist(), 500

        assert (before, after) == ([-1], 500)
        assert os.listdir(tmp_path) == ["scores"]

    def test_a_job_does_not_publish_again_over_a_later_one(self, tmp_path: Path) -> None:
        first = self.sink(tmp_path / "scores", job_id="job_1")
        split = split_of(1, rows=500, span_rows=100)
        first.prepare(SCHEMA)
        first.stage(spans_of(split), None)
        manifest = manifest_of(first, "job_1", [split])
        first.publish(manifest)
        self.published(tmp_path / "scores", job_id="job_2", rows=300)

        first.publish(manifest)
        first.clean()

        assert first.published() == Counts(scored=500)
        assert pq.read_table(tmp_path / "scores").num_rows == 300
        assert os.listdir(tmp_path) == ["scores"]

    def test_an_empty_folder_is_no_result(self, tmp_path: Path) -> None:
        (tmp_path / "scores").mkdir()
        sink = self.sink(tmp_path / "scores", "error_if_exists")
        split = split_of(1, rows=100, span_rows=100)
        sink.prepare(SCHEMA)
        sink.stage(spans_of(split), None)

        sink.publish(manifest_of(sink, "job_1", [split]))

        assert pq.read_table(tmp_path / "scores").num_rows == 100

    @pytest.mark.parametrize(
        ("path", "message"),
        [
            pytest.param("file", "this is a file; name a folder", id="a file"),
            pytest.param("file/below", "a part of the path is a file", id="below a file"),
        ],
    )
    def test_a_place_that_cannot_be_a_folder_is_refused(self, tmp_path: Path, path: str, message: str) -> None:
        (tmp_path / "file").touch()

        with pytest.raises(OutputError, match=message):
            self.sink(tmp_path / path).prepare(SCHEMA)

    def test_every_type_of_column_is_written_and_read_back(self, tmp_path: Path) -> None:
        rows = pa.record_batch(
            {
                "text": ["a", None],
                "dictionary": pa.array(["x", "x"]).dictionary_encode(),
                "list": pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2)),
                "decimal": pa.array(["1.50", None]).cast(pa.decimal128(10, 2)),
                "time": pa.array([0, None], pa.timestamp("us", "UTC")),
            }
        )
        split = split_of(1, rows=2, span_rows=2)
        span = spans_of(split)[0]
        sink = self.sink(tmp_path / "scores")
        sink.prepare(rows.schema)
        sink.stage([type(span)(span.span, rows)], None)
        sink.publish(manifest_of(sink, "job_1", [split]))

        assert pq.read_table(tmp_path / "scores").to_pylist() == rows.to_pylist()
