"""Parquet files as the input of a job."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

import pyarrow as pa

from predictors.bounds import Bounds
from predictors.specvalue import PathMark
from transforms.place import JobPlace
from transforms.sources.base import Source
from transforms.sources.input import Input, Looked, OnCopied
from transforms.typenames import type_named


@dataclass(frozen=True)
class ParquetInput(Input):
    """Parquet files: each path is a file, a glob, or a folder that is searched.

    `schema`: columns, and the types that they are read as, as Arrow prints them, whatever the files say.
    """

    path: Annotated[tuple[str, ...], PathMark("read", is_pattern=True)]
    schema: tuple[tuple[str, str], ...] = ()
    source: Literal["parquet"] = "parquet"

    @classmethod
    def from_request(cls, values: Mapping[str, Any]) -> Self:
        """A single path, and types by their columns, are written as such."""
        path, schema = values["path"], values.get("schema") or {}
        given = {**values, "path": [path] if isinstance(path, str) else path, "schema": list(schema.items())}
        return super().from_request(given)

    def declared(self) -> dict[str, pa.DataType]:
        """`schema` as Arrow has it."""
        return {name: type_named(type) for name, type in self.schema}

    def open(self, place: JobPlace, batch_size: int, on_copied: OnCopied) -> Source:
        from transforms.sources.parquet import ParquetSource

        return ParquetSource.open(self.path, place.bounds_of(*self.path), self.declared())

    def reopen(self, opened: Mapping[str, Any], schema: pa.Schema, place: JobPlace) -> Source:
        from transforms.sources.parquet import ParquetSource

        files = tuple(opened["files"])
        return ParquetSource(files, schema, place.bounds_of(*files))

    def to_reopen(self, source: Source) -> dict[str, Any]:
        from transforms.sources.parquet import ParquetSource

        assert isinstance(source, ParquetSource)
        return {"files": list(source.files)}

    def count(self, within: Bounds | None, timeout_s: float = math.inf) -> int | None:
        from transforms.sources.parquet import count_soon

        return count_soon(self.path, self.declared(), within, timeout_s)

    def look(self, within: Bounds | None, most_rows: int) -> Looked:
        from transforms.sources.parquet import LookedAtFiles, ParquetSource

        return LookedAtFiles.of(ParquetSource.open(self.path, within, self.declared()))

    def first_rows(
        self, within: Bounds | None, most_rows: int, most_bytes: int, timeout_s: float
    ) -> pa.RecordBatch | None:
        from transforms.sources.parquet import first_rows

        return first_rows(self.path, self.declared(), within, most_rows, most_bytes, timeout_s)
