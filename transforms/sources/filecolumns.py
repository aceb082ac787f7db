"""One Parquet file read under the columns of its job: those that it lacks are null, or said by its folder."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from predictors.bounds import Bounds
from predictors.taking import take_of
from transforms.errors import InputError
from transforms.sources.conforming import Lossy, conform, conform_exactly
from transforms.sources.files import Unit, open_file, unreadable
from transforms.sources.fixedlists import may_have_odd_lists, restored
from transforms.sources.int96 import aligned, all_in_nanoseconds, int96_columns
from transforms.sources.partitions import partition_of, partition_value
from transforms.sources.unifying import NoCommonType, common_type


@dataclass
class FileColumns:
    """A file, and the columns that are wanted of it.

    Args:
        file: its path, which says the columns of its folders.
        schema: the wanted columns, under the job's types.
        within: where the file has to lie, wherever its name leads; None: anywhere.
        int96_unit: in which times of INT96 are read; None: nanoseconds where such are wanted, or else microseconds.
    """

    file: str
    schema: pa.Schema
    within: Bounds | None = None
    int96_unit: Unit | None = None
    opened: pq.ParquetFile = field(init=False)
    _said: Mapping[str, pa.Scalar] = field(init=False)
    _plain_lists: Mapping[str, pa.DataType] = field(init=False)
    _readers: list[tuple[pq.ParquetFile, list[str]]] = field(init=False)

    def __post_init__(self) -> None:
        self.opened = open_file(self.file, self.within)
        self._said = {
            name: partition_value(name, value, self.schema.field(name).type, self.file)
            for name, value in partition_of(self.file).items()
            if name in self.schema.names
        }
        own = self.opened.schema_arrow
        names = [name for name in self.schema.names if name in own.names and name not in self._said]
        self._plain_lists = {name: own.field(name).type for name in names if may_have_odd_lists(own.field(name))}
        self._readers = list(self._readers_of(names))

    def batches(self, batch_size: int, row_groups: Sequence[int] | None = None) -> Iterator[pa.RecordBatch]:
        """The rows of some row groups, or of all, in batches of that size or less.

        Raises:
            InputError: the file is damaged, or a value would not be the same under the column's type.
        """
        groups = range(self.opened.metadata.num_row_groups) if row_groups is None else row_groups
        if not groups or not self.opened.metadata.num_rows:
            return
        streams = (
            opened.iter_batches(batch_size=batch_size, row_groups=list(groups), columns=names)
            for opened, names in self._readers
        )
        try:
            for batches in aligned(*streams):
                yield self._whole(batches, batches[0].num_rows)
        except (pa.ArrowException, OSError) as error:
            raise unreadable(self.file, error) from error

    def rows(self, row_group: int, rows: Sequence[int]) -> pa.RecordBatch:
        """Single rows of a row group.

        Raises:
            InputError: as `batches`.
        """
        try:
            tables = [take_of(opened.read_row_group(row_group, columns=names), rows) for opened, names in self._readers]
            batches = [table.combine_chunks().to_batches() for table in tables]
        except (pa.ArrowException, OSError) as error:
            raise unreadable(self.file, error) from error
        return self._whole([each[0] for each in batches if each], len(rows))

    def check(self, batch_size: int) -> None:
        """Read all rows, to see whether each value is the same under its column's type.

        Raises:
            Lossy: one is not.
            InputError: the file is damaged.
        """
        try:
            for _ in self.batches(batch_size):
                pass
        except InputError as error:
            if isinstance(error.__cause__, Lossy):
                raise error.__cause__ from None
            raise

    def _readers_of(self, names: list[str]) -> Iterator[tuple[pq.ParquetFile, list[str]]]:
        """Readers for the columns of a file: one for each unit of INT96, and one for odd lists."""
        int96 = [name for name in int96_columns(self.opened, self.file, self.within) if name in names]
        units = {name: self.int96_unit or self._unit(name) for name in int96}
        micros = [name for name, unit in units.items() if unit == "us"]
        lists = [name for name in names if name in self._plain_lists and name not in micros]
        others = [name for name in names if name not in micros and name not in lists]
        # One reader at least counts the rows.
        if others or not (micros or lists):
            yield self.opened, others
        if micros:
            yield open_file(self.file, self.within, "us"), micros
        if lists:
            yield open_file(self.file, self.within, plain_lists=True), lists

    def _unit(self, name: str) -> Unit:
        """The unit of a column's times of INT96: nanoseconds only where all of them are wanted so."""
        given = self.opened.schema_arrow.field(name).type
        coarser = open_file(self.file, self.within, "us").schema_arrow.field(name).type
        return "ns" if all_in_nanoseconds(given, coarser, self.schema.field(name).type) else "us"

    def _whole(self, batches: Sequence[pa.RecordBatch], rows: int) -> pa.RecordBatch:
        found = {name: batch.column(name) for batch in batches for name in batch.schema.names}
        columns = [self._column(each, found.get(each.name), rows) for each in self.schema]
        return pa.RecordBatch.from_arrays(columns, schema=self.schema)

    def _column(self, wanted: pa.Field, found: pa.Array | None, rows: int) -> pa.Array:
        if wanted.name in self._said:
            return _repeated(self._said[wanted.name], rows)
        if found is None:
            return pa.nulls(rows, wanted.type)
        if wanted.name in self._plain_lists:
            found = restored(found, self._plain_lists[wanted.name])
        try:
            return (
                conform(found, wanted.type) if widens(found.type, wanted.type) else conform_exactly(found, wanted.type)
            )
        except Lossy as error:
            raise InputError(
                f"{self.file}: column {wanted.name!r} is {found.type}, and reading it as {wanted.type} would change a "
                f"value: {error}; give input.schema another type, or leave the column out"
            ) from error


def widens(given: pa.DataType, to: pa.DataType) -> bool:
    """Whether `to` holds all values of `given`, save times out of its range."""
    try:
        return given == to or bool(common_type(given, to) == to)
    except NoCommonType:
        return False


def _repeated(value: pa.Scalar, rows: int) -> pa.Array:
    if not value.is_valid:
        return pa.nulls(rows, value.type)
    if pa.types.is_dictionary(value.type):
        return pa.repeat(value.as_py(), rows).cast(value.type)
    return pa.repeat(value, rows)
