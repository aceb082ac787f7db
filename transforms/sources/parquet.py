"""Parquet files as a source: splits are runs of row groups, columns are read only where they are wanted."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from predictors.bounds import Bounds
from transforms.batches import Batch, Split
from transforms.errors import InputChanged
from transforms.sources.base import SPLIT_ROWS, rebatch, span_rows
from transforms.sources.files import find_files, open_alike, open_file, unreadable


@dataclass(frozen=True)
class ParquetSource:
    """Rows of Parquet files with one schema, in the order of the files' names.

    Args:
        files: as `find_files` found them.
        schema: of all of them.
        within: where the files have to lie each time one is opened, wherever their names lead; None: anywhere.
    """

    files: tuple[str, ...]
    schema: pa.Schema
    within: Bounds | None = None

    @classmethod
    def open(cls, paths: Sequence[str], within: Bounds | None = None) -> "ParquetSource":
        """Find the files and read their footers.

        Raises:
            InputError: a path names nothing, a file lies elsewhere or is not readable Parquet, or two files differ in
                their columns.
        """
        files = find_files(paths)
        opened = open_alike(files, within)
        schema = next(opened).schema_arrow.remove_metadata()
        # The others are opened to be compared with it.
        for _ in opened:
            pass
        return cls(tuple(files), schema, within)

    def plan(self, columns: Sequence[str], batch_size: int) -> Iterator[Split]:
        """Splits of whole row groups, about `SPLIT_ROWS` rows each; counts are exact."""
        number = 0
        for uri in self.files:
            file = open_file(uri, self.within)
            metadata = file.metadata
            length = span_rows(batch_size, _row_bytes(metadata, columns))
            fingerprint = _fingerprint(uri)
            for first_group, groups, first_row, rows in _runs(metadata):
                locator = f"{first_group}+{groups}"
                yield Split(f"{number:06d}", uri, first_row, rows, length, fingerprint, locator)
                number += 1

    def read(self, split: Split, columns: Sequence[str], start: int = 0) -> Iterator[Batch]:
        """The spans of `split` from row `start` on. Row groups before it are not touched."""
        file = self._open_planned(split)
        groups = _groups(split)
        before = 0
        while groups and before + file.metadata.row_group(groups[0]).num_rows <= start:
            before += file.metadata.row_group(groups.pop(0)).num_rows
        if not groups:
            return
        chunks = file.iter_batches(batch_size=split.span_rows, row_groups=groups, columns=list(columns))
        yield from rebatch(_naming(chunks, split.uri, columns), split, before, start)

    def lookup(self, split: Split, rows: Sequence[int], columns: Sequence[str]) -> pa.RecordBatch:
        """The `columns` of single rows; each row group with one of them is read, one at a time."""
        file = self._open_planned(split)
        schema = pa.schema([self.schema.field(name) for name in columns])
        pieces = []
        before, left = 0, list(rows)
        for group in _groups(split):
            stop = before + file.metadata.row_group(group).num_rows
            own = [row - before for row in left if row < stop]
            left = left[len(own) :]
            if own:
                try:
                    pieces.append(file.read_row_group(group, columns=list(columns)).select(list(columns)).take(own))
                except (pa.ArrowException, OSError) as error:
                    raise unreadable(split.uri, error) from error
            before = stop
        table = pa.concat_tables(pieces).cast(schema).combine_chunks()
        return table.to_batches()[0] if len(table) else pa.RecordBatch.from_pylist([], schema=schema)

    def _open_planned(self, split: Split) -> pq.ParquetFile:
        """The file of `split`, which must be the one that was planned."""
        if not os.path.exists(split.uri):
            raise InputChanged(f"{split.uri}: the file was there when the job was planned and is gone; put it back")
        if _fingerprint(split.uri) != split.fingerprint:
            raise InputChanged(f"{split.uri}: the file changed after the job was planned; run the job anew")
        return open_file(split.uri, self.within)


def _fingerprint(uri: str) -> str:
    status = os.stat(uri)
    return f"{status.st_size}:{status.st_mtime_ns}"


def _naming(chunks: Iterator[pa.RecordBatch], uri: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The chunks in the asked order of columns; errors name the file."""
    try:
        for chunk in chunks:
            yield chunk.select(list(columns))
    except (pa.ArrowException, OSError) as error:
        raise unreadable(uri, error) from error


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


def _row_bytes(metadata: pq.FileMetaData, columns: Sequence[str]) -> float:
    """Mean size of a row of `columns`, from the footer: uncompressed, but still encoded."""
    wanted = set(columns)
    total = rows = 0
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        rows += row_group.num_rows
        for index in range(row_group.num_columns):
            column = row_group.column(index)
            if column.path_in_schema.split(".")[0] in wanted:
                total += column.total_uncompressed_size
    return total / rows if rows else 0.0
