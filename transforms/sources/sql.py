"""A SQL query as a source: run once, in one read-only transaction, and kept as a snapshot that always reads the same.

The database is read by a thread of its own, a few batches ahead of the writing, so that the two overlap.
"""

import queue
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from predictors.notices import Notice
from transforms.connection import Connection
from transforms.errors import InputError
from transforms.sources.counting import count_rows
from transforms.sources.decimals import Decimals
from transforms.sources.postgres import read_postgres
from transforms.sources.query import bare, check_query, reads_table, tables_read
from transforms.sources.reading import Result, Session, until_all_fit
from transforms.sources.snapshot import RESERVE_BYTES, SnapshotSource, SnapshotWriter, mebibytes
from transforms.sources.sqlite import read_sqlite

__all__ = ["FirstRows", "check_query", "count_rows", "reads_table", "sample", "snapshot", "tables_read"]

# Batches are of 4 MiB from SQLite and of 16 MiB from PostgreSQL, where larger ones mean less copying into spans.
_AHEAD_BATCHES = 4
# How soon the reading thread notices that nobody takes its rows any more.
_POLL_S = 0.1
# How long the reading thread may take to end; then it is left to itself, and ends with the process.
_GIVE_UP_S = 2.0


def snapshot(
    connection: Connection,
    query: str,
    folder: Path,
    batch_size: int,
    on_progress: Callable[[int, int | None], None] = lambda rows, total: None,
) -> SnapshotSource:
    """Run `query` once and keep its rows in `folder`, where they read the same each time.

    Types are those of the columns, never guessed from the first rows: see `read_postgres`, `read_sqlite` and
    `Decimals`.

    Args:
        folder: made when it is missing; an earlier snapshot in it is removed. On an error nothing is left in it.
        batch_size: rows of a model call; a span is a multiple of it.
        on_progress: told the rows written so far, and the total (an estimate, with PostgreSQL).

    Raises:
        ConnectionRefused: the database cannot be reached.
        InputError: the query is no single SELECT, fails, or its result does not fit on the disk.
    """
    check_query(query, connection.dialect)

    def written(dimensions: Mapping[str, int]) -> SnapshotSource:
        with SnapshotWriter(folder, batch_size) as writer, _Ahead(connection, query, dimensions) as ahead:
            result = ahead.result()
            _check_room(folder, result)
            on_progress(0, result.rows)
            decimals = Decimals(result)
            for batch in ahead:
                decimals.look(batch)
                if writer.add(batch):
                    on_progress(writer.rows, result.rows)
            return writer.finish(decimals.schema(), (*result.notices, *decimals.notices()))

    source = until_all_fit(written)
    on_progress(source.rows, source.rows)
    return source


@dataclass(frozen=True)
class FirstRows:
    """The first rows of a query, and how they came.

    Args:
        rows: in the types of a snapshot, save that a decimal without a declared scale is known by these rows alone.
        total: rows of the whole result, where reading the first told them; None where it did not.
        prepare_s: seconds until the rows were asked for; with SQLite all rows are looked at in this time.
        read_s: seconds from then on until the last of them was there.
        notices: what is read as another type than a person would expect, as far as these rows tell.
    """

    rows: pa.Table
    total: int | None
    prepare_s: float
    read_s: float
    notices: tuple[Notice, ...] = ()


def sample(connection: Connection, query: str, rows: int) -> FirstRows:
    """The first `rows` rows of `query`, without a snapshot.

    With SQLite all rows are looked at nevertheless: nothing else tells the types.

    Raises:
        ConnectionRefused, InputError: as `snapshot`.
    """
    check_query(query, connection.dialect)
    return until_all_fit(lambda dimensions: _sample(connection, query, rows, dimensions))


def _sample(connection: Connection, query: str, rows: int, dimensions: Mapping[str, int]) -> FirstRows:
    began = time.perf_counter()
    with Session(connection) as session:
        result = _read(session, query, dimensions, limit=rows)
        prepared = time.perf_counter()
        decimals = Decimals(result)
        batches = list(result.batches)
        read = time.perf_counter()
    for batch in batches:
        decimals.look(batch)
    table = pa.Table.from_batches(batches, result.schema).cast(decimals.schema())
    total = result.rows if connection.dialect == "sqlite" else None
    notices = (*result.notices, *decimals.notices())
    open_ended = [name for name, declared in result.decimals.items() if declared is None]
    if open_ended and len(table) == rows:
        words = f"NUMERIC without a scale: the type of {', '.join(map(repr, open_ended))} is that of the first {rows:,}"
        notices += (Notice("types_of_first_rows", f"input.query: {words} rows here; a run looks at all of them"),)
    return FirstRows(table, total, prepared - began, read - prepared, notices)


def _read(session: Session, query: str, dimensions: Mapping[str, int], limit: int | None = None) -> Result:
    statement = bare(query, session.connection.dialect)
    if session.connection.dialect == "postgres":
        return read_postgres(session, statement, limit, dimensions)
    return read_sqlite(session, statement, limit)


def _check_room(folder: Path, result: Result) -> None:
    free = shutil.disk_usage(folder).free
    if result.size_bytes is not None and result.size_bytes > free - RESERVE_BYTES:
        raise InputError(
            f"input.query gives about {mebibytes(result.size_bytes)} ({result.rows:,} rows), but {folder} has "
            f"{mebibytes(free)} free, of which {mebibytes(RESERVE_BYTES)} stay so; free some space, or read fewer rows "
            f"or columns (if the estimate is far off: ANALYZE the tables)"
        )


class _Ahead(Iterator[pa.RecordBatch]):
    """The rows of a query, read by a thread that is a few batches ahead of whoever takes them."""

    def __init__(self, connection: Connection, query: str, dimensions: Mapping[str, int]) -> None:
        self._query = query
        self._dimensions = dimensions
        self._session = Session(connection)
        self._wanted = threading.Event()
        self._closed = threading.Event()
        self._items: queue.Queue[Result | pa.RecordBatch | BaseException] = queue.Queue(_AHEAD_BATCHES)
        # A daemon: a query that nobody waits for any more must not hold up the end of the process.
        self._thread = threading.Thread(target=self._run, name="snapshot-read", daemon=True)

    def __enter__(self) -> "_Ahead":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join(_GIVE_UP_S)

    def result(self) -> Result:
        """What is known before the rows. Called once, before the first row is taken; only then the query runs."""
        result = self._next()
        assert isinstance(result, Result)
        return result

    def __next__(self) -> pa.RecordBatch:
        self._wanted.set()
        return self._next()

    def _next(self) -> Result | pa.RecordBatch:
        item = self._items.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def _run(self) -> None:
        try:
            with self._session:
                result = _read(self._session, self._query, self._dimensions)
                self._put(result)
                while not self._wanted.wait(_POLL_S):
                    if self._closed.is_set():
                        return
                with closing(result.batches) as batches:
                    for batch in batches:
                        if not self._put(batch):
                            return
            self._put(StopIteration())
        except BaseException as error:
            self._put(error)

    def _put(self, item: Result | pa.RecordBatch | BaseException) -> bool:
        """Hand `item` over; False when nobody takes it any more."""
        while not self._closed.is_set():
            try:
                self._items.put(item, timeout=_POLL_S)
                return True
            except queue.Full:
                continue
        return False
