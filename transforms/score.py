"""Score: batches become scored spans, several at once, in the order in which they came."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.shared import Shared
from apache_beam.utils.windowed_value import WindowedValue

from predictors.base import Nulls, Predictor
from predictors.crashes import CrashRecord, Findings, RunningCalls, SpanName
from predictors.errors import PredictorError, WrongAnswer
from predictors.pool.alone import Alone
from predictors.pool.base import Answers, Pool
from predictors.pool.child import ChildSetup
from predictors.pool.inline import InlinePool
from predictors.pressure import PRESSURE
from predictors.recovery import RetryPolicy, text_of
from predictors.taking import take_rows
from transforms.batches import Batch, Rejected, ScoredSpan, Span
from transforms.coders import register_coders
from transforms.errors import PipelineError, ScoringFailed
from transforms.pending import PENDING
from transforms.telemetry import Telemetry

register_coders()

# Bytes of rows that may wait for their scores, whatever their number.
_IN_FLIGHT_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True)
class Scoring:
    """How rows are scored.

    Args:
        predictor: not loaded; bound to the input's columns.
        passthrough: input columns that the output keeps, in order, before the predictions.
        batch_size: rows of a model call.
        parallelism: threads of a worker.
        nulls: what becomes of rows with a null feature.
        retry_count: tries beyond the first of a call that fails in passing.
        on_trial: give the model up if it scores no row of its first batches; pointless once it has scored some.
        crashes: what is known of rows that kill the process; None: such a row is met again by each attempt.
        in_flight_share: of the spans that are usually in flight, and of their bytes; one is always let through. Less
            than 1 after an attempt that ran out of memory.
    """

    predictor: Predictor
    passthrough: tuple[str, ...]
    batch_size: int
    parallelism: int
    nulls: Nulls
    retry_count: int
    on_trial: bool = True
    in_flight_share: float = 1.0
    crashes: CrashRecord | None = None


def assemble(batch: Batch, answers: Answers, passthrough: tuple[str, ...]) -> ScoredSpan:
    """Lay a batch and the model's answers together: scored rows in order, the others with their reasons."""
    rows = batch.rows if answers.scored is None else take_rows(batch.rows, answers.scored)
    kept = [rows.schema.field(name) for name in passthrough]
    schema = pa.schema([*kept, *answers.predictions.schema])
    columns = [*(rows.column(name) for name in passthrough), *answers.predictions.columns]
    scored = pa.RecordBatch.from_arrays(columns, schema=schema)
    skipped = batch.span.rows - batch.rows.num_rows
    at = batch.at if batch.at is None or answers.scored is None else pc.take(batch.at, answers.scored)
    notices = (*batch.notices, *answers.notices)
    if not answers.bad:
        return ScoredSpan(batch.span, scored, skipped=skipped, notices=notices, at=at)
    indices = pa.array([row.row for row in answers.bad], pa.int32())
    rejected = Rejected(
        rows=take_rows(batch.rows, indices),
        at=indices if batch.at is None else pc.take(batch.at, indices),
        error_type=pa.array([row.error_type for row in answers.bad], pa.string()),
        error=pa.array([row.error for row in answers.bad], pa.string()),
    )
    return ScoredSpan(batch.span, scored, rejected, skipped, notices, at)


def _position(batch: Batch, row: int) -> str:
    """Where a row of a batch is in the input, as rejects say it."""
    span = batch.span
    offset = row if batch.at is None else batch.at[row].as_py()
    return f"{span.split.uri}:{span.split.first_row + span.start + offset}"


class Score(beam.PTransform):
    """Score batches in a pool of this worker.

    Several spans are in flight at once, bounded by bytes; they leave in the order in which they came. While memory is
    short, one at a time is. One of which a row may kill the process is scored alone, in a process of its own. Nothing
    of a bundle is left behind when it ends.
    """

    def __init__(self, scoring: Scoring, telemetry: Telemetry) -> None:
        super().__init__()
        self._score = _ScoreFn(scoring, telemetry)

    def expand(self, batches: beam.PCollection[Batch]) -> beam.PCollection[ScoredSpan]:
        return batches | "ScoreSpan" >> beam.ParDo(self._score)


class _ScoreFn(beam.DoFn):
    def __init__(self, scoring: Scoring, telemetry: Telemetry) -> None:
        self._scoring = scoring
        self._telemetry = telemetry
        # One pool a process, however many copies of this DoFn the runner makes.
        self._shared = Shared()

    def setup(self) -> None:
        self._pool: Pool = self._shared.acquire(self._make_pool)
        self._in_flight: deque[tuple[Batch, Future[Answers]]] = deque()
        crashes = self._scoring.crashes
        self._findings = Findings() if crashes is None else crashes.findings()
        self._alone: Alone | None = None

    def start_bundle(self) -> None:
        self._in_flight.clear()
        self._in_flight_bytes = 0
        PENDING.scores(self)

    def process(self, batch: Batch) -> Iterator[ScoredSpan]:
        while self._in_flight and PRESSURE.is_high:
            yield self._next()
        name = _name_of(batch.span)
        if self._findings.suspects_in(name):
            # Nothing else is under way then, so that a death is of this one alone, and what is scored is handed on.
            while self._in_flight:
                yield self._next()
            future = self._score_alone(name, batch)
        else:
            future = self._pool.submit(batch.rows, name)
        self._in_flight.append((batch, future))
        self._in_flight_bytes += batch.rows.nbytes
        while self._in_flight and (self._is_full() or self._in_flight[0][1].done()):
            yield self._next()

    def finish_bundle(self) -> Iterator[WindowedValue]:
        while self._in_flight:
            scored = self._next()
            yield WindowedValue(scored, GlobalWindow().max_timestamp(), [GlobalWindow()])
        PENDING.done(self)
        self._end_child()

    def held(self) -> list[ScoredSpan]:
        """What is scored and waits for its turn."""
        in_flight = list(self._in_flight)
        done = ((batch, future) for batch, future in in_flight if future.done() and not future.cancelled())
        return [
            assemble(batch, future.result(), self._scoring.passthrough)
            for batch, future in done
            if future.exception() is None
        ]

    def teardown(self) -> None:
        self._end_child()
        self._telemetry.counters().flush()

    def _make_pool(self) -> Pool:
        scoring = self._scoring
        counters = self._telemetry.counters()
        return InlinePool(
            scoring.predictor,
            parallelism=scoring.parallelism,
            batch_size=scoring.batch_size,
            nulls=scoring.nulls,
            policy=RetryPolicy(scoring.retry_count),
            on_trial=scoring.on_trial,
            progress=lambda scored, rejected: counters.add(scored=scored, rejected=rejected),
            called=counters.observe_call,
            running=RunningCalls() if scoring.crashes is None else scoring.crashes.running(),
        )

    def _score_alone(self, name: SpanName, batch: Batch) -> Future[Answers]:
        scoring, crashes = self._scoring, self._scoring.crashes
        assert crashes is not None
        if self._alone is None:
            counters = self._telemetry.counters()
            self._alone = Alone(
                ChildSetup(scoring.predictor, scoring.batch_size, scoring.nulls, scoring.retry_count),
                crashes,
                progress=lambda scored, rejected: counters.add(scored=scored, rejected=rejected),
                called=counters.observe_call,
            )
        future: Future[Answers] = Future()
        try:
            future.set_result(self._alone.score(name, batch.rows, _where(batch.span)))
        except Exception as error:
            future.set_exception(error)
        return future

    def _end_child(self) -> None:
        if self._alone is not None:
            self._alone.close()
            self._alone = None

    def _is_full(self) -> bool:
        """More waits than keeps the pool busy, or than memory may hold."""
        share = self._scoring.in_flight_share
        # Two for each worker, so that none waits for the next, and one that is being handed over.
        most = max(int((2 * self._pool.workers + 1) * share), 1)
        return len(self._in_flight) >= most or self._in_flight_bytes > _IN_FLIGHT_BYTES * share

    def _next(self) -> ScoredSpan:
        batch, future = self._in_flight.popleft()
        self._in_flight_bytes -= batch.rows.nbytes
        try:
            answers = future.result()
        except WrongAnswer as error:
            if error.row is None:
                raise
            raise WrongAnswer(f"{_position(batch, error.row)}: {error}") from error
        except (PredictorError, PipelineError):
            raise
        except Exception as error:
            raise ScoringFailed(f"{_where(batch.span)}: {type(error).__name__}: {text_of(error)}") from error
        scored = assemble(batch, answers, self._scoring.passthrough)
        self._telemetry.counters().add(score_s=answers.model_s)
        return scored


def _name_of(span: Span) -> SpanName:
    return SpanName(span.split.id, span.start, span.stop)


def _where(span: Span) -> str:
    """A span, for people."""
    return f"{span.split.uri} rows {span.split.first_row + span.start} to {span.split.first_row + span.stop}"
