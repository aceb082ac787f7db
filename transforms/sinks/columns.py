"""Columns on their way into a table: what they hold, and the types a database driver takes."""

from collections.abc import Mapping
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
    "list",
    "other",
]


def plain(type: pa.DataType) -> pa.DataType:
    """The type of the values themselves: what a dictionary, a run-length encoding or an extension type stands for."""
    while True:
        if isinstance(type, pa.BaseExtensionType):
            type = type.storage_type
        elif pa.types.is_dictionary(type) or pa.types.is_run_end_encoded(type):
            type = type.value_type
        else:
            return type


def kind_of(type: pa.DataType) -> Kind:
    """What a column of a `plain` type holds, whatever its width, unit or layout."""
    types = pa.types
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


def cast_columns(rows: pa.RecordBatch, types: Mapping[str, pa.DataType]) -> pa.RecordBatch:
    """`rows` with each column under the type that `types` has for it; a column that has it already is not copied.

    Numbers are checked for overflow. Times finer than the new unit are cut off, for no database of ours keeps
    nanoseconds.

    Raises:
        OutputError: a value does not fit; names the column.
    """
    columns = []
    for name, column in zip(rows.schema.names, rows.columns, strict=True):
        options = pc.CastOptions(target_type=types[name], allow_time_truncate=True)
        try:
            columns.append(column if column.type == types[name] else pc.cast(column, options=options))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise OutputError(f"column {name} ({column.type}) does not fit into {types[name]}: {error}") from error
    schema = pa.schema([pa.field(name, types[name]) for name in rows.schema.names])
    return pa.RecordBatch.from_arrays(columns, schema=schema)
