"""A PostgreSQL table as a sink: rows and their notes go in together, and come to light in one transaction.

In the target's schema lie, while a job runs, `_penstock_<job>` (staged rows) and `_penstock_<job>_notes`, the job's id
with `_` for `-`: those of `batch-0123456789` are `_penstock_batch_0123456789` and `…_notes`. What stays for good is one
table for all jobs, `penstock_ledger`: which job published what.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, astuple, dataclass, replace
from typing import Any

import pyarrow as pa
from adbc_driver_manager import dbapi

from predictors.notices import Notice
from transforms.batches import ScoredSpan
from transforms.connection import Connection
from transforms.counts import Counts
from transforms.errors import LedgerError, OutputError
from transforms.ledger import Note, note_of
from transforms.sinks.base import Manifest
from transforms.sinks.columns import LEDGER_TABLE, check_names
from transforms.sinks.mode import Mode, check_appends_to
from transforms.sinks.names import PostgresTable, quoted, split_name
from transforms.sinks.pgcatalog import columns, exists, fetch, lock, may_drop
from transforms.sinks.pgcolumns import NAME_BYTES, Column
from transforms.sinks.pgconflicts import Publishing
from transforms.sinks.pgsession import transaction
from transforms.sinks.pgstaging import POSITION, ROW, Copying, is_of_rows
from transforms.sinks.pgtarget import Target

_JOB_NAME = re.compile(r"[a-z0-9_]{1,40}")

# Of the table of jobs: in which order they published, and whether their rows were added to those that were there.
_LATER_COLUMNS = ("number bigint GENERATED ALWAYS AS IDENTITY", "appended boolean NOT NULL DEFAULT false")

# A row for whatever keeps the table of jobs: one that published, or the staging of one that may.
_OTHERS_OR_PUBLISHED = r"""
    SELECT 1 FROM {} UNION ALL
    SELECT 1 FROM pg_class AS relation JOIN pg_namespace AS schema ON schema.oid = relation.relnamespace
    WHERE schema.nspname = $1::text AND relation.relname LIKE '\_penstock\_%' LIMIT 1
"""


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
        with self._transaction(read_only=True) as cursor:
            target = self._judged(cursor)
            notices = target.check_schema()
            self._check_ledger(cursor, target.table.schema)
            if self._published(cursor, target.table.schema) is not None:
                return []
            existing = target.check_table()
            # A ledger of an old version gets the columns by which it is looked up when staging is prepared.
            if existing is None or _has_later_columns(cursor, _ledger(target.table.schema)):
                target.check_holder(existing, _ledger(target.table.schema))
            if exists(cursor, self._rows(target.table.schema)):
                return notices
            return [*notices, *target.staged(schema, existing).notices]

    def prepare(self, schema: pa.Schema) -> None:
        """Check the table, or that one can be made, and make the staging table beside it."""
        check_names(schema)
        with self._transaction() as cursor:
            target = self._judged(cursor)
            table = target.table
            target.make_schema()
            # Of two jobs that start together, one makes the ledger and the other finds it.
            lock(cursor, f"penstock prepares in {quoted(table.schema)}")
            self._make_ledger(cursor, table.schema)
            if self._published(cursor, table.schema) is not None:
                return
            existing = target.check_table()
            target.check_holder(existing, _ledger(table.schema))
            if not exists(cursor, self._rows(table.schema)):
                target.make_staging(self._rows(table.schema), target.staged(schema, existing), existing)
            if not exists(cursor, self._notes(table.schema)):
                cursor.execute(
                    f"CREATE TABLE {self._notes(table.schema)} (split text, start bigint, stop bigint NOT NULL,"
                    " last boolean NOT NULL, scored bigint NOT NULL, rejected bigint NOT NULL, skipped bigint NOT NULL,"
                    " rejects text, notices json, entry bigint GENERATED ALWAYS AS IDENTITY,"
                    " PRIMARY KEY (split, start))"
                )
            else:
                # Made by a version that knew no notices.
                cursor.execute(f"ALTER TABLE {self._notes(table.schema)} ADD COLUMN IF NOT EXISTS notices json")
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
        with self._transaction() as cursor:
            target = self._target(cursor)
            rows = self._rows(target.schema)
            made = columns(cursor, rows)
            if not made:
                raise self._error(f"the staging table {rows} is gone; start the job anew")
            said = Copying(cursor, rows, target, made, self.connection).stage(spans)
            noticed = [
                replace(scored, notices=(*scored.notices, *notices))
                for scored, notices in zip(spans, said, strict=True)
            ]
            notes = [note_of(scored, None, rejects) for scored in noticed]
            if len(self._insert_notes(cursor, target.schema, notes)) < len(notes):
                return None
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
            lock(cursor, f"penstock publishes {target}")
            if self._published(cursor, target.schema) is not None:
                return
            self._check_staged(cursor, target.schema, manifest)
            judged = Target(cursor, target, self.table_name, self.mode, self.appends_to, self._error)
            existing = judged.check_table()
            judged.check_holder(existing, _ledger(target.schema))
            if existing is None:
                self._name_staging(cursor, target)
            else:
                self._fill(cursor, target, existing, manifest)
            fetch(
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
                if exists(cursor, table):
                    cursor.execute(f"DROP TABLE {table}")
            cursor.execute("COMMIT")

    def discard(self) -> None:
        """Drop the staging tables, and the table of jobs with them where none has published or is at work."""
        self.clean()
        with self._transaction() as cursor:
            schema = self._target(cursor).schema
            # As in `prepare`: a job that begins makes the table anew, or has its staging tables by now.
            lock(cursor, f"penstock prepares in {quoted(schema)}")
            if not may_drop(cursor, _ledger(schema)):
                return
            if not fetch(cursor, _OTHERS_OR_PUBLISHED.format(_ledger(schema)), (schema,)):
                with suppress(dbapi.Error):
                    # Else a view of somebody's shows it.
                    cursor.execute(f"DROP TABLE {_ledger(schema)}")
                    cursor.execute("COMMIT")

    @contextmanager
    def _transaction(self, read_only: bool = False) -> Iterator[dbapi.Cursor]:
        try:
            with transaction(self.connection, read_only=read_only) as cursor:
                yield cursor
        except dbapi.Error as error:
            raise self._error(self.connection.reason(error)) from error

    def _error(self, message: str) -> OutputError:
        return OutputError(f"{self.describe()}: {self.connection.mask(message)}")

    def _judged(self, cursor: dbapi.Cursor) -> Target:
        return Target(cursor, self._target(cursor), self.table_name, self.mode, self.appends_to, self._error)

    def _target(self, cursor: dbapi.Cursor) -> PostgresTable:
        found = split_name(self.table_name)
        if found is None:
            raise self._error(
                "write output.table_name as table or schema.table, a name with other than letters, digits and _ in "
                "double quotes"
            )
        schema, name = found
        if schema is None:
            ((schema,),) = fetch(cursor, "SELECT current_schema()::text")
            if schema is None:
                raise self._error("no schema of the search_path exists; write output.table_name as schema.table")
        for part in (schema, name):
            if len(part.encode()) > NAME_BYTES:
                raise self._error(f"name {part} is longer than the {NAME_BYTES} bytes that PostgreSQL keeps")
        if name == LEDGER_TABLE:
            raise self._error(f"{LEDGER_TABLE} is where jobs are recorded; name another table")
        return PostgresTable(schema, name)

    def _make_ledger(self, cursor: dbapi.Cursor, schema: str) -> None:
        ledger = _ledger(schema)
        if not exists(cursor, ledger):
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
        if not exists(cursor, ledger):
            return
        ((allowed, user),) = fetch(
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
        return fetch(
            cursor,
            f"INSERT INTO {self._notes(schema)} (split, start, stop, last, scored, rejected, skipped, rejects, notices)"
            " SELECT * FROM json_to_recordset($1::text::json) AS note (split text, start bigint, stop bigint,"
            " last boolean, scored bigint, rejected bigint, skipped bigint, rejects text, notices json)"
            " ORDER BY start"
            " ON CONFLICT DO NOTHING RETURNING start",
            (json.dumps([asdict(note) for note in notes]),),
        )

    def _check_staged(self, cursor: dbapi.Cursor, schema: str, manifest: Manifest) -> None:
        """Demand that what is staged is what the manifest names: no row more or less.

        Raises:
            LedgerError: it is not.
            OutputError: the staging tables are gone.
        """
        rows, notes = self._rows(schema), self._notes(schema)
        if not (exists(cursor, rows) and exists(cursor, notes)):
            raise self._error(f"the staging table {rows} is gone; start the job anew")
        ((staged, noted),) = fetch(cursor, f"SELECT (SELECT count(*) FROM {rows}), (SELECT count(*) FROM {notes})")
        if (staged, noted) != (manifest.counts.scored, len(manifest.notes)):
            raise LedgerError(
                f"{self.describe()}: {staged} rows of {noted} spans are staged, but {manifest.counts.scored} rows of "
                f"{len(manifest.notes)} are to be published"
            )

    def _name_staging(self, cursor: dbapi.Cursor, target: PostgresTable) -> None:
        """Make the staging table the new target."""
        staging = self._rows(target.schema)
        # They are there when the table was, too, when the job began, and is gone since.
        for name in {column.name for column in columns(cursor, staging)} & set(POSITION):
            cursor.execute(f"ALTER TABLE {staging} DROP COLUMN {quoted(name)}")
        cursor.execute(f"ALTER TABLE {staging} RENAME TO {quoted(target.name)}")

    def _fill(
        self, cursor: dbapi.Cursor, target: PostgresTable, existing: Sequence[Column], manifest: Manifest
    ) -> None:
        """Put the staged rows into a table that is there.

        Raises:
            OutputError: the table refuses some; names them by their place in the input.
        """
        staging = self._rows(target.schema)
        staged = columns(cursor, staging)
        takers = {column.name: column for column in existing}
        names = []
        for column in staged:
            if column.name in POSITION:
                continue
            taker = takers.get(column.name)
            if taker is None:
                raise self._error(f"its column {column.name} is gone since the job began; add it again")
            if taker.type != column.type:
                raise self._error(
                    f"its column {column.name} was {column.type} when the job began and is {taker.type} now; start the"
                    " job anew"
                )
            names.append(quoted(column.name))
        listed = ", ".join(names)

        def insert(source: PostgresTable, where: str) -> str:
            return f"INSERT INTO {target} ({listed}) SELECT {listed} FROM {source} {where}"

        empty = None if self.mode == "append" else f"DELETE FROM {target}"
        cursor.execute("SAVEPOINT fills")
        try:
            if empty is not None:
                # Readers pass; a writer in between would leave rows that are neither the old result nor the new one.
                cursor.execute(f"LOCK TABLE {target} IN SHARE ROW EXCLUSIVE MODE")
                cursor.execute(empty)
            cursor.execute(insert(staging, ""))
            # What is deferred to the commit, too.
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        except dbapi.Error as error:
            if not is_of_rows(error) or not any(column.name == ROW for column in staged):
                raise
            cursor.execute("ROLLBACK TO SAVEPOINT fills")
            splits = {split.id: split for split in manifest.splits}
            publishing = Publishing(cursor, target, staging, splits, insert, empty, self.connection.reason)
            found = publishing.offenders()
            said = f"{self.connection.reason(error)}{'; ' if found else ''}{found or ''}"
            raise self._error(f"{said}; nothing was published, take these rows out of the input") from error

    def _published(self, cursor: dbapi.Cursor, schema: str) -> Counts | None:
        ledger = _ledger(schema)
        if not exists(cursor, ledger):
            return None
        found = fetch(cursor, f"SELECT scored, rejected, skipped FROM {ledger} WHERE job = $1::text", (self.job_id,))
        return Counts(*found[0]) if found else None

    def _read_notes(self, where: str, parameters: tuple[Any, ...] | None) -> list[Note]:
        with self._transaction() as cursor:
            notes = self._notes(self._target(cursor).schema)
            if not exists(cursor, notes):
                return []
            found = fetch(
                cursor,
                "SELECT split, start, stop, last, scored, rejected, skipped, NULL::text, rejects, notices::text"
                f" FROM {notes} {where} ORDER BY entry",
                parameters,
            )
            return [replace(Note(*row[:-1]), notices=_noticed(row[-1])) for row in found]

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


def _ledger(schema: str) -> PostgresTable:
    return PostgresTable(schema, LEDGER_TABLE)


def _has_later_columns(cursor: dbapi.Cursor, ledger: PostgresTable) -> bool:
    return any(column.name == "appended" for column in columns(cursor, ledger))


def _noticed(text: str | None) -> tuple[Notice, ...]:
    return tuple(map(Notice.from_json, json.loads(text or "[]")))
