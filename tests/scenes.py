"""Small inputs, models and jobs that tests share. Scores are arithmetic, so that each row can be checked by hand."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.batch import BatchRun
from predictors.base import Predictor
from tests.doubling import SCORES, Doubler
from transforms.batches import Split
from transforms.publish import Publication
from transforms.rejects import RejectFolder
from transforms.score import Scoring
from transforms.sinks.base import Sink
from transforms.sinks.parquet import ParquetSink
from transforms.sources.parquet import ParquetSource
from transforms.stage import PartBounds

__all__ = ["SCORES", "Doubler", "Scene", "hidden", "numbered_rows", "published_rows", "scene", "write_files"]


def numbered_rows(rows: int, bad: Sequence[int] = (), nulls: Sequence[int] = ()) -> pa.Table:
    """`id` 0, 1, 2 …, `value` the same as a float, but negative in `bad` rows and null in `nulls`; `note` is text."""
    values = np.arange(rows, dtype=np.float64)
    values[list(bad)] = -1.0 - values[list(bad)]
    mask = np.zeros(rows, dtype=bool)
    mask[list(nulls)] = True
    ids = np.arange(rows)
    return pa.table({"id": ids, "value": pa.array(values, mask=mask), "note": [f"row {i}" for i in ids]})


def write_files(folder: Path, table: pa.Table, files: int = 1, row_group_rows: int = 1000) -> Path:
    """`table` cut into Parquet files of about the same length."""
    folder.mkdir(parents=True, exist_ok=True)
    bounds = np.linspace(0, len(table), files + 1).astype(int)
    for number, (start, stop) in enumerate(itertools.pairwise(bounds)):
        pq.write_table(
            table.slice(start, stop - start), folder / f"in-{number:02d}.parquet", row_group_size=row_group_rows
        )
    return folder


@dataclass(frozen=True)
class Scene:
    """A job over Parquet files, planned with short spans and splits so that little data makes many of them."""

    folder: Path
    source: ParquetSource
    splits: tuple[Split, ...]
    job_id: str = "batch-test"
    batch_size: int = 10
    mode: Any = "overwrite"
    max_reject_ratio: float = 1.0
    predictor: Predictor = field(default_factory=Doubler)
    bounds: PartBounds = PartBounds(rows=70)

    @property
    def job_folder(self) -> Path:
        """The job's own."""
        return self.folder / "job"

    @property
    def sink(self) -> Sink:
        """Parquet files in `scores`."""
        return ParquetSink(str(self.folder / "scores"), self.mode, self.job_id, self.job_folder)

    @property
    def rejects(self) -> RejectFolder:
        """Parquet files in `rejects`."""
        return RejectFolder(str(self.folder / "rejects"), self.job_id, self.source, self.job_folder)

    @property
    def output_schema(self) -> pa.Schema:
        """The id is passed through; the note is never read."""
        return pa.schema([self.source.schema.field("id"), *SCORES])

    def run(self, sink: Sink | None = None) -> BatchRun:
        """The run, its sink and rejects prepared."""
        sink = sink or self.sink
        self.job_folder.mkdir(exist_ok=True)
        sink.prepare(self.output_schema)
        self.rejects.prepare()
        return BatchRun(
            source=self.source,
            columns=("id", "value"),
            scoring=Scoring(self.predictor, ("id",), self.batch_size, 2, "reject", 0),
            publication=Publication(self.job_id, sink, self.rejects, self.splits, self.max_reject_ratio),
            bounds=self.bounds,
        )


def scene(
    folder: Path, table: pa.Table, *, files: int = 3, span_rows: int = 30, group_rows: int = 100, **more: Any
) -> Scene:
    """Write `table` and plan a job over it: a split for each row group, spans of `span_rows`."""
    source = ParquetSource.open([str(write_files(folder / "in", table, files, group_rows))])
    splits: list[Split] = []
    for split in source.plan(("id", "value"), 10):
        before = 0
        metadata = pq.read_metadata(split.uri)
        for group in range(metadata.num_row_groups):
            rows = metadata.row_group(group).num_rows
            part = replace(
                split,
                id=f"{len(splits):06d}",
                first_row=before,
                rows=rows,
                span_rows=span_rows,
                locator=f"{group}+1",
            )
            splits.append(part)
            before += rows
    return Scene(folder, source, tuple(splits), **more)


def published_rows(folder: Path) -> list[tuple[Any, ...]]:
    """All rows that readers of a published folder see, sorted."""
    return sorted(tuple(row.values()) for row in pq.read_table(folder).to_pylist())


def hidden(folder: Path) -> list[str]:
    """What lies hidden in a folder."""
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))
