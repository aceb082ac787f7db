"""Pages of the rows that a finished job published, where it published them, as Arrow and as JSON. Needs no Beam."""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from launcher.errors import ResultGone, ResultUnreadable
from launcher.rows.bounds import bounded, rows_at_a_time
from launcher.rows.tablepages import Rows, read_table_rows
from predictors.bounds import Bounds, LedElsewhere, at
from predictors.taking import no_rows
from transforms.connection import Connection
from transforms.sinks.manifest import names_in, publishers, read_manifest

# Rows that are decoded at a time on the way to a page, and bytes that are read: a row group may have a million rows.
_BATCH_ROWS = 16_384
_BUFFER_BYTES = 1024 * 1024


@dataclass(frozen=True)
class FolderResult:
    """The result of a job in a folder of Parquet files.

    Args:
        path: absolute.
        job_id: the job.
        within: where it has to lie once it is opened, wherever the path leads by then; None: anywhere.
    """

    path: str
    job_id: str
    within: Bounds | None = None


@dataclass(frozen=True)
class TableResult:
    """The result of a job in a table.

    Args:
        connection: the database.
        table_name: as the job's output names it.
        job_id: the job.
    """

    connection: Connection
    table_name: str
    job_id: str


ResultPlace = FolderResult | TableResult
# As `read_table_rows`.
ReadTable = Callable[[Connection, str, str, int, int], Rows]


@dataclass(frozen=True)
class Page:
    """Consecutive rows of a result.

    Args:
        rows: in the order in which they lie there; none past the end, under the same columns.
        next_offset: where the next page begins; None when this was the last.
    """

    rows: pa.Table
    next_offset: int | None


def result_page(place: ResultPlace, offset: int, limit: int, read_table: ReadTable = read_table_rows) -> Page:
    """Read at most `limit` rows of a result from `offset` on; fewer where they are large.

    Pages that follow each other have every row once, while nobody writes there. After jobs have added rows to a result,
    it is that of each of them, and the pages of each show all its rows; once a job has replaced it, it is that job's
    alone. Of a folder's files only what the page needs is read, and the files' footers before it.

    Args:
        read_table: how tables are read; a service that must neither wait for a database nor die of it has
            `TablesAside.read`.

    Raises:
        ResultGone: there is nothing any more, or another job's result.
        ResultUnreadable: what is there cannot be read, or not within 10 s, or a table's row is larger than a page.
        ConnectionRefused: the database cannot be reached.
        ValueError: `offset` is negative, or `limit` not positive.
    """
    if offset < 0 or limit < 1:
        raise ValueError(f"there is no page of {limit} rows from row {offset} on")
    if isinstance(place, FolderResult):
        return _folder_page(place, offset, limit)
    rows, goes_on = read_table(place.connection, place.table_name, place.job_id, offset, limit)
    return Page(rows, offset + rows.num_rows if goes_on else None)


def as_arrow_stream(table: pa.Table) -> bytes:
    """The rows as an Arrow IPC stream (`application/vnd.apache.arrow.stream`)."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _folder_page(place: FolderResult, offset: int, limit: int) -> Page:
    while True:
        with _opened_folder(place) as folder:
            manifest = _own_manifest(place, folder)
            try:
                return _read_files(_files(place, folder, manifest), offset, limit, place.within)
            except FileNotFoundError as error:
                # Exchanged for another since we read the manifest? Then that one counts.
                if read_manifest(folder) == manifest:
                    missing = os.path.basename(error.filename or "a file")
                    raise ResultGone(f"{place.path} lacks {missing}, which the result of {place.job_id} had") from error
            except LedElsewhere as error:
                raise ResultUnreadable(f"{place.path}: a file in it is none of its own, so it is not read") from error
            except (pa.ArrowException, OSError) as error:
                raise ResultUnreadable(f"{place.path}: {' '.join(str(error).split())}") from error


@contextmanager
def _opened_folder(place: FolderResult) -> Iterator[Path]:
    """The folder of a result, by a path that leads nowhere else where it is bounded."""
    if place.within is None:
        yield Path(place.path)
        return
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(place.within.opened_folder(place.path))
        except LedElsewhere as error:
            line = f"{place.path} leads elsewhere since {place.job_id} published there; submit the job anew"
            raise ResultGone(line) from error
        except OSError as error:
            raise _no_result(place) from error
        yield folder


def _no_result(place: FolderResult) -> ResultGone:
    return ResultGone(f"{place.path} holds no result any more, neither that of {place.job_id} nor another job's")


def _own_manifest(place: FolderResult, folder: Path) -> dict[str, Any]:
    manifest = read_manifest(folder)
    if manifest is None:
        raise _no_result(place)
    if place.job_id not in publishers(manifest):
        raise ResultGone(
            f"{place.path} now holds the result of another job, {manifest['job_id']}, which published after "
            f"{place.job_id}"
        )
    return manifest


def _files(place: FolderResult, folder: Path, manifest: dict[str, Any]) -> list[Path]:
    """The files of a result in their order; at least one, for that tells the columns.

    Raises:
        ResultUnreadable: the manifest, which anybody may have written, leads out of the folder.
    """
    # A result without rows that an older version published lists none.
    names = names_in(manifest) or sorted(path.name for path in folder.glob("part-00000-*.parquet"))
    if not names:
        raise ResultGone(f"{place.path} holds no files any more, so nothing of {manifest['job_id']}")
    for name in names:
        if os.path.basename(name) != name or not stat.S_ISREG((folder / name).lstat().st_mode):
            raise ResultUnreadable(f"{place.path}: {name!r} is no file of its own, so it is not read")
    return [folder / name for name in names]


def _read_files(files: Sequence[Path], offset: int, limit: int, within: Bounds | None) -> Page:
    """The page, and whether there are more rows, by the footers up to the first file behind it that has rows."""
    footers = _Footers(within)
    found = footers.of(files[0]).schema.to_arrow_schema()
    schema = pa.schema(list(zip(found.names, found.types, strict=True)))
    batches, was_cut = bounded(_read_rows(files, offset, limit, footers), limit)
    pieces = [pa.Table.from_batches([batch]).replace_schema_metadata(None).cast(schema) for batch in batches]
    rows = pa.concat_tables([pa.Table.from_batches([no_rows(schema)]), *pieces])
    following = offset + rows.num_rows
    return Page(rows, following if was_cut or _has_row(files, following, footers) else None)


class _Footers:
    """The footers of files, each read once.

    Args:
        within: where the files have to lie; None: anywhere.
    """

    def __init__(self, within: Bounds | None) -> None:
        self.within = within
        self._read: dict[Path, pq.FileMetaData] = {}

    def of(self, file: Path) -> pq.FileMetaData:
        """The footer of a file."""
        if file not in self._read:
            with _opened(file, self.within) as readable:
                self._read[file] = pq.read_metadata(readable)
        return self._read[file]


@contextmanager
def _opened(file: Path, within: Bounds | None) -> Iterator[str]:
    """A file by a path to read it by; where it is bounded that leads nowhere else."""
    if within is None:
        yield str(file)
    else:
        with within.opened(file, follow=False) as fd:
            yield at(fd)


def _has_row(files: Sequence[Path], row: int, footers: _Footers) -> bool:
    for file in files:
        rows = footers.of(file).num_rows
        if row < rows:
            return True
        row -= rows
    return False


def _read_rows(files: Sequence[Path], start: int, count: int, footers: _Footers) -> Iterator[pa.RecordBatch]:
    """`count` rows of some files from row `start` on, of their row groups only those that hold them."""
    for file in files:
        footer = footers.of(file)
        if footer.num_rows <= start:
            start -= footer.num_rows
            continue
        texts = _texts_of(footer.schema.to_arrow_schema())
        with _opened(file, footers.within) as readable:
            parquet = pq.ParquetFile(readable, metadata=footer, buffer_size=_BUFFER_BYTES, read_dictionary=texts)
        with parquet:
            for group in range(footer.num_row_groups):
                described = footer.row_group(group)
                if described.num_rows <= start:
                    start -= described.num_rows
                    continue
                at_a_time = rows_at_a_time(described.num_rows, described.total_byte_size, _BATCH_ROWS)
                for batch in parquet.iter_batches(batch_size=at_a_time, row_groups=[group], use_threads=False):
                    piece = batch.slice(min(start, batch.num_rows), count)
                    start, count = max(start - batch.num_rows, 0), count - piece.num_rows
                    yield from _with_texts(piece, texts)
                    if count == 0:
                        return


def _texts_of(schema: pa.Schema) -> list[str]:
    """The columns that may take far less in a file than in memory: texts and bytes, where each stands but once."""
    types = pa.types
    kinds = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
    return [field.name for field in schema if any(is_kind(field.type) for is_kind in kinds)]


def _with_texts(batch: pa.RecordBatch, texts: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The rows of a batch with texts in the place of their numbers, few at a time where they are large."""
    arrays = dict(zip(batch.schema.names, batch.columns, strict=True))
    numbered = {name: arrays[name] for name in texts if pa.types.is_dictionary(arrays[name].type)}
    lengths = [pc.take(pc.binary_length(each.dictionary), each.indices) for each in numbered.values()]
    size = sum(pc.sum(each).as_py() or 0 for each in lengths)
    at_a_time = rows_at_a_time(batch.num_rows, size, batch.num_rows)
    for start in range(0, batch.num_rows, max(at_a_time, 1)):
        piece = {name: array.slice(start, at_a_time) for name, array in arrays.items()}
        piece |= {name: piece[name].dictionary_decode() for name in numbered}
        yield pa.RecordBatch.from_arrays(list(piece.values()), list(piece))
