"""Looking at a query: some of its rows, how many it gives, and how fast they come. Nothing is copied."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import pyarrow as pa

from predictors.notices import Notice
from transforms.batches import Batch, Split
from transforms.connection import Connection
from transforms.sources.base import SPAN_ROWS, rebatch, span_rows
from transforms.sources.input import Copying
from transforms.sources.query import bare
from transforms.sources.reading import Session
from transforms.sources.snapshot import file_rows
from transforms.sources.sql import count_rows, sample


@dataclass(frozen=True)
class _FirstRows:
    """The first rows of a query, as a source."""

    rows: pa.Table
    notices: tuple[Notice, ...] = ()

    @property
    def closed(self) -> Mapping[str, str]:
        return {}

    @property
    def schema(self) -> pa.Schema:
        return self.rows.schema

    def plan(self, columns: Sequence[str], batch_size: int) -> Iterator[Split]:
        # By which rows a snapshot measures.
        first = self.rows.slice(0, SPAN_ROWS)
        row_bytes = first.nbytes / max(len(first), 1)
        if len(self.rows):
            yield Split("000000", "query", 0, len(self.rows), span_rows(batch_size, row_bytes), "")

    def read(self, split: Split, columns: Sequence[str], start: int = 0) -> Iterator[Batch]:
        return rebatch(iter(self.rows.select(list(columns)).to_batches()), split, 0, start)

    def lookup(self, split: Split, rows: Sequence[int], columns: Sequence[str]) -> pa.RecordBatch:
        raise NotImplementedError("a sample has no rejects to complete")


@dataclass(frozen=True)
class LookedAtQuery:
    """A query of which the first rows were read: a job copies all of them into files."""

    source: _FirstRows
    rows: int
    copying: Copying

    def splits(self, planned: Sequence[Split]) -> int:
        """One for each file of the copy."""
        return -(-self.rows // file_rows(planned[0].span_rows)) if planned else 0

    def mapped_bytes(self, columns: Sequence[str], span_rows: int, row_bytes: float) -> int:
        """One file of the copy."""
        return int(min(self.rows, file_rows(span_rows)) * row_bytes)


def look(connection: Connection, query: str, most_rows: int) -> LookedAtQuery:
    """Read the first rows of `query`, and count all.

    Raises:
        ConnectionRefused, InputError: as `transforms.sources.sql.snapshot`.
    """
    first = sample(connection, query, most_rows)
    rows = first.total if first.total is not None else count_rows(connection, query)
    read = len(first.rows)
    copying = Copying(first.prepare_s, first.read_s / max(read, 1), read)
    return LookedAtQuery(_FirstRows(first.rows, first.notices), rows, copying)


def first_rows(connection: Connection, query: str, most_rows: int) -> pa.RecordBatch | None:
    """The first rows of `query`, types as the driver has them, but for numbers that it has as text."""
    statement = f"SELECT * FROM (\n{bare(query, connection.dialect)}\n) AS penstock_query LIMIT {most_rows}"
    with Session(connection) as session:
        batches = list(session.stream(statement))
    rows = pa.Table.from_batches(batches).combine_chunks()
    if not rows.num_rows:
        return None
    batch = rows.to_batches()[0]
    return pa.RecordBatch.from_arrays([_number(column) for column in batch.columns], batch.schema.names)


def _number(column: pa.Array) -> pa.Array:
    """A column of which the driver knows no more than its text, as numbers where it has some: enough to be tried."""
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.storage
        with suppress(pa.ArrowInvalid):
            return column.cast(pa.float64())
    return column
