"""Pages of the rows of a table into which a job published.

All is read in one read-only transaction, so that a page is of the result that was found to be the job's. Databases give
rows no order of their own; the one used here stays while nobody writes: the order in which the rows lie.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from adbc_driver_manager import dbapi

from launcher.errors import ResultGone, ResultUnreadable
from launcher.rows.bounds import bounded
from transforms.affinity import affinity
from transforms.connection import Connection, set_postgres
from transforms.sinks.columns import LEDGER_TABLE
from transforms.sinks.entries import publishers
from transforms.sinks.names import PostgresTable, quoted, split_name
from transforms.sources.postgres import declared_decimal, plain_cast

# Nobody waits longer for a page.
TIMEOUT_S = 10

# A page is read without sorting the table (for the first page of 5 million rows that took 1.2 s, and 2 ms without): a
# sequential scan gives the rows as they lie when it is told to begin at the beginning, alone, and not to use an index.
_SETTINGS = set_postgres(
    for_session=True,
    statement_timeout=f"{TIMEOUT_S}s",
    synchronize_seqscans="off",
    max_parallel_workers_per_gather="0",
    enable_indexonlyscan="off",
    enable_seqscan="on",
)

# Rows, and whether there are more.
Rows = tuple[pa.Table, bool]

# Rows that SQLite's driver reads at a time.
_BATCH_ROWS = 256

# What SQLite calls the classes of values that a column of a type takes as they are.
_FITS = {
    pa.int64(): {"integer"},
    pa.float64(): {"integer", "real"},
    pa.string(): {"text"},
    pa.binary(): {"blob"},
}
# By a value in a row in front SQLite's driver is told a column's type; it would guess by the first rows.
_EXAMPLES = {pa.int64(): "0", pa.float64(): "0.5", pa.string(): "''", pa.binary(): "x''"}
_BLOB, _TEXT = "CAST({} AS BLOB)", "CAST({} AS TEXT)"


def read_table_rows(connection: Connection, table_name: str, job_id: str, offset: int, limit: int) -> Rows:
    """At most `limit` rows of a table, from `offset` on, fewer where they are large; none past its end, under the same
    columns.

    From PostgreSQL NUMERIC comes as decimal where its digits are declared, else as text, as do JSON and all that Arrow
    has no plain type for. From SQLite a column has the type that it is declared with, unless values on the page are
    others.

    Args:
        table_name: as the job's output names it.
        job_id: the job that must have published what is there.

    Returns:
        The rows, and whether there are more.

    Raises:
        ResultGone: the table is gone, or shows another job's result.
        ResultUnreadable: the database refuses, or takes longer than 10 s.
        ConnectionRefused: it cannot be reached.
    """
    if connection.dialect == "sqlite":
        return _Sqlite(connection, table_name, job_id).read(offset, limit)
    return _Postgres(connection, table_name, job_id).read(offset, limit)


class _Reader:
    """What is the same for both databases."""

    def __init__(self, connection: Connection, table_name: str, job_id: str) -> None:
        self.connection = connection
        self.table_name = table_name
        self.job_id = job_id

    @property
    def _place(self) -> str:
        return f"table {self.table_name} at {self.connection.describe()}"

    @contextmanager
    def _cursor(self) -> Iterator[dbapi.Cursor]:
        with self.connection.open(read_only=True) as connection, connection.cursor() as cursor:
            try:
                yield cursor
            # What a stream of rows ends with is Arrow's error, not the driver's.
            except (dbapi.Error, pa.ArrowException, OSError) as error:
                reason = self.connection.reason(error)
                if "statement timeout" in reason or "locked" in reason:
                    reason = f"no answer within {TIMEOUT_S} s; ask again later, or for fewer rows"
                raise ResultUnreadable(f"{self._place}: {reason}") from error

    def _gone(self) -> ResultGone:
        return ResultGone(f"{self._place} is gone, and the result of {self.job_id} with it")

    def _check_publisher(self, found: list[str]) -> None:
        if self.job_id in found:
            return
        if not found:
            raise ResultGone(f"{self._place} is not recorded to hold the result of {self.job_id}, or of any other job")
        raise ResultGone(
            f"{self._place} now holds the result of another job, {found[-1]}, which published after {self.job_id}"
        )


class _Postgres(_Reader):
    def read(self, offset: int, limit: int) -> Rows:
        with self._cursor() as cursor:
            _fetch(cursor, _SETTINGS)
            target = self._target(cursor)
            ledger = PostgresTable(target.schema, LEDGER_TABLE)
            self._check_publisher(
                publishers(cursor, "postgres", str(ledger), str(target)) if _exists(cursor, ledger) else []
            )
            if not _exists(cursor, target):
                raise self._gone()
            found = cursor.adbc_execute_schema(f"SELECT * FROM {target}")
            columns = [_as_plain(field) for field in found]
            # One row more tells whether it goes on.
            cursor.execute(f"SELECT {', '.join(columns)} FROM {target} LIMIT {limit + 1} OFFSET {offset}")
            rows, goes_on = _bounded(cursor.fetch_record_batch(), limit)
        arrays = [_storage(column) for column in rows.columns]
        for at, field in enumerate(found):
            digits = declared_decimal(field) if pa.types.is_string(arrays[at].type) else None
            if digits is not None:
                arrays[at] = _decimals(arrays[at], *digits)
        return pa.Table.from_arrays(arrays, names=found.names), goes_on

    def _target(self, cursor: dbapi.Cursor) -> PostgresTable:
        name = split_name(self.table_name)
        if name is None:
            raise self._gone()
        schema, table = name
        if schema is None:
            ((schema,),) = _fetch(cursor, "SELECT current_schema()::text")
        if schema is None:
            raise self._gone()
        return PostgresTable(schema, table)


class _Sqlite(_Reader):
    def read(self, offset: int, limit: int) -> Rows:
        if not os.path.exists(self.connection.sqlite_path()):
            raise self._gone()
        with self._cursor() as cursor:
            # No statement of ours takes long (80 ms at the end of 3 million rows), but another program may hold a lock.
            _fetch(cursor, f"PRAGMA busy_timeout = {TIMEOUT_S * 1000}")
            has_ledger = _fetch(cursor, "SELECT 1 FROM sqlite_schema WHERE name = ?", (LEDGER_TABLE,))
            self._check_publisher(publishers(cursor, "sqlite", LEDGER_TABLE, self.table_name) if has_ledger else [])
            declared: dict[str, str] = dict(
                _fetch(cursor, "SELECT name, type FROM pragma_table_xinfo(?) WHERE hidden <> 1", (self.table_name,))
            )
            if not declared:
                raise self._gone()
            # One row more tells whether it goes on.
            statement = self._statement(cursor, declared, offset, limit + 1)
            aliases = [f"c{number}" for number in range(len(declared))]
            page = f"WITH page({', '.join(aliases)}) AS ({statement})"
            looks = [f"group_concat(DISTINCT typeof({alias}))" for alias in aliases]
            ((*classes,),) = _fetch(cursor, f"{page} SELECT {', '.join(looks)} FROM page")
            seen = [set((found or "").split(",")) - {"", "null"} for found in classes]
            types = [_type_of(type_, own) for type_, own in zip(declared.values(), seen, strict=True)]
            values = [_value(alias, type_, own) for alias, type_, own in zip(aliases, types, seen, strict=True)]
            cursor.adbc_statement.set_options(**{"adbc.sqlite.query.batch_rows": str(_BATCH_ROWS)})
            cursor.execute(
                f"{page} SELECT {', '.join(_EXAMPLES[type_] for type_ in types)}"
                f" UNION ALL SELECT * FROM (SELECT {', '.join(values)} FROM page LIMIT -1)"
            )
            rows, goes_on = _bounded(cursor.fetch_record_batch(), limit, skip=1)
        return pa.Table.from_arrays(rows.columns, names=list(declared)), goes_on

    def _statement(self, cursor: dbapi.Cursor, declared: dict[str, str], offset: int, limit: int) -> str:
        """Selects the rows of the page in the order of rowid, or, where there is none, of the primary key."""
        table, columns = quoted(self.table_name), ", ".join(quoted(name) for name in declared)
        taken = {name.lower() for name in declared}
        rowid = next((name for name in ("rowid", "oid", "_rowid_") if name not in taken), None)
        ((without,),) = _fetch(cursor, "SELECT wr FROM pragma_table_list(?)", (self.table_name,))
        if without or rowid is None:
            return f"SELECT {columns} FROM {table} LIMIT {limit} OFFSET {offset}"
        first = _fetch(cursor, f"SELECT {rowid} FROM {table} ORDER BY {rowid} LIMIT 1 OFFSET {offset}")
        # The page is read twice; its rows need be found but once.
        where = f"{rowid} >= {first[0][0]}" if first else "false"
        return f"SELECT {columns} FROM {table} WHERE {where} ORDER BY {rowid} LIMIT {limit}"


def _bounded(reader: pa.RecordBatchReader, limit: int, skip: int = 0) -> Rows:
    """The first rows behind some that are skipped, and whether there are more."""

    def batches() -> Iterator[pa.RecordBatch]:
        left = skip
        for batch in reader:
            yield batch.slice(min(left, batch.num_rows))
            left = max(left - batch.num_rows, 0)

    taken, goes_on = bounded(batches(), limit)
    return pa.Table.from_batches(taken, reader.schema), goes_on


def _as_plain(field: pa.Field) -> str:
    name = quoted(field.name)
    cast = plain_cast(field)
    return name if cast is None else f"{name}::{cast} AS {name}"


def _storage(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if not isinstance(column.type, pa.BaseExtensionType):
        return column
    return pa.chunked_array([chunk.storage for chunk in column.chunks], column.type.storage_type)


def _decimals(digits: pa.ChunkedArray, precision: int, scale: int) -> pa.ChunkedArray:
    """Decimal numbers by their digits; null for what is none (`NaN`)."""
    numbers = pc.if_else(pc.match_substring_regex(digits, "^-?[0-9.]+$"), digits, None)
    return pc.cast(numbers, pa.decimal128(precision, scale))


def _type_of(declared: str, seen: set[str]) -> pa.DataType:
    """The type of a SQLite column: that of its declaration where the values on the page fit, else one that they do."""
    natural = _natural_type(declared)
    if seen <= _FITS[natural]:
        return natural
    if "blob" in seen:
        return pa.binary()
    return next((type_ for type_ in (pa.int64(), pa.float64()) if seen <= _FITS[type_]), pa.string())


def _natural_type(declared: str) -> pa.DataType:
    kind, upper = affinity(declared), declared.upper()
    if kind == "NUMERIC" and ("DATE" in upper or "TIME" in upper):
        return pa.string()
    if kind == "INTEGER" or "BOOL" in upper:
        return pa.int64()
    return {"TEXT": pa.string(), "BLOB": pa.binary()}.get(kind, pa.float64())


def _value(alias: str, type_: pa.DataType, seen: set[str]) -> str:
    if seen <= _FITS[type_]:
        return alias
    return (_BLOB if pa.types.is_binary(type_) else _TEXT).format(alias)


def _exists(cursor: dbapi.Cursor, table: PostgresTable) -> bool:
    ((found,),) = _fetch(cursor, "SELECT to_regclass($1::text) IS NOT NULL", (str(table),))
    return bool(found)


def _fetch(cursor: dbapi.Cursor, sql: str, parameters: tuple[Any, ...] | None = None) -> list[tuple[Any, ...]]:
    cursor.execute(sql, parameters)
    return list(cursor.fetchall())
