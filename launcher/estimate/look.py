"""What a job would do, told without doing it: rows, splits, how the columns fit, a few predictions, how long."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from launcher.estimate.forecast import Sample, Work, forecast
from launcher.estimate.sampling import Sampled, cost_of, score_sample
from pipelines.binding import Binding, bind
from pipelines.destinations import check_destinations, check_disjoint
from pipelines.spec import JobSpec
from predictors.bounds import Bounds
from predictors.notices import Notice, merged
from predictors.pool.inline import threads_of
from predictors.registry import make_predictor
from transforms.batches import Split
from transforms.connection import Connection
from transforms.counts import Counts, bearable_ratio
from transforms.sources.base import SPAN_ROWS
from transforms.sources.input import Looked

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
    check_disjoint(spec, None)
    opened = spec.input.look(within, _QUERY_ROWS)
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
        splits=opened.splits(splits),
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


def _work(
    spec: JobSpec, bound: Binding, splits: Sequence[Split], opened: Looked, sample: Sample, is_warm: bool
) -> Work:
    cores = len(os.sched_getaffinity(0))
    workers = threads_of(bound.predictor, spec.config.parallelism)
    table = spec.output.table()
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
        mapped_bytes=opened.mapped_bytes(bound.columns, span, sample.row_bytes),
        columns=len(bound.output_schema),
        table=None if table is None else Connection(table[0]).dialect,
        copying=opened.copying,
        is_warm=is_warm,
    )
