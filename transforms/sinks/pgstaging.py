"""Rows on their way into a PostgreSQL staging table, and which of them it refuses."""

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
from adbc_driver_manager import dbapi

from predictors.notices import Notice
from transforms.batches import ScoredSpan
from transforms.connection import Connection
from transforms.errors import OutputError, RefusedRow, RowsRefused
from transforms.refusals import REFUSED, Failure, refused_rows
from transforms.sinks.columns import kind_of
from transforms.sinks.names import PostgresTable, quoted
from transforms.sinks.pgcatalog import fetch
from transforms.sinks.pgcolumns import Column, way_into
from transforms.sinks.ways import Way, fit_rows

# Where a row came from: its split, and its number in the file of it. Only staging tables have them.
SPLIT, ROW = "_penstock_split", "_penstock_row"
POSITION = (SPLIT, ROW)

# Of SQLSTATE: the classes of data that cannot be, and of constraints; what a program of the database's owner raises; a
# value that is too large for an index or a type.
_OF_ROWS = ("22", "23", "P0001", "54000")
_COPIED_ROW = re.compile(r"^COPY .*?, line (\d+)(?:, column (.*))?$", re.MULTILINE)


def is_of_rows(error: dbapi.Error) -> bool:
    """Whether a database refuses what it was given, and not to work at all."""
    return (error.sqlstate or "").startswith(_OF_ROWS)


def details(error: dbapi.Error) -> Mapping[str, str]:
    """What PostgreSQL says about an error, by the names of its fields."""
    return {str(name): value.decode(errors="replace") for name, value in _decoded(error)}


def _decoded(error: dbapi.Error) -> list[tuple[str, bytes]]:
    fields = [(key.decode() if isinstance(key, bytes) else key, value) for key, value in error.details or []]
    return [(name.removeprefix("PG_DIAG_"), value) for name, value in fields if isinstance(value, bytes)]


@dataclass(frozen=True)
class Copying:
    """Copies rows into the staging table of a job, in a transaction that is open.

    Args:
        table: the staging table.
        target: what people know of it.
        columns: of the staging table.
        connection: hides its secrets in what the database says.
    """

    cursor: dbapi.Cursor
    table: PostgresTable
    target: PostgresTable
    columns: Sequence[Column]
    connection: Connection

    def stage(self, spans: Sequence[ScoredSpan]) -> list[tuple[Notice, ...]]:
        """Copy the scored rows of `spans`; returns what is to be said of each span's values.

        Raises:
            RowsRefused: some cannot be taken.
            OutputError: the rows are not those that the table was made for.
        """
        ways: dict[str, Way] = {}
        batches, notices, refused = [], [], []
        required = {column.name for column in self.columns if column.not_null}
        for at, scored in enumerate(spans):
            ways = ways or self._ways(scored.rows.schema)
            fitted = fit_rows(scored.rows, ways, required)
            refused += [RefusedRow(at, row, REFUSED, reason) for row, reason in sorted(fitted.refused.items())]
            batches.append(self._placed(fitted.rows, scored))
            notices.append(fitted.notices)
        if refused:
            raise RowsRefused(refused)
        self.cursor.execute("SAVEPOINT copies")
        try:
            rounded = self._write([batch for batch in batches if batch.num_rows], ways)
        except dbapi.Error as error:
            if not is_of_rows(error):
                raise
            self.cursor.execute("ROLLBACK TO SAVEPOINT copies")
            raise self._refused(batches, ways, error) from error
        said = [ways[name].changed(name, count) for name, count in rounded.items()]
        notices[0] = (*notices[0], *(notice for each in said for notice in each))
        return [tuple(each) for each in notices]

    def _ways(self, schema: pa.Schema) -> dict[str, Way]:
        columns = {column.name: column for column in self.columns}
        ways = {}
        for field in schema:
            column = columns.get(field.name)
            # Whether text may be read as the type was judged when the table was made.
            way = None if column is None else way_into(column, field, column.base)
            if way is None:
                raise OutputError(f"column {field.name} ({field.type}) is not what was staged before; start a new job")
            ways[field.name] = way
        return ways

    def _placed(self, rows: pa.RecordBatch, scored: ScoredSpan) -> pa.RecordBatch:
        """`rows` with their positions, where the table has columns for them."""
        if not any(column.name == ROW for column in self.columns):
            return rows
        span = scored.span
        row = pc.add(scored.offsets().cast(pa.int64()), span.split.first_row + span.start)
        split = pa.repeat(pa.scalar(span.split.id), rows.num_rows)
        return rows.append_column(SPLIT, split).append_column(ROW, row)

    def _write(self, batches: Sequence[pa.RecordBatch], ways: Mapping[str, Way]) -> dict[str, int]:
        """Copy rows; returns how many values the database itself rounded, by column."""
        if not batches:
            return {}
        casts = {name: way.cast for name, way in ways.items() if way.cast is not None}
        if not casts:
            self._copy(self.table, batches)
            return {}
        # Read from text by the database itself. No temporary table, as those take a right of their own.
        wire = PostgresTable(self.table.schema, f"{self.table.name}_{uuid.uuid4().hex[:8]}")
        types = {column.name: column.type for column in self.columns}
        declared = [
            f"{quoted(field.name)} {_text_type(field.type) if field.name in casts else types[field.name]}"
            for field in batches[0].schema
        ]
        self.cursor.execute(f"CREATE UNLOGGED TABLE {wire} ({', '.join(declared)})")
        self._copy(wire, batches)
        names = batches[0].schema.names
        values = [f"{quoted(name)}::{casts[name]}" if name in casts else quoted(name) for name in names]
        self.cursor.execute(
            f"INSERT INTO {self.table} ({', '.join(map(quoted, names))}) SELECT {', '.join(values)} FROM {wire}"
        )
        rounded = {name: self._rounded(wire, name, cast) for name, cast in casts.items() if not ways[name].counted}
        self.cursor.execute(f"DROP TABLE {wire}")
        return rounded

    def _copy(self, table: PostgresTable, batches: Sequence[pa.RecordBatch]) -> None:
        reader = pa.RecordBatchReader.from_batches(batches[0].schema, batches)
        self.cursor.adbc_ingest(table.name, reader, mode="append", db_schema_name=table.schema)

    def _rounded(self, wire: PostgresTable, name: str, cast: str) -> int:
        """How many values the database rounded, as the declaration of the column demands."""
        column = next(column for column in self.columns if column.name == name)
        value = quoted(name)
        ((count,),) = fetch(
            self.cursor,
            f"SELECT count(*) FROM {wire} WHERE {value}::{cast} IS DISTINCT FROM ({value}::{cast})::{column.type}",
        )
        return int(count)

    def _refused(
        self, batches: Sequence[pa.RecordBatch], ways: Mapping[str, Way], error: dbapi.Error
    ) -> RowsRefused | OutputError:
        """Which rows the database refuses, found by trying them in ever smaller numbers."""
        refused = _with_zero_bytes(batches)
        if not refused:
            for at, batch in enumerate(batches):
                refused += refused_rows(partial(self._try, batch, ways), at, batch.num_rows)
        return RowsRefused(refused) if refused else OutputError(self.connection.reason(error))

    def _try(self, batch: pa.RecordBatch, ways: Mapping[str, Way], start: int, stop: int) -> Failure | None:
        failure = None
        try:
            self._write([batch.slice(start, stop - start)], ways)
        except dbapi.Error as error:
            if not is_of_rows(error):
                raise
            failure = self._failure(error)
        self.cursor.execute("ROLLBACK TO SAVEPOINT copies")
        if failure is not None and stop - start == 1:
            return self._with_column(failure, batch.slice(start, 1), ways)
        return failure

    def _failure(self, error: dbapi.Error) -> Failure:
        said = details(error)
        place = _COPIED_ROW.search(said.get("CONTEXT", ""))
        text = said.get("MESSAGE_PRIMARY") or self.connection.reason(error)
        # Rows are in the rejects, and may be long.
        detail = said.get("MESSAGE_DETAIL", "")
        if detail and not detail.startswith("Failing row contains"):
            text = f"{text} ({detail.rstrip('.')})"
        text = self.connection.mask(text.replace(f'"{self.table.name}"', f'"{self.target.name}"'))
        column = place[2] if place is not None and place[2] else said.get("COLUMN_NAME")
        return Failure(f"column {column}: {text}" if column else text, int(place[1]) - 1 if place else None)

    def _with_column(self, failure: Failure, row: pa.RecordBatch, ways: Mapping[str, Way]) -> Failure:
        """The column that one refused row is refused for, where that is one that the database reads from text."""
        if failure.reason.startswith("column "):
            return failure
        casts = {name: way.cast for name, way in ways.items() if way.cast is not None}
        for name, cast in casts.items():
            value = row.column(name)
            try:
                text = value.to_pylist()[0]
                literal = text if not isinstance(text, list) else None
                if literal is not None:
                    fetch(self.cursor, f"SELECT ($1::text)::{cast} IS NULL", (literal,))
            except dbapi.Error:
                self.cursor.execute("ROLLBACK TO SAVEPOINT copies")
                return Failure(f"column {name}: {failure.reason}")
        if len(casts) == 1 and "constraint" not in failure.reason:
            return Failure(f"column {next(iter(casts))}: {failure.reason}")
        return failure


def _text_type(type: pa.DataType) -> str:
    return "text[]" if pa.types.is_list(type) else "text"


def _with_zero_bytes(batches: Sequence[pa.RecordBatch]) -> list[RefusedRow]:
    """Rows with a zero byte in a text, which PostgreSQL does not keep."""
    found: dict[tuple[int, int], str] = {}
    for at, batch in enumerate(batches):
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if kind_of(column.type) == "string":
                for row in pc.indices_nonzero(pc.match_substring(column, "\0").fill_null(False)).to_pylist():
                    found.setdefault((at, row), f"column {name}: a zero byte, which PostgreSQL keeps in no text")
    return [RefusedRow(at, row, REFUSED, reason) for (at, row), reason in sorted(found.items())]
