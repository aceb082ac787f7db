"""What a job would do, told without doing it: rows, splits, how the columns fit, a few predictions, how long."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from launcher.estimate.forecast import Query, Sample, Work, forecast
from launcher.estimate.sampling import Sampled, cost_of, score_sample
from launcher.worker.apart import check_apart
from launcher.worker.bound import Bound, bind
from launcher.worker.destination import check_destinations
from pipelines.spec import JobSpec, ParquetInput, SqlInput, TableOutput
from predictors.bounds import Bounds
from predictors.notices import Notice, merged
from predictors.pool.inline import threads_of
from predictors.registry import make_predictor
from transforms.batches import Batch, Split
from transforms.connection import Connection
from transforms.counts import Counts, bearable_ratio
from transforms.errors import InputError
from transforms.sources.base import SPAN_ROWS, Source, rebatch, span_rows
from transforms.sources.files import chunks_of, open_file
from transforms.sources.parquet import ParquetSource

# Rows of a query that are asked for: enough to tell the pace of a fast model.
_QUERY_ROWS = 4 * SPAN_ROWS
# Threads that write parts; see `transforms.stage`.
_MOST_WRITERS = 4


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
        sample_rejected_rows: how many of them were rejected.
        seconds: the estimated duration, low and high.
        likely_s: what is between them expected most.
        memory_bytes: the most that the job's process is expected to have in memory.
        assumptions: what the estimates rest on, a sentence each.
        notices: what was found about the data that is worth a word.
    """

    rows: int
    splits: int
    features: list[Feature]
    output: list[tuple[str, str]]
    predictions: pa.Table
    refused: list[str]
    sample_rows: int
    seconds: tuple[float, float]
    likely_s: float
    memory_bytes: int
    assumptions: list[str]
    notices: tuple[Notice, ...] = ()
    sample_rejected_rows: int = 0


@dataclass(frozen=True)
class _Sample:
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
class _Opened:
    """The input, or the first rows of it; the number of all rows; how the query was read, if it is one."""

    source: Source
    rows: int
    query: Query | None = None


def look(spec: JobSpec, is_warm: bool = False, within: Bounds | None = None) -> PlanReport:
    """Load the model, open the input, score a sample. Writes nothing, anywhere.

    Args:
        is_warm: the job would start from a process that has its libraries, as those of a service do.
        within: where the files that are read have to lie, wherever their names lead; None: anywhere.

    Raises:
        PipelineError, PredictorError: one line that says why the job could not run.
    """
    predictor, library = cost_of(lambda: make_predictor(spec.model, within))
    _, loaded = cost_of(predictor.load)
    check_apart(spec, None)
    opened = _open(spec, within)
    source = opened.source
    bound = bind(spec, predictor, source)
    noticed = [*source.notices]
    noticed += check_destinations(spec, bound.output_schema, source, within)
    splits = list(source.plan(bound.columns, spec.config.batch_size))
    scored = score_sample(spec, bound, splits, library, loaded)
    expected = forecast(scored.sample, _work(spec, bound, splits, opened, scored.sample, is_warm))
    columns = source.schema
    return PlanReport(
        rows=opened.rows,
        splits=_splits_of_snapshot(splits, opened.rows) if isinstance(source, _Sample) else len(splits),
        features=[
            Feature(field.name, str(columns.field(field.name).type), str(field.type))
            for field in predictor.input_schema
        ],
        output=[(field.name, str(field.type)) for field in bound.output_schema],
        predictions=scored.shown,
        refused=scored.refused,
        sample_rows=scored.sample.rows,
        seconds=(expected.low_s, expected.high_s),
        likely_s=expected.likely_s,
        memory_bytes=expected.memory_bytes,
        assumptions=expected.assumptions,
        notices=merged([*noticed, *_too_many_rejects(spec, scored)]),
        sample_rejected_rows=scored.rejected,
    )


def _too_many_rejects(spec: JobSpec, scored: Sampled) -> list[Notice]:
    """What a run would fail of, should all its rows be as those that were looked at."""
    counts = Counts(scored.sample.rows - scored.rejected, scored.rejected, 0)
    bound = spec.rejects.max_reject_ratio
    if counts.reject_ratio <= bound:
        return []
    message = (
        f"{counts.rejected:,} of {counts.total:,} rows looked at are rejected: above max_reject_ratio {bound:g}; "
        f"a run like this publishes nothing: correct the rows, or set rejects.max_reject_ratio to "
        f"{bearable_ratio(counts):g}"
    )
    return [Notice("above_max_reject_ratio", message)]


def _open(spec: JobSpec, within: Bounds | None) -> _Opened:
    if isinstance(spec.input, ParquetInput):
        source = ParquetSource.open(spec.input.path, within, spec.input.declared())
        return _Opened(source, sum(split.rows or 0 for split in source.plan((), spec.config.batch_size)))
    if not isinstance(spec.input, SqlInput):
        raise InputError(f"input.source {spec.input.source} cannot be looked at beforehand")
    from transforms.sources.sql import count_rows, sample

    connection = Connection(spec.input.connection, pinned=within is not None)
    first = sample(connection, spec.input.query, _QUERY_ROWS)
    rows = first.total if first.total is not None else count_rows(connection, spec.input.query)
    read = len(first.rows)
    return _Opened(_Sample(first.rows, first.notices), rows, Query(first.prepare_s, first.read_s / max(read, 1), read))


def _work(spec: JobSpec, bound: Bound, splits: Sequence[Split], opened: _Opened, sample: Sample, is_warm: bool) -> Work:
    cores = len(os.sched_getaffinity(0))
    workers = threads_of(bound.predictor, spec.config.parallelism)
    output = spec.output
    span = max((split.span_rows for split in splits), default=SPAN_ROWS)
    return Work(
        rows=opened.rows,
        batch_rows=spec.config.batch_size,
        span_rows=span,
        workers=workers,
        cores=cores,
        writers=min(cores, _MOST_WRITERS),
        # The one that the columns were checked against stays.
        loads=1 if bound.predictor.thread_safe else 1 + workers,
        mapped_bytes=_mapped_bytes(opened, bound, span, sample),
        columns=len(bound.output_schema),
        table=Connection(output.connection).dialect if isinstance(output, TableOutput) else None,
        query=opened.query,
        is_warm=is_warm,
    )


def _mapped_bytes(opened: _Opened, bound: Bound, span: int, sample: Sample) -> int:
    """What is read of the largest file: it is mapped, so it counts as the process's memory once it was looked at."""
    source = opened.source
    if isinstance(source, ParquetSource):
        return _bytes_read(max(source.files, key=os.path.getsize), bound.columns, source.within)
    from transforms.sources.snapshot import file_rows

    return int(min(opened.rows, file_rows(span)) * sample.row_bytes)


def _bytes_read(file: str, columns: Sequence[str], within: Bounds | None) -> int:
    return sum(chunk.total_compressed_size for chunk in chunks_of(open_file(file, within), columns))


def _splits_of_snapshot(sample: Sequence[Split], rows: int) -> int:
    """Splits of a query's `rows`, given those of its first rows."""
    from transforms.sources.snapshot import file_rows

    return -(-rows // file_rows(sample[0].span_rows)) if sample else 0
