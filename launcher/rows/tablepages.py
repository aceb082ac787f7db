"""Pages of the rows of a table into which a job published.

All is read in one read-only transaction, so that a page is of the result that was found to be the job's. Databases give
rows no order of their own; the one used here stays while nobody writes: the order in which the rows lie.

What a database is, and how large its rows are, is up to a tenant. So a service reads it in a process of its own, which
is killed when it takes too long and cannot take much memory.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from adbc_driver_manager import dbapi

from launcher.errors import AsideFailed, ForkFailed, ResultGone, ResultUnreadable
from launcher.forks.aside import call_aside
from launcher.forks.forking import Forks
from launcher.rows.bounds import MAX_PAGE_BYTES, bounded, rows_at_a_time
from transforms.affinity import affinity
from transforms.connection import Connection, set_postgres
from transforms.errors import ConnectionRefused
from transforms.sinks.columns import LEDGER_TABLE
from transforms.sinks.entries import publishers
from transforms.sinks.names import PostgresTable, quoted, split_name
from transforms.sources.postgres import select, shape, with_dimensions
from transforms.sources.postgres_types import UNKNOWN, Column, columns_of, decimal_type
from transforms.sources.reading import until_all_fit

# Nobody waits longer for a page.
TIMEOUT_S = 10
_MOST_MIB = MAX_PAGE_BYTES // 1024**2
_TOO_LARGE = (
    f"reading it takes too much memory, as of a row that is larger than {_MOST_MIB} MiB; ask for fewer rows, "
    "or read them from the database"
)

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

# Rows that SQLite's driver reads at a time, where they are small.
_BATCH_ROWS = 256
# What a page may take while it is read, several times its 16 MiB: in this a row of 57 MiB is read and then refused.
_MEMORY_BYTES = 256 * 1024 * 1024
# What of a process that does not tell it itself, by what it ended with.
_ENDS = {
    "MemoryError": _TOO_LARGE,
    "ProcessDied": "what read it died; ask for fewer rows, or read them from the database",
}
# What is told of a page as it is.
_TOLD = {error.__name__: error for error in (ResultGone, ResultUnreadable, ConnectionRefused)}
# Where an Arrow stream says whether there are more rows.
_GOES_ON = b"goes_on"

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
        ResultUnreadable: the database refuses, takes longer than 10 s (a server that keeps to what it is told), or the
            first row is larger than a page.
        ConnectionRefused: it cannot be reached.
    """
    if connection.dialect == "sqlite":
        return _Sqlite(connection, table_name, job_id).read(offset, limit)
    return _Postgres(connection, table_name, job_id).read(offset, limit)


@dataclass(frozen=True)
class TablesAside:
    """Reads pages of tables, each in a process of its own, from any thread.

    Args:
        forks: of which.
        working_dir: theirs.
        environment: theirs.
    """

    forks: Forks
    working_dir: str
    environment: Mapping[str, str]

    def read(self, connection: Connection, table_name: str, job_id: str, offset: int, limit: int) -> Rows:
        """As `read_table_rows`, and 10 s are 10 s, whatever the server does.

        Raises:
            ResultGone, ResultUnreadable, ConnectionRefused: as `read_table_rows`.
        """
        place = _place(table_name, connection)
        try:
            data: bytes = call_aside(
                self.forks,
                "launcher.rows.tablepages:read_as_arrow",
                {
                    "connection": asdict(connection),
                    "table_name": table_name,
                    "job_id": job_id,
                    "offset": offset,
                    "limit": limit,
                },
                timeout_s=TIMEOUT_S,
                working_dir=self.working_dir,
                environment=self.environment,
                memory_bytes=_MEMORY_BYTES,
            )
        except ForkFailed as error:
            raise ResultUnreadable(f"{place}: no process can be started to read it; ask again in a moment") from error
        except AsideFailed as error:
            if error.kind in _TOLD:
                raise _TOLD[error.kind](error.reason) from error
            reason = _too_late() if error.kind == "TimeoutError" else _ENDS.get(error.kind, error.reason)
            raise ResultUnreadable(f"{place}: {reason}") from error
        return read_arrow(data, place)


def read_as_arrow(connection: dict[str, Any], table_name: str, job_id: str, offset: int, limit: int) -> bytes:
    """What `read_table_rows` reads, as an Arrow stream; for a process of its own.

    Args:
        connection: of a `Connection`. A secret.

    Raises:
        ResultGone, ResultUnreadable, ConnectionRefused: as `read_table_rows`.
    """
    database = Connection(**connection)
    try:
        return as_arrow(*read_table_rows(database, table_name, job_id, offset, limit))
    except (ResultGone, ResultUnreadable, ConnectionRefused):
        raise
    except MemoryError:
        raise MemoryError from None
    except Exception as error:
        # A tenant's database has an answer for everything; none of them may repeat a secret.
        line = database.mask(f"{type(error).__name__}: {error}")
        raise ResultUnreadable(f"{_place(table_name, database)}: {line}") from None


def as_arrow(rows: pa.Table, goes_on: bool) -> bytes:
    """A page as an Arrow stream, which also says whether there are more rows."""
    rows = rows.replace_schema_metadata({_GOES_ON: str(goes_on)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return sink.getvalue().to_pybytes()


def read_arrow(data: bytes, place: str) -> Rows:
    """The page that `as_arrow` wrote in a process that a tenant's file, or database, may have taken over.

    Raises:
        ResultUnreadable: it is none.
    """
    try:
        rows = pa.ipc.open_stream(data).read_all()
        rows.validate(full=True)
        goes_on = (rows.schema.metadata or {})[_GOES_ON] == b"True"
    except (pa.ArrowException, OSError, KeyError, TypeError) as error:
        raise ResultUnreadable(f"{place}: what was read of it is no table") from error
    return rows.replace_schema_metadata(None), goes_on


class _Reader:
    """What is the same for both databases."""

    def __init__(self, connection: Connection, table_name: str, job_id: str) -> None:
        self.connection = connection
        self.table_name = table_name
        self.job_id = job_id

    @property
    def _place(self) -> str:
        return _place(self.table_name, self.connection)

    @contextmanager
    def _cursor(self) -> Iterator[dbapi.Cursor]:
        with self.connection.open(read_only=True) as connection, connection.cursor() as cursor:
            try:
                yield cursor
            # What a stream of rows ends with is Arrow's error, not the driver's.
            except (dbapi.Error, pa.ArrowException, OSError) as error:
                reason = self.connection.reason(error)
                if isinstance(error, MemoryError) or "out of memory" in reason or "allocate memory" in reason:
                    reason = _TOO_LARGE
                elif "statement timeout" in reason or "locked" in reason:
                    reason = _too_late()
                raise ResultUnreadable(f"{self._place}: {reason}") from error

    def _check_size(self, rows: pa.Table, offset: int) -> None:
        if rows.nbytes > MAX_PAGE_BYTES:
            raise ResultUnreadable(
                f"{self._place}: row {offset + 1:,} has {rows.nbytes / 1024**2:,.0f} MiB, and a page at most "
                f"{_MOST_MIB} MiB; read it from the database"
            )

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
            statement = f"SELECT * FROM {target}"
            found = cursor.adbc_execute_schema(statement)
            columns = [
                column.shaped(UNKNOWN) if column.dimensions else column
                for column in columns_of(lambda asked: _fetch(cursor, asked), statement, found)
            ]
            page = f"{statement} LIMIT {limit + 1} OFFSET {offset}"
            return until_all_fit(
                lambda dimensions: self._page(cursor, page, with_dimensions(columns, dimensions), offset, limit)
            )

    def _page(self, cursor: dbapi.Cursor, statement: str, columns: list[Column], offset: int, limit: int) -> Rows:
        """The rows of `statement`, of which one more than `limit` tells whether it goes on."""
        cursor.execute(select(statement, columns, None))
        rows, goes_on = _bounded(cursor.fetch_record_batch(), limit)
        self._check_size(rows, offset)
        batches = rows.combine_chunks().to_batches() or [pa.RecordBatch.from_pylist([], rows.schema)]
        (arrays,) = [shape(batch, columns) for batch in batches]
        for at, column in enumerate(columns):
            if column.declared is not None:
                arrays[at] = _decimals(arrays[at], *column.declared)
        return pa.Table.from_arrays(arrays, names=[column.name for column in columns]), goes_on

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
            rest = self._rest(cursor, declared, offset, limit + 1)
            aliases = [f"c{number}" for number in range(len(declared))]

            def page(expression: str) -> str:
                columns = ", ".join(expression.format(quoted(name)) for name in declared)
                return f"WITH page({', '.join(aliases)}) AS (SELECT {columns} {rest})"

            def look(expression: str, over: str) -> list[Any]:
                # For a class or a length SQLite does not read the value itself.
                columns = ", ".join(over.format(alias) for alias in aliases)
                ((*found,),) = _fetch(cursor, f"{page(expression)} SELECT {columns} FROM page")
                return found

            classes = look("typeof({})", "group_concat(DISTINCT {})")
            row_bytes = sum(look("octet_length({})", "ifnull(max({}), 0)"))
            seen = [set((found or "").split(",")) - {"", "null"} for found in classes]
            types = [_type_of(type_, own) for type_, own in zip(declared.values(), seen, strict=True)]
            values = [_value(alias, type_, own) for alias, type_, own in zip(aliases, types, seen, strict=True)]
            batch_rows = rows_at_a_time(1, row_bytes, _BATCH_ROWS)
            cursor.adbc_statement.set_options(**{"adbc.sqlite.query.batch_rows": str(batch_rows)})
            cursor.execute(
                f"{page('{}')} SELECT {', '.join(_EXAMPLES[type_] for type_ in types)}"
                f" UNION ALL SELECT * FROM (SELECT {', '.join(values)} FROM page LIMIT -1)"
            )
            rows, goes_on = _bounded(cursor.fetch_record_batch(), limit, skip=1)
            self._check_size(rows, offset)
        return pa.Table.from_arrays(rows.columns, names=list(declared)), goes_on

    def _rest(self, cursor: dbapi.Cursor, declared: dict[str, str], offset: int, limit: int) -> str:
        """What follows the columns: the page's rows, in the order of rowid, or, without one, of the primary key."""
        table = quoted(self.table_name)
        taken = {name.lower() for name in declared}
        rowid = next((name for name in ("rowid", "oid", "_rowid_") if name not in taken), None)
        ((without,),) = _fetch(cursor, "SELECT wr FROM pragma_table_list(?)", (self.table_name,))
        if without or rowid is None:
            return f"FROM {table} LIMIT {limit} OFFSET {offset}"
        first = _fetch(cursor, f"SELECT {rowid} FROM {table} ORDER BY {rowid} LIMIT 1 OFFSET {offset}")
        # The page is read three times; its rows need be found but once.
        where = f"{rowid} >= {first[0][0]}" if first else "false"
        return f"FROM {table} WHERE {where} ORDER BY {rowid} LIMIT {limit}"


def _place(table_name: str, connection: Connection) -> str:
    return f"table {table_name} at {connection.describe()}"


def _too_late() -> str:
    return f"no answer within {TIMEOUT_S} s; ask again later, or for fewer rows"


def _bounded(reader: pa.RecordBatchReader, limit: int, skip: int = 0) -> Rows:
    """The first rows behind some that are skipped, and whether there are more."""

    def batches() -> Iterator[pa.RecordBatch]:
        left = skip
        for batch in reader:
            yield batch.slice(min(left, batch.num_rows))
            left = max(left - batch.num_rows, 0)

    taken, goes_on = bounded(batches(), limit)
    return pa.Table.from_batches(taken, reader.schema), goes_on


def _decimals(digits: pa.Array, precision: int, scale: int) -> pa.Array:
    """Decimal numbers by their digits; null for what is none (`NaN`)."""
    numbers = pc.if_else(pc.match_substring_regex(digits, "^-?[0-9.]+$"), digits, None)
    return pc.cast(numbers, decimal_type(precision, scale))


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
