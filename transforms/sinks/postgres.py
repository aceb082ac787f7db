"""A PostgreSQL table as a sink: rows and their notes go in together, and come to light in one transaction.

In the target's schema lie, while a job runs, `_penstock_<job>` (staged rows) and `_penstock_<job>_notes`, the job's id
with `_` for `-`: those of `batch-0123456789` are `_penstock_batch_0123456789` and `…_notes`. What stays for good is one
table for all jobs, `penstock_ledger`: which job published what.
"""

import atexit
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass
from typing import Any

import pyarrow as pa
from adbc_driver_manager import dbapi

from predictors.notices import Notice
from transforms.batches import ScoredSpan
from transforms.connection import Connection, set_postgres
from transforms.counts import Counts
from transforms.errors import ConnectionRefused, LedgerError, OutputError
from transforms.ledger import Note, note_of
from transforms.sinks.base import Manifest
from transforms.sinks.columns import LEDGER_TABLE, Kind, cast_columns, check_names, kind_of, plain
from transforms.sinks.entries import newest_publisher, other_result
from transforms.sinks.mode import Mode, check_appends_to
from transforms.sinks.names import PostgresTable, quoted, split_name

# PostgreSQL cuts longer names off, silently.
_NAME_BYTES = 63
_JOB_NAME = re.compile(r"[a-z0-9_]{1,40}")

_MICROSECONDS = pa.timestamp("us")
_UTC_MICROSECONDS = pa.timestamp("us", "UTC")
# Holds every uint64.
_LONGEST_INTEGER = pa.decimal128(20, 0)

# By PostgreSQL's internal name of a type: the Arrow type that COPY takes for it, and what may be cast to that.
# Narrower than PostgreSQL's own casts: no score becomes an integer by rounding, no local time an instant.
_TAKES: dict[str, tuple[pa.DataType, set[Kind]]] = {
    "bool": (pa.bool_(), {"boolean"}),
    "int2": (pa.int16(), {"integer"}),
    "int4": (pa.int32(), {"integer"}),
    "int8": (pa.int64(), {"integer"}),
    "float4": (pa.float32(), {"float", "integer", "decimal"}),
    "float8": (pa.float64(), {"float", "integer", "decimal"}),
    "text": (pa.string(), {"string"}),
    "varchar": (pa.string(), {"string"}),
    "bpchar": (pa.string(), {"string"}),
    "json": (pa.string(), {"string"}),
    "bytea": (pa.binary(), {"binary"}),
    "date": (pa.date32(), {"date"}),
    "time": (pa.time64("us"), {"time"}),
    "timestamp": (_MICROSECONDS, {"timestamp", "date"}),
    "timestamptz": (_UTC_MICROSECONDS, {"timestamptz"}),
    "interval": (pa.duration("us"), {"duration"}),
}

# Of the table of jobs: in which order they published, and whether their rows were added to those that were there.
_LATER_COLUMNS = ("number bigint GENERATED ALWAYS AS IDENTITY", "appended boolean NOT NULL DEFAULT false")

# Long statements are the job's own to bound (`timeout_minutes`). All of it ends with the transaction.
_SETTINGS = set_postgres(
    for_session=False,
    client_min_messages="warning",
    statement_timeout="0",
    lock_timeout="0",
    idle_in_transaction_session_timeout="0",
)

_RELATION = """
    SELECT relation.relkind::text, row_security_active(relation.oid),
           has_table_privilege(relation.oid, 'INSERT'), has_table_privilege(relation.oid, 'DELETE'),
           (SELECT min(format('%s (%s)', conrelid::regclass, conname)) FROM pg_constraint
            WHERE contype = 'f' AND confrelid = relation.oid AND conrelid <> relation.oid)
    FROM pg_class AS relation JOIN pg_namespace AS schema ON schema.oid = relation.relnamespace
    WHERE schema.nspname = $1::text AND relation.relname = $2::text
"""

_COLUMNS = """
    SELECT attribute.attname::text, format_type(attribute.atttypid, attribute.atttypmod), base.typname::text,
           item.typname::text, base.typcategory::text, attribute.attnotnull,
           attribute.atthasdef OR attribute.attidentity <> '', attribute.attgenerated <> '' OR attidentity = 'a'
    FROM pg_class AS relation
    JOIN pg_namespace AS schema ON schema.oid = relation.relnamespace
    JOIN pg_attribute AS attribute ON attribute.attrelid = relation.oid
    JOIN pg_type AS type ON type.oid = attribute.atttypid
    JOIN pg_type AS base ON base.oid = CASE type.typtype WHEN 'd' THEN type.typbasetype ELSE type.oid END
    LEFT JOIN pg_type AS item ON base.typcategory = 'A' AND item.oid = base.typelem
    WHERE schema.nspname = $1::text AND relation.relname = $2::text
      AND attribute.attnum > 0 AND NOT attribute.attisdropped
    ORDER BY attribute.attnum
"""

# By URI: connections that are closed, but know the server's types; see `_connected`.
_acquainted: dict[str, dbapi.Connection] = {}
_acquainted_lock = threading.Lock()


@dataclass(frozen=True)
class _Column:
    """A column of a table.

    Args:
        type: as SQL writes it, `numeric(10,2)`.
        base: internal name of the type, of the one below where it is a domain.
        item: the same for the items of an array.
        category: what PostgreSQL calls `typcategory`.
        not_null, has_default: whether a row must have a value, and what happens when it is left out.
        computed: the database alone gives the value.
    """

    name: str
    type: str
    base: str
    item: str | None
    category: str
    not_null: bool
    has_default: bool
    computed: bool

    def takes(self, arrow: pa.DataType) -> pa.DataType | None:
        """The Arrow type in which values of type `arrow` are copied into this column; None when they cannot be."""
        arrow = plain(arrow)
        if self.item is None:
            return _taken(self.base, arrow)
        if kind_of(arrow) == "null":
            return arrow
        item = _taken(self.item, plain(arrow.value_type)) if kind_of(arrow) == "list" else None
        return None if item is None else pa.list_(item)

    @property
    def takes_text(self) -> bool:
        """Whether values come in as text, to be read by the type itself: uuid, jsonb, inet, an enumeration, …"""
        return self.base not in _TAKES and self.category in {"E", "I", "U"}

    def staged_type(self, arrow: pa.DataType) -> str | None:
        """The type under which values for this column are staged; None when it cannot take them."""
        kind = kind_of(plain(arrow))
        if self.takes(arrow) is not None:
            return self.type
        if kind == "string" and self.takes_text:
            return "text"
        if kind == "float" and self.base == "numeric":
            return _natural_type(arrow)
        return None


@dataclass(frozen=True)
class PostgresSink:
    """Scored rows in one table of a PostgreSQL database (12 or later).

    Needs the rights to create tables in the schema and, for a table that is there, to insert and, unless it appends,
    to delete. Nothing is kept open between calls; `stage` may be called from any number of threads and processes, each
    with a transaction of its own.

    Args:
        connection: the database.
        table_name: `table` or `schema.table` as in SQL: folded to lower case unless in double quotes. Without a
            schema it is the first of the connection's `search_path`.
        mode: `overwrite` replaces all rows of a table that is there, `append` adds to them, `error_if_exists` refuses
            it.
        job_id: the job that stages.
        appends_to: with `append`, the job whose result the table must hold.
    """

    connection: Connection
    table_name: str
    mode: Mode
    job_id: str
    appends_to: str | None = None

    def __post_init__(self) -> None:
        check_appends_to(self.mode, self.appends_to)

    def describe(self) -> str:
        """The table and its database, the password masked."""
        return f"table {self.table_name} at {self.connection.describe()}"

    def check(self, schema: pa.Schema) -> list[Notice]:
        """Check the table, or that one can be made."""
        check_names(schema)
        with self._transaction() as cursor:
            target = self._target(cursor)
            self._check_schema(cursor, target)
            self._check_ledger(cursor, target.schema)
            if self._published(cursor, target.schema) is None:
                existing = self._check_target(cursor, target)
                # A ledger of an old version gets the columns by which it is looked up when staging is prepared.
                if existing is None or _has_later_columns(cursor, _ledger(target.schema)):
                    self._check_holder(cursor, target, existing)
                if not _exists(cursor, self._rows(target.schema)):
                    self._staged_columns(schema, existing)
        return []

    def prepare(self, schema: pa.Schema) -> None:
        """Check the table, or that one can be made, and make the staging table beside it."""
        check_names(schema)
        with self._transaction() as cursor:
            target = self._target(cursor)
            self._check_schema(cursor, target)
            # Of two jobs that start together, one makes the ledger and the other finds it.
            _lock(cursor, f"penstock prepares in {quoted(target.schema)}")
            self._make_ledger(cursor, target.schema)
            if self._published(cursor, target.schema) is not None:
                return
            existing = self._check_target(cursor, target)
            self._check_holder(cursor, target, existing)
            if not _exists(cursor, self._rows(target.schema)):
                columns = self._staged_columns(schema, existing)
                cursor.execute(f"CREATE TABLE {self._rows(target.schema)} ({', '.join(columns)})")
            if not _exists(cursor, self._notes(target.schema)):
                cursor.execute(
                    f"CREATE TABLE {self._notes(target.schema)} (split text, start bigint, stop bigint NOT NULL,"
                    " last boolean NOT NULL, scored bigint NOT NULL, rejected bigint NOT NULL, skipped bigint NOT NULL,"
                    " rejects text, entry bigint GENERATED ALWAYS AS IDENTITY, PRIMARY KEY (split, start))"
                )
            cursor.execute("COMMIT")

    def noted(self, split_id: str) -> list[Note]:
        """The notes of one split, in the order in which they were made."""
        return self._read_notes("WHERE split = $1::text", (split_id,))

    def all_notes(self) -> list[Note]:
        """The notes of all splits."""
        return self._read_notes("", None)

    def stage(self, spans: Sequence[ScoredSpan], rejects: str | None) -> list[Note] | None:
        """Copy rows into the staging table and note their spans, in one transaction.

        Waits while another transaction is noting one of the same spans, to learn whether it does.
        """
        notes = [note_of(scored, None, rejects) for scored in spans]
        with self._transaction() as cursor:
            target = self._target(cursor)
            if len(self._insert_notes(cursor, target.schema, notes)) < len(notes):
                return None
            batches = [scored.rows for scored in spans if scored.rows.num_rows]
            if batches:
                self._copy(cursor, self._rows(target.schema), batches)
            cursor.execute("COMMIT")
        return notes

    def published(self) -> Counts | None:
        """The counts in the database's ledger, when this job published."""
        with self._transaction() as cursor:
            return self._published(cursor, self._target(cursor).schema)

    def publish(self, manifest: Manifest) -> None:
        """Put the staged rows in the place of the target's, or beside them, or name the staging table as it.

        All in one transaction. Readers are not held up. Other writers of the target are, until the end; while rows are
        added, only those that publish there. Grants, indexes, triggers and views of the target stay.
        """
        with self._transaction() as cursor:
            target = self._target(cursor)
            # One publisher of a table at a time. The second of the same job then finds that all is done.
            _lock(cursor, f"penstock publishes {target}")
            if self._published(cursor, target.schema) is not None:
                return
            self._check_staged(cursor, target.schema, manifest)
            existing = self._check_target(cursor, target)
            self._check_holder(cursor, target, existing)
            if existing is None:
                cursor.execute(f"ALTER TABLE {self._rows(target.schema)} RENAME TO {quoted(target.name)}")
            else:
                self._fill(cursor, target, existing)
            _fetch(
                cursor,
                f"INSERT INTO {_ledger(target.schema)} (job, table_name, scored, rejected, skipped, published_at,"
                " details, appended) VALUES ($1::text, $2::text, $3::bigint, $4::bigint, $5::bigint,"
                " $6::text::timestamptz, $7::text::jsonb, $8::boolean) RETURNING 1",
                (
                    self.job_id,
                    str(target),
                    *astuple(manifest.counts),
                    manifest.published_at,
                    json.dumps(manifest.details),
                    self.mode == "append" and existing is not None,
                ),
            )
            cursor.execute("COMMIT")

    def clean(self) -> None:
        """Drop the staging tables; the ledger stays."""
        with self._transaction() as cursor:
            schema = self._target(cursor).schema
            for table in (self._rows(schema), self._notes(schema)):
                if _exists(cursor, table):
                    cursor.execute(f"DROP TABLE {table}")
            cursor.execute("COMMIT")

    def discard(self) -> None:
        """Drop the staging tables."""
        self.clean()

    @contextmanager
    def _transaction(self) -> Iterator[dbapi.Cursor]:
        """A cursor in a transaction that is undone at the end of the block, unless the block says COMMIT.

        READ COMMITTED, so that what is read after waiting for a lock is what the holder left.
        """
        with _connected(self.connection) as connection, connection.cursor() as cursor:
            try:
                cursor.execute("BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE")
                _fetch(cursor, _SETTINGS)
                yield cursor
            except dbapi.Error as error:
                raise self._error(self.connection.reason(error)) from error

    def _error(self, message: str) -> OutputError:
        return OutputError(f"{self.describe()}: {self.connection.mask(message)}")

    def _target(self, cursor: dbapi.Cursor) -> PostgresTable:
        found = split_name(self.table_name)
        if found is None:
            raise self._error(
                "write output.table_name as table or schema.table, a name with other than letters, digits and _ in "
                "double quotes"
            )
        schema, name = found
        if schema is None:
            ((schema,),) = _fetch(cursor, "SELECT current_schema()::text")
            if schema is None:
                raise self._error("no schema of the search_path exists; write output.table_name as schema.table")
        for part in (schema, name):
            if len(part.encode()) > _NAME_BYTES:
                raise self._error(f"name {part} is longer than the {_NAME_BYTES} bytes that PostgreSQL keeps")
        if name == LEDGER_TABLE:
            raise self._error(f"{LEDGER_TABLE} is where jobs are recorded; name another table")
        return PostgresTable(schema, name)

    def _check_schema(self, cursor: dbapi.Cursor, target: PostgresTable) -> None:
        found = _fetch(
            cursor,
            "SELECT has_schema_privilege(oid, 'CREATE') AND has_schema_privilege(oid, 'USAGE'), current_user::text"
            " FROM pg_namespace WHERE nspname = $1::text",
            (target.schema,),
        )
        schema = quoted(target.schema)
        if not found:
            raise self._error(f"there is no schema {schema}; make it first: CREATE SCHEMA {schema}")
        ((allowed, user),) = found
        if not allowed:
            raise self._error(
                f"user {user} may not make tables in schema {schema}: GRANT CREATE, USAGE ON SCHEMA {schema}"
                f" TO {quoted(user)}"
            )

    def _check_target(self, cursor: dbapi.Cursor, target: PostgresTable) -> list[_Column] | None:
        """The columns of the target, or None when there is none.

        Raises:
            OutputError: it is there and may not, or cannot, be emptied and filled.
        """
        found = _fetch(cursor, _RELATION, (target.schema, target.name))
        if not found:
            self._check_namesakes(cursor, target)
            return None
        if self.mode == "error_if_exists":
            raise self._error("the table is there already; use output.mode: overwrite, or name another table")
        ((relation, row_security, may_insert, may_delete, referrer),) = found
        if relation not in {"r", "p"}:
            raise self._error("this is a view or another thing without rows of its own; name a table")
        if self.mode == "append":
            if not may_insert:
                raise self._error(f"no right to add rows to it: GRANT INSERT ON {target}")
            # The other reasons are those against deleting.
            return _columns(cursor, target)
        if not (may_insert and may_delete):
            raise self._error(f"no right to replace its rows: GRANT INSERT, DELETE ON {target}")
        if row_security:
            raise self._error(
                "row security hides rows from this user, so old ones might stay; use a user with BYPASSRLS"
            )
        if referrer is not None:
            raise self._error(f"rows of {referrer} refer to it, so its own cannot be replaced; name another table")
        return _columns(cursor, target)

    def _check_holder(self, cursor: dbapi.Cursor, target: PostgresTable, existing: list[_Column] | None) -> None:
        """Demand that the target holds the result of the job that is to be added to, if one is.

        Raises:
            OutputError: says what is there instead.
        """
        if self.appends_to is None:
            return
        if existing is None:
            raise self._error(f"the table, and in it the result of {self.appends_to}, is gone; nothing was added")
        newest = newest_publisher(cursor, "postgres", str(_ledger(target.schema)), str(target))
        if newest != self.appends_to:
            raise self._error(other_result(self.appends_to, newest))

    def _check_namesakes(self, cursor: dbapi.Cursor, target: PostgresTable) -> None:
        """Refuse to make a table beside one that is more likely meant: "Scores" for Scores, or another schema's."""
        written = self.table_name.rpartition(".")[2]
        if written != target.name and _fetch(cursor, _RELATION, (target.schema, written)):
            raise self._error(
                f'there is a table "{written}", which SQL finds only in double quotes; write "{written}" in'
                " output.table_name, or another name"
            )
        if self.table_name == written:
            ((found,),) = _fetch(cursor, "SELECT to_regclass($1::text)::text", (quoted(target.name),))
            if found is not None:
                raise self._error(f"there is a {found} in the search_path; write output.table_name as schema.table")

    def _staged_columns(self, schema: pa.Schema, existing: list[_Column] | None) -> list[str]:
        """How the staging table declares its columns: as the target does, so that what does not fit is found early.

        Raises:
            OutputError: names the column that the target, or PostgreSQL, cannot take.
        """
        declared = []
        for field in schema:
            if existing is None:
                type, null = _natural_type(field.type), ""
                if type is None:
                    raise self._error(
                        f"PostgreSQL has no type for column {field.name} ({field.type}); leave it out of output.columns"
                    )
                if len(field.name.encode()) > _NAME_BYTES:
                    raise self._error(f"column name {field.name} is longer than the {_NAME_BYTES} bytes it may have")
            else:
                column = next((column for column in existing if column.name == field.name), None)
                if column is None:
                    raise self._error(f"it has no column {field.name}; add one that can take {field.type}")
                type, null = column.staged_type(field.type), " NOT NULL" if column.not_null else ""
                if column.computed:
                    raise self._error(
                        f"the database computes column {field.name} by itself; leave it out of output.columns"
                    )
                if type is None:
                    raise self._error(f"its column {field.name} is {column.type} and cannot take {field.type}")
            declared.append(f"{quoted(field.name)} {type}{null}")
        for column in existing or []:
            if column.not_null and not column.has_default and column.name not in schema.names:
                raise self._error(
                    f"its column {column.name} is NOT NULL without a default, and the output has no such column; add it"
                    " to output.columns, or give it a default"
                )
        return declared

    def _make_ledger(self, cursor: dbapi.Cursor, schema: str) -> None:
        ledger = _ledger(schema)
        if not _exists(cursor, ledger):
            cursor.execute(
                f"CREATE TABLE {ledger} (job text PRIMARY KEY, table_name text NOT NULL, scored bigint NOT NULL,"
                " rejected bigint NOT NULL, skipped bigint NOT NULL, published_at timestamptz NOT NULL,"
                f" details jsonb NOT NULL, {', '.join(_LATER_COLUMNS)})"
            )
            return
        self._check_ledger(cursor, schema)
        if not _has_later_columns(cursor, ledger):
            # Made when there was no appending.
            cursor.execute(f"ALTER TABLE {ledger} {', '.join(f'ADD COLUMN {column}' for column in _LATER_COLUMNS)}")

    def _check_ledger(self, cursor: dbapi.Cursor, schema: str) -> None:
        """Demand that jobs can be recorded in the ledger, if there is one yet."""
        ledger = _ledger(schema)
        if not _exists(cursor, ledger):
            return
        ((allowed, user),) = _fetch(
            cursor,
            "SELECT has_table_privilege($1::text, 'SELECT') AND has_table_privilege($1::text, 'INSERT'),"
            " current_user::text",
            (str(ledger),),
        )
        if not allowed:
            raise self._error(
                f"another user's jobs are recorded in {ledger}: GRANT SELECT, INSERT ON {ledger} TO {quoted(user)}"
            )

    def _insert_notes(self, cursor: dbapi.Cursor, schema: str, notes: Sequence[Note]) -> list[tuple[Any, ...]]:
        """Note spans in ascending order, so that two writers never wait for each other; those noted are left out."""
        return _fetch(
            cursor,
            f"INSERT INTO {self._notes(schema)} (split, start, stop, last, scored, rejected, skipped, rejects)"
            " SELECT * FROM json_to_recordset($1::text::json) AS note (split text, start bigint, stop bigint,"
            " last boolean, scored bigint, rejected bigint, skipped bigint, rejects text) ORDER BY start"
            " ON CONFLICT DO NOTHING RETURNING start",
            (json.dumps([asdict(note) for note in notes]),),
        )

    def _copy(self, cursor: dbapi.Cursor, table: PostgresTable, batches: Sequence[pa.RecordBatch]) -> None:
        columns = {column.name: column for column in _columns(cursor, table)}
        types = {}
        for field in batches[0].schema:
            column = columns.get(field.name)
            # Where values are read from text, or rounded to numeric, the staging table has the simpler type.
            wire = None if column is None else column.takes(field.type)
            if wire is None:
                raise self._error(f"column {field.name} ({field.type}) is not what was staged before; start a new job")
            types[field.name] = wire
        ready = [cast_columns(rows, types) for rows in batches]
        reader = pa.RecordBatchReader.from_batches(ready[0].schema, ready)
        cursor.adbc_ingest(table.name, reader, mode="append", db_schema_name=table.schema)

    def _check_staged(self, cursor: dbapi.Cursor, schema: str, manifest: Manifest) -> None:
        """Demand that what is staged is what the manifest names: no row more or less.

        Raises:
            LedgerError: it is not.
            OutputError: the staging tables are gone.
        """
        rows, notes = self._rows(schema), self._notes(schema)
        if not (_exists(cursor, rows) and _exists(cursor, notes)):
            raise self._error(f"the staging table {rows} is gone; start the job anew")
        ((staged, noted),) = _fetch(cursor, f"SELECT (SELECT count(*) FROM {rows}), (SELECT count(*) FROM {notes})")
        if (staged, noted) != (manifest.counts.scored, len(manifest.notes)):
            raise LedgerError(
                f"{self.describe()}: {staged} rows of {noted} spans are staged, but {manifest.counts.scored} rows of "
                f"{len(manifest.notes)} are to be published"
            )

    def _fill(self, cursor: dbapi.Cursor, target: PostgresTable, existing: list[_Column]) -> None:
        staging = self._rows(target.schema)
        takers = {column.name: column for column in existing}
        names, values = [], []
        for column in _columns(cursor, staging):
            taker = takers.get(column.name)
            if taker is None:
                raise self._error(f"its column {column.name} is gone since the job began; add it again")
            name = quoted(column.name)
            names.append(name)
            values.append(f"{name}::{taker.type}" if column.base == "text" and taker.takes_text else name)
        if self.mode != "append":
            # Readers pass; a writer in between would leave rows that are neither the old result nor the new one.
            cursor.execute(f"LOCK TABLE {target} IN SHARE ROW EXCLUSIVE MODE")
            cursor.execute(f"DELETE FROM {target}")
        cursor.execute(f"INSERT INTO {target} ({', '.join(names)}) SELECT {', '.join(values)} FROM {staging}")

    def _published(self, cursor: dbapi.Cursor, schema: str) -> Counts | None:
        ledger = _ledger(schema)
        if not _exists(cursor, ledger):
            return None
        found = _fetch(cursor, f"SELECT scored, rejected, skipped FROM {ledger} WHERE job = $1::text", (self.job_id,))
        return Counts(*found[0]) if found else None

    def _read_notes(self, where: str, parameters: tuple[Any, ...] | None) -> list[Note]:
        with self._transaction() as cursor:
            notes = self._notes(self._target(cursor).schema)
            if not _exists(cursor, notes):
                return []
            found = _fetch(
                cursor,
                "SELECT split, start, stop, last, scored, rejected, skipped, NULL::text, rejects"
                f" FROM {notes} {where} ORDER BY entry",
                parameters,
            )
            return [Note(*row) for row in found]

    def _rows(self, schema: str) -> PostgresTable:
        return PostgresTable(schema, f"_penstock_{self._job}")

    def _notes(self, schema: str) -> PostgresTable:
        return PostgresTable(schema, f"_penstock_{self._job}_notes")

    @property
    def _job(self) -> str:
        """The job id as part of a name that needs no quotes; a digest of one that is too long or odd."""
        name = self.job_id.replace("-", "_")
        if _JOB_NAME.fullmatch(name):
            return name
        return hashlib.sha256(self.job_id.encode()).hexdigest()[:32]


@contextmanager
def _connected(connection: Connection) -> Iterator[dbapi.Connection]:
    """Connect as `connection.open(autocommit=True)` does, without learning the server's types each time.

    The driver asks for all of them at first (54 ms, most of it spent on our side, and more in a large database); a
    further connection of the same ADBC database takes 3 ms. What is kept between calls is what was learnt: no socket.
    """
    uri = connection.expanded()
    # ADBC's database counts its connections without a lock of its own.
    with _acquainted_lock:
        if uri not in _acquainted:
            first = connection.open(autocommit=True)
            first.adbc_connection.close()
            atexit.register(first.close)
            _acquainted[uri] = first
        try:
            further = _acquainted[uri].adbc_clone()
        except dbapi.Error as error:
            raise ConnectionRefused(f"connection {connection.describe()}: {connection.reason(error)}") from error
    try:
        further.adbc_connection.set_autocommit(True)
        yield further
    finally:
        with _acquainted_lock:
            further.close()


def _ledger(schema: str) -> PostgresTable:
    return PostgresTable(schema, LEDGER_TABLE)


def _taken(base: str, arrow: pa.DataType) -> pa.DataType | None:
    """The Arrow type in which COPY takes values of type `arrow` into the type `base`; None where it does not."""
    kind = kind_of(arrow)
    if kind == "null":
        return arrow
    if base == "numeric":
        if kind == "integer":
            return _LONGEST_INTEGER
        if kind == "decimal":
            return (
                pa.decimal256(arrow.precision, arrow.scale)
                if arrow.precision > 38
                else pa.decimal128(arrow.precision, arrow.scale)
            )
        return None
    wire, kinds = _TAKES.get(base, (None, set()))
    return wire if kind in kinds else None


def _natural_type(arrow: pa.DataType) -> str | None:
    """The SQL type of a new column for values of type `arrow`; None where there is none.

    Examples:
        int64 is bigint, uint64 numeric(20,0), decimal(9, 2) numeric(9,2), list<float> real[].
    """
    arrow = plain(arrow)
    kind = kind_of(arrow)
    if kind == "integer":
        # An unsigned number takes the next longer type.
        bits = arrow.bit_width + (1 if pa.types.is_unsigned_integer(arrow) else 0)
        return next(
            (name for limit, name in ((16, "smallint"), (32, "integer"), (64, "bigint")) if bits <= limit),
            "numeric(20,0)",
        )
    if kind == "float":
        return "double precision" if arrow.bit_width == 64 else "real"
    if kind == "decimal":
        return f"numeric({arrow.precision},{arrow.scale})" if arrow.scale >= 0 else "numeric"
    if kind == "list":
        value = plain(arrow.value_type)
        item = None if kind_of(value) == "list" else _natural_type(value)
        return None if item is None else f"{item}[]"
    names: dict[Kind, str] = {
        "null": "text",
        "boolean": "boolean",
        "string": "text",
        "binary": "bytea",
        "date": "date",
        "time": "time",
        "timestamp": "timestamp",
        "timestamptz": "timestamptz",
        "duration": "interval",
    }
    return names.get(kind)


def _columns(cursor: dbapi.Cursor, table: PostgresTable) -> list[_Column]:
    return [_Column(*row) for row in _fetch(cursor, _COLUMNS, (table.schema, table.name))]


def _exists(cursor: dbapi.Cursor, table: PostgresTable) -> bool:
    ((found,),) = _fetch(cursor, "SELECT to_regclass($1::text) IS NOT NULL", (str(table),))
    return bool(found)


def _has_later_columns(cursor: dbapi.Cursor, ledger: PostgresTable) -> bool:
    return any(column.name == "appended" for column in _columns(cursor, ledger))


def _lock(cursor: dbapi.Cursor, what: str) -> None:
    """Wait for, and hold until the end of the transaction, a lock that only other jobs of ours ask for."""
    _fetch(cursor, "SELECT pg_advisory_xact_lock(hashtextextended($1::text, 0)) IS NULL", (what,))


def _fetch(cursor: dbapi.Cursor, sql: str, parameters: tuple[Any, ...] | None = None) -> list[tuple[Any, ...]]:
    cursor.execute(sql, parameters)
    return list(cursor.fetchall())
