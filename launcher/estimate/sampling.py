"""Scoring a sample of a job's rows, timed: reading, the model, and the encoding of the result, each by itself."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from dataclasses import dataclass, field, replace
from typing import TypeVar

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from launcher.estimate.forecast import Sample
from pipelines.binding import Binding
from pipelines.spec import JobSpec
from predictors.pool.base import Answers
from predictors.pool.inline import InlinePool, threads_of
from predictors.recovery import RetryPolicy
from predictors.taking import no_rows
from transforms.batches import Batch, Span, Split
from transforms.score import assemble
from transforms.sources.base import SPAN_ROWS

# Predictions, and rows that the model refuses, that are shown.
SHOWN = 5
# The sample ends at the first of these; less says too little of a fast model, more keeps the user waiting.
_SAMPLE_ROWS = 16 * SPAN_ROWS
_SAMPLE_S = 2.0
# Pieces that all threads score at once take a tenth of the sample's time, as far as that is known.
_ROUNDS = 10
_T = TypeVar("_T")

# How long all threads may take to load models of their own, and how much of the free memory these may take.
_LOADS_S = 2.0
_LOADS_SHARE = 0.5


@dataclass(frozen=True)
class Cost:
    """What something cost: seconds, and bytes of memory that the process grew by."""

    seconds: float
    bytes: int


def cost_of(call: Callable[[], _T]) -> tuple[_T, Cost]:
    """Call `call`: its answer, and what it cost."""
    own = psutil.Process()
    before, began = own.memory_info().rss, time.perf_counter()
    answer = call()
    return answer, Cost(time.perf_counter() - began, max(own.memory_info().rss - before, 0))


@dataclass
class Sampled:
    """A sample that was scored.

    Args:
        shown: output rows, the first ones, at most `SHOWN`.
        refused: why some of the first rows were rejected, a line each, at most `SHOWN`.
        sample: what was measured.
        rejected: rows of the sample that were rejected.
    """

    shown: pa.Table
    refused: list[str]
    sample: Sample
    rejected: int = 0


@dataclass
class _Round:
    """Pieces that were scored side by side."""

    rows: int
    seconds: float
    cpu_s: float


@dataclass
class _Spent:
    """Rows, bytes and seconds so far; `grown_bytes` during calls alone."""

    read_rows: int = 0
    read_bytes: int = 0
    read_s: float = 0.0
    answer_bytes: int = 0
    scored_bytes: int = 0
    write_s: float = 0.0
    grown_bytes: int = 0
    rounds: list[_Round] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return sum(one.rows for one in self.rounds)

    @property
    def seconds(self) -> float:
        return self.read_s + self.write_s + sum(one.seconds for one in self.rounds)


def score_sample(spec: JobSpec, bound: Binding, splits: Sequence[Split], library: Cost, loaded: Cost) -> Sampled:
    """Score the first rows as a run would, with as many threads where that takes no longer than people wait.

    The first call is made alone; then all threads get a piece at once, over and over.

    Args:
        library, loaded: what importing the model's library and loading the model cost.
    """
    threads = _threads(bound, spec, loaded)
    pool = InlinePool(
        bound.predictor,
        parallelism=threads,
        batch_size=spec.config.batch_size,
        nulls=bound.nulls,
        policy=RetryPolicy(0),
    )
    spent, shown = _Spent(), Sampled(pa.Table.from_batches([no_rows(bound.output_schema)]), [], Sample())
    try:
        _load_all(pool, bound, threads)
        pieces = _Pieces(bound, splits, spent)
        while spent.seconds < _SAMPLE_S and spent.rows < _SAMPLE_ROWS:
            count = _count(spent, threads)
            taken = [piece for _ in range(count) if (piece := pieces.take(_step(spec, spent, count))) is not None]
            if not taken:
                break
            for (split, start, rows), answers in zip(taken, _scored(pool, taken, spent), strict=True):
                _lay_down(shown, spent, split, start, rows, answers, bound.passthrough)
    finally:
        pool.close()
    shown.sample = replace(
        _measured(spent, threads),
        library_s=library.seconds,
        library_bytes=library.bytes,
        load_s=loaded.seconds,
        model_bytes=loaded.bytes,
        call_bytes=max(spent.grown_bytes, 0),
    )
    return shown


_Piece = tuple[Split, int, pa.RecordBatch]


class _Pieces:
    """The input's first rows in pieces of any length within a span; reading them is timed."""

    def __init__(self, bound: Binding, splits: Sequence[Split], spent: _Spent) -> None:
        self._batches = (batch for split in splits for batch in bound.source.read(split, bound.columns))
        self._spent = spent
        self._batch: Batch | None = None
        self._at = 0

    def take(self, rows: int) -> _Piece | None:
        """The next `rows` rows, fewer at the end of a span; None when there are no more."""
        if self._batch is None or self._at >= self._batch.rows.num_rows:
            began = time.perf_counter()
            self._batch, self._at = next(self._batches, None), 0
            self._spent.read_s += time.perf_counter() - began
            if self._batch is None:
                return None
            self._spent.read_rows += self._batch.rows.num_rows
            self._spent.read_bytes += self._batch.rows.nbytes
        piece = self._batch.rows.slice(self._at, rows)
        start = self._batch.span.start + self._at
        self._at += piece.num_rows
        return self._batch.span.split, start, piece


def _threads(bound: Binding, spec: JobSpec, loaded: Cost) -> int:
    """How many threads are tried: all of the run's, unless each had to load a large model first."""
    workers = threads_of(bound.predictor, spec.config.parallelism)
    if bound.predictor.thread_safe:
        return workers
    free = psutil.virtual_memory().available * _LOADS_SHARE
    by_time, by_memory = _LOADS_S / max(loaded.seconds, 1e-3), free / max(loaded.bytes, 1)
    return max(min(workers, int(by_time), int(by_memory)), 1)


def _load_all(pool: InlinePool, bound: Binding, threads: int) -> None:
    """Have every thread load its model, so that no call is timed with it: a piece without rows makes no call."""
    schema = pa.schema([bound.source.schema.field(name) for name in bound.columns])
    empty = no_rows(schema)
    for future in [pool.submit(empty) for _ in range(threads)]:
        future.result()


def _count(spent: _Spent, threads: int) -> int:
    """Pieces of the next round: one at first; then as many as there are threads, if a call is no matter of seconds."""
    if not spent.rounds:
        return 1
    fitting = int(2 * _SAMPLE_S / max(spent.rounds[0].seconds, 1e-9))
    return max(min(threads, fitting), 1)


def _step(spec: JobSpec, spent: _Spent, count: int) -> int:
    """Rows of the next pieces: one call's until the speed is known, then what takes a part of the sample's time."""
    if not spent.rounds:
        return spec.config.batch_size
    row_s = sum(one.seconds for one in spent.rounds) / max(spent.rows, 1)
    fitting = _SAMPLE_S / _ROUNDS / max(row_s, 1e-9) / count
    return max(min(int(fitting), SPAN_ROWS) // spec.config.batch_size, 1) * spec.config.batch_size


def _scored(pool: InlinePool, pieces: Sequence[_Piece], spent: _Spent) -> Iterator[Answers]:
    own = psutil.Process()
    before, began, cpu_began = own.memory_info().rss, time.perf_counter(), time.process_time()
    futures = [pool.submit(rows) for _, _, rows in pieces]
    wait(futures)
    seconds, cpu_s = time.perf_counter() - began, time.process_time() - cpu_began
    spent.grown_bytes += own.memory_info().rss - before
    spent.rounds.append(_Round(sum(rows.num_rows for _, _, rows in pieces), seconds, cpu_s))
    return (future.result() for future in futures)


def _lay_down(
    shown: Sampled,
    spent: _Spent,
    split: Split,
    start: int,
    rows: pa.RecordBatch,
    answers: Answers,
    passthrough: tuple[str, ...],
) -> None:
    """Lay the answers down as a run would, in memory, and keep the first of them to show."""
    began = time.perf_counter()
    scored = assemble(Batch(Span(split, start, start + rows.num_rows, last=False), rows), answers, passthrough)
    table = pa.Table.from_batches([scored.rows])
    pq.write_table(table, pa.BufferOutputStream())
    spent.write_s += time.perf_counter() - began
    spent.answer_bytes += answers.predictions.nbytes
    spent.scored_bytes += scored.rows.nbytes
    if len(shown.shown) < SHOWN:
        shown.shown = pa.concat_tables([shown.shown, table]).slice(0, SHOWN)
    shown.rejected += len(answers.bad)
    room = SHOWN - len(shown.refused)
    shown.refused += [
        f"{split.uri}:{split.first_row + start + bad.row} {bad.error_type}: {bad.error}" for bad in answers.bad[:room]
    ]


def _measured(spent: _Spent, threads: int) -> Sample:
    if not spent.rows:
        return Sample()
    alone = spent.rounds[0]
    # The first call is cold and alone; what comes after it tells how a run goes on.
    rounds = spent.rounds[1:] or spent.rounds
    rows = sum(one.rows for one in rounds)
    return Sample(
        rows=spent.rows,
        read_s=spent.read_s / max(spent.read_rows, 1),
        write_s=spent.write_s / spent.rows,
        score_s=sum(one.seconds for one in rounds) / rows,
        alone_s=alone.seconds / alone.rows,
        score_cpu_s=sum(one.cpu_s for one in rounds) / rows,
        threads=1 if rounds is spent.rounds else _count(spent, threads),
        row_bytes=spent.read_bytes / max(spent.read_rows, 1),
        answer_bytes=spent.answer_bytes / spent.rows,
        scored_bytes=spent.scored_bytes / spent.rows,
    )
