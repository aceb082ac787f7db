"""What a job would do, told without doing it: rows, splits, how the columns fit, a few predictions, how long."""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from launcher.apart import check_apart
from launcher.attempt import Bound, bind
from pipelines.spec import JobSpec, ParquetInput
from predictors.pool.base import Answers
from predictors.pool.inline import InlinePool
from predictors.recovery import RetryPolicy
from predictors.registry import make_predictor
from transforms.batches import Batch, Span, Split
from transforms.connection import Connection
from transforms.score import assemble
from transforms.sources.base import SPAN_ROWS, Source, rebatch, span_rows
from transforms.sources.parquet import ParquetSource

# Predictions that are shown.
_SHOWN = 5
# The sample ends at the first of these; less says too little of a fast model, more keeps the user waiting.
_SAMPLE_ROWS = 4 * SPAN_ROWS
_SAMPLE_S = 2.0
# What a run costs before its first row: starting its process and Beam.
_START_S = (2.0, 8.0)
# A sample is warm and alone; a run shares the disk and the cores. Seen on two cores: runs take 0.6 to 1.6 times of it.
_SPREAD = (0.6, 1.8)


@dataclass(frozen=True)
class Feature:
    """How one column reaches the model."""

    column: str
    given: str
    fed_as: str


@dataclass(frozen=True)
class PlanReport:
    """What `penstock plan` shows.

    Args:
        rows: of the input; exact.
        splits: that they are read in; exact for files. For a query an estimate: how long its splits are goes by the
            size of its first rows in memory, here as far as the sample shows them.
        features: the model's columns.
        output: (name, type) of the output's columns.
        predictions: the output of the first rows that could be scored, five at most.
        refused: why some of the first rows could not, a line each.
        sample_rows: rows that were timed.
        seconds: the estimated duration, low and high.
    """

    rows: int
    splits: int
    features: list[Feature]
    output: list[tuple[str, str]]
    predictions: pa.Table
    refused: list[str]
    sample_rows: int
    seconds: tuple[float, float]


@dataclass(frozen=True)
class _Sample:
    """The first rows of a query, as a source."""

    rows: pa.Table

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


def look(spec: JobSpec) -> PlanReport:
    """Load the model, open the input, score a sample. Writes nothing, anywhere.

    Raises:
        PipelineError, PredictorError: one line that says why the job could not run.
    """
    predictor = make_predictor(spec.model)
    predictor.load()
    check_apart(spec, None)
    began = time.perf_counter()
    source, rows = _open(spec)
    opened_s = time.perf_counter() - began
    bound = bind(spec, predictor, source)
    splits = list(source.plan(bound.columns, spec.config.batch_size))
    timed = _time_sample(spec, bound, splits)
    if isinstance(source, _Sample):
        # Opening the sample was reading it; the run reads all of it so before it scores.
        timed.busy_s += opened_s
    low, high = _estimate(timed, rows)
    columns = source.schema
    return PlanReport(
        rows=rows,
        splits=_splits_of_snapshot(splits, rows) if isinstance(source, _Sample) else len(splits),
        features=[
            Feature(field.name, str(columns.field(field.name).type), str(field.type))
            for field in predictor.input_schema
        ],
        output=[(field.name, str(field.type)) for field in bound.output_schema],
        predictions=timed.shown.slice(0, _SHOWN),
        refused=timed.refused[:_SHOWN],
        sample_rows=timed.rows,
        seconds=(low, high),
    )


@dataclass
class _Timed:
    """A sample that was read, scored and encoded: how many rows, and the seconds of work that it took."""

    shown: pa.Table
    refused: list[str]
    rows: int = 0
    busy_s: float = 0.0


def _open(spec: JobSpec) -> tuple[Source, int]:
    """The input, or the first rows of it, and the number of all rows."""
    if isinstance(spec.input, ParquetInput):
        source = ParquetSource.open(spec.input.path)
        return source, sum(split.rows or 0 for split in source.plan((), spec.config.batch_size))
    from transforms.sources.sql import count_rows, sample

    connection = Connection(spec.input.connection)
    return _Sample(sample(connection, spec.input.query, _SAMPLE_ROWS)), count_rows(connection, spec.input.query)


def _time_sample(spec: JobSpec, bound: Bound, splits: Sequence[Split]) -> _Timed:
    timed = _Timed(bound.output_schema.empty_table(), [])
    pool = InlinePool(
        bound.predictor,
        parallelism=1,
        batch_size=spec.config.batch_size,
        nulls=spec.model.nulls,
        policy=RetryPolicy(0),
    )
    began = time.perf_counter()
    try:
        for split in splits:
            for batch in bound.source.read(split, bound.columns):
                # A slow model must not be asked for a whole span: a batch is the least that tells its speed.
                for at in range(0, batch.rows.num_rows, step := _step(spec, timed)):
                    piece = batch.rows.slice(at, step)
                    answers = pool.submit(piece).result()
                    _add(timed, split, batch.span.start + at, piece, answers, bound.passthrough)
                    timed.busy_s = time.perf_counter() - began
                    if timed.busy_s > _SAMPLE_S or timed.rows >= _SAMPLE_ROWS:
                        return timed
    finally:
        pool.close()
    return timed


def _splits_of_snapshot(sample: Sequence[Split], rows: int) -> int:
    """Splits of a query's `rows`, given those of its first rows."""
    from transforms.sources.snapshot import file_rows

    return -(-rows // file_rows(sample[0].span_rows)) if sample else 0


def _step(spec: JobSpec, timed: _Timed) -> int:
    """Rows of the next piece: one batch until the speed is known, then about a tenth of the sample's time."""
    if not timed.rows:
        return spec.config.batch_size
    fitting = timed.rows / timed.busy_s * _SAMPLE_S / 10
    return max(min(int(fitting), SPAN_ROWS) // spec.config.batch_size, 1) * spec.config.batch_size


def _add(
    timed: _Timed, split: Split, start: int, rows: pa.RecordBatch, answers: Answers, passthrough: tuple[str, ...]
) -> None:
    """Lay the answers down as a run would, in memory, and keep the first of them to show."""
    scored = assemble(Batch(Span(split, start, start + rows.num_rows, last=False), rows), answers, passthrough)
    table = pa.Table.from_batches([scored.rows])
    pq.write_table(table, pa.BufferOutputStream())
    timed.rows += rows.num_rows
    if len(timed.shown) < _SHOWN:
        timed.shown = pa.concat_tables([timed.shown, table.slice(0, _SHOWN)])
    if len(timed.refused) < _SHOWN:
        timed.refused += [
            f"{split.uri}:{split.first_row + start + bad.row} {bad.error_type}: {bad.error}"
            for bad in answers.bad[:_SHOWN]
        ]


def _estimate(timed: _Timed, rows: int) -> tuple[float, float]:
    """Seconds, low and high, from the seconds of work a row and the cores that share it."""
    if not timed.rows:
        return _START_S
    work_s = timed.busy_s / timed.rows * rows
    cores = len(os.sched_getaffinity(0))
    return _START_S[0] + work_s / cores * _SPREAD[0], _START_S[1] + work_s * _SPREAD[1]
