"""A SQLite table as a destination: whether it, or a new one, can take what a job would write."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import pyarrow as pa
from adbc_driver_manager import dbapi

from predictors.notices import Notice
from transforms.errors import OutputError, RefusedRow
from transforms.refusals import Failure, refused_rows
from transforms.sinks.names import folded, quoted
from transforms.sinks.sqlitecolumns import declared, way_into
from transforms.sinks.ways import Way, can_fit

# What a table's own declaration demands of a row by itself, beside NOT NULL.
_DEMANDS = re.compile(r"\b(?:CHECK|STRICT)\b", re.IGNORECASE)
# How a row's number is called, unless a column is called so.
_NUMBERS = ("rowid", "_rowid_", "oid")
# What makes a table drop rows instead of refusing them.
_DROPS = re.compile(r"\bON\s+CONFLICT\s+(?:IGNORE|REPLACE)\b", re.IGNORECASE)
# https://www.sqlite.org/limits.html, as SQLite is built everywhere.
_MOST_COLUMNS = 2000


@dataclass(frozen=True)
class Column:
    """A column of a table, as `pragma_table_xinfo` tells it."""

    name: str
    declared: str
    not_null: bool
    has_default: bool
    computed: bool


@dataclass(frozen=True)
class Table:
    """A table that is there, or one that will be made.

    Args:
        name: as the job writes it.
        columns: of one that is there.
        sql: the statement that made it; None for one that will be made.
        has_triggers: whether rows that are inserted set some off.
    """

    name: str
    columns: Sequence[Column]
    sql: str | None
    has_triggers: bool = False

    def to_json(self) -> str:
        """What staging needs to know of the table."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Table":
        """The table that `to_json` wrote."""
        values = json.loads(text)
        return cls(**{**values, "columns": [Column(**column) for column in values["columns"]]})

    def ways(self, schema: pa.Schema, error: Callable[[str], OutputError]) -> dict[str, Way]:
        """How each column gets in.

        Raises:
            OutputError: names the one that cannot.
        """
        taken = {folded(column.name): column for column in self.columns}
        ways = {}
        for field in schema:
            if self.sql is None:
                way = way_into(declared(field.type), field.type)
                if way is None or not can_fit(way, field.type):
                    raise error(
                        f"SQLite has no place for column {field.name} ({field.type}); leave it out of output.columns"
                    )
            else:
                column = taken.pop(folded(field.name), None)
                if column is None:
                    raise error(
                        f"it has no column {field.name}; add one that can take {field.type}, or leave it out "
                        f"(output.columns, model.outputs)"
                    )
                if column.computed:
                    raise error(f"the database computes column {field.name} by itself; leave it out of output.columns")
                way = way_into(column.declared, field.type)
                if way is None or not can_fit(way, field.type):
                    raise error(
                        f"its column {field.name} is {column.declared} and cannot take {field.type}; change the"
                        " column's type, cast it in the query or the model, or leave it out of output.columns"
                    )
            ways[field.name] = way
        for column in taken.values():
            if column.not_null and not column.has_default:
                raise error(
                    f"its column {column.name} is NOT NULL without a default, and the output has no such column; add it"
                    " to output.columns, or give it a default"
                )
        return ways

    def may_change(self, schema: pa.Schema, error: Callable[[str], OutputError]) -> list[Notice]:
        """What values may lose; raises as `ways`."""
        if self.sql is None and len(schema) > _MOST_COLUMNS:
            raise error(
                f"the output has {len(schema):,} columns, and a table of SQLite at most {_MOST_COLUMNS:,}; list fewer"
                " in output.columns, or write Parquet"
            )
        ways = self.ways(schema, error)
        notices = [notice for field in schema for notice in ways[field.name].may_change(field)]
        own = "triggers" if self.has_triggers else "ON CONFLICT clauses" if _DROPS.search(self.sql or "") else None
        if own is not None:
            words = f"{own} of its own, which may change rows that are published, or leave them out"
            notices.append(Notice("rows_may_be_changed", f"table {self.name} has {words}"))
        return notices

    def required(self, names: Sequence[str]) -> set[str]:
        """Which of `names` take no null."""
        demanding = {folded(column.name) for column in self.columns if column.not_null}
        return {name for name in names if folded(name) in demanding}

    def refused(self, batches: Sequence[pa.RecordBatch]) -> list[RefusedRow]:
        """Rows that the table's own CHECK constraints refuse, found in a table like it in memory.

        Keys that come twice are not found here: which of the rows is wrong shows only when all are there.
        """
        if self.sql is None or not _DEMANDS.search(self.sql):
            return []
        import adbc_driver_sqlite.dbapi

        refused = []
        with (
            adbc_driver_sqlite.dbapi.connect(":memory:", autocommit=True) as connection,
            connection.cursor() as cursor,
        ):
            try:
                cursor.execute(self.sql)
            except dbapi.Error:
                # It needs what only its own database has, and is judged when it is filled.
                return []
            for at, rows in enumerate(batches):
                if rows.num_rows:
                    cursor.adbc_ingest("_penstock_rows", rows, mode="replace")
                    names = ", ".join(quoted(name) for name in rows.schema.names)
                    # REPLACE lets keys pass that come twice.
                    insert = f"INSERT OR REPLACE INTO {quoted(self.name)} ({names}) SELECT {names} FROM _penstock_rows"
                    taken = {folded(name) for name in rows.schema.names}
                    number = next((each for each in _NUMBERS if each not in taken), None)
                    if number is not None:
                        refused += refused_rows(partial(_try, cursor, insert, number), at, rows.num_rows)
        return refused


def _try(cursor: dbapi.Cursor, insert: str, number: str, start: int, stop: int) -> Failure | None:
    try:
        cursor.execute(f"{insert} WHERE {number} > {start} AND {number} <= {stop}")
    except dbapi.Error as error:
        return Failure(said(str(error)))
    return None


def said(text: str) -> str:
    """What SQLite said, without the driver's words around it."""
    found = re.search(r"[A-Z ]+ constraint failed: [^\n]*|cannot store [^\n]*", text)
    return found[0].strip() if found else " ".join(text.split())


def table_of(cursor: dbapi.Cursor, name: str) -> tuple[str, Table] | None:
    """What is there under a name: `table` or `view`, and its columns."""
    found = _fetch(
        cursor,
        "SELECT type, sql FROM sqlite_schema WHERE type IN ('table', 'view') AND name = ? COLLATE NOCASE",
        (name,),
    )
    if not found:
        return None
    # A lone INTEGER PRIMARY KEY is the row's number: SQLite gives one where there is none, also in the place of NULL.
    columns = _fetch(
        cursor,
        'SELECT name, type, "notnull" OR is_number, dflt_value IS NOT NULL OR is_number, hidden > 0 FROM ('
        " SELECT *, pk AND upper(type) = 'INTEGER' AND sum(pk > 0) OVER () = 1 AND NOT ("
        " SELECT wr FROM pragma_table_list WHERE schema = 'main' AND name = ?1 COLLATE NOCASE"
        " ) AS is_number FROM pragma_table_xinfo(?1)) ORDER BY cid",
        (name,),
    )
    (has_triggers,) = _fetch(
        cursor, "SELECT count(*) FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = ? COLLATE NOCASE", (name,)
    )[0]
    ((type, sql),) = found
    made = [Column(name, kind, *map(bool, flags)) for name, kind, *flags in columns]
    return type, Table(name, made, sql, bool(has_triggers))


def _fetch(cursor: dbapi.Cursor, sql: str, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    cursor.execute(sql, parameters)
    return list(cursor.fetchall())


def same_key(rows: pa.RecordBatch, key: Mapping[str, Any]) -> list[int]:
    """Which of `rows` have these values."""
    values = rows.select(list(key)).to_pylist()
    return [row for row, found in enumerate(values) if found == dict(key)]
