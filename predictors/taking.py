"""Rows chosen out of columns of any Arrow type; Arrow itself takes none out of views and run-end encoded columns."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def take_rows(rows: pa.RecordBatch, places: pa.Array | Sequence[int]) -> pa.RecordBatch:
    """The rows at `places`, which are none of them null, in that order; the types stay."""
    at = _indices(places)
    return pa.RecordBatch.from_arrays([take(column, at) for column in rows.columns], schema=rows.schema)


def take_of(table: pa.Table, places: pa.Array | Sequence[int]) -> pa.Table:
    """The same of a table."""
    at = _indices(places)
    return pa.table([_of_chunks(column, at) for column in table.columns], schema=table.schema)


def no_rows(schema: pa.Schema) -> pa.RecordBatch:
    """A batch of no rows under any schema; `Schema.empty_table` has none for extension types within other types."""
    return pa.RecordBatch.from_arrays([no_values(field.type) for field in schema], schema=schema)


def no_values(type: pa.DataType) -> pa.Array:
    """An array of no values of any type."""
    try:
        return pa.array([], type)
    except pa.ArrowNotImplementedError:
        if pa.types.is_struct(type):
            return pa.StructArray.from_arrays([no_values(field.type) for field in type], fields=list(type))
        return pa.nulls(0, type)


def _of_chunks(column: pa.ChunkedArray, places: pa.Array) -> pa.ChunkedArray | pa.Array:
    try:
        return column.take(places)
    except pa.ArrowNotImplementedError:
        return take(column.combine_chunks(), places)


def take(column: pa.Array, places: pa.Array | Sequence[int]) -> pa.Array:
    """The values at `places`, which are none of them null, in that order; the type stays."""
    at = _indices(places)
    try:
        return column.take(at)
    except pa.ArrowNotImplementedError:
        pass
    if isinstance(column.type, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(column.type, take(column.storage, at))
    try:
        if pa.types.is_run_end_encoded(column.type):
            return pc.run_end_encode(take(pc.run_end_decode(column), at), run_end_type=column.type.run_end_type)
        # Not slice by slice: each slice of a view holds on to the text of all, and is written with it.
        return column.cast(_without_views(column.type)).take(at).cast(column.type)
    except pa.ArrowNotImplementedError:
        return _joined(column, at)


def decoded(column: pa.DictionaryArray) -> pa.Array:
    """The values that a dictionary stands for; plain text or bytes for those of views, which Arrow does not decode."""
    try:
        return column.dictionary_decode()
    except pa.ArrowNotImplementedError:
        return column.dictionary.cast(_without_views(column.type.value_type)).take(column.indices)


def _indices(places: pa.Array | Sequence[int]) -> pa.Array:
    return places if isinstance(places, pa.Array) else pa.array(places, pa.int64())


def _without_views(type: pa.DataType) -> pa.DataType:
    """The same type with plain text and bytes in the place of views."""
    if pa.types.is_string_view(type):
        return pa.large_string()
    if pa.types.is_binary_view(type):
        return pa.large_binary()
    if pa.types.is_struct(type):
        return pa.struct([field.with_type(_without_views(field.type)) for field in type])
    if pa.types.is_map(type):
        key, item = type.key_field, type.item_field
        return pa.map_(key.with_type(_without_views(key.type)), item.with_type(_without_views(item.type)))
    value = type.value_field.with_type(_without_views(type.value_type)) if hasattr(type, "value_field") else None
    for is_such, such in (
        (pa.types.is_list, pa.list_),
        (pa.types.is_large_list, pa.large_list),
        (pa.types.is_list_view, pa.list_view),
        (pa.types.is_large_list_view, pa.large_list_view),
    ):
        if is_such(type):
            return such(value)
    return pa.list_(value, type.list_size) if pa.types.is_fixed_size_list(type) else type


def _joined(column: pa.Array, places: pa.Array) -> pa.Array:
    """The same by slices, which every type has."""
    at = places.to_numpy(zero_copy_only=False)
    if not len(at):
        return column.slice(0, 0)
    ends = [*(np.flatnonzero(np.diff(at) != 1) + 1).tolist(), len(at)]
    starts = [0, *ends[:-1]]
    return pa.concat_arrays([column.slice(int(at[a]), b - a) for a, b in zip(starts, ends, strict=True)])
