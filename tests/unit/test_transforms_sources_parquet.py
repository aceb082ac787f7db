"""Parquet as a source: plans that cover, reads that repeat, messages that help."""

import itertools
import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predictors.bounds import Bounds
from tests.scenes import numbered_rows, write_files
from transforms.batches import Split
from transforms.errors import InputChanged, InputError
from transforms.sources.base import SPAN_BYTES, SPAN_ROWS, rebatch, span_rows
from transforms.sources.files import find_files
from transforms.sources.parquet import ParquetSource

COLUMNS = ("id", "value")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_files(tmp_path / "in", numbered_rows(2500), files=3, row_group_rows=400)


def ids(source: ParquetSource, split: Split, start: int = 0) -> list[int]:
    return [i for batch in source.read(split, ("id",), start) for i in batch.rows["id"].to_pylist()]


def test_the_splits_cover_all_rows_in_the_order_of_the_files(folder: Path) -> None:
    source = ParquetSource.open([str(folder)])

    splits = list(source.plan(COLUMNS, 100))

    assert [split.id for split in splits] == sorted(split.id for split in splits)
    assert [i for split in splits for i in ids(source, split)] == list(range(2500))
    assert sum(split.rows or 0 for split in splits) == 2500


def test_row_groups_are_joined_to_splits_of_about_a_million_rows(tmp_path: Path) -> None:
    table = pa.table({"id": pa.array(range(2_500_000), pa.int32())})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=300_000)
    source = ParquetSource.open([str(tmp_path)])

    splits = list(source.plan(("id",), 1000))

    assert [split.rows for split in splits] == [900_000, 900_000, 700_000]
    assert [split.first_row for split in splits] == [0, 900_000, 1_800_000]


def test_spans_have_the_planned_length_whatever_the_row_groups(folder: Path) -> None:
    source = ParquetSource.open([str(folder)])
    split = replace(next(source.plan(COLUMNS, 100)), span_rows=150)

    spans = [batch.span for batch in source.read(split, COLUMNS)]

    assert [(span.start, span.stop) for span in spans] == [
        (0, 150),
        (150, 300),
        (300, 450),
        (450, 600),
        (600, 750),
        (750, 833),
    ]
    assert [span.last for span in spans] == [False] * 5 + [True]


@pytest.mark.parametrize("start", [0, 150, 300, 450, 600, 750])
def test_reading_from_a_span_gives_the_same_spans_as_reading_all(folder: Path, start: int) -> None:
    source = ParquetSource.open([str(folder)])
    split = replace(next(source.plan(COLUMNS, 100)), span_rows=150)
    whole = {batch.span: batch.rows for batch in source.read(split, COLUMNS)}

    rest = list(source.read(split, COLUMNS, start))

    assert [batch.span.start for batch in rest] == [span.start for span in whole if span.start >= start]
    assert all(batch.rows.equals(whole[batch.span]) for batch in rest)


@pytest.mark.parametrize(
    ("batch_size", "row_bytes", "expected"),
    [
        pytest.param(1000, 16, 65_000, id="a multiple of the batch within 65,536 rows"),
        pytest.param(65_536, 16, 65_536, id="one batch that fits"),
        pytest.param(100_000, 16, 100_000, id="at least one batch"),
        pytest.param(1000, SPAN_BYTES / 5500, 5000, id="wide rows"),
        pytest.param(1000, SPAN_BYTES, 1000, id="very wide rows"),
        pytest.param(1, 0, SPAN_ROWS, id="no bytes at all"),
    ],
)
def test_a_span_is_the_largest_multiple_of_a_batch_that_fits(batch_size: int, row_bytes: float, expected: int) -> None:
    assert span_rows(batch_size, row_bytes) == expected


@settings(deadline=None, max_examples=200)
@given(
    chunks=st.lists(st.integers(0, 50), max_size=20),
    span=st.integers(1, 40),
    known=st.booleans(),
    data=st.data(),
)
def test_chunks_of_any_length_become_the_same_spans(
    chunks: list[int], span: int, known: bool, data: st.DataObject
) -> None:
    total = sum(chunks)
    split = Split("000000", "a", 0, total if known else None, span, "")
    start = span * data.draw(st.integers(0, max(total - 1, 0) // span))
    before = data.draw(st.integers(0, start))
    rows = pa.record_batch({"i": pa.array(range(total), pa.int64())})
    edges = [sum(chunks[:n]) for n in range(len(chunks) + 1)]
    given_chunks = [rows.slice(a, b - a) for a, b in itertools.pairwise(edges)]
    # What a reader that begins at row `before` would give.
    given_chunks = [
        rows.slice(max(e, before), c.num_rows - (max(e, before) - e))
        for e, c in zip(edges, given_chunks, strict=False)
        if e + c.num_rows > before
    ]

    batches = list(rebatch(iter(given_chunks), split, before, start))

    assert [i for batch in batches for i in batch.rows["i"].to_pylist()] == list(range(start, total))
    assert [batch.span.start for batch in batches] == list(range(start, total, span))
    assert [batch.span.last for batch in batches] == [stop == total for stop in (batch.span.stop for batch in batches)]


def test_single_rows_are_looked_up_with_columns_that_were_not_read(folder: Path) -> None:
    source = ParquetSource.open([str(folder)])
    split = next(source.plan(COLUMNS, 100))

    rows = source.lookup(split, [0, 399, 400, 832], ["note", "id"])

    assert rows.to_pylist() == [{"note": f"row {i}", "id": i} for i in (0, 399, 400, 832)]


def test_a_source_can_be_sent_to_another_process(folder: Path) -> None:
    source = ParquetSource.open([str(folder)])

    again = pickle.loads(pickle.dumps(source))

    assert list(again.plan(COLUMNS, 100)) == list(source.plan(COLUMNS, 100))


@pytest.mark.parametrize(
    "pattern", ["", "*.parquet", "../in", "**/in-*.parquet"], ids=["folder", "glob", "dots", "deep glob"]
)
def test_files_are_found(folder: Path, pattern: str) -> None:
    found = find_files([str(folder / pattern) if pattern else str(folder)])

    assert [os.path.basename(file) for file in found] == ["in-00.parquet", "in-01.parquet", "in-02.parquet"]


def test_a_file_is_read_once_however_often_and_however_it_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "linked").symlink_to(folder)
    monkeypatch.chdir(folder)
    names = ["in-00.parquet", f"{folder}/./*.parquet", ".", f"{folder}//in-01.parquet", str(tmp_path / "linked")]

    found = find_files(names)

    assert sorted(os.path.basename(file) for file in found) == ["in-00.parquet", "in-01.parquet", "in-02.parquet"]


def test_hidden_files_and_those_of_an_underscore_are_no_data(folder: Path) -> None:
    for name in (".hidden.parquet", "_metadata.parquet", "_temporary/a.parquet"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"nothing")

    assert len(find_files([str(folder)])) == 3


@pytest.mark.parametrize(
    ("path", "message"),
    [
        pytest.param("none.parquet", "there is no such file or folder", id="missing file"),
        pytest.param("*.csv", "no file matches the pattern", id="empty glob"),
        pytest.param("empty", "the folder holds no Parquet file", id="empty folder"),
        pytest.param("other", "the folder holds no Parquet file", id="folder of other files"),
    ],
)
def test_a_path_that_names_nothing_is_refused(tmp_path: Path, path: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.txt").write_text("no data")

    with pytest.raises(InputError, match=message):
        ParquetSource.open([str(tmp_path / path)])


def test_files_may_have_their_columns_in_another_order(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1], "value": [1.0]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"value": [2.0], "id": [2]}), tmp_path / "b.parquet")
    source = ParquetSource.open([str(tmp_path)])

    rows = [batch.rows.to_pylist() for split in source.plan(COLUMNS, 10) for batch in source.read(split, COLUMNS)]

    assert rows == [[{"id": 1, "value": 1.0}], [{"id": 2, "value": 2.0}]]


@pytest.mark.parametrize("name", ["in-01.parquet", "part-00001"])
def test_a_truncated_file_is_named_whatever_it_is_called(folder: Path, name: str) -> None:
    whole = (folder / "in-01.parquet").read_bytes()
    (folder / name).write_bytes(whole[:1000])

    with pytest.raises(InputError, match=rf"{name} is not a readable Parquet file: its end is missing"):
        ParquetSource.open([str(folder)])


@pytest.mark.parametrize("pattern", ["*", "notes.txt"], ids=["pattern", "file"])
def test_a_file_of_another_kind_is_refused_where_a_path_or_a_pattern_names_it(folder: Path, pattern: str) -> None:
    (folder / "notes.txt").write_text("not data, and longer than a footer")

    with pytest.raises(InputError, match=r"notes.txt is not a readable Parquet file: it neither begins nor ends as"):
        ParquetSource.open([str(folder / pattern)])


def test_data_in_a_folder_is_known_by_its_bytes_and_what_is_passed_over_is_said(folder: Path, tmp_path: Path) -> None:
    names = ["a.parq", "b.PARQUET", "c", "part-00003", "000000_0", "d.parquet"]
    (folder / "below").mkdir()
    for name in names:
        shutil.copy(folder / "in-00.parquet", folder / "below" / name)
    for name in ("notes.txt", "below/x.csv", "_SUCCESS", ".a.crc", "below/_committed_1"):
        (folder / name).write_text("no data")
    (folder / "linked").symlink_to(tmp_path)

    source = ParquetSource.open([str(folder)])

    assert {Path(file).name for file in source.files} == {*names, *(f"in-0{n}.parquet" for n in range(3))}
    assert [(notice.code, notice.count) for notice in source.notices] == [("files_passed_over", n) for n in (2, 1)]
    assert all(name in source.notices[0].message for name in ("notes.txt", "x.csv"))
    assert "links to folders are not followed" in source.notices[1].message


def test_a_pattern_reads_the_folders_that_it_names_and_leaves_out_what_lies_beside_data(folder: Path) -> None:
    (folder / "below").mkdir()
    shutil.copy(folder / "in-00.parquet", folder / "below" / "part-0")
    (folder / "_temporary").mkdir()
    shutil.copy(folder / "in-00.parquet", folder / "_temporary" / "part-0")
    (folder / "_SUCCESS").touch()
    pq.write_metadata(pq.read_schema(folder / "in-00.parquet"), folder / "_metadata")

    found = find_files([str(folder / "*")])

    assert [os.path.relpath(file, folder) for file in found] == [
        "below/part-0",
        *(f"in-0{n}.parquet" for n in range(3)),
    ]


@pytest.mark.parametrize("log", ["_delta_log/0.json", ".hoodie/x", "_spark_metadata/0", "metadata/v1.metadata.json"])
@pytest.mark.parametrize("pattern", ["", "**/*.parquet"], ids=["folder", "pattern"])
def test_files_of_a_table_whose_log_is_not_read_are_said(folder: Path, log: str, pattern: str) -> None:
    (folder / log).parent.mkdir()
    (folder / log).touch()

    source = ParquetSource.open([os.path.join(folder, pattern)])

    notice = source.notices[0]
    place = folder / log if log.startswith("metadata") else (folder / log).parent
    assert len(source.files) == 3
    assert notice.code == "table_log_passed_over"
    assert notice.message.startswith(f"input.path: {place} is the log of a table, and is not read")


def test_a_file_with_damaged_pages_is_named_when_they_are_read(folder: Path) -> None:
    file = folder / "in-01.parquet"
    damaged = bytearray(file.read_bytes())
    damaged[4:2000] = b"\xff" * 1996
    file.write_bytes(damaged)
    source = ParquetSource.open([str(folder)])
    split = list(source.plan(COLUMNS, 100))[1]

    with pytest.raises(InputError, match=r"in-01.parquet is not a readable Parquet file"):
        list(source.read(split, COLUMNS))


def test_a_page_that_differs_from_its_checksum_is_not_scored(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    table = pa.table({"x": [float(n) for n in range(1000)]})
    pq.write_table(table, file, write_page_checksum=True, compression="none", use_dictionary=False)
    damaged = bytearray(file.read_bytes())
    # A bit of a number, which any page could hold.
    damaged[4000] ^= 1
    file.write_bytes(damaged)
    source = ParquetSource.open([str(file)])
    (split,) = source.plan(("x",), 100)

    for use in (lambda: list(source.read(split, ("x",))), lambda: source.lookup(split, [1], ["x"])):
        with pytest.raises(InputError, match=r"a.parquet is not a readable Parquet file: a page is not as it was"):
            use()


def test_a_file_that_changes_while_it_is_looked_at_is_not_planned(folder: Path) -> None:
    source = ParquetSource.open([str(folder)])
    pq.write_table(numbered_rows(10), folder / "in-01.parquet")

    with pytest.raises(InputChanged, match=r"in-01.parquet: the file changed while it was looked at"):
        list(source.plan(COLUMNS, 100))


def test_a_file_that_changed_after_planning_fails_the_read_and_is_named(folder: Path) -> None:
    source = ParquetSource.open([str(folder)])
    split = next(source.plan(COLUMNS, 100))
    pq.write_table(numbered_rows(833), folder / "in-00.parquet")

    with pytest.raises(InputChanged, match=r"in-00.parquet: the file changed after the job was planned"):
        list(source.read(split, COLUMNS))


def test_a_file_that_is_gone_fails_the_read_and_is_named(folder: Path) -> None:
    source = ParquetSource.open([str(folder)])
    split = next(source.plan(COLUMNS, 100))
    (folder / "in-00.parquet").unlink()

    with pytest.raises(InputChanged, match=r"in-00.parquet: the file was there when the job was planned and is gone"):
        list(source.read(split, COLUMNS))


def test_a_nested_or_dictionary_column_is_read_as_it_is(tmp_path: Path) -> None:
    table = pa.table({"s": pa.array(["a", "b", "a"]).dictionary_encode(), "l": [[1], [], [2, 3]]})
    pq.write_table(table, tmp_path / "a.parquet")
    source = ParquetSource.open([str(tmp_path)])

    (split,) = source.plan(("s", "l"), 10)
    (batch,) = source.read(split, ("s", "l"))

    assert batch.rows.to_pylist() == table.to_pylist()


@pytest.mark.parametrize(
    ("type", "values"),
    [
        pytest.param(pa.list_(pa.float32(), 2), [[1.0, 2.0], None, [3.0, 4.0]], id="numbers"),
        pytest.param(pa.list_(pa.timestamp("ns", "UTC"), 1), [None, [7], [8]], id="times of a zone"),
        pytest.param(pa.list_(pa.list_(pa.int8(), 2), 1), [[[1, 2]], [None], None], id="lists of lists"),
        pytest.param(
            pa.struct([("e", pa.list_(pa.uint16(), 2)), ("n", pa.int8())]),
            [{"e": None, "n": 1}, None, {"e": [1, 2], "n": None}],
            id="in a struct",
        ),
        pytest.param(pa.list_(pa.list_(pa.int32(), 2)), [[None, [1, 2]], [], None], id="in a list"),
        pytest.param(pa.fixed_shape_tensor(pa.int32(), [2]), [[1, 2], None, [5, 6]], id="tensors"),
        pytest.param(pa.list_(pa.string(), 1), [["a"], [None], None], id="texts"),
        pytest.param(pa.list_(pa.string_view(), 1), [["a"], [None], None], id="views of text"),
        pytest.param(pa.list_(pa.list_view(pa.int8()), 1), [[[1, 2]], None, [None]], id="views of lists"),
        pytest.param(pa.list_view(pa.list_(pa.int8(), 1)), [[[1], None], None, []], id="in views"),
        pytest.param(pa.large_list(pa.list_(pa.int8(), 1)), [[[1], None], None, []], id="in large lists"),
        pytest.param(pa.list_(pa.int8(), 0), [[], None, []], id="of no items"),
        pytest.param(pa.list_(pa.list_(pa.int8(), 0), 1), [[[]], None, [None]], id="of lists of no items"),
    ],
)
def test_lists_of_a_fixed_size_are_read_though_some_are_null(tmp_path: Path, type: pa.DataType, values: Any) -> None:
    if isinstance(type, pa.BaseExtensionType):
        column = pa.ExtensionArray.from_storage(type, pa.array(values, type.storage_type))
    else:
        column = pa.array(values, type)
    table = pa.table({"id": [0, 1, 2], "given": column})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=2)
    source = ParquetSource.open([str(tmp_path)])
    (split,) = source.plan(["id", "given"], 100)

    read = pa.Table.from_batches([batch.rows for batch in source.read(split, ["id", "given"])])
    one = source.lookup(split, [1], ["given"])

    assert source.schema.field("given").type == type
    assert read.equals(table)
    assert one.column("given").equals(column.slice(1, 1))


def test_within_bounds_what_takes_a_files_name_later_is_not_read(folder: Path, tmp_path: Path) -> None:
    elsewhere = write_files(tmp_path / "elsewhere", numbered_rows(2500), files=3, row_group_rows=400)
    bounds = Bounds((str(folder),))
    source = pickle.loads(pickle.dumps(ParquetSource.open([str(folder)], bounds)))
    splits = list(source.plan(COLUMNS, 100))
    before = [i for split in splits for i in ids(source, split)]
    name = Path(splits[1].uri).name
    # It even looks like the file that was planned.
    shutil.copystat(folder / name, elsewhere / name)
    (folder / name).unlink()
    (folder / name).symlink_to(elsewhere / name)

    assert before == list(range(2500))
    for use in (
        lambda: ids(source, splits[1]),
        lambda: source.lookup(splits[1], [0], ["id"]),
        lambda: list(source.plan(COLUMNS, 100)),
        lambda: ParquetSource.open([str(folder)], bounds),
    ):
        with pytest.raises(InputError, match="outside of the folders") as caught:
            use()
        assert name not in str(caught.value)


def test_within_bounds_a_link_to_a_file_inside_is_read(folder: Path) -> None:
    (folder / "again").mkdir()
    (folder / "again" / "linked.parquet").symlink_to(folder / "in-00.parquet")

    source = ParquetSource.open([str(folder / "again")], Bounds((str(folder),)))

    assert ids(source, next(source.plan(COLUMNS, 100))) == list(range(833))
