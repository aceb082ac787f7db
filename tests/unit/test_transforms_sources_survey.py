"""Files that differ: what they have in common is read, no value changes, and what is unified or left out is said."""

import datetime
import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.encrypting import write_encrypted
from transforms.errors import InputError
from transforms.sources.parquet import ParquetSource

FAR = [datetime.datetime(9999, 12, 31), datetime.datetime(2024, 1, 1), datetime.datetime(1000, 1, 1)]
NS = pa.timestamp("ns")


def write(folder: Path, **columns: pa.Array) -> Path:
    """A file for each of the arrays, which all of them have under their names."""
    folder.mkdir(exist_ok=True)
    for number, arrays in enumerate(zip(*columns.values(), strict=True)):
        pq.write_table(pa.table(dict(zip(columns, arrays, strict=True))), folder / f"{'abcdef'[number]}.parquet")
    return folder


def opened(path: Path, declared: Mapping[str, pa.DataType] | None = None) -> ParquetSource:
    return ParquetSource.open([str(path)], None, declared)


def values(source: ParquetSource, *columns: str) -> list[Any]:
    """What is read of the columns, batch by batch and by looking rows up, which come to the same."""
    names = columns or tuple(source.schema.names)
    rows = []
    for split in source.plan(names, 2):
        read = pa.Table.from_batches([batch.rows for batch in source.read(split, names)])
        looked_up = source.lookup(split, range(split.rows or 0), names)
        assert read.schema == looked_up.schema == pa.schema([source.schema.field(name) for name in names])
        assert str(read.to_pylist()) == str(looked_up.to_pylist())
        rows += read.to_pylist()
    return [row[names[0]] for row in rows] if len(names) == 1 else rows


@pytest.mark.parametrize(
    ("arrays", "type"),
    [
        pytest.param(
            [pa.array(["a"]), pa.array(["b"], pa.large_string()), pa.array(["c"]).dictionary_encode()],
            pa.large_string(),
            id="text",
        ),
        pytest.param([pa.array([1], pa.int32()), pa.array([2**40])], pa.int64(), id="integers"),
        pytest.param([pa.array([1.5], pa.float32()), pa.array([1e300])], pa.float64(), id="floats"),
        pytest.param([pa.array([Decimal("1.25")]), pa.array([Decimal("12345.6")])], pa.decimal128(7, 2), id="decimals"),
        pytest.param([pa.array([None], pa.null()), pa.array([[1]])], pa.list_(pa.int64()), id="an all-null column"),
        pytest.param(
            [pa.array([FAR[1]], pa.timestamp("ms")), pa.array([7], NS), pa.array([FAR[1]], pa.timestamp("us"))],
            NS,
            id="times that fit nanoseconds",
        ),
        pytest.param(
            [pa.array(FAR, pa.timestamp("ms")), pa.array([7000], NS)], pa.timestamp("us"), id="times that do not"
        ),
        pytest.param(
            [
                pa.array([{"a": 1}], pa.struct([("a", pa.int32())])),
                pa.array([{"b": "x", "a": 2}], pa.struct([("b", pa.string()), ("a", pa.int64())])),
            ],
            pa.struct([("a", pa.int64()), ("b", pa.string())]),
            id="structs",
        ),
    ],
)
def test_columns_of_several_types_are_read_as_the_one_that_keeps_every_value(
    tmp_path: Path, arrays: list[pa.Array], type: pa.DataType
) -> None:
    source = opened(write(tmp_path, x=arrays))

    assert source.schema.field("x").type == type
    wanted = [value for array in arrays for value in array.cast(type).to_pylist()]
    assert values(source) == wanted
    (notice,) = source.notices
    assert notice.code == "types_unified"
    assert f"it is read as {source.schema.field('x').type}" in notice.message
    assert notice.count == sum(array.type != type for array in arrays)


def test_files_of_one_type_are_read_as_it_without_a_word(tmp_path: Path) -> None:
    arrays = [pa.array(["a"]).dictionary_encode(), pa.array(["b", "a"]).dictionary_encode()]
    folder = write(tmp_path, x=arrays, y=[pa.array([1]), pa.array([None, 1])])
    required = pa.schema([("x", arrays[0].type), pa.field("y", pa.int64(), nullable=False)])
    pq.write_table(pa.table([arrays[0], pa.array([3])], schema=required), folder / "c.parquet")
    source = opened(folder)

    assert source.schema.types == [arrays[0].type, pa.int64()]
    assert source.schema.field("y").nullable
    assert source.notices == ()
    assert values(source, "x") == ["a", "b", "a", "a"]


def test_a_column_that_some_files_lack_is_null_in_their_rows(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"more": ["x"], "id": [2]}), tmp_path / "b.parquet")
    source = opened(tmp_path)

    assert values(source) == [{"id": 1, "more": None}, {"id": 2, "more": "x"}]
    assert values(source, "more") == [None, "x"]
    assert [(notice.code, notice.count) for notice in source.notices] == [("column_missing_in_files", 1)]


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        pytest.param(
            [pa.array([1.0]), pa.array([2.0]), pa.array(["x"])],
            r"c.parquet: column 'x' is string, but double in \S*a.parquet",
            id="text and numbers",
        ),
        pytest.param([pa.array([1]), pa.array([1.5])], "column 'x' is double, but int64 in", id="int64 and double"),
        pytest.param(
            [pa.array(FAR, pa.timestamp("us")), pa.array([7], NS)], "no unit keeps the times of both", id="far and fine"
        ),
    ],
)
def test_columns_without_a_common_type_are_closed_and_the_others_are_read(
    tmp_path: Path, arrays: list[pa.Array], reason: str
) -> None:
    source = opened(write(tmp_path, id=[pa.array(range(len(array))) for array in arrays], x=arrays))

    assert source.schema.names == ["id"]
    assert list(source.closed) == ["x"]
    assert re.search(reason, source.closed["x"])
    assert values(source) == [n for array in arrays for n in range(len(array))]
    assert [notice.code for notice in source.notices] == ["column_closed"]


def test_a_declared_type_joins_what_has_no_common_one_as_long_as_no_value_changes(tmp_path: Path) -> None:
    folder = write(tmp_path, x=[pa.array([1, None]), pa.array([1.5])])

    source = opened(folder, {"x": pa.float64()})

    assert values(source) == [1.0, None, 1.5]
    assert (dict(source.closed), source.notices) == ({}, ())
    pq.write_table(pa.table({"x": [2**53 + 1]}), folder / "c.parquet")
    with pytest.raises(InputError, match=r"c.parquet: column 'x' is int64, and reading it as double would change"):
        values(opened(folder, {"x": pa.float64()}))


@pytest.mark.parametrize(
    ("given", "type"),
    [
        (pa.nulls(2), pa.int64()),
        (pa.array([[None], None]), pa.list_(pa.date32())),
        (pa.array([{"a": None}]), pa.struct([("a", pa.string())])),
    ],
    ids=["nulls", "in lists", "in structs"],
)
def test_a_declared_type_takes_nulls_of_none(tmp_path: Path, given: pa.Array, type: pa.DataType) -> None:
    source = opened(write(tmp_path, x=[given]), {"x": type})

    assert source.schema.field("x").type == type
    assert values(source) == given.to_pylist()


@pytest.mark.parametrize("empty", [pa.string(), pa.struct([("a", pa.int8())])], ids=["text", "a struct"])
def test_files_without_rows_may_have_other_types(tmp_path: Path, empty: pa.DataType) -> None:
    source = opened(write(tmp_path, x=[pa.array([], empty), pa.array([1, 2])]))

    assert source.schema.field("x").type == pa.int64()
    assert values(source) == [1, 2]
    assert source.notices[0].code == "types_unified"


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"y": pa.int64()}, r"input.schema names 'y', which the files do not have, as \S*a.parquet: x"),
        ({"x": pa.list_(pa.int64())}, r"input.schema has list<item: int64> for column 'x', which is int64 in \S*a.par"),
    ],
    ids=["unknown column", "another kind"],
)
def test_a_declared_type_that_does_not_go_with_the_files_is_refused(
    tmp_path: Path, declared: dict[str, pa.DataType], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        opened(write(tmp_path, x=[pa.array([1])]), declared)


# --- INT96 ---------------------------------------------------------------------------------------------------------


def write_int96(file: Path, times: pa.Array, **more: pa.Array) -> Path:
    """Times as Spark writes them, alone and in lists."""
    lists = pa.ListArray.from_arrays(pa.array(range(len(times) + 1), pa.int32()), times)
    table = pa.table(
        {"x": times, "nested": pa.array([{"l": each} for each in lists], pa.struct([("l", lists.type)])), **more}
    )
    pq.write_table(table, file, use_deprecated_int96_timestamps=True, store_schema=False)
    return file


@pytest.mark.parametrize(
    ("times", "unit"),
    [
        pytest.param(pa.array([*FAR, None], pa.timestamp("us")), "us", id="far times"),
        pytest.param(pa.array([FAR[1], None], pa.timestamp("us")), "ns", id="near times"),
        pytest.param(pa.array([7, -7, 0], NS), "ns", id="nanoseconds"),
        pytest.param(pa.array([2**63 - 1, 1 - 2**63], NS), "ns", id="the first and the last nanosecond"),
        pytest.param(pa.array([], NS), "ns", id="none"),
    ],
)
def test_times_of_int96_are_read_under_a_unit_that_keeps_them(tmp_path: Path, times: pa.Array, unit: str) -> None:
    # Those of another column keep their own.
    more = pa.array([1] * len(times), NS)
    source = opened(write_int96(tmp_path / "a.parquet", times, more=more))

    assert source.schema.field("x").type == pa.timestamp(unit)
    assert source.schema.field("more").type == NS
    read = [
        batch.rows
        for split in source.plan(("more", "x", "nested"), 2)
        for batch in source.read(split, ("more", "x", "nested"))
    ]
    if read:
        table = pa.Table.from_batches(read)
        assert table["x"].combine_chunks().cast(times.type).equals(times)
        lists = pc.struct_field(table["nested"].combine_chunks(), "l")
        assert lists.flatten().cast(times.type).equals(times)
        assert table["more"].combine_chunks().equals(more)


def test_times_of_int96_that_no_unit_keeps_close_the_column(tmp_path: Path) -> None:
    file = write_int96(tmp_path / "a.parquet", pa.array([7, 0], NS), id=pa.array([1, 2]))
    # The day of the second value, whose number stands behind its nanoseconds, becomes one of the year 9999.
    data = file.read_bytes()
    epoch, far = (2_440_588).to_bytes(4, "little"), (5_373_484).to_bytes(4, "little")
    at = [n for n in range(len(data)) if data[n : n + 4] == epoch and data[n - 8 : n] == bytes(8)]
    assert at
    for n in at:
        data = data[:n] + far + data[n + 4 :]
    file.write_bytes(data)
    source = opened(file)

    assert source.schema.names == ["id"]
    assert "column 'x' has times (INT96) that fit neither nanoseconds" in source.closed["x"]


def test_times_of_int96_and_of_other_units_are_one_column(tmp_path: Path) -> None:
    write_int96(tmp_path / "a.parquet", pa.array(FAR, pa.timestamp("us")))
    write_int96(tmp_path / "b.parquet", pa.array([7000], NS))
    source = opened(tmp_path)

    assert source.schema.field("x").type == pa.timestamp("us")
    assert values(source, "x") == [*FAR, datetime.datetime(1970, 1, 1, 0, 0, 0, 7)]
    write_int96(tmp_path / "c.parquet", pa.array([7], NS))
    assert "no unit keeps the times of both" in opened(tmp_path).closed["x"]
    with pytest.raises(InputError, match=r"input.schema has timestamp\[us\]"):
        opened(tmp_path, {"x": pa.timestamp("us")})


# --- encryption ----------------------------------------------------------------------------------------------------


def test_plain_columns_are_read_beside_encrypted_ones_which_are_named(tmp_path: Path) -> None:
    table = pa.table({"x": [1.0, 2.0], "secret": ["a", "b"], "s": [{"a": 1, "b": 2}] * 2})
    write_encrypted(tmp_path / "a.parquet", table, ["secret", "s.b"])
    source = opened(tmp_path)

    assert source.schema.names == ["x"]
    assert values(source) == [1.0, 2.0]
    assert {name: reason.partition(": ")[2] for name, reason in source.closed.items()} == {
        name: f"column {name!r} is encrypted, and Penstock has no key" for name in ("secret", "s")
    }


def test_a_file_with_an_encrypted_footer_is_refused_in_words(tmp_path: Path) -> None:
    write_encrypted(tmp_path / "part-0", pa.table({"x": [1.0], "secret": [1]}), ["secret"], plain_footer=False)

    with pytest.raises(InputError, match="part-0 is not a readable Parquet file: its footer is encrypted"):
        opened(tmp_path)


def test_two_columns_of_one_name_close_it(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2]), pa.array([3])], ["a", "a", "b"])
    pq.write_table(table, tmp_path / "a.parquet")
    source = opened(tmp_path)

    assert values(source) == [3]
    assert "two columns are named 'a'" in source.closed["a"]
