"""Values of rows for people and for JSON, exact and of Python's own kinds.

`to_pylist` will not do: it raises where there is no pandas and a time has nanoseconds, or lies beyond the year 9999.
"""

import base64
import math
from collections.abc import Iterator
from decimal import Decimal
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from transforms.sinks.columns import decoded, kind_of
from transforms.sinks.timetext import time_texts

# Digits of a second behind the point, by unit of time.
_DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}


def as_json_rows(table: pa.Table) -> list[dict[str, Any]]:
    """The rows as objects whose values JSON can say.

    Times are ISO 8601 (with a time zone: in UTC, ending in Z), decimals text with all their digits, bytes base64,
    NaN and the infinities null. Integers stay integers, also those beyond 2**53, which JavaScript rounds. A map is a
    list of objects with `key` and `value`.
    """
    return list(_rows(table, finite=True))


def as_shown_rows(table: pa.Table) -> list[dict[str, Any]]:
    """The rows as `as_json_rows`, for people: NaN and the infinities stay what they are."""
    return list(_rows(table, finite=False))


def json_values(column: pa.ChunkedArray | pa.Array) -> list[Any]:
    """The values of one column, as `as_json_rows` has them."""
    return _column(column, finite=True)


def _rows(table: pa.Table, finite: bool) -> Iterator[dict[str, Any]]:
    columns = [_column(column, finite) for column in table.columns]
    return (dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True))


def _column(column: pa.ChunkedArray | pa.Array, finite: bool) -> list[Any]:
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    return [value for chunk in chunks for value in _values(chunk, finite)]


def _values(array: pa.Array, finite: bool) -> list[Any]:
    array = decoded(array)
    types = pa.types
    if types.is_struct(array.type):
        fields = [_values(field, finite) for field in array.flatten()]
        names = [field.name for field in array.type]
        return [
            dict(zip(names, values, strict=True)) if valid else None
            for valid, *values in zip(array.is_valid().to_pylist(), *fields, strict=True)
        ]
    if types.is_map(array.type):
        pair = pa.struct([("key", array.type.key_type), ("value", array.type.item_type)])
        array = array.cast(pa.list_(pair))
    match kind_of(array.type):
        case "list":
            items = iter(_values(array.flatten(), finite))
            lengths = pc.list_value_length(array).to_pylist()
            return [None if length is None else list(islice(items, length)) for length in lengths]
        case "float":
            values = array.to_pylist()
            return [value if value is None or math.isfinite(value) else None for value in values] if finite else values
        case "decimal":
            return [None if value is None else format(value, "f") for value in array.to_pylist()]
        case "binary":
            return [None if value is None else base64.b64encode(value).decode() for value in array.to_pylist()]
        case "date" | "time":
            return time_texts(array).to_pylist()
        case "timestamp" | "timestamptz":
            return _iso_times(array)
        case "duration":
            return _iso_durations(array)
        case "null" | "boolean" | "integer" | "string":
            return array.to_pylist()
    return [None if value is None else str(value) for value in array.to_pylist()]


def _iso_times(array: pa.Array) -> list[str | None]:
    # Of a second only what there is: `12:00:00Z`, but all digits of `12:00:00.500000Z`.
    text = pc.replace_substring_regex(pc.replace_substring(time_texts(array), " ", "T"), r"\.0+$", "")
    return (text if array.type.tz is None else pc.binary_join_element_wise(text, "Z", "")).to_pylist()


def _iso_durations(array: pa.Array) -> list[str | None]:
    digits = _DIGITS[array.type.unit]
    seconds = [
        None if value is None else Decimal(value).scaleb(-digits) for value in array.cast(pa.int64()).to_pylist()
    ]
    return [None if value is None else f"{'-' * (value < 0)}PT{abs(value).normalize():f}S" for value in seconds]
