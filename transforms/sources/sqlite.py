"""A query's result from SQLite, where every value has a type of its own, as Arrow, where every column has one.

The driver would guess a column's type from the first rows. So all rows are looked at first, in the same transaction,
and the types are forced on the driver by a row of our own in front, which is dropped again.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from transforms.affinity import affinity
from transforms.errors import InputError
from transforms.sources.base import SPAN_ROWS
from transforms.sources.reading import Result, Session, check_columns, check_text, read_as

_VIEW = "penstock query"
# A value that makes the driver take a column for this type.
_EXAMPLES = {pa.int64(): "0", pa.float64(): "0.5", pa.string(): "''", pa.binary(): "x''"}
# SQLite returns at most 2,000 columns; a look at a column takes two.
_LOOK_COLUMNS = 800
# Up to this every integer is a float64.
_EXACT = 2**53
_BATCH_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class _Seen:
    """What a pass over all rows saw in a column: SQLite's names of storage classes, and bytes of text and blobs."""

    classes: frozenset[str]
    size_bytes: int
    # Whether integers are among them, beside reals, that a float64 would round.
    is_wide: bool = False

    @property
    def is_mixed_text(self) -> bool:
        """Whether reals have to be read as text."""
        return "real" in self.classes and ("text" in self.classes or self.is_wide)


def read_sqlite(session: Session, statement: str, limit: int | None) -> Result:
    """Prepare to read `statement`, or its first `limit` rows. The types are those of all rows in either case.

    Integers come as int64, reals and integers mixed as float64, anything mixed with text as string, as do integers
    beyond 2^53 mixed with reals, and blobs as binary. A column without any value goes by its declared type; an
    expression has none, and counts as float64. BOOLEAN is an integer in SQLite, and dates and times are text, so that
    is how they come.

    Raises:
        InputError: the database refuses the statement, or a column mixes blobs with numbers.
    """
    declared = _declared(session, statement)
    rows, seen = _look(session, statement, list(declared.values()))
    types = [_type(name, look, type_) for (name, type_), look in zip(declared.items(), seen, strict=True)]
    schema = pa.schema(list(zip(declared, types, strict=True)))
    size = sum(look.size_bytes + 8 * rows for look in seen)
    batch_rows = max(min(SPAN_ROWS, _BATCH_BYTES * rows // max(size, 1)), 1)
    mixed = [number for number, look in enumerate(seen) if look.is_mixed_text]
    text = _typed(statement, types, mixed, -1 if limit is None else limit)
    notices = tuple(
        read_as(name, *reason) for name, look in zip(declared, seen, strict=True) if (reason := _reason(name, look))
    )
    return Result(schema, rows, size, _batches(session, text, schema, mixed, batch_rows), notices=notices)


def _typed(statement: str, types: Sequence[pa.DataType], mixed: Sequence[int], limit: int) -> str:
    """`statement` with a row in front that makes the driver give its columns these types.

    Args:
        mixed: the columns that are read as text and have reals; behind the others each of them comes once more, as its
            zeros alone.
    """
    names = [f"c{number}" for number in range(len(types))]
    # The driver itself would write 10000001.0 as 1.000000e+07.
    columns = [f"CAST({name} AS TEXT)" if number in mixed else name for number, name in enumerate(names)]
    zeros = [f"CASE WHEN typeof(c{number}) = 'real' AND c{number} = 0 THEN c{number} END" for number in mixed]
    examples = [*(_EXAMPLES[type_] for type_ in types), *[_EXAMPLES[pa.float64()]] * len(mixed)]
    columns += zeros
    return (
        f"WITH q({', '.join(names)}) AS (\n{statement}\n) "
        f"SELECT {', '.join(examples)} "
        # The inner LIMIT, though it be none, keeps SQLite from merging the query and its ORDER BY into the outer one.
        f"UNION ALL SELECT * FROM (SELECT {', '.join(columns)} FROM q LIMIT {limit})"
    )


def _batches(
    session: Session, text: str, schema: pa.Schema, mixed: Sequence[int], batch_rows: int
) -> Generator[pa.RecordBatch]:
    extra, types = 1, [*schema.types, *[pa.float64()] * len(mixed)]
    for batch in session.stream(text, **{"adbc.sqlite.query.batch_rows": str(batch_rows)}):
        if batch.schema.types != types:
            raise InputError("input.query gives other types each time it runs; it must give the same rows")
        columns = batch.columns[: len(schema)]
        for number, zeros in zip(mixed, batch.columns[len(schema) :], strict=True):
            columns[number] = _with_signs(columns[number], zeros)
        rows = pa.RecordBatch.from_arrays(columns, schema=schema)
        if extra and rows.num_rows:
            rows, extra = rows.slice(1), 0
        for field, array in zip(schema, rows.columns, strict=True):
            if pa.types.is_string(field.type):
                check_text(field.name, array, f"CAST({field.name} AS BLOB)")
        yield rows


def _with_signs(text: pa.StringArray, zeros: pa.DoubleArray) -> pa.StringArray:
    """`text` with the sign of each zero that has one: SQLite writes -0.0 as 0.0."""
    signed = np.signbit(zeros.fill_null(0.0).to_numpy(zero_copy_only=False))
    return pc.if_else(pa.array(signed), "-0.0", text) if signed.any() else text


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
    mixed = [number for number, look in enumerate(seen) if look.classes == {"integer", "real"}]
    for start in range(0, len(mixed), _LOOK_COLUMNS):
        some = mixed[start : start + _LOOK_COLUMNS]
        looks = [f"max(typeof(c{at}) = 'integer' AND c{at} NOT BETWEEN -{_EXACT} AND {_EXACT})" for at in some]
        ((*wide,),) = session.fetch(f"WITH q({names}) AS (\n{statement}\n) SELECT {', '.join(looks)} FROM q")
        for at, is_wide in zip(some, wide, strict=True):
            seen[at] = replace(seen[at], is_wide=bool(is_wide))
    return rows, seen


def _reason(name: str, look: _Seen) -> tuple[str, str] | None:
    """As what a column is read that has values of several classes, and why, where a person may expect another type."""
    if "blob" in look.classes and "text" in look.classes:
        return "binary", "it holds blobs among its text"
    if "text" in look.classes and look.classes & {"integer", "real"}:
        return "text", f"it holds text among its numbers; for numbers write CAST({name} AS REAL) in the query"
    if look.is_wide:
        return (
            "text",
            f"beside reals it holds integers beyond 2^53, which a double would round; for rounded ones write "
            f"CAST({name} AS REAL) in the query",
        )
    return None


def _type(name: str, look: _Seen, declared: str) -> pa.DataType:
    classes = look.classes
    if not classes:
        return _type_without_values(declared)
    if "blob" in classes:
        if classes & {"integer", "real"}:
            raise InputError(
                f"input.query: column {name!r} holds blobs and numbers; make it one type in the query, as by CAST"
            )
        return pa.binary()
    if "text" in classes or look.is_wide:
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
