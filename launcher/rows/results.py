"""Pages of the rows that a finished job published, where it published them, as Arrow and as JSON. Needs no Beam."""

import base64
import math
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from launcher.errors import ResultGone, ResultUnreadable
from launcher.rows.tablepages import read_table_rows
from transforms.connection import Connection
from transforms.sinks.columns import kind_of
from transforms.sinks.manifest import publishers, read_manifest

# Rows that are decoded at a time on the way to a page, and bytes that are read: a row group may have a million rows.
_BATCH_ROWS = 16_384
_BUFFER_BYTES = 1024 * 1024
# Digits of a second behind the point, by unit of time.
_DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}


@dataclass(frozen=True)
class FolderResult:
    """The result of a job in a folder of Parquet files.

    Args:
        path: absolute.
        job_id: the job.
    """

    path: str
    job_id: str


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


@dataclass(frozen=True)
class Page:
    """Consecutive rows of a result.

    Args:
        rows: in the order in which they lie there; none past the end, under the same columns.
        next_offset: where the next page begins; None when this was the last.
    """

    rows: pa.Table
    next_offset: int | None


def result_page(place: ResultPlace, offset: int, limit: int) -> Page:
    """Read `limit` rows of a result from `offset` on.

    Pages that follow each other have every row once, while nobody writes there. After jobs have added rows to a result,
    it is that of each of them, and the pages of each show all its rows; once a job has replaced it, it is that job's
    alone. Of a folder's files only what the page needs is read, and the files' footers before it.

    Raises:
        ResultGone: there is nothing any more, or another job's result.
        ResultUnreadable: what is there cannot be read, or not within 10 s.
        ConnectionRefused: the database cannot be reached.
        ValueError: `offset` is negative, or `limit` not positive.
    """
    if offset < 0 or limit < 1:
        raise ValueError(f"there is no page of {limit} rows from row {offset} on")
    if isinstance(place, FolderResult):
        return _folder_page(place, offset, limit)
    # One row more tells whether it goes on.
    rows = read_table_rows(place.connection, place.table_name, place.job_id, offset, limit + 1)
    return Page(rows.slice(0, limit), offset + limit if rows.num_rows > limit else None)


def as_json_rows(table: pa.Table) -> list[dict[str, Any]]:
    """The rows as objects whose values JSON can say.

    Times are ISO 8601 (with a time zone: in UTC, ending in Z), decimals text with all their digits, bytes base64,
    NaN and the infinities null. Integers stay integers, also those beyond 2**53, which JavaScript rounds. A map is a
    list of objects with `key` and `value`.
    """
    columns = [[value for chunk in column.chunks for value in _json_values(chunk)] for column in table.columns]
    return [dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True)]


def as_arrow_stream(table: pa.Table) -> bytes:
    """The rows as an Arrow IPC stream (`application/vnd.apache.arrow.stream`)."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _folder_page(place: FolderResult, offset: int, limit: int) -> Page:
    folder = Path(place.path)
    while True:
        manifest = _own_manifest(folder, place.job_id)
        try:
            return _read_files(_files(folder, manifest), offset, limit)
        except FileNotFoundError as error:
            # Exchanged for another since we read the manifest? Then that one counts.
            if read_manifest(folder) == manifest:
                missing = os.path.basename(error.filename or "a file")
                raise ResultGone(f"{folder} lacks {missing}, which the result of {place.job_id} had") from error
        except (pa.ArrowException, OSError) as error:
            raise ResultUnreadable(f"{folder}: {' '.join(str(error).split())}") from error


def _own_manifest(folder: Path, job_id: str) -> dict[str, Any]:
    manifest = read_manifest(folder)
    if manifest is None:
        raise ResultGone(f"{folder} holds no result any more, neither that of {job_id} nor another job's")
    if job_id not in publishers(manifest):
        raise ResultGone(
            f"{folder} now holds the result of another job, {manifest['job_id']}, which published after {job_id}"
        )
    return manifest


def _files(folder: Path, manifest: dict[str, Any]) -> list[Path]:
    """The files of a result in their order; at least one, for that tells the columns.

    Raises:
        ResultUnreadable: the manifest, which anybody may have written, leads out of the folder.
    """
    names = [entry["name"] for entry in manifest["files"]]
    # A result without rows lists none.
    names = names or sorted(path.name for path in folder.glob("*.parquet"))
    if not names:
        raise ResultGone(f"{folder} holds no files any more, so nothing of {manifest['job_id']}")
    for name in names:
        if os.path.basename(name) != name or not stat.S_ISREG((folder / name).lstat().st_mode):
            raise ResultUnreadable(f"{folder}: {name!r} is no file of its own, so it is not read")
    return [folder / name for name in names]


def _read_files(files: Sequence[Path], offset: int, limit: int) -> Page:
    """The page, and whether there are more rows, by the footers up to the first file behind it that has rows."""
    pieces: list[pa.Table] = []
    start, missing, goes_on = offset, limit, False
    for file in files:
        with pq.ParquetFile(file, buffer_size=_BUFFER_BYTES) as parquet:
            if not pieces:
                pieces.append(parquet.schema_arrow.remove_metadata().empty_table())
            rows = parquet.metadata.num_rows
            take = min(max(rows - start, 0), missing)
            pieces += _read_rows(parquet, start, take)
            goes_on = rows - start > take
        if goes_on:
            break
        start, missing = max(start - rows, 0), missing - take
    names, types = pieces[0].schema.names, pieces[0].schema.types
    schema = pa.schema(list(zip(names, types, strict=True)))
    return Page(pa.concat_tables([piece.cast(schema) for piece in pieces]), offset + limit if goes_on else None)


def _read_rows(parquet: pq.ParquetFile, start: int, count: int) -> Iterator[pa.Table]:
    """`count` rows of a file from row `start` on, of its row groups only those that hold them."""
    if count == 0:
        return
    groups: list[int] = []
    first_row = at = 0
    for group in range(parquet.metadata.num_row_groups):
        rows = parquet.metadata.row_group(group).num_rows
        if at + rows > start and at < start + count:
            first_row = first_row if groups else at
            groups.append(group)
        at += rows
    skip = start - first_row
    for batch in parquet.iter_batches(batch_size=_BATCH_ROWS, row_groups=groups, use_threads=False):
        piece = batch.slice(skip, count)
        skip, count = max(skip - batch.num_rows, 0), count - piece.num_rows
        if piece.num_rows:
            yield pa.Table.from_batches([piece]).replace_schema_metadata(None)
        if count == 0:
            return


def _json_values(array: pa.Array) -> list[Any]:
    array = _decoded(array)
    types = pa.types
    if types.is_struct(array.type):
        fields = [_json_values(field) for field in array.flatten()]
        names = [field.name for field in array.type]
        return [
            dict(zip(names, values, strict=True)) if valid else None
            for valid, *values in zip(array.is_valid().to_pylist(), *fields, strict=True)
        ]
    if types.is_map(array.type):
        pair = pa.struct([("key", array.type.key_type), ("value", array.type.item_type)])
        array = array.cast(pa.list_(pair))
    match kind_of(array.type):
        case "list":
            items = iter(_json_values(array.flatten()))
            lengths = pc.list_value_length(array).to_pylist()
            return [None if length is None else list(islice(items, length)) for length in lengths]
        case "float":
            return [value if value is not None and math.isfinite(value) else None for value in array.to_pylist()]
        case "decimal":
            return [None if value is None else format(value, "f") for value in array.to_pylist()]
        case "binary":
            return [None if value is None else base64.b64encode(value).decode() for value in array.to_pylist()]
        case "date" | "time":
            return pc.cast(array, pa.string()).to_pylist()
        case "timestamp" | "timestamptz":
            return _iso_times(array)
        case "duration":
            return _iso_durations(array)
        case "null" | "boolean" | "integer" | "string":
            return array.to_pylist()
    return [None if value is None else str(value) for value in array.to_pylist()]


def _decoded(array: pa.Array) -> pa.Array:
    """The values themselves, of whatever stands for them."""
    while True:
        if isinstance(array.type, pa.BaseExtensionType):
            array = array.storage
        elif pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        elif pa.types.is_run_end_encoded(array.type):
            array = pc.run_end_decode(array)
        else:
            return array


def _iso_times(array: pa.Array) -> list[str | None]:
    if array.type.tz is not None:
        array = array.cast(pa.timestamp(array.type.unit, "UTC"))
    text = pc.replace_substring(pc.cast(array, pa.string()), " ", "T")
    # Of a second only what there is: `12:00:00Z`, but all digits of `12:00:00.500000Z`.
    return pc.replace_substring_regex(text, r"\.0+(Z?)$", r"\1").to_pylist()


def _iso_durations(array: pa.Array) -> list[str | None]:
    digits = _DIGITS[array.type.unit]
    seconds = [
        None if value is None else Decimal(value).scaleb(-digits) for value in array.cast(pa.int64()).to_pylist()
    ]
    return [None if value is None else f"{'-' * (value < 0)}PT{abs(value).normalize():f}S" for value in seconds]
