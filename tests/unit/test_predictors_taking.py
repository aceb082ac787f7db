"""Rows can be taken out of columns of every type that Arrow has."""

import datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from predictors.taking import no_rows, take, take_of, take_rows

TEXTS = ["a", None, "c" * 40]
LISTS = [["a"], None, ["b", None]]
COLUMNS: dict[str, pa.Array] = {
    "integers": pa.array([1, None, 3]),
    "halves": pa.array([1, None, 2], pa.float32()).cast(pa.float16()),
    "decimal32": pa.array([Decimal("1.1"), None, Decimal("2.2")], pa.decimal32(4, 1)),
    "decimal256": pa.array([Decimal("1.1"), None, Decimal("2.2")], pa.decimal256(50, 1)),
    "nulls": pa.nulls(3),
    "string_view": pa.array(TEXTS, pa.string_view()),
    "binary_view": pa.array([b"a", None, b"c"], pa.binary_view()),
    "run-end encoded": pc.run_end_encode(pa.array([1, 1, None])),
    "run-end encoded text": pc.run_end_encode(pa.array(TEXTS), run_end_type=pa.int64()),
    "run-end encoded views": pa.RunEndEncodedArray.from_arrays(
        pa.array([2, 3]), pa.array(["a", "b"], pa.string_view())
    ),
    "dictionary": pa.array(TEXTS).dictionary_encode(),
    "dictionary of views": pa.DictionaryArray.from_arrays(pa.array([0, 1, 0]), pa.array(["a", "b"], pa.string_view())),
    "list_view": pa.array(LISTS, pa.list_view(pa.string())),
    "large_list_view of views": pa.array(LISTS, pa.large_list_view(pa.string_view())),
    "list of views": pa.array(LISTS, pa.list_(pa.string_view())),
    "large_list of views": pa.array(LISTS, pa.large_list(pa.string_view())),
    "fixed list of views": pa.array([["1", "2"], None, ["3", None]], pa.list_(pa.string_view(), 2)),
    "list of dictionaries": pa.ListArray.from_arrays([0, 1, 2, 3], pa.array(["a", "b", "a"]).dictionary_encode()),
    "struct of views": pa.array([{"a": "x"}, None, {"a": "y"}], pa.struct([("a", pa.string_view())])),
    "struct of runs": pa.StructArray.from_arrays([pc.run_end_encode(pa.array([1, 1, 2]))], ["a"]),
    "map to views": pa.array([[("a", "1")], None, [("b", None)]], pa.map_(pa.string(), pa.string_view())),
    "interval": pa.array([(1, 2, 3), None, (4, 5, 6)], pa.month_day_nano_interval()),
    "duration": pa.array([datetime.timedelta(1), None, datetime.timedelta(2)]),
    "dense union": pa.UnionArray.from_dense(
        pa.array([0, 1, 0], pa.int8()), pa.array([0, 0, 1], pa.int32()), [pa.array([1, 2]), pa.array(["a"])]
    ),
    "uuid": pa.array([b"0" * 16, None, b"1" * 16], pa.uuid()),
    "json of views": pa.ExtensionArray.from_storage(pa.json_(pa.string_view()), pa.array(TEXTS, pa.string_view())),
}


@pytest.mark.parametrize("column", COLUMNS.values(), ids=COLUMNS)
@pytest.mark.parametrize("places", [[0, 2], [2, 0, 0], [], [1]], ids=str)
def test_rows_are_taken_as_they_are(column: pa.Array, places: list[int]) -> None:
    expected = [column.to_pylist()[place] for place in places]
    # One before, so that nothing is taken from the beginning of the buffers.
    within = pa.concat_arrays([column.slice(1, 1), column]).slice(1)

    for whole in (column, within):
        taken = take(whole, places)
        taken.validate(full=True)
        assert taken.type == column.type
        assert taken.to_pylist() == expected
    rows = take_rows(pa.record_batch({"x": column, "n": pa.array([0, 1, 2])}), pa.array(places, pa.int32()))
    assert (rows["x"].to_pylist(), rows["n"].to_pylist()) == (expected, places)


@pytest.mark.parametrize("name", ["string_view", "json of views", "list_view", "run-end encoded", "integers"])
def test_rows_of_a_table_are_taken_across_its_chunks(name: str) -> None:
    column = COLUMNS[name]
    table = pa.table({"x": pa.chunked_array([column, column])})

    taken = take_of(table, [0, 2, 3])

    assert taken.schema == table.schema
    assert taken["x"].to_pylist() == [column.to_pylist()[place] for place in (0, 2, 0)]


def test_views_are_taken_without_the_text_of_the_others() -> None:
    column = pa.array([f"{n}" * 100 for n in range(1000)], pa.string_view())
    places = list(range(0, 1000, 2))

    taken: Any = take(column, places)

    assert sum(len(buffer) for buffer in taken.buffers() if buffer is not None) < 300_000


@pytest.mark.parametrize(
    "type",
    [*(column.type for column in COLUMNS.values()), pa.struct([("u", pa.uuid())]), pa.list_(pa.json_())],
    ids=str,
)
def test_there_are_no_rows_of_every_type(type: pa.DataType) -> None:
    schema = pa.schema([pa.field("x", type)])

    assert no_rows(schema).schema == schema
    assert no_rows(schema).num_rows == 0
