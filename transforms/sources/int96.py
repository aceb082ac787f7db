"""Times of INT96, as Spark, Impala and Hive write them: nanoseconds of a day, and the day, over millions of years.

Read as nanoseconds since 1970, as they are by default, those before 1677 and after 2262 wrap around without a word; so
all values are looked at before any is used.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from predictors.bounds import Bounds
from transforms.sources.files import Unit, open_file, unreadable

# Whole seconds with which any nanoseconds, or microseconds, still fit 64 bits.
_NS_SECONDS = range(-9_223_372_036, 9_223_372_036)
_US_SECONDS = range(-9_223_372_036_854, 9_223_372_036_854)
_SCAN_ROWS = 65_536


def int96_columns(opened: pq.ParquetFile, file: str, within: Bounds | None) -> list[str]:
    """The columns of a file that have times of INT96, at any depth."""
    schema = opened.schema_arrow
    if not any(_has_ns(field.type) for field in schema) or "INT96" not in str(opened.schema).upper():
        return []
    other = open_file(file, within, "s").schema_arrow
    return [one.name for one, two in zip(schema, other, strict=True) if one.type != two.type]


def units_that_fit(file: str, within: Bounds | None, columns: Sequence[str]) -> dict[str, Unit | None]:
    """In which unit the times of INT96 columns are read without changing one: nanoseconds, or else microseconds; None
    where neither keeps all of them. Every value is read.

    Raises:
        InputError: the file cannot be read.
    """
    far = [name for name in columns if not _are_near(file, within, name)]
    return {name: _exact_unit(file, within, name) if name in far else "ns" for name in columns}


def all_in_nanoseconds(type: pa.DataType, other: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether `wanted` has nanoseconds wherever `type` has times of INT96.

    Args:
        type, other: of the same column, INT96 under two units.
    """
    if type == other:
        return True
    if pa.types.is_timestamp(type):
        return bool(pa.types.is_timestamp(wanted) and wanted.unit == "ns")
    if pa.types.is_struct(type):
        if not pa.types.is_struct(wanted):
            return False
        named = {field.name: field.type for field in wanted}
        return all(
            field.name in named and all_in_nanoseconds(field.type, other.field(field.name).type, named[field.name])
            for field in type
        )
    if type.num_fields != 1 or wanted.num_fields != 1:
        return False
    return all_in_nanoseconds(type.field(0).type, other.field(0).type, wanted.field(0).type)


def aligned(*streams: Iterator[pa.RecordBatch]) -> Iterator[tuple[pa.RecordBatch, ...]]:
    """Batches of the same rows of several readers, cut where any of them is."""
    heads = [next(stream, None) for stream in streams]
    while (given := [head for head in heads if head is not None]) and len(given) == len(streams):
        rows = min(head.num_rows for head in given)
        if rows:
            yield tuple(head.slice(0, rows) for head in given)
        heads = [
            head.slice(rows) if head.num_rows > rows else next(stream, None)
            for head, stream in zip(given, streams, strict=True)
        ]


def _has_ns(type: pa.DataType) -> bool:
    if pa.types.is_timestamp(type):
        return bool(type.unit == "ns")
    return any(_has_ns(type.field(number).type) for number in range(type.num_fields))


@dataclass
class _Reader:
    """One column of a file under one unit of INT96."""

    file: str
    within: Bounds | None
    name: str
    unit: Unit
    opened: pq.ParquetFile = field(init=False)

    def __post_init__(self) -> None:
        self.opened = open_file(self.file, self.within, self.unit)

    @property
    def type(self) -> pa.DataType:
        return self.opened.schema_arrow.field(self.name).type

    def batches(self) -> Iterator[pa.RecordBatch]:
        try:
            yield from self.opened.iter_batches(batch_size=_SCAN_ROWS, columns=[self.name])
        except (pa.ArrowException, OSError) as error:
            raise unreadable(self.file, error) from error


def _are_near(file: str, within: Bounds | None, name: str) -> bool:
    """Whether all values lie between 1677 and 2262."""
    reader, ns = _Reader(file, within, name, "s"), _Reader(file, within, name, "ns")
    return all(
        _lie_in(leaf, _NS_SECONDS)
        for batch in reader.batches()
        for leaf in _int96_leaves(batch.column(name), reader.type, ns.type)
    )


def _exact_unit(file: str, within: Bounds | None, name: str) -> Unit | None:
    s, us, ns = (_Reader(file, within, name, unit) for unit in ("s", "us", "ns"))
    fits_ns = fits_us = True
    for batches in aligned(s.batches(), us.batches(), ns.batches()):
        leaves = [
            _int96_leaves(batch.column(name), reader.type, other.type)
            for batch, reader, other in zip(batches, (s, us, ns), (ns, ns, us), strict=True)
        ]
        for seconds, micros, nanos in zip(*leaves, strict=True):
            if not _lie_in(seconds, _US_SECONDS):
                return None
            whole, fine = _numbers(micros), _numbers(nanos)
            # What wrapped around does not give its microseconds back; its last three digits are right nevertheless.
            fits_ns = fits_ns and bool((fine // 1000 == whole).all())
            fits_us = fits_us and bool((fine - whole * 1000 == 0).all())
        if not (fits_ns or fits_us):
            return None
    return "ns" if fits_ns else "us"


def _int96_leaves(column: pa.Array, type: pa.DataType, other: pa.DataType) -> list[pa.Array]:
    """The arrays of INT96 within a column: those whose type is another under another unit."""
    if pa.types.is_timestamp(type):
        return [column] if type != other else []
    if pa.types.is_map(type):
        offsets = column.offsets
        first, rows = offsets[0].as_py(), offsets[-1].as_py() - offsets[0].as_py()
        parts = [column.keys.slice(first, rows), column.items.slice(first, rows)]
        pairs = [(type.key_type, other.key_type), (type.item_type, other.item_type)]
    elif pa.types.is_struct(type):
        parts = column.flatten()
        pairs = [(type.field(n).type, other.field(n).type) for n in range(type.num_fields)]
    elif type.num_fields == 1:
        parts, pairs = [column.flatten()], [(type.value_type, other.value_type)]
    else:
        return []
    return [leaf for part, pair in zip(parts, pairs, strict=True) for leaf in _int96_leaves(part, *pair)]


def _lie_in(column: pa.Array, bounds: range) -> bool:
    found = pc.min_max(column.cast(pa.int64()))
    low, high = found["min"].as_py(), found["max"].as_py()
    return low is None or (low in bounds and high in bounds)


def _numbers(column: pa.Array) -> npt.NDArray[np.int64]:
    return column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
