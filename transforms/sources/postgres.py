"""A query's result from PostgreSQL, as plain Arrow.

The driver reads by COPY in binary form. Types that it does not know it passes on as the bytes of that form, wrapped in
an extension type; those the server is asked to turn into text, which it can do with any type.
"""

import json
from collections.abc import Generator

import pyarrow as pa
import pyarrow.compute as pc

from transforms.errors import InputError
from transforms.sources.reading import Result, Session, check_columns

# Types that the driver passes on as numbers that mean something else: cents, and a wrapped 32-bit number.
_MISREAD = {"money": "numeric", "oid": "bigint"}
# The first day that PostgreSQL knows, 4713 BC, in days from 1970. The driver reads both infinities as earlier ones.
_FIRST_DAY = -2_440_588
_FIRST_MICROSECOND = _FIRST_DAY * 86_400_000_000


def read_postgres(session: Session, statement: str, limit: int | None) -> Result:
    """Prepare to read `statement`, or its first `limit` rows.

    Types are those of the columns: NUMERIC comes as the text of its digits (`Result.decimals`), JSON, UUID and all that
    Arrow has no plain type for as string. Counts are the planner's estimates.

    Raises:
        InputError: the database refuses the statement.
    """
    found = session.schema(statement)
    check_columns(found.names)
    casts = {field.name: cast for field in found if (cast := plain_cast(field)) is not None}
    statement = _select(statement, found.names, casts, limit)
    found = session.schema(statement)
    schema = pa.schema([pa.field(field.name, _storage(field.type)) for field in found])
    decimals = {field.name: declared_decimal(field) for field in found if _is_numeric(field.type)}
    # EXPLAIN cannot stand within COPY.
    ((explained,),) = session.fetch("EXPLAIN (FORMAT JSON) " + statement, **{"adbc.postgresql.use_copy": "false"})
    plan = json.loads(explained)[0]["Plan"]
    rows = int(plan["Plan Rows"])
    return Result(schema, rows, rows * int(plan["Plan Width"]), _batches(session, statement, schema), decimals)


def _batches(session: Session, statement: str, schema: pa.Schema) -> Generator[pa.RecordBatch]:
    for batch in session.stream(statement):
        arrays = [column.storage if isinstance(column, pa.ExtensionArray) else column for column in batch.columns]
        for name, array in zip(schema.names, arrays, strict=True):
            _check_finite(name, array)
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _select(statement: str, names: list[str], casts: dict[str, str], limit: int | None) -> str:
    if not casts and limit is None:
        return statement
    columns = []
    for name in names:
        quoted = '"' + name.replace('"', '""') + '"'
        columns.append(f"{quoted}::{casts[name]} AS {quoted}" if name in casts else quoted)
    text = f"SELECT {', '.join(columns)} FROM (\n{statement}\n) AS penstock_query"
    return text if limit is None else f"{text} LIMIT {limit}"


def plain_cast(field: pa.Field) -> str | None:
    """What the server has to turn a column into, so that it arrives as what it is; None when it does anyway."""
    named = (field.metadata or {}).get(b"POSTGRESQL:type", b"").decode()
    if named in _MISREAD:
        return _MISREAD[named]
    if pa.types.is_list(field.type):
        item = field.type.value_type
        if _is_numeric(item):
            return "double precision[]"
        return None if named.removeprefix("_") not in _MISREAD and _is_plain(item) else "text[]"
    return None if _is_plain(field.type) or _is_json(field.type) or _is_numeric(field.type) else "text"


def _is_plain(type_: pa.DataType) -> bool:
    """Whether every writer knows the type."""
    extended = isinstance(type_, pa.BaseExtensionType)
    return not (extended or pa.types.is_nested(type_) or pa.types.is_interval(type_))


def _is_json(type_: pa.DataType) -> bool:
    return isinstance(type_, pa.BaseExtensionType) and type_.extension_name == "arrow.json"


def _is_numeric(type_: pa.DataType) -> bool:
    return isinstance(type_, pa.OpaqueType) and type_.type_name == "numeric"


def _storage(type_: pa.DataType) -> pa.DataType:
    return type_.storage_type if isinstance(type_, pa.BaseExtensionType) else type_


def declared_decimal(field: pa.Field) -> tuple[int, int] | None:
    """Precision and scale of NUMERIC(p, s), where a decimal128 can have them.

    The type modifier is PostgreSQL's (numeric.c): 4 more than the precision in the upper half and the scale, signed, in
    the lower 11 bits.
    """
    modifier = int((field.metadata or {}).get(b"POSTGRESQL:typmod", b"-1"))
    if modifier < 4:
        return None
    precision, scale = (modifier - 4) >> 16 & 0xFFFF, (((modifier - 4) & 0x7FF) ^ 0x400) - 0x400
    return (precision, scale) if 0 <= scale <= precision <= 38 else None


def _check_finite(name: str, array: pa.Array) -> None:
    if pa.types.is_date32(array.type):
        first, least = _FIRST_DAY, pc.min(array.view(pa.int32())).as_py()
    elif pa.types.is_timestamp(array.type):
        first, least = _FIRST_MICROSECOND, pc.min(array.view(pa.int64())).as_py()
    else:
        return
    if least is not None and least < first:
        raise InputError(
            f"input.query: column {name!r} holds infinity, or a time beyond what Arrow can hold; "
            f"make it NULL in the query: CASE WHEN isfinite(x) THEN x END"
        )
