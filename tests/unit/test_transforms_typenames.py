"""Types by name: what Arrow prints is read again, and nothing else is a type."""

import pyarrow as pa
import pytest

from transforms.typenames import type_named

TYPES = [
    *(pa.int8(), pa.uint64(), pa.float16(), pa.float32(), pa.float64(), pa.bool_(), pa.null()),
    *(pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary(16)),
    *(pa.date32(), pa.date64(), pa.time32("ms"), pa.time64("ns"), pa.duration("us"), pa.month_day_nano_interval()),
    *(pa.timestamp("ns"), pa.timestamp("us", "Europe/Berlin"), pa.timestamp("s", "+02:00")),
    *(pa.decimal32(4, 1), pa.decimal64(12, 2), pa.decimal128(38, 10), pa.decimal256(76, 0)),
    *(pa.uuid(), pa.json_(), pa.bool8()),
    *(pa.list_(pa.int32()), pa.list_(pa.int32(), 3), pa.large_list(pa.string()), pa.list_view(pa.int8())),
    pa.list_(pa.field("element", pa.list_(pa.timestamp("us", "UTC")), nullable=False)),
    pa.struct([("a", pa.int64()), pa.field("b c", pa.string(), nullable=False), ("d", pa.decimal128(5, 2))]),
    pa.map_(pa.string(), pa.struct([("x", pa.map_(pa.string(), pa.int8()))])),
    pa.dictionary(pa.int32(), pa.string(), ordered=True),
]


@pytest.mark.parametrize("type", TYPES, ids=str)
def test_a_type_is_known_by_the_name_that_arrow_prints(type: pa.DataType) -> None:
    assert type_named(str(type)) == type


@pytest.mark.parametrize(
    "name",
    [
        *("", "int", "Int64", "varchar", "list", "list<", "list<item: int32>[3]", "fixed_size_list<item: int8>"),
        *("struct<a>", "map<string>", "decimal128(99, 0)", "timestamp[xs]", "timestamp[us, tz=Mars/Base]"),
        *("dictionary<values=string, indices=string>", "list<item: " * 50 + "int8" + ">" * 50),
    ],
)
def test_anything_else_is_no_type(name: str) -> None:
    with pytest.raises(ValueError):
        type_named(name)
