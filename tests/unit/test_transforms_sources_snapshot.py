import contextlib
import json
import os
import pickle
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from tests.conftest import lacking
from transforms.batches import Split
from transforms.errors import InputChanged, InputError
from transforms.sources.base import SPAN_BYTES, SPAN_ROWS, SPLIT_ROWS
from transforms.sources.snapshot import FILE_SPANS, SnapshotSource, SnapshotWriter


def write(folder: Path, batches: list[pa.RecordBatch], batch_size: int = 1000) -> SnapshotSource:
    with SnapshotWriter(folder, batch_size) as writer:
        for batch in batches:
            writer.add(batch)
        return writer.finish(batches[0].schema)


def numbers(start: int, stop: int) -> pa.RecordBatch:
    ids = pa.array(range(start, stop), pa.int64())
    return pa.record_batch({"id": ids, "name": ids.cast(pa.string())})


def splits(source: SnapshotSource) -> list[Split]:
    return list(source.plan(source.schema.names, 1000))


def table(source: SnapshotSource) -> pa.Table:
    names = source.schema.names
    rows = [batch.rows for split in source.plan(names, 1) for batch in source.read(split, names)]
    return pa.Table.from_batches(rows, source.schema)


@pytest.mark.parametrize("cut", [999, 65_000, 100_000])
def test_spans_have_the_planned_length_however_the_rows_come(tmp_path: Path, cut: int) -> None:
    source = write(tmp_path, [numbers(at, min(at + cut, 150_000)) for at in range(0, 150_000, cut)])

    (split,) = splits(source)
    spans = [batch.span for batch in source.read(split, ["id"])]
    assert split.span_rows == 65_000
    assert [(span.start, span.stop, span.last) for span in spans] == [
        (0, 65_000, False),
        (65_000, 130_000, False),
        (130_000, 150_000, True),
    ]
    assert table(source) == pa.Table.from_batches([numbers(0, 150_000)])


def test_a_span_of_wide_rows_is_shorter(tmp_path: Path) -> None:
    wide = pa.record_batch({"text": ["x" * 100_000] * 1000})

    source = write(tmp_path, [wide], batch_size=10)

    assert 300 <= source.span_rows <= SPAN_BYTES // 100_000
    assert source.span_rows % 10 == 0


def test_a_long_result_is_cut_into_files_that_are_splits(tmp_path: Path) -> None:
    rows = SPLIT_ROWS + 100_000

    source = write(tmp_path, [numbers(at, min(at + 99_999, rows)) for at in range(0, rows, 99_999)])

    first, second = splits(source)
    assert first.rows == 65_000 * FILE_SPANS
    assert second.first_row == first.rows
    assert second.rows == rows - first.rows
    assert first.id < second.id
    assert {first.uri, second.uri} == {"query"}
    assert (tmp_path / second.locator).stat().st_size == source.files[1].bytes
    assert next(source.read(second, ["id"])).rows["id"][0].as_py() == second.first_row
    assert table(source)["id"].to_pylist() == list(range(rows))


def test_reading_goes_on_where_it_is_told_to(tmp_path: Path) -> None:
    source = write(tmp_path, [numbers(0, 150_000)])
    (split,) = splits(source)

    batches = list(source.read(split, ["name", "id"], start=65_000))

    assert [batch.span.start for batch in batches] == [65_000, 130_000]
    assert batches[0].rows.schema.names == ["name", "id"]
    assert batches[0].rows["id"][0].as_py() == 65_000


@pytest.mark.parametrize("length", [1000, 7000, 13_000])
def test_spans_may_be_shorter_than_what_was_written(tmp_path: Path, length: int) -> None:
    source = write(tmp_path, [numbers(0, 150_000)])
    split = replace(splits(source)[0], span_rows=length)

    read = list(source.read(split, ["id"]))
    assert [batch.span.start for batch in read] == list(range(0, 150_000, length))
    assert [batch.span.last for batch in read] == [False] * (len(read) - 1) + [True]
    assert pa.Table.from_batches([batch.rows for batch in read]) == pa.table({"id": range(150_000)})
    start = 10 * length
    assert pa.Table.from_batches([batch.rows for batch in source.read(split, ["id"], start)]) == pa.table(
        {"id": range(start, 150_000)}
    )
    assert source.lookup(split, [3, 65_000, 149_999], ["id"]).to_pydict() == {"id": [3, 65_000, 149_999]}


def test_rows_are_read_in_place(tmp_path: Path) -> None:
    source = write(tmp_path, [numbers(0, 200_000)])
    (split,) = splits(source)
    before = pa.total_allocated_bytes()

    held = list(source.read(split, ["id", "name"]))

    assert pa.total_allocated_bytes() - before < 10_000
    assert sum(batch.rows.nbytes for batch in held) > 2_000_000


def test_no_columns_at_all_still_have_rows(tmp_path: Path) -> None:
    source = write(tmp_path, [numbers(0, 70_000)])
    (split,) = splits(source)

    assert [batch.rows.num_rows for batch in source.read(split, [])] == [65_000, 5_000]


def test_single_rows_are_looked_up(tmp_path: Path) -> None:
    source = write(tmp_path, [numbers(0, 150_000)])
    (split,) = splits(source)

    rows = source.lookup(split, [0, 64_999, 65_000, 149_999], ["name"])

    assert rows.to_pydict() == {"name": ["0", "64999", "65000", "149999"]}
    assert source.lookup(split, [], ["name"]).num_rows == 0


def test_a_column_is_cast_as_it_is_read(tmp_path: Path) -> None:
    final = pa.schema({"price": pa.decimal128(38, 2), "id": pa.int64()})
    with SnapshotWriter(tmp_path, 10) as writer:
        writer.add(pa.record_batch({"price": ["1.5", None, "-20.25"], "id": [1, 2, 3]}))
        source = writer.finish(final)
    (split,) = splits(source)

    assert SnapshotSource.open(tmp_path).schema == final
    assert table(source) == pa.table({"price": pa.array(["1.50", None, "-20.25"]).cast(final[0].type), "id": [1, 2, 3]})
    assert source.lookup(split, [2], ["price"]).schema.field("price").type == final[0].type


def test_an_empty_result_is_a_snapshot_without_splits(tmp_path: Path) -> None:
    write(tmp_path, [numbers(0, 0)])

    source = SnapshotSource.open(tmp_path)

    assert source.rows == 0
    assert source.schema == numbers(0, 0).schema
    assert splits(source) == []


def test_an_opened_or_unpickled_snapshot_is_the_one_that_was_written(tmp_path: Path) -> None:
    source = write(tmp_path, [numbers(0, 10)])

    assert SnapshotSource.open(tmp_path) == source
    assert pickle.loads(pickle.dumps(source)) == source
    assert len(pickle.dumps(source)) < 2_000


def test_only_a_finished_snapshot_is_one(tmp_path: Path) -> None:
    def fail() -> None:
        with SnapshotWriter(tmp_path, 1000) as writer:
            assert writer.add(numbers(0, 70_000))
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail()
    assert os.listdir(tmp_path) == []
    with pytest.raises(InputError, match="holds no complete snapshot"):
        SnapshotSource.open(tmp_path)


def test_what_an_earlier_run_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "000000.arrow").write_bytes(b"half a file")
    (tmp_path / "000007.arrow").write_bytes(b"half a file")
    (tmp_path / ".snapshot.json.abc").write_bytes(b"half an index")
    (tmp_path / "mine.arrow").write_bytes(b"not the snapshot's")

    source = write(tmp_path, [numbers(0, 10)])

    assert sorted(os.listdir(tmp_path)) == ["000000.arrow", "mine.arrow", "snapshot.json"]
    assert table(source).num_rows == 10


def test_a_snapshot_that_is_begun_anew_is_no_longer_the_old_one(tmp_path: Path) -> None:
    write(tmp_path, [numbers(0, 10)])

    with SnapshotWriter(tmp_path, 1000), pytest.raises(InputError, match="holds no complete snapshot"):
        SnapshotSource.open(tmp_path)


def test_a_file_of_another_length_is_not_the_one_that_was_planned(tmp_path: Path) -> None:
    source = write(tmp_path, [numbers(0, 10)])
    (split,) = splits(source)
    with open(tmp_path / split.locator, "ab") as file:
        file.write(b"x")

    with pytest.raises(InputChanged, match=r"000000\.arrow is \d+ bytes long, not \d+ as planned"):
        list(source.read(split, ["id"]))


def test_a_file_of_another_snapshot_is_not_the_one_that_was_planned(tmp_path: Path) -> None:
    source = write(tmp_path, [numbers(0, 10)])
    (split,) = splits(source)
    write(tmp_path, [numbers(0, 10)])

    with pytest.raises(InputChanged, match=r"000000\.arrow belongs to another snapshot"):
        list(source.read(split, ["id"]))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    source = write(tmp_path, [numbers(0, 10)])
    (split,) = splits(source)
    (tmp_path / split.locator).unlink()

    with pytest.raises(InputError, match=r"000000\.arrow is missing"):
        source.lookup(split, [0], ["id"])


def test_a_corrupt_file_is_named(tmp_path: Path) -> None:
    source = write(tmp_path, [numbers(0, 10)])
    (split,) = splits(source)
    path = tmp_path / split.locator
    path.write_bytes(bytes(path.stat().st_size))

    with pytest.raises(InputError, match=r"000000\.arrow cannot be read") as refused:
        list(source.read(split, ["id"]))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "index", [b"", b"{}", b'{"schema": "AAAA", "files": []}', b"\xff"], ids=["empty", "no keys", "no schema", "no text"]
)
def test_a_corrupt_index_is_named(tmp_path: Path, index: bytes) -> None:
    (tmp_path / "snapshot.json").write_bytes(index)

    with pytest.raises(InputError, match=r"snapshot\.json cannot be read"):
        SnapshotSource.open(tmp_path)


def test_the_index_tells_people_what_is_there(tmp_path: Path) -> None:
    source = write(tmp_path, [numbers(0, 10)])

    index = json.loads((tmp_path / "snapshot.json").read_bytes())
    assert index["rows"] == 10
    assert index["files"] == [{"name": "000000.arrow", "rows": 10, "bytes": source.size_bytes}]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 80 MiB, on which six files may be made."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=80m,nr_inodes=6", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        lacking(f"no file system can be mounted: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_disk_that_runs_low_ends_the_snapshot_and_is_left_as_it_was(small_disk: Path) -> None:
    span = pa.record_batch({"x": pa.array([0.0] * SPAN_ROWS)})

    with pytest.raises(InputError, match=r"does not fit into .*: \d+ MiB are free, of which 64 MiB stay so"):
        write(small_disk / "snapshot", [span] * 200)
    assert os.listdir(small_disk / "snapshot") == []


def test_a_full_disk_is_an_error_of_the_input(small_disk: Path) -> None:
    def write_when_full() -> None:
        with SnapshotWriter(small_disk / "snapshot", 1000) as writer:
            with contextlib.suppress(OSError):
                for number in range(10):
                    (small_disk / str(number)).touch()
            writer.add(numbers(0, 10))
            writer.finish(numbers(0, 10).schema)

    with pytest.raises(InputError, match="does not fit"):
        write_when_full()
    assert os.listdir(small_disk / "snapshot") == []
