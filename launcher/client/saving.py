"""Rows into a file as they come: the whole of them under the file's name, or nothing."""

import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from launcher.client.errors import Misconfigured, Unwritable


def _parquet(path: str, schema: Any) -> AbstractContextManager[Any]:
    import pyarrow.parquet as pq

    writer: AbstractContextManager[Any] = pq.ParquetWriter(path, schema)
    return writer


def _csv(path: str, schema: Any) -> AbstractContextManager[Any]:
    import pyarrow.csv as csv

    writer: AbstractContextManager[Any] = csv.CSVWriter(path, schema)
    return writer


def _as_csv_can(table: Any) -> Any:
    """What CSV has no way to write, such as the probabilities of classes, as JSON; times that Arrow cannot, as text."""
    import pyarrow as pa

    from launcher.rows.values import json_values

    for at, column in enumerate(table.columns):
        if pa.types.is_nested(column.type) or _has_unwritten_times(column):
            is_text = not pa.types.is_nested(column.type)
            texts = [value if value is None or is_text else json.dumps(value) for value in json_values(column)]
            table = table.set_column(at, table.column_names[at], pa.array(texts, pa.string()))
    return table


def _has_unwritten_times(column: Any) -> bool:
    """Whether Arrow would write but `<value out of range>` for a date or time: years beyond 32767, 24:00."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_temporal(column.type) or pa.types.is_duration(column.type) or pa.types.is_interval(column.type):
        return False
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp(column.type.unit))
    return bool(pc.any(pc.starts_with(column.cast(pa.string()), "<")).as_py())


def _arrow(path: str, schema: Any) -> AbstractContextManager[Any]:
    import pyarrow as pa

    writer: AbstractContextManager[Any] = pa.ipc.new_file(path, schema)
    return writer


_WRITERS: dict[str, Callable[[str, Any], AbstractContextManager[Any]]] = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".arrow": _arrow,
}


def check_target(path: str | os.PathLike[str], overwrite: bool) -> Path:
    """The file to write.

    Raises:
        Misconfigured: its name says no format, or it is there already.
    """
    target = Path(path)
    if target.suffix.lower() not in _WRITERS:
        raise Misconfigured(f"{str(path)!r} says no format; name a file that ends in .parquet, .csv or .arrow")
    if not overwrite and os.path.lexists(target):
        raise Misconfigured(
            f"{str(path)!r} is there already; name another file, or overwrite it (--overwrite, overwrite=True)"
        )
    return target


def save(tables: Iterator[Any], target: Path, saved: Callable[[int], None]) -> int:
    """Write tables of one schema, at least one, into a file that appears when it is whole.

    Args:
        saved: is told how many rows are written, again and again.

    Returns:
        How many rows there are.

    Raises:
        Unwritable: the file cannot be written, or its format cannot hold a column.
    """
    import pyarrow as pa

    draft = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    rows = 0
    if target.suffix.lower() == ".csv":
        tables = map(_as_csv_can, tables)
    first = next(tables)
    try:
        with _WRITERS[target.suffix.lower()](str(draft), first.schema) as writer:
            for table in _chained(first, tables):
                # Where a database has no types, a page's are those of its own rows.
                writer.write_table(table.cast(first.schema))
                rows += table.num_rows
                saved(rows)
        draft.replace(target)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise Unwritable(f"{str(target)!r} cannot be written: {_reason(error)}") from error
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
    return rows


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno:
        # Without the name of the draft, which Python adds.
        return os.strerror(error.errno)
    return " ".join(str(error).split())


def _chained(first: Any, others: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from others
