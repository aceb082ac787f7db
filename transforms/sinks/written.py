"""How columns are written to Parquet, so that its readers get every value back: pyarrow, Polars, DuckDB, Spark.

Most types stay as they are. Some are written as another that holds the same values, because Parquet, or a reader of it,
has no such type; what holds no values that could be written is refused by the column's name.
"""

import re
from zoneinfo import available_timezones

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from predictors.notices import Notice
from transforms.errors import OutputError

# Digits of a decimal that every reader takes.
_DIGITS = 38
# An interval in parts that do not add up to each other: a month has no fixed number of days.
_INTERVAL = pa.struct([("months", pa.int32()), ("days", pa.int32()), ("nanoseconds", pa.int64())])
_INTERVAL_LAYOUT = np.dtype([("months", "<i4"), ("days", "<i4"), ("nanoseconds", "<i8")])


class _Unwritable(Exception):
    """A type whose values no Parquet file holds; says why."""


def written_schema(schema: pa.Schema, purpose: str) -> pa.Schema:
    """`schema` as it is written.

    Args:
        purpose: the field of the spec that the columns belong to, for the message.

    Raises:
        OutputError: names the first column that cannot be written, and the remedy.
    """
    fields = []
    for field in schema:
        try:
            fields.append(_written_field(field, all_there=True))
        except _Unwritable as error:
            remedy = "leave it out of output.columns" if purpose == "output.path" else "cast it, or take it out"
            line = f"{purpose}: column {field.name} is {field.type}, and {error}; {remedy}"
            raise OutputError(line) from error
    return pa.schema(fields, metadata=schema.metadata)


def written_notices(schema: pa.Schema, written: pa.Schema, where: str) -> list[Notice]:
    """What there is to say of columns that are not written as they are given.

    Args:
        where: what they are written to, for the message.
    """
    return [
        Notice("written_as", f"column {given.name} ({given.type}) is written to {where} as {taken.type}")
        for given, taken in zip(schema, written, strict=True)
        if given.type != taken.type
    ]


def as_written(rows: pa.RecordBatch, written: pa.Schema) -> pa.RecordBatch:
    """`rows` under the schema that `written_schema` has for theirs; columns that have it already are not copied."""
    columns = [_converted(column, field.type) for column, field in zip(rows.columns, written, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=written)


def _written_field(field: pa.Field, all_there: bool) -> pa.Field:
    all_there = all_there and not field.nullable
    return field.with_type(_written_type(field.type, all_there))


def _written_part(field: pa.Field, all_there: bool) -> pa.Field:
    """A field of a struct; pyarrow cuts structs of many rows into pieces, and no views."""
    return _written_field(field.with_type(_VIEWED.get(field.type, field.type)), all_there)


def _written_type(type: pa.DataType, all_there: bool) -> pa.DataType:
    """The type that values of `type` are written as.

    Args:
        all_there: whether neither a value nor anything that it lies in is ever null.
    """
    types = pa.types
    if isinstance(type, pa.BaseExtensionType):
        storage = _written_type(type.storage_type, all_there)
        return type if storage == type.storage_type else storage
    if types.is_run_end_encoded(type):
        return _written_type(type.value_type, all_there)
    if types.is_dictionary(type):
        # Other values come back without their dictionary anyway.
        if _is_text(type.value_type):
            return type
        return _written_type(_VIEWED.get(type.value_type, type.value_type), all_there)
    if types.is_union(type):
        raise _Unwritable("Parquet holds no unions")
    if types.is_struct(type):
        if not type.num_fields:
            raise _Unwritable("Parquet holds no structs without fields")
        return pa.struct([_written_part(field, all_there) for field in type])
    if types.is_map(type):
        item = _written_field(type.item_field, all_there=False)
        return pa.map_(_written_field(type.key_field, all_there=False), item, type.keys_sorted)
    if kept := _list_kept(type, all_there):
        return kept
    if types.is_decimal(type):
        return _written_decimal(type)
    if types.is_timestamp(type):
        return pa.timestamp("ms" if type.unit == "s" else type.unit, _zone_read_by_all(type.tz))
    return _PLAIN.get(type, type)


def _zone_read_by_all(zone: str | None) -> str | None:
    """A zone by whose name every reader finds it, or else UTC, which names the same moments: Polars reads no file that
    has `+05:30`.
    """
    if zone is None or zone in _ZONES or _WHOLE_HOURS.fullmatch(zone):
        return zone
    return "UTC" if zone not in available_timezones() else zone


# Parquet counts no whole seconds; pyarrow reads date64 as date32. Spark has no half floats.
_PLAIN: dict[pa.DataType, pa.DataType] = {
    pa.float16(): pa.float32(),
    pa.date64(): pa.date32(),
    pa.time32("s"): pa.time32("ms"),
    pa.month_day_nano_interval(): _INTERVAL,
    pa.binary(0): pa.binary(),
}

# Zones that need no look into the time zone database.
_ZONES = ("UTC", "Etc/UTC")
_WHOLE_HOURS = re.compile(r"[+-](0\d|1[0-4]):00")

# Arrow takes no values out of a dictionary of views.
_VIEWED: dict[pa.DataType, pa.DataType] = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}


def _list_kept(type: pa.DataType, all_there: bool) -> pa.DataType | None:
    """What a list is written as; None for what is none."""
    types = pa.types
    if types.is_large_list(type) or types.is_large_list_view(type):
        return pa.large_list(_written_field(type.value_field, all_there=False))
    if types.is_list(type) or types.is_list_view(type):
        return pa.list_(_written_field(type.value_field, all_there=False))
    if types.is_fixed_size_list(type):
        # A null among them has no length in a file: pyarrow refuses to read it.
        if all_there and type.list_size:
            return pa.list_(_written_field(type.value_field, all_there), type.list_size)
        return pa.list_(_written_field(type.value_field, all_there=False))
    return None


def _written_decimal(type: pa.DataType) -> pa.DataType:
    # In Parquet 0 <= scale <= precision.
    scale = max(type.scale, 0)
    precision = max(type.precision + scale - type.scale, scale)
    if precision > _DIGITS:
        return pa.string()
    return type if (precision, scale) == (type.precision, type.scale) else pa.decimal128(precision, scale)


def _is_text(type: pa.DataType) -> bool:
    return type in (pa.string(), pa.large_string())


def _converted(column: pa.Array, to: pa.DataType) -> pa.Array:
    """The same values under a type that `_written_type` gave."""
    given = column.type
    types = pa.types
    if given == to and not _holds_dictionary(given):
        return column
    if isinstance(given, pa.BaseExtensionType):
        return _converted(column.storage, to)
    if types.is_run_end_encoded(given):
        return _converted(pc.run_end_decode(column), to)
    if types.is_dictionary(to):
        # Nulls of a dictionary's own, which no writer takes, become those of the column.
        return column if not column.dictionary.null_count else _without_null_words(column, to)
    if types.is_dictionary(given):
        values = _converted(column.dictionary, to)
        return pa.DictionaryArray.from_arrays(column.indices, values).dictionary_decode()
    if given == pa.month_day_nano_interval():
        return _interval_parts(column)
    if types.is_struct(given):
        parts = [_converted(column.field(number), field.type) for number, field in enumerate(to)]
        return pa.StructArray.from_arrays(parts, fields=list(to), mask=column.is_null())
    if types.is_map(given):
        return _converted_map(column, to)
    if types.is_list(to) or types.is_large_list(to) or types.is_fixed_size_list(to):
        return _converted_list(column, to)
    if types.is_decimal(given) and types.is_string(to):
        return pa.array([None if value is None else format(value, "f") for value in column.to_pylist()], to)
    return column.cast(to)


def _holds_dictionary(type: pa.DataType) -> bool:
    if pa.types.is_dictionary(type):
        return True
    return any(_holds_dictionary(type.field(number).type) for number in range(type.num_fields))


def _without_null_words(column: pa.DictionaryArray, to: pa.DataType) -> pa.Array:
    encoded = column.dictionary_decode().dictionary_encode()
    return pa.DictionaryArray.from_arrays(encoded.indices.cast(to.index_type), encoded.dictionary, ordered=to.ordered)


def _interval_parts(column: pa.Array) -> pa.Array:
    values = np.frombuffer(column.buffers()[1] or b"", _INTERVAL_LAYOUT)[column.offset : column.offset + len(column)]
    parts = [pa.array(np.ascontiguousarray(values[name])) for name in _INTERVAL_LAYOUT.names or ()]
    return pa.StructArray.from_arrays(parts, fields=list(_INTERVAL), mask=column.is_null())


def _converted_list(column: pa.Array, to: pa.DataType) -> pa.Array:
    values = _converted(column.flatten(), to.value_type)
    if pa.types.is_fixed_size_list(to):
        # No null is among these.
        return pa.FixedSizeListArray.from_arrays(values, type=to)
    return _list_of(_lengths(column), values, to, column.is_null())


def _converted_map(column: pa.Array, to: pa.DataType) -> pa.Array:
    offsets = column.offsets.to_numpy()
    lengths = np.diff(offsets)
    # Of a slice these are the whole's.
    keys = column.keys.slice(offsets[0], offsets[-1] - offsets[0])
    items = column.items.slice(offsets[0], offsets[-1] - offsets[0])
    pairs = pa.struct([to.key_field, to.item_field])
    entries = pa.StructArray.from_arrays(
        [_converted(keys, to.key_type), _converted(items, to.item_type)], fields=list(pairs)
    )
    listed = _list_of(lengths, entries, pa.list_(pa.field("entries", pairs, nullable=False)), column.is_null())
    return pa.Array.from_buffers(to, len(listed), listed.buffers()[:2], listed.null_count, 0, [listed.values])


def _lengths(column: pa.Array) -> npt.NDArray[np.int64]:
    return pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)


def _list_of(lengths: npt.NDArray[np.int64], values: pa.Array, to: pa.DataType, is_null: pa.Array) -> pa.Array:
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    if pa.types.is_large_list(to):
        return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), values, type=to, mask=is_null)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values, type=to, mask=is_null)
