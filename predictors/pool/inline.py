"""The pool inside the job's own process: threads around one model."""

import os
import pickle
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pyarrow as pa

from predictors.base import Nulls, Predictor, PreparedSpan, SpanPredictor
from predictors.crashes import RunningCalls, SpanName
from predictors.errors import NothingScored, Transient, WrongAnswer
from predictors.feeding import feed, others
from predictors.finite import not_finite
from predictors.pool.base import Answers
from predictors.pressure import PRESSURE
from predictors.recovery import BadRow, CallSize, Recovery, RetryPolicy
from predictors.taking import no_rows

# A model that scores nothing in this many batches will not score the rest either.
_TRIAL_BATCHES = 10


def threads_of(predictor: Predictor, parallelism: int) -> int:
    """How many threads a pool in this process scores with, where it may have `parallelism`."""
    return min(parallelism, len(os.sched_getaffinity(0))) if getattr(predictor, "cpu_bound", False) else parallelism


class InlinePool:
    """Scores in `parallelism` threads of this process.

    Model libraries let go of the interpreter while they compute, so threads use all cores. A predictor that is not
    `thread_safe` is loaded once per thread. One that is `cpu_bound` gets no more threads than there are cores: more of
    them would only wait for each other.

    Args:
        predictor: not loaded yet.
        parallelism: threads.
        batch_size: rows of a model call; fewer only at the end of a batch, or to recover.
        nulls: what becomes of rows with a null feature.
        policy: bounds of the recovery.
        on_trial: give the model up if it scores no row of its first batches.
        progress: told after each call's batch how many rows were scored and rejected.
        called: told the seconds of each single model call, answered or failed, by the thread that made it.
        running: where the spans are marked that the model is called for.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        parallelism: int,
        batch_size: int,
        nulls: Nulls,
        policy: RetryPolicy,
        on_trial: bool = True,
        progress: Callable[[int, int], object] = lambda scored, rejected: None,
        called: Callable[[float], object] = lambda seconds: None,
        running: RunningCalls | None = None,
    ) -> None:
        self._predictor = predictor
        self._batch_size = batch_size
        self._nulls = nulls
        self._progress = progress
        self._called = called
        self._running = running or RunningCalls()
        self._closed = threading.Event()
        self._loading = threading.Lock()
        self._own = threading.local()
        self._trial = _Trial(over=not on_trial)
        self._recovery = Recovery(policy, CallSize(batch_size, PRESSURE), self._wait, saw=self._saw)
        if predictor.thread_safe:
            predictor.load()
        else:
            self._blank = pickle.dumps(predictor)
        self._parallelism = threads_of(predictor, parallelism)
        self._threads = ThreadPoolExecutor(self._parallelism, thread_name_prefix="score")

    @property
    def workers(self) -> int:
        """The number of threads."""
        return self._parallelism

    def submit(self, rows: pa.RecordBatch, name: SpanName | None = None) -> Future[Answers]:
        """Score `rows` in one of the threads."""
        return self._threads.submit(self._score_marked, rows, name)

    def close(self) -> None:
        """Cancel what has not begun and wait for what has."""
        self._closed.set()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _score_marked(self, rows: pa.RecordBatch, name: SpanName | None) -> Answers:
        predictor = self._loaded()
        with self._running.during(name):
            return self._score(predictor, rows)

    def _score(self, predictor: Predictor, rows: pa.RecordBatch) -> Answers:
        fed = feed(rows, predictor.input_schema, self._nulls)
        span = laid_out(predictor, fed.rows)
        if fed.bad:
            self._progress(0, len(fed.bad))
        self._own.waited_s = 0.0
        began = time.perf_counter()
        try:
            scores = self._recovery.score_rows(self._timed(span), fed.rows.num_rows, self._batch_size)
        except WrongAnswer as error:
            if error.row is None or fed.kept is None:
                raise
            raise error.shifted(fed.kept[error.row].as_py()) from error
        model_s = time.perf_counter() - began - self._own.waited_s
        kept, bad = fed.kept, scores.bad
        if kept is not None:
            bad = [BadRow(kept[row.row].as_py(), row.error_type, row.error) for row in bad]
        if fed.bad:
            bad = sorted([*fed.bad, *bad], key=lambda row: row.row)
        ranges = [(start, stop) for start, stop, _ in scores.answers]
        predictions = span.answers(ranges)
        check_answer(predictions, sum(stop - start for start, stop in ranges), predictor.output_schema)
        scored = others([row.row for row in bad], rows.num_rows) if bad else None
        return Answers(predictions, scored, bad, scores.calls, model_s, not_finite(predictions))

    def _timed(self, span: PreparedSpan) -> Callable[[int, int], None]:
        """Calls of the model for `span`, each of them told of."""

        def call(start: int, stop: int) -> None:
            began = time.perf_counter()
            try:
                span.score(start, stop)
            finally:
                self._called(time.perf_counter() - began)

        return call

    def _loaded(self) -> Predictor:
        """This thread's predictor."""
        if self._predictor.thread_safe:
            return self._predictor
        if not hasattr(self._own, "predictor"):
            # Loading is not promised to be thread-safe either.
            with self._loading:
                predictor = pickle.loads(self._blank)
                predictor.load()
            self._own.predictor = predictor
        return self._own.predictor

    def _saw(self, scored: int, bad: Sequence[BadRow]) -> None:
        self._trial.saw(scored, bad)
        self._progress(scored, len(bad))

    def _wait(self, seconds: float) -> None:
        self._own.waited_s += seconds
        with self._running.paused():
            if self._closed.wait(seconds):
                raise Transient("the pool was closed while a call waited for its next try")


class _Slices:
    """A span of a predictor that is called with slices of it."""

    def __init__(self, predictor: Predictor, rows: pa.RecordBatch) -> None:
        self._predictor = predictor
        self._rows = rows
        self._answers: dict[tuple[int, int], pa.RecordBatch] = {}

    def score(self, start: int, stop: int) -> None:
        try:
            answer = self._predictor.predict(self._rows.slice(start, stop - start))
        except WrongAnswer as error:
            if error.row is None:
                raise
            raise error.shifted(start + error.row) from error
        check_answer(answer, stop - start, self._predictor.output_schema)
        self._answers[start, stop] = answer

    def answers(self, ranges: Sequence[tuple[int, int]]) -> pa.RecordBatch:
        schema = self._predictor.output_schema
        if not ranges:
            return no_rows(schema)
        return pa.concat_batches([self._answers[range_] for range_ in ranges])


class _Trial:
    """Gives up a model that scores no row of its first batches."""

    def __init__(self, over: bool) -> None:
        self._lock = threading.Lock()
        self._batches = 0
        self._over = over

    def saw(self, scored: int, bad: Sequence[BadRow]) -> None:
        """Count one batch of which `scored` rows passed."""
        if self._over:
            return
        with self._lock:
            self._over = self._over or scored > 0
            self._batches += 1
            if not self._over and self._batches >= _TRIAL_BATCHES:
                raise NothingScored(
                    f"no row of the first {_TRIAL_BATCHES} batches could be scored: {bad[0].error_type}: {bad[0].error}"
                )


def check_answer(answer: pa.RecordBatch, rows: int, schema: pa.Schema) -> None:
    """Hold a model to its promise.

    Raises:
        WrongAnswer: another number of rows, or other columns, than promised.
    """
    if answer.num_rows != rows:
        raise WrongAnswer(
            f"the model returned {answer.num_rows} rows for {rows}; each row needs exactly one answer, in order"
        )
    if not answer.schema.equals(schema):
        raise WrongAnswer(f"the model returned columns ({_brief(answer.schema)}), but promised ({_brief(schema)})")


def _brief(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name}: {field.type}{'' if field.nullable else ' not null'}" for field in schema)


def laid_out(predictor: Predictor, rows: pa.RecordBatch) -> PreparedSpan:
    """Rows as fed to a loaded predictor, to be scored in calls of any range of them."""
    return predictor.prepare(rows) if isinstance(predictor, SpanPredictor) else _Slices(predictor, rows)
