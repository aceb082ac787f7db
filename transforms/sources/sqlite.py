"""A query's result from SQLite, where every value has a type of its own, as Arrow, where every column has one.

The driver would guess a column's type from the first rows. So all rows are looked at first, in the same transaction,
and the types are forced on the driver by a row of our own in front, which is dropped again.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from transforms.affinity import affinity
from transforms.errors import InputError
from transforms.sources.base import SPAN_ROWS
from transforms.sources.reading import Result, Session, check_columns

_VIEW = "penstock query"
# A value that makes the driver take a column for this type.
_EXAMPLES = {pa.int64(): "0", pa.float64(): "0.5", pa.string(): "''", pa.binary(): "x''"}
# SQLite returns at most 2,000 columns; a look at a column takes two.
_LOOK_COLUMNS = 800
_BATCH_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class _Seen:
    """What a pass over all rows saw in a column: SQLite's names of storage classes, and bytes of text and blobs."""

    classes: frozenset[str]
    size_bytes: int


def read_sqlite(session: Session, statement: str, limit: int | None) -> Result:
    """Prepare to read `statement`, or its first `limit` rows. The types are those of all rows in either case.

    Integers come as int64, reals and integers mixed as float64, anything mixed with text as string, blobs as binary. A
    column without any value goes by its declared type; an expression has none, and counts as float64. BOOLEAN is an
    integer in SQLite, and dates and times are text, so that is how they come.

    Raises:
        InputError: the database refuses the statement, or a column mixes blobs with numbers.
    """
    declared = _declared(session, statement)
    rows, seen = _look(session, statement, list(declared.values()))
    types = [_type(name, look.classes, type_) for (name, type_), look in zip(declared.items(), seen, strict=True)]
    schema = pa.schema(list(zip(declared, types, strict=True)))
    size = sum(look.size_bytes + 8 * rows for look in seen)
    batch_rows = max(min(SPAN_ROWS, _BATCH_BYTES * rows // max(size, 1)), 1)
    text = _typed(statement, types, [look.classes for look in seen], -1 if limit is None else limit)
    return Result(schema, rows, size, _batches(session, text, schema, batch_rows))


def _typed(statement: str, types: Sequence[pa.DataType], seen: Sequence[frozenset[str]], limit: int) -> str:
    """`statement` with a row in front that makes the driver give its columns these types."""
    names = [f"c{number}" for number in range(len(types))]
    # The driver itself would write 10000001.0 as 1.000000e+07.
    columns = [
        f"CAST({name} AS TEXT)" if {"real", "text"} <= look else name for name, look in zip(names, seen, strict=True)
    ]
    return (
        f"WITH q({', '.join(names)}) AS (\n{statement}\n) "
        f"SELECT {', '.join(_EXAMPLES[type_] for type_ in types)} "
        # The inner LIMIT, though it be none, keeps SQLite from merging the query and its ORDER BY into the outer one.
        f"UNION ALL SELECT * FROM (SELECT {', '.join(columns)} FROM q LIMIT {limit})"
    )


def _batches(session: Session, text: str, schema: pa.Schema, batch_rows: int) -> Generator[pa.RecordBatch]:
    extra = 1
    for batch in session.stream(text, **{"adbc.sqlite.query.batch_rows": str(batch_rows)}):
        if batch.schema.types != schema.types:
            raise InputError("input.query gives other types each time it runs; it must give the same rows")
        rows = pa.RecordBatch.from_arrays(batch.columns, schema=schema)
        if extra and rows.num_rows:
            rows, extra = rows.slice(1), 0
        for field, array in zip(schema, rows.columns, strict=True):
            if pa.types.is_string(field.type):
                _check_text(field.name, array)
        yield rows


def _declared(session: Session, statement: str) -> dict[str, str]:
    """Names of the columns, in order, with the types they were declared with; an expression has none: it is empty."""
    # A view that only this connection sees. It is the one thing that SQLite tells the declared types of.
    session.fetch("PRAGMA query_only = OFF")
    session.fetch(f'CREATE TEMP VIEW "{_VIEW}" AS\n{statement}')
    columns = session.fetch(f'PRAGMA temp.table_info("{_VIEW}")')
    session.fetch(f'DROP VIEW temp."{_VIEW}"')
    session.fetch("PRAGMA query_only = ON")
    declared = {name: type_ for _, name, type_, *_ in columns}
    # To SQLite `a` and `A` are one name, and a view calls the second column of a name `a:1`.
    folded = {name.lower() for name in declared}
    names = []
    for name in declared:
        plain, _, number = name.rpartition(":")
        names.append(plain if number.isdigit() and plain.lower() in folded else name)
    check_columns(names, [name.lower() for name in names])
    return declared


def _look(session: Session, statement: str, declared: Sequence[str]) -> tuple[int, list[_Seen]]:
    """Pass over all rows: how many there are, and what each column holds."""
    rows, seen = 0, []
    names = ", ".join(f"c{number}" for number in range(len(declared)))
    for start in range(0, len(declared), _LOOK_COLUMNS):
        looks = ["count(*)"]
        for number, type_ in list(enumerate(declared))[start : start + _LOOK_COLUMNS]:
            # Adding up lengths takes as long as finding the classes: only where there may be text or blobs.
            measured = affinity(type_) in ("TEXT", "BLOB")
            looks += [f"group_concat(DISTINCT typeof(c{number}))", f"sum(octet_length(c{number}))" if measured else "0"]
        ((rows, *values),) = session.fetch(f"WITH q({names}) AS (\n{statement}\n) SELECT {', '.join(looks)} FROM q")
        for classes, size_bytes in zip(values[::2], values[1::2], strict=True):
            seen.append(_Seen(frozenset((classes or "").split(",")) - {"null", ""}, size_bytes or 0))
    return rows, seen


def _type(name: str, classes: frozenset[str], declared: str) -> pa.DataType:
    if not classes:
        return _type_without_values(declared)
    if "blob" in classes:
        if classes & {"integer", "real"}:
            raise InputError(
                f"input.query: column {name!r} holds blobs and numbers; make it one type in the query, as by CAST"
            )
        return pa.binary()
    if "text" in classes:
        return pa.string()
    return pa.float64() if "real" in classes else pa.int64()


def _type_without_values(declared: str) -> pa.DataType:
    upper = declared.upper()
    if not upper:
        return pa.float64()
    if affinity(upper) == "NUMERIC":
        if "BOOL" in upper:
            return pa.int64()
        return pa.string() if "DATE" in upper or "TIME" in upper else pa.float64()
    return {"INTEGER": pa.int64(), "TEXT": pa.string(), "BLOB": pa.binary(), "REAL": pa.float64()}[affinity(upper)]


def _check_text(name: str, array: pa.Array) -> None:
    try:
        array.validate(full=True)
    except pa.ArrowInvalid as error:
        raise InputError(
            f"input.query: column {name!r} holds text that is not UTF-8; read it as CAST(… AS BLOB)"
        ) from error
