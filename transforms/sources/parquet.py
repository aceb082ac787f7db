"""Parquet files as a source: splits are runs of row groups, columns are read only where they are wanted."""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from predictors.bounds import Bounds
from predictors.notices import Notice
from predictors.taking import no_rows
from transforms.batches import Batch, Split
from transforms.errors import InputChanged, InputError
from transforms.sources.base import SPLIT_ROWS, rebatch, span_rows
from transforms.sources.filecolumns import FileColumns
from transforms.sources.files import (
    chunks_of,
    each_once,
    find_files,
    fingerprint,
    named_files,
    open_file,
    passed_notices,
)
from transforms.sources.partitions import Partitions
from transforms.sources.survey import survey
from transforms.sources.walking import PassedOver


@dataclass(frozen=True)
class ParquetSource:
    """Rows of Parquet files, in the order of the files' names, under columns that hold the values of all of them.

    Args:
        files: as `find_files` found them.
        schema: the columns; those of folders (`day=2025-01-01`) come last.
        within: where the files have to lie each time one is opened, wherever their names lead; None: anywhere.
        closed: columns that cannot be read, and why.
        notices: what finding the files, and looking at them, found worth a word; empty once the input is opened again.
        stamps: fingerprints of the files when they were looked at; empty where they were not.
    """

    files: tuple[str, ...]
    schema: pa.Schema
    within: Bounds | None = None
    closed: Mapping[str, str] = field(default_factory=dict)
    notices: tuple[Notice, ...] = field(default=(), compare=False)
    stamps: tuple[str, ...] = field(default=(), compare=False, repr=False)

    @classmethod
    def open(
        cls,
        paths: Sequence[str],
        within: Bounds | None = None,
        declared: Mapping[str, pa.DataType] | None = None,
    ) -> "ParquetSource":
        """Find the files and read their footers.

        Args:
            declared: types of columns, where they are not to be told by the files.

        Raises:
            InputError: a path names nothing, a file lies elsewhere or is not readable Parquet, or the files or their
                folders do not go together. Columns that no type holds are `closed`.
        """
        passed = PassedOver()
        files = find_files(paths, within, passed)
        found = survey(files, within, declared or {})
        notices = (*passed_notices(passed), *found.notices)
        return cls(tuple(files), found.schema, within, found.closed, notices, found.stamps)

    def plan(self, columns: Sequence[str], batch_size: int) -> Iterator[Split]:
        """Splits of whole row groups, about `SPLIT_ROWS` rows each; counts are exact."""
        number = 0
        for uri, stamp in zip(self.files, self.stamps or ("",) * len(self.files), strict=True):
            planned = fingerprint(uri) if os.path.exists(uri) else ""
            file = open_file(uri, self.within)
            if stamp not in ("", planned):
                raise InputChanged(f"{uri}: the file changed while it was looked at; run the job anew")
            length = span_rows(batch_size, _row_bytes(file, columns))
            for first_group, groups, first_row, rows in _runs(file.metadata):
                locator = f"{first_group}+{groups}"
                yield Split(f"{number:06d}", uri, first_row, rows, length, planned, locator)
                number += 1

    def read(self, split: Split, columns: Sequence[str], start: int = 0) -> Iterator[Batch]:
        """The spans of `split` from row `start` on. Row groups before it are not touched."""
        file = self._open_planned(split, columns)
        metadata, groups = file.opened.metadata, _groups(split)
        before = 0
        while groups and before + metadata.row_group(groups[0]).num_rows <= start:
            before += metadata.row_group(groups.pop(0)).num_rows
        if groups:
            yield from rebatch(file.batches(split.span_rows, groups), split, before, start)

    def lookup(self, split: Split, rows: Sequence[int], columns: Sequence[str]) -> pa.RecordBatch:
        """The `columns` of single rows; each row group with one of them is read, one at a time."""
        file = self._open_planned(split, columns)
        pieces = []
        before, left = 0, list(rows)
        for group in _groups(split):
            stop = before + file.opened.metadata.row_group(group).num_rows
            own = [row - before for row in left if row < stop]
            left = left[len(own) :]
            if own:
                pieces.append(file.rows(group, own))
            before = stop
        return pa.concat_batches(pieces) if pieces else no_rows(file.schema)

    def _open_planned(self, split: Split, columns: Sequence[str]) -> FileColumns:
        """The file of `split`, which must be the one that was planned, to read `columns` of it."""
        if not os.path.exists(split.uri):
            raise InputChanged(f"{split.uri}: the file was there when the job was planned and is gone; put it back")
        if fingerprint(split.uri) != split.fingerprint:
            raise InputChanged(f"{split.uri}: the file changed after the job was planned; run the job anew")
        return FileColumns(split.uri, pa.schema([self.schema.field(name) for name in columns]), self.within)


def _groups(split: Split) -> list[int]:
    first, count = map(int, split.locator.split("+"))
    return list(range(first, first + count))


def _runs(metadata: pq.FileMetaData) -> Iterator[tuple[int, int, int, int]]:
    """Runs of row groups: (first group, groups, rows before, rows). Groups without rows join their neighbours."""
    first, first_row, rows = 0, 0, 0
    for group in range(metadata.num_row_groups):
        size = metadata.row_group(group).num_rows
        if rows and rows + size > SPLIT_ROWS:
            yield first, group - first, first_row, rows
            first, first_row, rows = group, first_row + rows, 0
        rows += size
    if rows:
        yield first, metadata.num_row_groups - first, first_row, rows


def _row_bytes(file: pq.ParquetFile, columns: Sequence[str]) -> float:
    """Mean size of a row of `columns`, from the footer: uncompressed, but still encoded."""
    total = sum(chunk.total_uncompressed_size for chunk in chunks_of(file, set(columns)))
    return total / file.metadata.num_rows if file.metadata.num_rows else 0.0


@dataclass(frozen=True)
class LookedAtFiles:
    """Files that were looked at: a job reads them where they are."""

    source: ParquetSource
    rows: int
    copying: None = None

    @classmethod
    def of(cls, source: ParquetSource) -> "LookedAtFiles":
        """The files of `source`, rows counted by their footers."""
        return cls(source, sum(open_file(file, source.within).metadata.num_rows for file in source.files))

    def splits(self, planned: Sequence[Split]) -> int:
        """Those that are planned."""
        return len(planned)

    def mapped_bytes(self, columns: Sequence[str], span_rows: int, row_bytes: float) -> int:
        """What is read of the largest file: it is mapped, so it counts as the process's memory once it was read."""
        largest = max(self.source.files, key=os.path.getsize)
        return sum(chunk.total_compressed_size for chunk in chunks_of(open_file(largest, self.source.within), columns))


def count_soon(
    paths: Sequence[str], declared: Mapping[str, pa.DataType], within: Bounds | None, timeout_s: float
) -> int | None:
    """How many rows the files have, by their footers; None when that is not known in time, or takes too much memory.

    Raises:
        InputError: a path names nothing, or a file is no readable Parquet.
    """
    deadline, rows = time.monotonic() + timeout_s, 0
    try:
        files = each_once(named_files(paths, deadline, within))
        Partitions.of(files, declared)
        for file in files:
            rows += open_file(file, within).metadata.num_rows
            if time.monotonic() >= deadline:
                return None
    except TimeoutError:
        return None
    except InputError as error:
        if isinstance(error.__cause__, MemoryError):
            # A job has more.
            return None
        raise
    return rows


def first_rows(
    paths: Sequence[str],
    declared: Mapping[str, pa.DataType],
    within: Bounds | None,
    most_rows: int,
    most_bytes: int,
    timeout_s: float,
) -> pa.RecordBatch | None:
    """The first rows of the files, as the first of them has them, but for columns whose types are `declared`.

    Raises:
        InputError: as `ParquetSource.open`.
        TimeoutError: the files were not found in time.
    """
    for file in each_once(named_files(paths, time.monotonic() + timeout_s, within)):
        opened = open_file(file, within)
        groups = (opened.metadata.row_group(number) for number in range(opened.metadata.num_row_groups))
        row_bytes = max((group.total_byte_size / group.num_rows for group in groups if group.num_rows), default=1.0)
        for batch in opened.iter_batches(batch_size=max(1, min(most_rows, int(most_bytes / max(row_bytes, 1.0))))):
            if batch.num_rows:
                columns = zip(batch.schema.names, batch.columns, strict=True)
                arrays = [column.cast(declared.get(name, column.type)) for name, column in columns]
                return pa.RecordBatch.from_arrays(arrays, batch.schema.names)
    return None
