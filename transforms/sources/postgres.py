"""A query's result from PostgreSQL, as plain Arrow."""

import json
from collections.abc import Generator, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from transforms.connection import set_postgres
from transforms.errors import InputError
from transforms.marks import POSTGRES_TYPE
from transforms.sources.postgres_arrays import dimensions_of, fitting, items_of, list_type, nested
from transforms.sources.postgres_types import UNKNOWN, Column, columns_of
from transforms.sources.reading import BEYOND, ReadOtherwise, Result, Session, check_columns, read_as

# The first day that PostgreSQL knows, 4713 BC, in days from 1970. The driver reads both infinities as earlier ones.
_FIRST_DAY = -2_440_588
_FIRST_MICROSECOND = _FIRST_DAY * 86_400_000_000
_LAST_OF_DAY = 86_400_000_000 - 1
_ARRAYS = "its arrays have several numbers of dimensions, or do not count from 1"
_BEYOND = (
    "it holds infinity, 24:00 or another time that Arrow does not have; for null instead, write NULLIF({}, 'infinity')"
)
# What the driver says of a value that it does not know how to read, and the server of text that UTF-8 does not have.
_UNREAD = "ReadRecord failed"
_NOT_UTF8 = ("invalid byte sequence for encoding", "has no equivalent in encoding")
# EXPLAIN cannot stand within COPY.
_PLAIN = {"adbc.postgresql.use_copy": "false"}
# What a session may have set, and what text has to be written with so that every session reads the same value from it.
_SETTINGS = {"datestyle": "ISO", "intervalstyle": "postgres", "extra_float_digits": "1", "bytea_output": "hex"}


def read_postgres(session: Session, statement: str, limit: int | None, dimensions: Mapping[str, int]) -> Result:
    """Prepare to read `statement`, or its first `limit` rows.

    Types are those of the columns: NUMERIC comes as the text of its digits (`Result.decimals`), JSON, UUID and all that
    Arrow has no plain type for as string, under a field that says which type it was. Counts are the planner's
    estimates.

    Args:
        dimensions: how many dimensions the arrays of a column have, where that is known not to be 1; 0: the column is
            to be read as text; `UNKNOWN`: some of its arrays may be of those that the driver does not read; `BEYOND`:
            it holds times that Arrow does not have, and is to be read as text.

    Raises:
        InputError: the database refuses the statement.
        ReadOtherwise: (from the batches) arrays have other dimensions, or times are beyond what Arrow has.
    """
    found = session.schema(statement)
    check_columns(found.names)
    columns = with_dimensions(columns_of(session.fetch, statement, found), dimensions)
    if not all(column.is_settled for column in columns):
        session.fetch(set_postgres(for_session=False, **_SETTINGS))
    statement = select(statement, columns, limit)
    schema = _schema(session.schema(statement), columns)
    decimals = {column.name: column.declared for column in columns if column.is_decimal}
    ((explained,),) = session.fetch("EXPLAIN (FORMAT JSON) " + statement, **_PLAIN)
    plan = json.loads(explained)[0]["Plan"]
    rows = int(plan["Plan Rows"])
    size = rows * int(plan["Plan Width"])
    notices = tuple(
        read_as(column.name, "text", _BEYOND.format(column.name) if column.is_beyond else _ARRAYS)
        for column in columns
        if column.dimensions == 0 or column.is_beyond
    )
    return Result(schema, rows, size, _batches(session, statement, schema, columns), decimals, notices)


def with_dimensions(columns: Sequence[Column], dimensions: Mapping[str, int]) -> list[Column]:
    """`columns`, given how many dimensions the arrays of some have, as `read_postgres` takes it."""
    return [column.shaped(dimensions[column.name]) if column.name in dimensions else column for column in columns]


def select(statement: str, columns: Sequence[Column], limit: int | None) -> str:
    """The statement with its columns as they are read, the dimensions of arrays behind them."""
    arrays = [dimensions_of(column.name) for column in columns if column.dimensions]
    if not arrays and limit is None and not any(column.casts or column.is_sliced for column in columns):
        return statement
    selected = ", ".join([*(column.expression() for column in columns), *arrays])
    text = f"SELECT {selected} FROM (\n{statement}\n) AS penstock_query"
    return text if limit is None else f"{text} LIMIT {limit}"


def _schema(found: pa.Schema, columns: Sequence[Column]) -> pa.Schema:
    fields = []
    for column, field in zip(columns, found, strict=False):
        type_ = field.type
        if column.dimensions:
            type_ = list_type(type_.value_type, column.dimensions)
        is_plain = column.dimensions == 1 and not column.casts
        metadata = None if is_plain or column.sql_type is None else {POSTGRES_TYPE: column.sql_type}
        fields.append(pa.field(column.name, type_, metadata=metadata))
    return pa.schema(fields)


def _batches(
    session: Session, statement: str, schema: pa.Schema, columns: Sequence[Column]
) -> Generator[pa.RecordBatch]:
    try:
        for batch in session.stream(statement):
            yield pa.RecordBatch.from_arrays(shape(batch, columns), schema=schema)
    except InputError as error:
        reason = str(error.__cause__)
        untried = [column.name for column in columns if column.dimensions and not column.is_sliced]
        if _UNREAD in reason and "lower bound" in reason and untried:
            raise ReadOtherwise(dict.fromkeys(untried, UNKNOWN)) from error
        raise _with_columns(error, reason, schema) from error


def _with_columns(error: InputError, reason: str, schema: pa.Schema) -> InputError:
    """An error of reading rows, with the columns that it may come from where neither server nor driver names one."""
    texts = [field.name for field in schema if pa.types.is_string(_items(field.type))]
    if any(words in reason for words in _NOT_UTF8) and texts:
        return InputError(
            f"{error}: column {_either(texts)} holds text that is not UTF-8; read it as bytes, by "
            f"convert_to({texts[0]}, 'SQL_ASCII')"
        )
    if _UNREAD in reason:
        return InputError(
            f"{error}: column {_either(schema.names)} holds a value that the driver cannot read; cast it in the query, "
            f"as by {schema.names[0]}::text"
        )
    return error


def _either(names: Sequence[str]) -> str:
    return " or ".join(map(repr, names))


def _items(type_: pa.DataType) -> pa.DataType:
    while pa.types.is_list(type_):
        type_ = type_.value_type
    return type_


def shape(batch: pa.RecordBatch, columns: Sequence[Column]) -> list[pa.Array]:
    """The columns of `batch`, arrays as lists of as many dimensions as they have.

    Raises:
        ReadOtherwise: they have other dimensions than is thought, or times that are none in Arrow.
    """
    arrays, differ = list(batch.columns[: len(columns)]), {}
    dimensions = iter(batch.columns[len(columns) :])
    for number, column in enumerate(columns):
        if not column.dimensions:
            continue
        own, depth = next(dimensions), column.dimensions
        fits = fitting(arrays[number], own, depth)
        if fits != depth:
            differ[column.name] = fits
        elif depth > 1:
            arrays[number] = nested(arrays[number], own, depth)
    differ |= {
        column.name: BEYOND
        for column, array in zip(columns, arrays, strict=True)
        if column.name not in differ and _is_beyond(items_of(array))
    }
    if differ:
        raise ReadOtherwise(differ)
    return arrays


def _is_beyond(array: pa.Array) -> bool:
    """Whether Arrow lacks some of these times or dates: infinity, 24:00, the last years of PostgreSQL."""
    if pa.types.is_time64(array.type):
        latest = pc.max(array.view(pa.int64())).as_py()
        return latest is not None and latest > _LAST_OF_DAY
    if pa.types.is_date32(array.type):
        first, least = _FIRST_DAY, pc.min(array.view(pa.int32())).as_py()
    elif pa.types.is_timestamp(array.type):
        first, least = _FIRST_MICROSECOND, pc.min(array.view(pa.int64())).as_py()
    else:
        return False
    return least is not None and least < first
