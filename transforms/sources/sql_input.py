"""The rows of a query as the input of a job."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import pyarrow as pa

from predictors.bounds import Bounds
from predictors.specvalue import CONNECTION
from transforms.connection import Connection
from transforms.place import JobPlace
from transforms.sources.base import Source
from transforms.sources.input import Input, Looked, OnCopied


@dataclass(frozen=True)
class SqlInput(Input):
    """The rows of one query. `connection` may hold `${NAME}`, expanded only where it is opened."""

    connection: Annotated[str, CONNECTION] = field(repr=False)
    query: str
    source: Literal["sql"] = "sql"
    # A database takes longer for a value than a file does.
    value_s: ClassVar[float] = 0.3e-6

    def open(self, place: JobPlace, batch_size: int, on_copied: OnCopied) -> Source:
        from transforms.sources.sql import snapshot

        connection = Connection(self.connection, pinned=place.within is not None)
        return snapshot(connection, self.query, place.folder / "snapshot", batch_size, on_copied)

    def reopen(self, opened: Mapping[str, Any], schema: pa.Schema, place: JobPlace) -> Source:
        from transforms.sources.snapshot import SnapshotSource

        return SnapshotSource.open(place.folder / "snapshot")

    def to_reopen(self, source: Source) -> dict[str, Any]:
        return {}

    def count(self, within: Bounds | None, timeout_s: float = math.inf) -> int | None:
        from transforms.sources.counting import count_rows, count_soon

        connection = Connection(self.connection, pinned=within is not None)
        if math.isinf(timeout_s):
            return count_rows(connection, self.query)
        return count_soon(connection, self.query, timeout_s)

    def look(self, within: Bounds | None, most_rows: int) -> Looked:
        from transforms.sources.sql_look import look

        return look(Connection(self.connection, pinned=within is not None), self.query, most_rows)

    def first_rows(
        self, within: Bounds | None, most_rows: int, most_bytes: int, timeout_s: float
    ) -> pa.RecordBatch | None:
        from transforms.sources.sql_look import first_rows

        return first_rows(Connection(self.connection, pinned=within is not None), self.query, most_rows)

    def reads_table(self, connection: str, table_name: str) -> bool:
        given, asked = Connection(self.connection), Connection(connection)
        if given.dialect != asked.dialect or given.database() != asked.database():
            return False
        from transforms.sources.query import folded, reads_table

        return reads_table(self.query, given.dialect, folded(table_name, given.dialect))
