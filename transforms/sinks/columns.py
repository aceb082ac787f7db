"""Columns on their way into a table: what they hold, whatever the layout in which Arrow has it."""

from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from transforms.errors import OutputError

# In each database: which job put what where. One row per published job, kept for good.
LEDGER_TABLE = "penstock_ledger"

Kind = Literal[
    "null",
    "boolean",
    "integer",
    "float",
    "decimal",
    "string",
    "binary",
    "date",
    "time",
    "timestamp",
    "timestamptz",
    "duration",
    "interval",
    "uuid",
    "json",
    "list",
    "struct",
    "map",
    "other",
]


def plain(type: pa.DataType) -> pa.DataType:
    """The type of the values themselves: what a dictionary, a run-length encoding or an extension type stands for."""
    while True:
        if isinstance(type, pa.BaseExtensionType):
            type = pa.bool_() if type.extension_name == "arrow.bool8" else type.storage_type
        elif pa.types.is_dictionary(type) or pa.types.is_run_end_encoded(type):
            type = type.value_type
        else:
            return type


def decoded(column: pa.Array) -> pa.Array:
    """`column` under its `plain` type."""
    while True:
        type = column.type
        if isinstance(type, pa.BaseExtensionType):
            is_bool8 = type.extension_name == "arrow.bool8"
            column = pc.not_equal(column.storage, 0) if is_bool8 else column.storage
        elif pa.types.is_dictionary(type):
            column = column.dictionary_decode()
        elif pa.types.is_run_end_encoded(type):
            column = pc.run_end_decode(column)
        else:
            return column


def items_of(column: pa.Array) -> tuple[pa.Array, pa.Array]:
    """The items of lists of any layout, one after the other, and how many of them each list has; null for no list.

    A cast from one layout to another is not used: of a slice of `list_view` it gives other lists.
    """
    return column.flatten(), pc.list_value_length(column).cast(pa.int64())


def list_of(items: pa.Array, lengths: pa.Array) -> pa.ListArray:
    """What `items_of` took apart, as plain lists."""
    ends = pc.cumulative_sum(lengths.fill_null(0))
    offsets = pa.concat_arrays([pa.array([0], pa.int64()), ends]).cast(pa.int32())
    return pa.ListArray.from_arrays(offsets, items, mask=lengths.is_null())


def kind_of(type: pa.DataType) -> Kind:
    """What a column holds, whatever its width, unit or layout."""
    types = pa.types
    if isinstance(type, pa.BaseExtensionType) and type.extension_name in {"arrow.uuid", "arrow.json"}:
        return "uuid" if type.extension_name == "arrow.uuid" else "json"
    type = plain(type)
    if types.is_timestamp(type):
        return "timestamp" if type.tz is None else "timestamptz"
    kinds: dict[Kind, tuple[bool, ...]] = {
        "null": (types.is_null(type),),
        "boolean": (types.is_boolean(type),),
        "integer": (types.is_integer(type),),
        "float": (types.is_floating(type),),
        "decimal": (types.is_decimal(type),),
        "string": (types.is_string(type), types.is_large_string(type), types.is_string_view(type)),
        "binary": (
            types.is_binary(type),
            types.is_large_binary(type),
            types.is_binary_view(type),
            types.is_fixed_size_binary(type),
        ),
        "date": (types.is_date(type),),
        "time": (types.is_time(type),),
        "duration": (types.is_duration(type),),
        "interval": (types.is_interval(type),),
        "struct": (types.is_struct(type),),
        "map": (types.is_map(type),),
        "list": (
            types.is_list(type),
            types.is_large_list(type),
            types.is_fixed_size_list(type),
            types.is_list_view(type),
            types.is_large_list_view(type),
        ),
    }
    return next((kind for kind, held in kinds.items() if any(held)), "other")


def check_names(schema: pa.Schema) -> None:
    """Demand that every column has a name of its own.

    Raises:
        OutputError: names the column that has not.
    """
    for name in schema.names:
        if not name:
            raise OutputError("a column of the output has no name; a table needs one")
        if schema.names.count(name) > 1:
            raise OutputError(f"column {name} comes more than once in the output; a table takes it once")
