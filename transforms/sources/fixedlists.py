"""Lists of a fixed size that may be null, or of none, which pyarrow writes to Parquet and refuses to read again.

Where a file says by its Arrow schema that its lists have a fixed size, pyarrow takes a null for a list of another size,
and an empty list for one of one. Such columns are read as Parquet itself has them, as plain lists, and get their type
back afterwards.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from predictors.taking import take

# The key of the Arrow schema among a footer's metadata, as Thrift writes it: a string of twelve bytes.
_KEY = b"\x18\x0cARROW:schema"
_OTHER_KEY = b"\x18\x0cARROW_schema"


def may_have_odd_lists(field: pa.Field) -> bool:
    """Whether a column has, at any depth, lists of a fixed size that may be null, or that hold nothing."""
    type = field.type
    if isinstance(type, pa.BaseExtensionType):
        return may_have_odd_lists(field.with_type(type.storage_type))
    if pa.types.is_fixed_size_list(type) and (field.nullable or not type.list_size):
        return True
    if pa.types.is_dictionary(type):
        return False
    # Within a struct that may be null, a list that may not be is null, too.
    children = [type.field(number) for number in range(type.num_fields)]
    if pa.types.is_struct(type) and field.nullable:
        children = [child.with_nullable(True) for child in children]
    return any(map(may_have_odd_lists, children))


def without_arrow_schema(footer: bytes) -> pq.FileMetaData:
    """What a footer says once nothing is known of Arrow's types.

    Args:
        footer: all that stands behind a file's pages, its length and the last four bytes included.
    """
    before, found, after = footer.rpartition(_KEY)
    return pq.read_metadata(pa.BufferReader(b"PAR1" + before + (_OTHER_KEY if found else b"") + after))


def restored(column: pa.Array, type: pa.DataType) -> pa.Array:
    """A column that was read as plain lists, under the type that it has."""
    if isinstance(type, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(type, restored(column, type.storage_type))
    if column.type == type:
        return column
    if pa.types.is_struct(type):
        parts = [restored(column.field(number), field.type) for number, field in enumerate(type)]
        return pa.StructArray.from_arrays(parts, fields=list(type), mask=column.is_null())
    # Arrow casts plain lists neither to views nor to lists of views.
    if pa.types.is_fixed_size_list(type):
        return _fixed(column, type)
    is_large = pa.types.is_large_list(type) or pa.types.is_large_list_view(type)
    if is_large or pa.types.is_list(type) or pa.types.is_list_view(type):
        return _listed(column, type, pa.int64() if is_large else pa.int32())
    return column.cast(type)


def _listed(column: pa.ListArray, type: pa.DataType, width: pa.DataType) -> pa.Array:
    items = restored(column.flatten(), type.value_type)
    lengths = pc.list_value_length(column).fill_null(0)
    offsets = pa.array(np.concatenate(([0], np.cumsum(lengths.to_numpy()))), width)
    if pa.types.is_list_view(type) or pa.types.is_large_list_view(type):
        make = pa.ListViewArray if pa.types.is_list_view(type) else pa.LargeListViewArray
        return make.from_arrays(offsets[:-1], lengths.cast(width), items, type=type, mask=column.is_null())
    make = pa.ListArray if pa.types.is_list(type) else pa.LargeListArray
    return make.from_arrays(offsets, items, type=type, mask=column.is_null())


def _fixed(column: pa.ListArray, type: pa.DataType) -> pa.FixedSizeListArray:
    size, is_there = type.list_size, column.is_valid()
    # An empty list of no items is written by pyarrow as if it had one.
    given = column.flatten() if size else column.values.slice(0, 0)
    if size and pc.any(pc.not_equal(pc.list_value_length(column), size)).as_py():
        raise pa.ArrowInvalid(f"a list has not the {size} items that {type} says")
    items = restored(given, type.value_type)
    if column.null_count and size:
        # Of a list that is null, any items will do.
        places = np.zeros((len(column), size), np.int64)
        places[is_there.to_numpy(zero_copy_only=False)] = np.arange(len(items)).reshape(-1, size)
        missing = pa.nulls(places.size, type.value_type)
        items = take(items, pa.array(places.ravel())) if len(items) else missing
    # As an array of lists without items would have no length.
    validity = is_there.buffers()[1] if column.null_count else None
    return pa.Array.from_buffers(type, len(column), [validity], column.null_count, 0, [items])
