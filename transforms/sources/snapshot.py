"""The rows of a query, kept in Arrow IPC files: written once, read any number of times, in place.

A file is a split, and a record batch has the rows of a span or of several, so that a span is read by mapping its bytes
into memory. What the columns are called and how they are to be read stands in `snapshot.json`, which is written last:
without it, there is no snapshot. A column may be stored under another type than the one it is read as (a NUMERIC as its
digits, as long as nobody knows how many there will be); it is cast as it is read.
"""

import base64
import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from predictors.notices import Notice
from predictors.taking import take_rows
from transforms.batches import Batch, Split
from transforms.errors import InputChanged, InputError
from transforms.ledger import fsync_folder, write_durably
from transforms.sources.base import SPAN_BYTES, SPAN_ROWS, SPLIT_ROWS, rebatch, span_rows

# What positions shown to people name: row 123 of the result is `query:123`.
URI = "query"
# A file holds this many spans: about SPLIT_ROWS rows, fewer where rows are wide.
FILE_SPANS = SPLIT_ROWS // SPAN_ROWS
# The disk is never filled further than this: the job's log and ledger lie there, too.
RESERVE_BYTES = 64 * 1024 * 1024

_INDEX = "snapshot.json"
_SUFFIX = ".arrow"
# Where a file's own schema says which snapshot it belongs to.
_ID = b"penstock.snapshot"


@dataclass(frozen=True)
class SnapshotFile:
    """One file of a snapshot: its name in the folder, its rows, and its size in bytes."""

    name: str
    rows: int
    bytes: int


@dataclass(frozen=True)
class SnapshotSource:
    """A complete snapshot. The files are looked at only when they are read.

    Args:
        folder: where they lie.
        id: of this snapshot and no other.
        schema: the columns as they are read.
        span_rows: length of every record batch but the last of a file, and of the spans that are planned.
        files: in the order of the rows.
        notices: what reading the query found worth a word; empty once the snapshot is opened again.
    """

    folder: str
    id: str
    schema: pa.Schema
    span_rows: int
    files: tuple[SnapshotFile, ...]
    notices: tuple[Notice, ...] = field(default=(), compare=False)

    @classmethod
    def open(cls, folder: Path) -> "SnapshotSource":
        """Open a snapshot that was written to its end.

        Raises:
            InputError: there is none, or it cannot be read.
        """
        try:
            values = json.loads((folder / _INDEX).read_bytes())
            schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(values["schema"])))
            files = tuple(SnapshotFile(**file) for file in values["files"])
            return cls(str(folder), values["id"], schema, values["span_rows"], files)
        except FileNotFoundError:
            raise InputError(f"{folder} holds no complete snapshot of the query; run the job anew") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{folder / _INDEX} cannot be read ({error}); run the job anew") from error

    @property
    def closed(self) -> Mapping[str, str]:
        """None: what cannot be read is refused before."""
        return {}

    @property
    def rows(self) -> int:
        """Rows of the whole result."""
        return sum(file.rows for file in self.files)

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.bytes for file in self.files)

    def plan(self, columns: Sequence[str], batch_size: int) -> Iterator[Split]:
        """One split per file. Its record batches were cut when it was written: neither argument changes them."""
        first_row = 0
        for number, file in enumerate(self.files):
            fingerprint = f"{self.id}:{file.bytes}"
            yield Split(f"{number:06d}", URI, first_row, file.rows, self.span_rows, fingerprint, file.name)
            first_row += file.rows

    def read(self, split: Split, columns: Sequence[str], start: int = 0) -> Iterator[Batch]:
        """The spans of `split` from row `start` on.

        Their buffers are the mapped file, save where a column is cast, or a span lies over two record batches.
        """
        with self._mapped(split) as file:
            first = start // self.span_rows
            chunks = (self._rows(split, file, number, columns) for number in range(first, file.num_record_batches))
            yield from rebatch(chunks, split, first * self.span_rows, start)

    def lookup(self, split: Split, rows: Sequence[int], columns: Sequence[str]) -> pa.RecordBatch:
        """The `columns` of single rows of `split`."""
        by_batch: dict[int, list[int]] = {}
        for row in rows:
            by_batch.setdefault(row // self.span_rows, []).append(row % self.span_rows)
        with self._mapped(split) as file:
            found = [
                take_rows(self._rows(split, file, number, columns), within)
                for number, within in (by_batch or {0: []}).items()
            ]
        return pa.concat_batches(found)

    def _mapped(self, split: Split) -> Any:
        path = os.path.join(self.folder, split.locator)
        snapshot_id, _, size = split.fingerprint.rpartition(":")
        try:
            if os.stat(path).st_size != int(size):
                raise InputChanged(
                    f"{path} is {os.stat(path).st_size} bytes long, not {size} as planned; run the job anew"
                )
            file = pa.ipc.open_file(pa.memory_map(path))
        except FileNotFoundError:
            raise InputError(f"{path} is missing: the snapshot of the query was removed; run the job anew") from None
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{path} cannot be read ({_line(error)}); run the job anew") from error
        if (file.schema.metadata or {}).get(_ID) != snapshot_id.encode():
            raise InputChanged(f"{path} belongs to another snapshot than was planned; run the job anew")
        return file

    def _rows(self, split: Split, file: Any, number: int, columns: Sequence[str]) -> pa.RecordBatch:
        try:
            stored = file.get_batch(number)
        except (OSError, pa.ArrowException) as error:
            path = os.path.join(self.folder, split.locator)
            raise InputError(f"{path} cannot be read ({_line(error)}); run the job anew") from error
        fields = [self.schema.field(name) for name in columns]
        if not fields:
            return stored.select([])
        arrays = [stored.column(self.schema.get_field_index(name)) for name in columns]
        return pa.RecordBatch.from_arrays(
            [
                array if array.type == field.type else array.cast(field.type)
                for array, field in zip(arrays, fields, strict=True)
            ],
            schema=pa.schema(fields),
        )


def file_rows(span: int) -> int:
    """Rows of every file but the last of a snapshot, given the rows of its spans."""
    return span * FILE_SPANS


class SnapshotWriter:
    """Writes a snapshot; leaving its block without `finish` removes what was written.

    Args:
        folder: made when it is missing; an earlier snapshot in it, whole or not, is removed.
        batch_size: a span is a multiple of it.
    """

    def __init__(self, folder: Path, batch_size: int) -> None:
        self.rows = 0
        self._folder = folder
        self._id = uuid.uuid4().hex
        self._batch_size = batch_size
        self._span_rows = 0
        self._held: list[pa.RecordBatch] = []
        self._held_rows = self._held_bytes = 0
        self._files: list[SnapshotFile] = []
        self._file: Any = None
        self._file_rows = 0
        # Files are made durable while the next one is written.
        self._syncing = ThreadPoolExecutor(1, thread_name_prefix="snapshot-fsync")
        self._synced: list[Future[None]] = []

    def __enter__(self) -> "SnapshotWriter":
        self._folder.mkdir(parents=True, exist_ok=True)
        _remove(self._folder)
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._syncing.shutdown(cancel_futures=True)
        if self._file is not None:
            self._sink.close()
        if not (self._folder / _INDEX).exists():
            _remove(self._folder)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_room(self._folder) from error

    def add(self, rows: pa.RecordBatch) -> bool:
        """Take the next rows of the result, in batches of any length and one schema. True when some were written.

        Raises:
            InputError: the disk is full.
        """
        before = self.rows
        if rows.num_rows:
            self._held.append(rows)
            self._held_rows += rows.num_rows
            self._held_bytes += rows.nbytes
        if not self._span_rows and (self._held_rows >= SPAN_ROWS or self._held_bytes >= SPAN_BYTES):
            self._fix_span()
        while self._span_rows and self._held_rows >= self._span_rows:
            self._write(self._span_rows)
        return self.rows > before

    def finish(self, schema: pa.Schema, notices: tuple[Notice, ...] = ()) -> SnapshotSource:
        """Write what is held and make the snapshot last, and known.

        Args:
            schema: the columns as they are to be read: same names, in the same order.
            notices: what reading them found worth a word.

        Raises:
            InputError: the disk is full.
        """
        if not self._span_rows:
            self._fix_span()
        if self._held_rows:
            self._write(self._held_rows)
        self._end_file()
        for synced in self._synced:
            synced.result()
        values = {
            "id": self._id,
            "schema": base64.b64encode(schema.serialize().to_pybytes()).decode(),
            "rows": self.rows,
            "span_rows": self._span_rows,
            "files": [asdict(file) for file in self._files],
        }
        write_durably(self._folder / _INDEX, json.dumps(values).encode())
        return SnapshotSource(str(self._folder), self._id, schema, self._span_rows, tuple(self._files), notices)

    def _fix_span(self) -> None:
        self._span_rows = span_rows(self._batch_size, self._held_bytes / max(self._held_rows, 1))

    def _write(self, count: int) -> None:
        """Write the first `count` held rows as one record batch."""
        rows = self._take(count)
        if shutil.disk_usage(self._folder).free < rows.nbytes + RESERVE_BYTES:
            raise _no_room(self._folder)
        if self._file is None:
            self._path = self._folder / f"{len(self._files):06d}{_SUFFIX}"
            self._sink = pa.OSFile(str(self._path), "wb")
            self._file = pa.ipc.new_file(self._sink, rows.schema.with_metadata({_ID: self._id.encode()}))
        self._file.write_batch(rows)
        self.rows += count
        self._file_rows += count
        if self._file_rows >= file_rows(self._span_rows):
            self._end_file()

    def _take(self, count: int) -> pa.RecordBatch:
        taken, missing = [], count
        while missing:
            head = self._held[0]
            taken.append(head.slice(0, missing))
            if head.num_rows > missing:
                self._held[0] = head.slice(missing)
            else:
                self._held.pop(0)
            missing -= taken[-1].num_rows
        self._held_rows -= count
        self._held_bytes = sum(rows.nbytes for rows in self._held)
        try:
            return pa.concat_batches(taken)
        except pa.ArrowInvalid as error:
            raise InputError(
                f"input.query: {count} rows are too wide to be read together ({_line(error)}); lower config.batch_size"
            ) from error

    def _end_file(self) -> None:
        if self._file is None:
            return
        self._file.close()
        self._sink.close()
        self._file = None
        self._files.append(SnapshotFile(self._path.name, self._file_rows, self._path.stat().st_size))
        self._file_rows = 0
        self._synced.append(self._syncing.submit(_fsync, self._path))


def _no_room(folder: Path) -> InputError:
    free = mebibytes(shutil.disk_usage(folder).free)
    return InputError(
        f"input.query: its result does not fit into {folder}: {free} are free, of which "
        f"{mebibytes(RESERVE_BYTES)} stay so; free some space, or read fewer rows or columns"
    )


def mebibytes(size: int) -> str:
    """`size` for people."""
    return f"{size / 1024**2:,.0f} MiB"


def _remove(folder: Path) -> None:
    """Take away a snapshot or what was written of one; the index first, so that nobody takes the rest for whole."""
    (folder / _INDEX).unlink(missing_ok=True)
    fsync_folder(folder)
    for path in [*folder.glob(f"[0-9]*{_SUFFIX}"), *folder.glob(f".{_INDEX}.*")]:
        path.unlink(missing_ok=True)


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
