"""The Parquet sink keeps the contract of sinks, and what is said of its folders."""

import contextlib
import errno
import itertools
import json
import multiprocessing
import os
import re
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from predictors.bounds import Bounds
from tests.contract.sinks import SCHEMA, SinkContract, manifest_of, spans_of, split_of, table_of
from transforms.counts import Counts
from transforms.errors import OutputError
from transforms.sinks import folder as folders
from transforms.sinks.base import Manifest
from transforms.sinks.manifest import manifest_file, read_manifest
from transforms.sinks.mode import Mode
from transforms.sinks.parquet import ParquetSink


class TestParquetSink(SinkContract):
    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "here" / "scores"
        self.folder.parent.mkdir()
        self.jobs = tmp_path / "jobs"

    def make_sink(self, mode: Mode = "overwrite", job_id: str = "job_1", appends_to: str | None = None) -> ParquetSink:
        (self.jobs / job_id).mkdir(parents=True, exist_ok=True)
        return ParquetSink(str(self.folder), mode, job_id, self.jobs / job_id, appends_to)

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

    def remove_result(self) -> None:
        shutil.rmtree(self.folder)

    def leftovers(self) -> list[str]:
        return [name for name in shown(self.folder.parent) if name != self.folder.name]


class TestParquetSinkWithinBounds(TestParquetSink):
    def make_sink(self, mode: Mode = "overwrite", job_id: str = "job_1", appends_to: str | None = None) -> ParquetSink:
        sink = super().make_sink(mode, job_id, appends_to)
        return replace(sink, within=Bounds((str(self.folder.parent.parent),), closed=(str(self.jobs),)))


def shown(folder: Path) -> list[str]:
    """What is in a folder, save the manifests of the results in it."""
    results = {f".{path.name}.penstock.json" for path in folder.iterdir()}
    return sorted(path.name for path in folder.iterdir() if path.name not in results)


def manifest_at(folder: Path) -> dict[str, Any]:
    manifest = read_manifest(folder)
    assert manifest is not None
    return manifest


def tree(folder: Path) -> dict[str, bytes | None]:
    """All that is in a folder: files with what they hold."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


class TestNothingElsewhereIsTouched:
    """Who may write in the folder of a job's result puts links there, to a result of another tenant's."""

    @pytest.fixture(autouse=True)
    def places(self, tmp_path: Path) -> None:
        self.own, self.other, job_folder = tmp_path / "own" / "in", tmp_path / "other" / "in", tmp_path / "job"
        for folder in (self.own, self.other, job_folder):
            folder.mkdir(parents=True)
        (self.other / "out").mkdir()
        self.split = split_of(1, rows=300, span_rows=100)
        table = table_of(spans_of(self.split))
        secret = table.append_column("secret", pa.array(range(len(table))))
        pq.write_table(secret, self.other / "out" / "part-00000-x.parquet")
        (self.other / "out" / "_manifest.json").write_text('{"job_id": "job_0", "counts": {}, "files": []}')
        (self.other / "out" / "schema").write_text("precious")
        self.sink = ParquetSink(
            str(self.own / "out"), "overwrite", "job_1", job_folder, within=Bounds((str(self.own.parent),))
        )

    def exchange(self, what: str) -> None:
        path = self.own if what == "folder" else self.own / "out"
        if path.exists():
            path.rename(path.with_name("aside"))
        path.symlink_to(self.other if what == "folder" else self.other / "out")

    def take_through(self, sink: ParquetSink, what: str = "", before: str = "") -> None:
        if before == "prepare":
            self.exchange(what)
        sink.prepare(SCHEMA)
        for number, span in enumerate(spans_of(self.split)):
            if before == "stage" and number == 1:
                self.exchange(what)
            sink.stage([span], None)
        if before == "publish":
            self.exchange(what)
        sink.publish(manifest_of(sink, "job_1", [self.split]))
        if before == "clean":
            self.exchange(what)
        sink.clean()

    @pytest.mark.parametrize("mode", ["overwrite", "append", "error_if_exists"])
    @pytest.mark.parametrize("before", ["prepare", "stage", "publish", "clean"])
    @pytest.mark.parametrize("what", ["folder", "target"])
    def test_by_a_link_that_comes_at_any_moment(self, what: str, before: str, mode: Mode) -> None:
        there = tree(self.other)

        # Some of these do the job no harm: a link in the target's place is exchanged like any other name.
        with contextlib.suppress(OutputError):
            self.take_through(replace(self.sink, mode=mode), what, before)
            assert what == "target"
            assert before != "prepare"
        assert tree(self.other) == there

    @pytest.mark.parametrize("planted", ["", "parts", "ledger", "ledger/000001", "schema", "result"])
    def test_by_a_link_that_was_planted_where_the_job_stages(self, planted: str) -> None:
        there = tree(self.other)
        link = self.own / ".out.penstock-job_1" / planted
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(self.other / "out" / ("schema" if planted == "schema" else ""))

        with contextlib.suppress(OutputError):
            self.take_through(self.sink)
        assert tree(self.other) == there

    def test_nor_read_by_one_in_the_place_of_the_columns_that_were_kept(self) -> None:
        self.sink.prepare(SCHEMA)
        (self.own / ".out.penstock-job_1" / "schema").unlink()
        (self.own / ".out.penstock-job_1" / "schema").symlink_to(self.other / "out" / "part-00000-x.parquet")

        # A result without rows has the columns that were kept.
        with pytest.raises(OutputError):
            self.sink.publish(manifest_of(self.sink, "job_1", []))

    def test_nor_read_to_be_added_to(self) -> None:
        # What is a link by the time that it is opened.
        link = self.own / "x.parquet"
        link.symlink_to(self.other / "out" / "part-00000-x.parquet")

        with pytest.raises(OutputError) as caught:
            self.sink._check_files([link], SCHEMA)
        assert "secret" not in str(caught.value)

    def test_by_a_link_in_the_place_of_the_lock(self) -> None:
        (self.own / ".out.penstock.lock").symlink_to(self.other / "new")

        with pytest.raises(OutputError):
            self.take_through(self.sink)
        assert not (self.other / "new").exists()


# How a process ends that was stopped in the middle of publishing.
DIED = 77


def publish_and_die(sink: ParquetSink, manifest: Manifest, step: int) -> None:
    """Publish, but end at the call number `step` that changes something on the disk, before it is made."""
    calls = itertools.count()

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def made(*args: Any, **named: Any) -> Any:
            if next(calls) == step:
                os._exit(DIED)
            return call(*args, **named)

        return made

    for name in ("link", "mkdir", "rename", "replace", "unlink", "rmdir", "fsync"):
        setattr(os, name, counted(getattr(os, name)))
    folders._rename = counted(folders._rename)
    sink.publish(manifest)


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

        manifest = manifest_at(tmp_path / "scores")
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

        assert shown(tmp_path / "a" / "b") == ["scores"]

    def append(self, path: Path, job_id: str, number: int, rows: int = 200) -> ParquetSink:
        """Add split `number` to what is there."""
        sink = self.sink(path, "append", job_id)
        split = split_of(number, rows=rows, span_rows=100)
        sink.prepare(SCHEMA)
        for span in spans_of(split):
            sink.stage([span], None)
        sink.publish(manifest_of(sink, job_id, [split]))
        sink.clean()
        return sink

    def test_appended_files_come_after_the_old_ones_which_are_not_copied(self, tmp_path: Path) -> None:
        self.published(tmp_path / "scores", rows=1200)
        before = {path.name: path.stat().st_ino for path in (tmp_path / "scores").glob("*.parquet")}

        self.append(tmp_path / "scores", "job_2", 2)
        self.append(tmp_path / "scores", "job_3", 3)

        after = {path.name: path.stat().st_ino for path in (tmp_path / "scores").glob("*.parquet")}
        assert before.items() <= after.items()
        assert {path.stat().st_nlink for path in (tmp_path / "scores").glob("*.parquet")} == {1}
        assert pq.read_table(tmp_path / "scores").equals(
            pa.concat_tables(
                table_of(spans_of(split_of(number, rows, 100))) for number, rows in ((1, 1200), (2, 200), (3, 200))
            )
        )

    def test_who_opened_the_folder_before_rows_were_added_lists_all_its_files(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Once it is emptied they would find some, whose names lead into the new folder: no reader would know."""
        out = tmp_path / "scores"
        self.append(out, "job_1", 1)
        self.append(out, "job_2", 2)
        before = sorted(path.name for path in out.iterdir())
        waited: list[float] = []
        seen: list[str] = []

        def wait(seconds: float) -> None:
            waited.append(seconds)
            seen.extend(os.listdir(opened))

        opened = os.open(out, os.O_RDONLY)
        # However long it takes from the exchange to here.
        monkeypatch.setattr(folders, "time", SimpleNamespace(sleep=wait, time=lambda: 0.0))
        try:
            self.append(out, "job_3", 3)
            assert (sorted(seen), os.listdir(opened)) == (before, [])
        finally:
            os.close(opened)
        assert waited == [0.5]

    def test_a_folder_that_shares_no_file_with_the_new_one_goes_at_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waited: list[float] = []
        monkeypatch.setattr(folders, "time", SimpleNamespace(sleep=waited.append, time=time.time))

        self.append(tmp_path / "scores", "job_1", 1)
        self.published(tmp_path / "scores", "job_2")

        assert waited == [0, 0]

    def test_a_folder_that_was_replaced_a_while_ago_goes_at_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waited: list[float] = []
        monkeypatch.setattr(folders, "time", SimpleNamespace(sleep=waited.append, time=lambda: time.time() + 1.0))
        self.append(tmp_path / "scores", "job_1", 1)
        self.append(tmp_path / "scores", "job_2", 2)

        assert waited == [0, 0]

    def test_what_has_come_in_the_place_of_the_result_keeps_no_staging(self, tmp_path: Path) -> None:
        sink = self.sink(tmp_path / "scores")
        sink.prepare(SCHEMA)
        (tmp_path / "scores").write_text("mine")
        sink.discard()

        assert shown(tmp_path) == ["scores"]

    def test_the_manifest_of_an_appended_result_lists_all_files_and_names_the_earlier_jobs(
        self, tmp_path: Path
    ) -> None:
        self.published(tmp_path / "scores")
        first = manifest_at(tmp_path / "scores")

        self.append(tmp_path / "scores", "job_2", 2)
        second = manifest_at(tmp_path / "scores")
        self.append(tmp_path / "scores", "job_3", 3, rows=0)
        third = manifest_at(tmp_path / "scores")

        assert "appended_to" not in first
        assert (second["job_id"], second["appended_to"]) == ("job_2", ["job_1"])
        assert second["counts"] == {"scored": 200, "rejected": 0, "skipped": 0}
        assert second["files"][:5] == first["files"]
        assert [file["from"][0]["rows"] for file in second["files"][5:]] == [
            [2_000_000, 2_000_100],
            [2_000_100, 2_000_200],
        ]
        assert (third["job_id"], third["appended_to"]) == ("job_3", ["job_1", "job_2"])
        assert third["files"] == second["files"]
        on_disk = {path.name for path in (tmp_path / "scores").glob("*.parquet")}
        assert {file["name"] for file in third["files"]} == on_disk

    def test_files_of_others_are_kept_and_listed(self, tmp_path: Path) -> None:
        (tmp_path / "scores").mkdir()
        pq.write_table(table_of(spans_of(split_of(9, 10, 10))), tmp_path / "scores" / "theirs.parquet")
        (tmp_path / "scores" / "_SUCCESS").touch()
        (tmp_path / "scores" / ".theirs.parquet.crc").touch()

        self.append(tmp_path / "scores", "job_2", 2, rows=100)

        manifest = manifest_at(tmp_path / "scores")
        assert manifest["files"][0] == {"name": "theirs.parquet"}
        assert manifest["appended_to"] == []
        assert len(manifest["files"]) == 2
        assert pq.read_table(tmp_path / "scores").num_rows == 110

    @pytest.mark.parametrize(
        ("columns", "said"),
        [
            ({"id": pa.int64(), "score": pa.float64(), "name": pa.string()}, "column score is float in the job, but d"),
            ({"id": pa.int64(), "score": pa.float32()}, "the job's column name is missing"),
            ({**dict(zip(SCHEMA.names, SCHEMA.types, strict=True)), "more": pa.int8()}, "there is a column more"),
            ({"score": pa.float32(), "id": pa.int64(), "name": pa.string()}, "but in another order"),
        ],
        ids=["type", "missing", "more", "order"],
    )
    def test_appending_to_files_of_other_columns_is_refused(
        self, tmp_path: Path, columns: dict[str, pa.DataType], said: str
    ) -> None:
        (tmp_path / "scores").mkdir()
        pq.write_table(pa.schema(columns).empty_table(), tmp_path / "scores" / "theirs.parquet")

        with pytest.raises(OutputError) as refused:
            self.sink(tmp_path / "scores", "append").prepare(SCHEMA)

        assert said in str(refused.value)
        assert "in theirs.parquet, which is there already" in str(refused.value)
        assert shown(tmp_path) == ["scores"]

    @pytest.mark.parametrize(
        ("make", "said"),
        [
            (lambda path: path.write_text("mine"), "holds it.txt, which is no Parquet file"),
            (lambda path: path.with_suffix(".parquet").write_text("mine"), "holds it.parquet, which is no readable"),
            (lambda path: path.mkdir(), "it.txt in it is a folder"),
            (lambda path: path.symlink_to("/etc/hostname"), "it.txt in it is no plain file on the same disk"),
        ],
        ids=["text", "named Parquet", "folder", "link"],
    )
    def test_appending_to_what_is_not_all_parquet_is_refused(
        self, tmp_path: Path, make: Callable[[Path], object], said: str
    ) -> None:
        (tmp_path / "scores").mkdir()
        make(tmp_path / "scores" / "it.txt")

        with pytest.raises(OutputError) as refused:
            self.sink(tmp_path / "scores", "append").prepare(SCHEMA)

        assert said in str(refused.value)
        assert "\n" not in str(refused.value)
        assert shown(tmp_path) == ["scores"]

    def test_columns_whose_type_parquet_does_not_keep_are_appended_to_their_like(self, tmp_path: Path) -> None:
        rows = pa.record_batch(
            {"at": pa.array([0, 1], pa.timestamp("s")), "of": pa.array(["x", "y"]).dictionary_encode()}
        )
        split = split_of(1, rows=2, span_rows=2)
        span = spans_of(split)[0]
        for job_id in ("job_1", "job_2"):
            sink = self.sink(tmp_path / "scores", "append", job_id)
            sink.prepare(rows.schema)
            sink.stage([type(span)(span.span, rows)], None)
            sink.publish(manifest_of(sink, job_id, [split]))
            sink.clean()

        assert pq.read_table(tmp_path / "scores").num_rows == 4

    def test_a_folder_replaced_by_one_of_other_columns_meanwhile_is_not_appended_to(self, tmp_path: Path) -> None:
        sink = self.sink(tmp_path / "scores", "append")
        split = split_of(1, rows=100, span_rows=100)
        sink.prepare(SCHEMA)
        sink.stage(spans_of(split), None)
        (tmp_path / "scores").mkdir()
        pq.write_table(pa.table({"other": [1]}), tmp_path / "scores" / "other.parquet")

        with pytest.raises(OutputError, match=r"the job's column id is missing in other\.parquet"):
            sink.publish(manifest_of(sink, "job_1", [split]))

        assert sink.published() is None
        assert pq.read_table(tmp_path / "scores").to_pydict() == {"other": [1]}

    @pytest.mark.parametrize("mode", ["append", "overwrite"])
    def test_a_kill_at_any_step_of_publishing_leaves_the_old_result_or_the_new_one(
        self, tmp_path: Path, mode: Mode
    ) -> None:
        old, new = table_of(spans_of(split_of(1, 200, 100))), table_of(spans_of(split_of(2, 200, 100)))
        wanted = new if mode == "overwrite" else pa.concat_tables([old, new])
        split = split_of(2, rows=200, span_rows=100)
        processes = multiprocessing.get_context("forkserver")
        processes.set_forkserver_preload(["transforms.sinks.parquet"])
        seen = []
        for step in itertools.count():
            folder = tmp_path / str(step)
            folder.mkdir()
            self.published(folder / "scores", f"old_{step}", rows=200)
            sink = self.sink(folder / "scores", mode, f"job_{step}")
            sink.prepare(SCHEMA)
            for span in spans_of(split):
                sink.stage([span], None)
            manifest = manifest_of(sink, f"job_{step}", [split])

            process = processes.Process(target=publish_and_die, args=(sink, manifest, step))
            process.start()
            process.join(60)
            rows, published = pq.read_table(folder / "scores"), sink.published()
            sink.publish(manifest)
            sink.clean()

            assert rows.equals(wanted if published else old)
            assert pq.read_table(folder / "scores").equals(wanted)
            assert shown(folder) == ["scores"]
            seen.append(published is not None)
            if process.exitcode == 0:
                break
            assert process.exitcode == DIED

        assert seen == sorted(seen), "a result that was out is gone again"
        assert seen.count(False) > 5
        assert seen.count(True) > 1

    def test_an_overwrite_waits_its_turn_while_another_job_appends(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.published(tmp_path / "scores")
        appending = self.sink(tmp_path / "scores", "append", "job_2")
        overwriting = self.sink(tmp_path / "scores", job_id="job_3")
        for number, sink in ((2, appending), (3, overwriting)):
            sink.prepare(SCHEMA)
            sink.stage(spans_of(split_of(number, 100, 100)), None)
        is_linking, go_on = threading.Event(), threading.Event()
        link = os.link

        def slow_link(source: Path, target: Path) -> None:
            if "job_2" in str(target):
                is_linking.set()
                assert go_on.wait(60)
            link(source, target)

        with ThreadPoolExecutor() as threads:
            manifests = {
                job_id: manifest_of(sink, job_id, [split_of(number, 100, 100)])
                for job_id, number, sink in (("job_2", 2, appending), ("job_3", 3, overwriting))
            }
            monkeypatch.setattr(os, "link", slow_link)
            first = threads.submit(appending.publish, manifests["job_2"])
            assert is_linking.wait(60)
            second = threads.submit(overwriting.publish, manifests["job_3"])
            done, _ = wait([second], timeout=0.2)
            go_on.set()
            first.result(60)
            second.result(60)

        assert not done
        assert pq.read_table(tmp_path / "scores").equals(table_of(spans_of(split_of(3, 100, 100))))

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
            pq.write_table(table_of(spans_of(split_of(9, 10, 10))), tmp_path / "scores" / "old.parquet")

        sink = self.published(tmp_path / "scores")

        assert pq.read_table(tmp_path / "scores").num_rows == 500
        assert sink.published() == Counts(scored=500)
        assert shown(tmp_path) == ["scores"]

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
        assert shown(tmp_path) == ["scores"]

    @pytest.mark.usefixtures("no_exchange")
    def test_what_a_killed_job_took_away_is_appended_to_by_another(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.published(tmp_path / "scores", "job_0")
        killed = self.sink(tmp_path / "scores", "append", "job_1")
        split = split_of(2, rows=100, span_rows=100)
        killed.prepare(SCHEMA)
        killed.stage(spans_of(split), None)
        manifest = manifest_of(killed, "job_1", [split])
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
            killed.publish(manifest)
        monkeypatch.setattr(os, "rename", rename)
        assert not (tmp_path / "scores").exists()

        self.append(tmp_path / "scores", "job_2", 3)
        killed.publish(manifest)
        killed.clean()

        assert pq.read_table(tmp_path / "scores").equals(
            pa.concat_tables(
                table_of(spans_of(split_of(number, rows, 100))) for number, rows in ((1, 500), (3, 200), (2, 100))
            )
        )
        assert shown(tmp_path) == ["scores"]

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
        assert shown(tmp_path) == ["scores"]

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


def spark_result(folder: Path) -> None:
    """A folder as Spark leaves it."""
    (folder / "day=2025-01-01").mkdir(parents=True)
    pq.write_table(pa.table({"x": [1]}), folder / "day=2025-01-01" / "part-00000")
    (folder / "day=2025-01-01" / ".part-00000.crc").write_bytes(b"crc\0\0\0\2\0")
    (folder / "_SUCCESS").touch()


class TestWhatAnOverwriteMayRemove:
    @pytest.fixture(autouse=True)
    def places(self, tmp_path: Path) -> None:
        self.folder, self.jobs = tmp_path / "scores", tmp_path / "jobs"
        self.split = split_of(1, 200, 100)

    def sink(self, job_id: str, mode: Mode = "overwrite") -> ParquetSink:
        (self.jobs / job_id).mkdir(parents=True, exist_ok=True)
        return ParquetSink(str(self.folder), mode, job_id, self.jobs / job_id)

    def staged(self, job_id: str, mode: Mode = "overwrite") -> tuple[ParquetSink, Manifest]:
        sink = self.sink(job_id, mode)
        sink.prepare(SCHEMA)
        sink.stage(spans_of(self.split), None)
        return sink, manifest_of(sink, job_id, [self.split])

    def published(self, job_id: str) -> None:
        sink, manifest = self.staged(job_id)
        sink.publish(manifest)
        sink.clean()

    @pytest.mark.parametrize("name", ["notes.txt", ".hidden", "_mine", "more.parquet", "sub/x.csv", "_SUCCESS"])
    def test_of_our_result_nothing_that_its_manifest_does_not_name(self, name: str) -> None:
        self.published("job_1")
        (self.folder / name).parent.mkdir(exist_ok=True)
        (self.folder / name).write_text("mine")
        sink = self.sink("job_2")

        with pytest.raises(OutputError, match=rf"holds {re.escape(name.partition('/')[0])}"):
            sink.check(SCHEMA)
        with pytest.raises(OutputError, match="move the file away"):
            sink.prepare(SCHEMA)
        assert (self.folder / name).read_text() == "mine"

    @pytest.mark.parametrize("name", ["notes.txt", ".hidden", "_mine", "fake.parquet", "_delta_log/0.json", "sub/"])
    def test_of_a_result_of_others_nothing_but_files_of_the_format(self, name: str) -> None:
        spark_result(self.folder)
        if name.endswith("/"):
            (self.folder / name).mkdir()
        else:
            (self.folder / name).parent.mkdir(exist_ok=True)
            (self.folder / name).write_text("mine")

        with pytest.raises(OutputError, match=rf"holds {re.escape(name.partition('/')[0])}"):
            self.sink("job_1").check(SCHEMA)

    def test_what_spark_leaves_is_replaced(self) -> None:
        spark_result(self.folder)
        self.published("job_1")

        assert pq.read_table(self.folder).num_rows == 200
        assert not (self.folder / "_SUCCESS").exists()

    def test_what_comes_before_publishing_is_refused_and_what_comes_behind_the_exchange_is_kept(self) -> None:
        self.published("job_1")
        sink, manifest = self.staged("job_2")
        (self.folder / "notes.txt").write_text("mine")
        with pytest.raises(OutputError, match=r"holds notes\.txt"):
            sink.publish(manifest)
        (self.folder / "notes.txt").unlink()
        sink.publish(manifest)
        # Written through a descriptor of the old folder.
        (self.folder.parent / ".scores.penstock-job_2" / "result" / "late.txt").write_text("mine")
        sink.clean()

        assert (self.folder.parent / "scores.kept-job_2" / "late.txt").read_text() == "mine"
        assert manifest_at(self.folder)["job_id"] == "job_2"

    def test_appending_leaves_what_readers_pass_over_where_it_is(self) -> None:
        self.published("job_1")
        (self.folder / "_SUCCESS").write_text("theirs")
        sink, manifest = self.staged("job_2", "append")
        sink.publish(manifest)
        sink.clean()

        assert (self.folder / "_SUCCESS").read_text() == "theirs"
        assert pq.read_table(self.folder).num_rows == 400

    def test_files_behind_a_link_that_leads_elsewhere_are_not_named(self, tmp_path: Path) -> None:
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "secret.txt").touch()
        (tmp_path / "own").mkdir()
        (tmp_path / "own" / "out").symlink_to(tmp_path / "other")
        sink = replace(self.sink("job_1"), path=str(tmp_path / "own" / "out"))

        with pytest.raises(OutputError, match="leads out of the folders") as caught:
            replace(sink, within=Bounds((str(tmp_path / "own"),))).check(SCHEMA)
        assert "secret" not in str(caught.value)
        with pytest.raises(OutputError, match=r"holds secret\.txt"):
            sink.check(SCHEMA)

    def test_nothing_but_data_lies_in_a_result(self) -> None:
        self.published("job_1")

        assert {path.suffix for path in self.folder.iterdir()} == {".parquet"}
        assert polars.read_parquet(self.folder).height == 200
        assert shown(self.folder.parent) == ["jobs", "scores"]

    def test_a_result_that_has_its_manifest_inside_is_ours_all_the_same(self) -> None:
        self.published("job_1")
        (self.folder / "_manifest.json").write_text(json.dumps(manifest_at(self.folder)))
        manifest_file(self.folder).unlink()

        assert manifest_at(self.folder)["job_id"] == "job_1"
        self.published("job_2")
        assert manifest_at(self.folder)["job_id"] == "job_2"
        assert not (self.folder / "_manifest.json").exists()
