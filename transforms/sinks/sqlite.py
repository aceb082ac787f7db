"""A SQLite table as a sink: rows wait as Arrow files, and go into the table in one transaction.

SQLite lets one write at a time, so nothing is written there before publishing. Only ADBC's SQLite touches the file: a
second copy of the library in the same process (Python's own sqlite3) would drop its locks by closing the file.
"""

import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from adbc_driver_manager import dbapi

from predictors.notices import Notice
from transforms.batches import ScoredSpan
from transforms.connection import Connection
from transforms.counts import Counts
from transforms.errors import LedgerError, OutputError, RefusedRow, RowsRefused
from transforms.ledger import FileLedger, Note, fsync_folder, in_order, note_of, parts_of, write_durably
from transforms.opening import SQLITE_BUSY_MS
from transforms.refusals import REFUSED, Failure, refusals
from transforms.sinks.base import Manifest
from transforms.sinks.columns import LEDGER_TABLE, check_names
from transforms.sinks.entries import newest_publisher
from transforms.sinks.mode import Mode, check_appends_to, other_result
from transforms.sinks.names import folded, quoted
from transforms.sinks.sqlitecolumns import declared
from transforms.sinks.sqlitetable import Table, said, same_key, table_of
from transforms.sinks.ways import fit_rows

# Where in the file of its split a row of a part was.
_ROW = "_penstock_row"
# More would not be read.
_MOST_NAMED = 5
# Of a row that is refused.
_UNIQUE = re.compile(r"UNIQUE constraint failed: ([^\n]*)")


@dataclass(frozen=True)
class SqliteTableSink:
    """Scored rows in one table of a SQLite database, in the order of the input.

    Kept as: booleans as integers; decimals of up to 15 digits as numbers, longer ones as text; dates and times as ISO
    text (`2024-05-01 12:00:00.000000Z` with a time zone); lists, structs and maps as JSON text; UUIDs as text. SQLite
    keeps NaN as NULL, which is counted in a notice.

    Args:
        connection: the database; its file is made when there is none, its folder must exist.
        table_name: taken literally: SQLite has no schemas, and `predictions.scores` is a table of that name.
        mode: `overwrite` replaces all rows of a table that is there, `append` adds to them, `error_if_exists` refuses
            it.
        job_id: the job that stages.
        folder: the job's own; holds `parts`, `ledger` and `schema` until `clean`.
        appends_to: with `append`, the job whose result the table must hold.
    """

    connection: Connection
    table_name: str
    mode: Mode
    job_id: str
    folder: Path
    appends_to: str | None = None

    def __post_init__(self) -> None:
        check_appends_to(self.mode, self.appends_to)

    @property
    def _ledger(self) -> FileLedger:
        return FileLedger(self.folder / "ledger")

    @property
    def _parts(self) -> Path:
        return self.folder / "parts"

    @property
    def _schema(self) -> Path:
        return self.folder / "schema"

    def describe(self) -> str:
        """The table and its database."""
        return f"table {self.table_name} at {self.connection.describe()}"

    def check(self, schema: pa.Schema) -> list[Notice]:
        """Check the file and the table."""
        return self._judge(schema)[1]

    def prepare(self, schema: pa.Schema) -> None:
        """Check the file and the table, and make the folders for parts and notes."""
        table, _ = self._judge(schema)
        if table is None:
            return
        with self._explained():
            self._parts.mkdir(parents=True, exist_ok=True)
            self._ledger.folder.mkdir(exist_ok=True)
            write_durably(self._schema, schema.serialize().to_pybytes())
            write_durably(self._table, table.to_json().encode())

    def _judge(self, schema: pa.Schema) -> tuple[Table | None, list[Notice]]:
        """The table, None when the job has published, and what values may lose there."""
        check_names(pa.schema([field.with_name(folded(field.name)) for field in schema]))
        if _ROW in schema.names:
            raise self._error(f"a column of a table cannot be called {_ROW} here; give it another name")
        if folded(self.table_name).startswith("sqlite_"):
            raise self._error("names that begin with sqlite_ are SQLite's own; name another table")
        self._check_file()
        if self.published() is not None:
            return None, []
        table = None
        if os.path.exists(self._path):
            with self._cursor() as cursor:
                table = self._check_target(cursor)
                self._check_holder(cursor, table)
        else:
            self._check_absent()
        table = table or Table(self.table_name, (), None)
        return table, table.may_change(schema, self._error)

    def noted(self, split_id: str) -> list[Note]:
        """The notes of one split, in the order in which they were made."""
        return self._ledger.noted(split_id)

    def all_notes(self) -> list[Note]:
        """The notes of all splits."""
        return self._ledger.all_notes()

    def stage(self, spans: Sequence[ScoredSpan], rejects: str | None) -> list[Note] | None:
        """Write a part, one record batch per span, and note the spans; None, and no part, when one is noted already."""
        ready, noticed = self._fitted(spans)
        part = f"{uuid.uuid4().hex}.arrow" if ready else None
        notes = [
            note_of(
                replace(scored, notices=(*scored.notices, *notices)), part if scored.rows.num_rows else None, rejects
            )
            for scored, notices in zip(spans, noticed, strict=True)
        ]
        with self._explained():
            if part is not None:
                _write_part(self._parts / part, ready)
            # Should noting fail, the note may be there all the same: then the part must stay.
            noted = self._ledger.add(notes)
            if part is not None and not noted:
                (self._parts / part).unlink()
        return notes if noted else None

    def _fitted(self, spans: Sequence[ScoredSpan]) -> tuple[list[pa.RecordBatch], list[Sequence[Notice]]]:
        """The rows of each span that has any, with their positions, and what is to be said of each span.

        Raises:
            RowsRefused: the table takes some of them not.
        """
        with self._explained():
            table = Table.from_json(self._table.read_text())
        fitted = []
        for scored in spans:
            schema = scored.rows.schema
            fitted.append(fit_rows(scored.rows, table.ways(schema, self._error), table.required(schema.names)))
        refused = [
            RefusedRow(at, row, REFUSED, reason)
            for at, rows in enumerate(fitted)
            for row, reason in sorted(rows.refused.items())
        ] or table.refused([rows.rows for rows in fitted])
        if refused:
            raise RowsRefused(refused)
        ready = []
        for scored, rows in zip(spans, fitted, strict=True):
            if scored.rows.num_rows:
                span = scored.span
                place = pc.add(scored.offsets().cast(pa.int64()), span.split.first_row + span.start)
                ready.append(rows.rows.append_column(_ROW, place))
        return ready, [rows.notices for rows in fitted]

    def published(self) -> Counts | None:
        """The counts in the database's ledger, when this job published."""
        if not os.path.exists(self._path):
            return None
        with self._cursor() as cursor:
            return self._published(cursor)

    def publish(self, manifest: Manifest) -> None:
        """Empty or make the table, or do neither; fill it and record that it was done, in one transaction.

        Waits for another writer, and for readers that are at it, up to `SQLITE_BUSY_MS` each. Readers of a database
        in WAL mode are not held up; others may find it locked near the end, and then see the new rows. Indexes,
        triggers, views and declared types of a table that is there stay.
        """
        with self._cursor() as cursor:
            # The write lock first: had we read before, another writer in between would be an error without waiting.
            cursor.execute("BEGIN IMMEDIATE")
            if self._published(cursor) is not None:
                return
            existing = self._check_target(cursor)
            self._check_holder(cursor, existing)
            with self._explained():
                schema = pa.ipc.read_schema(pa.py_buffer(self._schema.read_bytes()))
            table = quoted(self.table_name)
            if existing is None:
                columns = ", ".join(f"{quoted(field.name)} {declared(field.type)}" for field in schema)
                cursor.execute(f"CREATE TABLE {table} ({columns})")
            else:
                existing.ways(schema, self._error)
                if self.mode != "append":
                    cursor.execute(f"DELETE FROM {table}")
            self._insert(cursor, manifest)
            self._make_ledger(cursor)
            cursor.execute(
                f"INSERT INTO {LEDGER_TABLE} (job, table_name, scored, rejected, skipped, published_at, details,"
                " appended) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    self.job_id,
                    self.table_name,
                    *astuple(manifest.counts),
                    manifest.published_at,
                    json.dumps(manifest.details),
                    int(self.mode == "append" and existing is not None),
                ),
            )
            cursor.execute("COMMIT")

    def clean(self) -> None:
        """Remove parts and notes; the folder itself stays, it is the job's."""
        for folder in (self._parts, self._ledger.folder):
            shutil.rmtree(folder, ignore_errors=True)
        for file in (self._schema, self._table):
            file.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove parts and notes."""
        self.clean()

    @property
    def _table(self) -> Path:
        return self.folder / "table"

    @property
    def _path(self) -> str:
        return self.connection.sqlite_path()

    @contextmanager
    def _cursor(self) -> Iterator[dbapi.Cursor]:
        """A cursor; a transaction that is open at the end of the block is undone."""
        with self.connection.open(autocommit=True) as connection, connection.cursor() as cursor:
            try:
                yield cursor
            except dbapi.Error as error:
                raise self._error(_explained(self.connection.reason(error))) from error

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._error(f"staging in {self.folder}: {error.strerror or error}") from error

    def _error(self, message: str) -> OutputError:
        return OutputError(f"{self.describe()}: {self.connection.mask(message)}")

    def _check_file(self) -> None:
        if self._path in {"", ":memory:"}:
            raise self._error("a database in memory ends with its process; name a file: sqlite:///file.db")
        path = Path(self._path)
        folder = path.absolute().parent
        if not folder.is_dir():
            raise self._error(f"there is no folder {folder}; make it first")
        if path.exists() and not path.is_file():
            raise self._error(f"{path} is not a file")
        # SQLite puts its journal beside the file.
        for place in (folder, path):
            if place.exists() and not os.access(place, os.W_OK, effective_ids=True):
                raise self._error(f"{place} is not writable; change its permissions")

    def _check_target(self, cursor: dbapi.Cursor) -> Table | None:
        """The table, or None when there is none.

        Raises:
            OutputError: it is there and may not, or cannot, be emptied and filled.
        """
        if folded(self.table_name) == LEDGER_TABLE:
            raise self._error(f"{LEDGER_TABLE} is where jobs are recorded; name another table")
        found = table_of(cursor, self.table_name)
        if found is None:
            return None
        if self.mode == "error_if_exists":
            raise self._error("the table is there already; use output.mode: overwrite, or name another table")
        if found[0] == "view":
            raise self._error("this is a view; name a table")
        return found[1]

    def _check_holder(self, cursor: dbapi.Cursor, existing: Table | None) -> None:
        """Demand that the table holds the result of the job that is to be added to, if one is.

        Raises:
            OutputError: says what is there instead.
        """
        if existing is None:
            self._check_absent()
        if self.appends_to is None:
            return
        newest = newest_publisher(cursor, "sqlite", LEDGER_TABLE, self.table_name) if _has_ledger(cursor) else None
        if newest != self.appends_to:
            raise self._error(other_result(self.appends_to, newest))

    def _check_absent(self) -> None:
        if self.appends_to is not None:
            raise self._error(f"the table, and in it the result of {self.appends_to}, is gone; nothing was added")

    def _make_ledger(self, cursor: dbapi.Cursor) -> None:
        cursor.execute(
            f"CREATE TABLE IF NOT EXISTS {LEDGER_TABLE} (job TEXT PRIMARY KEY, table_name TEXT NOT NULL,"
            " scored INTEGER NOT NULL, rejected INTEGER NOT NULL, skipped INTEGER NOT NULL,"
            " published_at TEXT NOT NULL, details TEXT NOT NULL, appended INTEGER NOT NULL DEFAULT 0)"
        )
        # One that was made when there was no appending.
        if not _fetch(cursor, "SELECT 1 FROM pragma_table_info(?) WHERE name = 'appended'", (LEDGER_TABLE,)):
            cursor.execute(f"ALTER TABLE {LEDGER_TABLE} ADD COLUMN appended INTEGER NOT NULL DEFAULT 0")

    def _insert(self, cursor: dbapi.Cursor, manifest: Manifest) -> None:
        """Insert the rows that the notes name, in the order of the input.

        Raises:
            LedgerError: they are not the rows that the manifest counts.
            OutputError: the table refuses some; names them by their place in the input.
        """
        inserted = 0
        for note, rows in self._noted_rows(manifest.notes):
            inserted += rows.num_rows
            cursor.execute("SAVEPOINT fills")
            try:
                cursor.adbc_ingest(self.table_name, rows.drop_columns([_ROW]), mode="append")
            except dbapi.Error as error:
                if "constraint failed" not in str(error) and "cannot store" not in str(error):
                    raise
                cursor.execute("ROLLBACK TO SAVEPOINT fills")
                raise self._error(self._offenders(cursor, manifest, note, rows) or said(str(error))) from error
            cursor.execute("RELEASE SAVEPOINT fills")
        if inserted != manifest.counts.scored:
            raise LedgerError(
                f"{self.describe()}: {inserted} rows are staged, but {manifest.counts.scored} are to be published"
            )

    def _offenders(self, cursor: dbapi.Cursor, manifest: Manifest, note: Note, rows: pa.RecordBatch) -> str | None:
        """The first rows of a span that the table refuses, after those before it are in; for people."""
        plain = rows.drop_columns([_ROW])

        def attempt(start: int, stop: int) -> Failure | None:
            cursor.execute("SAVEPOINT attempts")
            try:
                cursor.adbc_ingest(self.table_name, plain.slice(start, stop - start), mode="append")
            except dbapi.Error as error:
                cursor.execute("ROLLBACK TO SAVEPOINT attempts")
                return Failure(said(str(error)))
            return None

        uris = {split.id: split.uri for split in manifest.splits}
        found = []
        for at, reason in islice(refusals(attempt, rows.num_rows), _MOST_NAMED):
            position = f"{uris.get(note.split, note.split)}:{rows[_ROW][at]}"
            found.append(f"{position}: {reason}{self._namesake(manifest, position, plain.slice(at, 1), reason)}")
        return f"{'; '.join(found)}; nothing was published, take these rows out of the input" if found else None

    def _namesake(self, manifest: Manifest, position: str, row: pa.RecordBatch, reason: str) -> str:
        """Which earlier row has the key of one that is refused for it."""
        unique = _UNIQUE.search(reason)
        names = {folded(name): name for name in row.schema.names}
        keys = [folded(column.rpartition(".")[2]) for column in unique[1].split(", ")] if unique else []
        if not keys or not names.keys() >= set(keys):
            return ""
        key = row.select([names[each] for each in keys]).to_pylist()[0]
        uris = {split.id: split.uri for split in manifest.splits}
        for note, rows in self._noted_rows(manifest.notes):
            for at in same_key(rows, key):
                other = f"{uris.get(note.split, note.split)}:{rows[_ROW][at]}"
                if other == position:
                    return f" ({', '.join(map(str, key.values()))} is in the table already)"
                return f" (as {other} has it, {', '.join(map(str, key.values()))})"
        return ""

    def _noted_rows(self, notes: Sequence[Note]) -> Iterator[tuple[Note, pa.RecordBatch]]:
        # A part holds spans of one split, and another part may hold some in between.
        place = {
            (note.split, note.start): (part, at) for part, own in parts_of(notes).items() for at, note in enumerate(own)
        }
        opened = None
        for note in in_order(notes):
            if note.part is None:
                continue
            part, at = place[note.split, note.start]
            with self._explained():
                if part != opened:
                    reader, opened = pa.ipc.open_file(pa.memory_map(str(self._parts / part))), part
                rows = reader.get_batch(at)
            if rows.num_rows != note.scored:
                raise LedgerError(
                    f"{self.describe()}: part {part} has {rows.num_rows} rows where {note.scored} are noted"
                )
            yield note, rows

    def _published(self, cursor: dbapi.Cursor) -> Counts | None:
        if not _has_ledger(cursor):
            return None
        found = _fetch(cursor, f"SELECT scored, rejected, skipped FROM {LEDGER_TABLE} WHERE job = ?", (self.job_id,))
        return Counts(*found[0]) if found else None


def _write_part(path: Path, batches: Sequence[pa.RecordBatch]) -> None:
    """Write record batches to a new file, and make it and its name last. A failed one is removed."""
    try:
        with open(path, "xb") as file:
            with pa.ipc.new_file(file, batches[0].schema) as writer:
                for batch in batches:
                    writer.write_batch(batch)
            file.flush()
            os.fsync(file.fileno())
        fsync_folder(path.parent)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _explained(said: str) -> str:
    """What SQLite said, with the remedy where there is one."""
    remedies = {
        "locked": f"another program kept it locked for {SQLITE_BUSY_MS // 1000} s; end that and resume the job",
        "readonly database": "the file or its folder is not writable; change the permissions and resume the job",
        "disk is full": "the disk is full; free some space and resume the job, its staged rows are kept",
        "not a database": "this file is not a SQLite database; name another",
    }
    return next((remedy for sign, remedy in remedies.items() if sign in said), said)


def _has_ledger(cursor: dbapi.Cursor) -> bool:
    return bool(_fetch(cursor, "SELECT 1 FROM sqlite_schema WHERE name = ?", (LEDGER_TABLE,)))


def _fetch(cursor: dbapi.Cursor, sql: str, parameters: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    cursor.execute(sql, parameters)
    return list(cursor.fetchall())
