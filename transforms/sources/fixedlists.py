"""Lists of a fixed size that may be null, which pyarrow writes to Parquet and refuses to read again.

Where a file says by its Arrow schema that its lists have a fixed size, pyarrow takes a null for a list of another size.
Such columns are read as Parquet itself has them, as plain lists, and get their type back afterwards.
"""

import pyarrow as pa
import pyarrow.parquet as pq

# The key of the Arrow schema among a footer's metadata, as Thrift writes it: a string of twelve bytes.
_KEY = b"\x18\x0cARROW:schema"
_OTHER_KEY = b"\x18\x0cARROW_schema"


def may_have_null_lists(field: pa.Field) -> bool:
    """Whether a column has, at any depth, lists of a fixed size that may be null."""
    type = field.type
    if isinstance(type, pa.BaseExtensionType):
        return may_have_null_lists(field.with_type(type.storage_type))
    if pa.types.is_fixed_size_list(type) and field.nullable:
        return True
    if pa.types.is_dictionary(type):
        return False
    # Within a struct that may be null, a list that may not be is null, too.
    children = [type.field(number) for number in range(type.num_fields)]
    if pa.types.is_struct(type) and field.nullable:
        children = [child.with_nullable(True) for child in children]
    return any(map(may_have_null_lists, children))


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
    return column if column.type == type else column.cast(type)
