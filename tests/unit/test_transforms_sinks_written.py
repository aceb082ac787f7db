"""What is written to Parquet comes back from pyarrow, Polars and DuckDB, whatever Arrow type it had."""

import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from transforms.errors import OutputError
from transforms.sinks.parquet import as_table, write_parquet
from transforms.sinks.written import written_notices, written_schema

INT = pa.int32()
PAIR = pa.list_(INT, 2)
UUIDS = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([uuid.UUID(int=1).bytes, None], pa.binary(16)))
JSON = pa.ExtensionArray.from_storage(pa.json_(), pa.array(["{}", None]))
BOOL8 = pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, None], pa.int8()))
INTERVAL = pa.MonthDayNano([14, -2, 3_000_000_001])
PARTS = pa.struct([("months", INT), ("days", INT), ("nanoseconds", pa.int64())])
DECIMALS = [Decimal("1.23"), None, Decimal("-2.5")]
ONES = (1, None, 86_399)


def dictionary(values: pa.Array) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array([0, None, 1], pa.int8()), values)


# Kept as they are.
KEPT = [
    *(pa.array([1, None, 3], type) for type in (pa.int8(), pa.uint32(), pa.uint64(), pa.float32(), pa.float64())),
    pa.array([2**64 - 1, None, 0], pa.uint64()),
    pa.array([None, None]),
    pa.array([True, None]),
    *(pa.array(DECIMALS, type) for type in (pa.decimal32(7, 2), pa.decimal64(15, 2), pa.decimal128(38, 2))),
    pa.array(DECIMALS, pa.decimal256(20, 2)),
    *(pa.array(["a", None, ""], type) for type in (pa.string(), pa.large_string(), pa.string_view())),
    *(pa.array([b"a", None, b"\0"], type) for type in (pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(1))),
    pa.array([0, None, -1], pa.date32()),
    *(pa.array(ONES, type) for type in (pa.time32("ms"), pa.time64("us"), pa.time64("ns"))),
    *(pa.array(ONES, pa.timestamp(unit)) for unit in ("ms", "us", "ns")),
    *(pa.array(ONES, pa.timestamp(unit, "Europe/Berlin")) for unit in ("ms", "us", "ns")),
    *(pa.array(ONES, pa.timestamp("us", zone)) for zone in ("+00:00", "-08:00", "EST5EDT")),
    *(pa.array(ONES, pa.duration(unit)) for unit in ("s", "ms", "us", "ns")),
    *(pa.array([[1, None], None, []], type) for type in (pa.list_(INT), pa.large_list(INT))),
    pa.array([["a"], None], pa.list_(pa.string_view())),
    pa.array([["a"], ["b", None]], pa.list_(pa.dictionary(pa.int8(), pa.string()))),
    pa.array([{"a": 1, "b": "x"}, None], pa.struct([("a", INT), ("b", pa.string())])),
    pa.array([[("a", 1)], None, []], pa.map_(pa.string(), INT)),
    dictionary(pa.array(["a", "b"])),
    dictionary(pa.array(["a", None])),
    pa.StructArray.from_arrays([dictionary(pa.array(["a", None]))], names=["d"]),
    UUIDS,
    JSON,
    BOOL8,
    pa.StructArray.from_arrays([UUIDS, JSON, BOOL8], names=["u", "j", "b"]),
    pa.ListArray.from_arrays(pa.array([0, 1, 2], INT), UUIDS),
]
# Written as another type that holds the same.
REWRITTEN = [
    (pa.array([1.5, None], pa.float16()), pa.float32()),
    (pa.array([Decimal("100"), None], pa.decimal128(5, -2)), pa.decimal128(7, 0)),
    (pa.array(DECIMALS, pa.decimal256(76, 2)), pa.string()),
    (pa.array([86_400_000, None], pa.date64()), pa.date32()),
    (pa.array(ONES, pa.time32("s")), pa.time32("ms")),
    (pa.array(ONES, pa.timestamp("s", "UTC")), pa.timestamp("ms", "UTC")),
    *(
        (pa.array(ONES, pa.timestamp("us", zone)), pa.timestamp("us", "UTC"))
        for zone in ("+05:30", "-03:30", "europe/berlin")
    ),
    (pa.array([b"", None], pa.binary(0)), pa.binary()),
    (pa.array([{"v": "a"}, None], pa.struct([("v", pa.string_view())])), pa.struct([("v", pa.string())])),
    (pa.array([INTERVAL, None], pa.month_day_nano_interval()), PARTS),
    (pa.array([[INTERVAL], None, []], pa.list_(pa.month_day_nano_interval())), pa.list_(PARTS)),
    (pa.array([[1, 2], None, [5, 6]], PAIR), pa.list_(INT)),
    (pa.array([[[1, 2]], None, [None]], pa.list_(PAIR)), pa.list_(pa.list_(INT))),
    (pa.array([{"p": [1, 2]}, None], pa.struct([("p", PAIR)])), pa.struct([("p", pa.list_(INT))])),
    (pa.array([[("a", [1, 2])], None, [("b", None)]], pa.map_(pa.string(), PAIR)), pa.map_(pa.string(), pa.list_(INT))),
    (pa.array([[], None], pa.list_(INT, 0)), pa.list_(INT)),
    *((pa.array([[1], None, []], type), pa.list_(INT)) for type in (pa.list_view(INT),)),
    (pa.array([[1], None, []], pa.large_list_view(INT)), pa.large_list(INT)),
    (pa.array([{"v": [1]}, None], pa.struct([("v", pa.list_view(INT))])), pa.struct([("v", pa.list_(INT))])),
    (dictionary(pa.array([1, 2])), pa.int64()),
    (dictionary(pa.array(["a", "b"], pa.string_view())), pa.string()),
    (dictionary(pa.array([[1], [2]])), pa.list_(pa.int64())),
    (pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], INT), pa.array([1, None])), pa.int64()),
    (
        pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(INT, [2]), pa.array([[1, 2], None], PAIR)),
        pa.list_(INT),
    ),
]


def plain(value: Any) -> Any:
    """A value as what it is rewritten to has it."""
    match value:
        case pa.MonthDayNano():
            return {"months": value.months, "days": value.days, "nanoseconds": value.nanoseconds}
        case list():
            return [plain(each) for each in value]
        case dict():
            return {name: plain(each) for name, each in value.items()}
    return value


def taken_through(column: pa.Array, file: Path, nullable: bool = True) -> tuple[pa.Schema, pa.Table]:
    """The schema under which a column was written, and what pyarrow reads; Polars and DuckDB must read it, too."""
    schema = pa.schema([pa.field("c", column.type, nullable)])
    written = written_schema(schema, "output.path")
    write_parquet(file, as_table([pa.RecordBatch.from_arrays([column], schema=schema)], written))
    assert polars.read_parquet(file).height == len(column)
    assert len(duckdb.execute(f"SELECT * FROM '{file}'").fetchall()) == len(column)
    read = pq.read_table(file, page_checksum_verification=True)
    read.validate(full=True)
    return written, read


@pytest.mark.parametrize("column", KEPT, ids=lambda column: str(column.type))
def test_what_the_readers_know_comes_back_as_it_was(column: pa.Array, tmp_path: Path) -> None:
    sliced = pa.concat_arrays([column, column]).slice(1)
    written, read = taken_through(column, tmp_path / "whole.parquet")
    _, part = taken_through(sliced, tmp_path / "sliced.parquet")

    assert written.field("c").type == column.type
    kept = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    assert read["c"].type == column.type or pa.types.is_dictionary(read["c"].type)
    assert read["c"].to_pylist() == kept.to_pylist()
    assert part["c"].to_pylist() == sliced.to_pylist()


@pytest.mark.parametrize(("column", "type"), REWRITTEN, ids=lambda given: str(getattr(given, "type", given)))
def test_what_some_reader_does_not_know_is_written_as_an_equivalent_and_said(
    column: pa.Array, type: pa.DataType, tmp_path: Path
) -> None:
    sliced = column.slice(1)
    written, read = taken_through(column, tmp_path / "whole.parquet")
    _, part = taken_through(sliced, tmp_path / "sliced.parquet")

    wanted = plain(column.to_pylist())
    if pa.types.is_string(type) and pa.types.is_decimal(column.type):
        wanted = [None if value is None else format(value, "f") for value in wanted]
    assert (written.field("c").type, read.schema.field("c").type) == (type, type)
    assert read["c"].to_pylist() == wanted
    assert part["c"].to_pylist() == wanted[1:]
    (notice,) = written_notices(pa.schema([("c", column.type)]), written, "the result")
    assert (notice.code, notice.message) == (
        "written_as",
        f"column c ({column.type}) is written to the result as {type}",
    )


@pytest.mark.parametrize("view", [pa.string_view(), pa.binary_view()], ids=str)
def test_structs_of_views_are_written_within_lists_of_many_rows(view: pa.DataType, tmp_path: Path) -> None:
    column = pa.concat_arrays([pa.array([{"v": "a"}, None], pa.struct([("v", view)]))] * 1000)

    _, read = taken_through(pa.ListArray.from_arrays(pa.array(range(2001), INT), column), tmp_path / "a.parquet")

    assert len(read) == 2000


def test_a_fixed_size_list_that_is_never_null_stays_one(tmp_path: Path) -> None:
    written, read = taken_through(pa.array([[1, 2], [3, 4]], PAIR), tmp_path / "a.parquet", nullable=False)

    assert written.field("c").type == PAIR
    assert read["c"].type == PAIR
    assert read["c"].to_pylist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    "type",
    [
        pa.struct([]),
        pa.list_(pa.struct([])),
        pa.sparse_union([pa.field("a", INT)]),
        pa.struct([("u", pa.dense_union([pa.field("a", INT)]))]),
    ],
    ids=str,
)
def test_what_no_file_holds_is_refused_by_column_and_remedy(type: pa.DataType) -> None:
    with pytest.raises(OutputError, match=r"column odd is .*leave it out of output\.columns"):
        written_schema(pa.schema([("odd", type)]), "output.path")
