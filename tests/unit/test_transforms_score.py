"""Scoring keeps the order, bounds what is in flight, and lays rows and reasons together."""

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from predictors.pool.base import Answers
from predictors.pressure import PRESSURE
from predictors.recovery import BadRow
from tests.scenes import SCORES, Doubler
from transforms import score
from transforms.batches import Batch, ScoredSpan, Span, Split
from transforms.score import Scoring, ScoringFailed, _ScoreFn, assemble
from transforms.telemetry import Telemetry

SPLIT = Split("000000", "data/a.parquet", 700, None, 10, "")


def batch(number: int, rows: int = 10) -> Batch:
    start = number * 10
    values = pa.record_batch({"id": pa.array(range(start, start + rows)), "value": [float(i) for i in range(rows)]})
    return Batch(Span(SPLIT, start, start + rows, last=False), values)


class SlowPool:
    """A pool that answers only when it is waited for, the last submitted batch as willingly as the first."""

    workers = 2

    def __init__(self) -> None:
        self.waiting_bytes = 0
        self.most_bytes = 0
        self.waiting = 0
        self.most = 0

    def submit(self, rows: pa.RecordBatch, name: object = None) -> "Future[Answers]":
        self.waiting += 1
        self.waiting_bytes += rows.nbytes
        self.most, self.most_bytes = max(self.most, self.waiting), max(self.most_bytes, self.waiting_bytes)
        return _Lazy(self, rows)

    def close(self) -> None:
        """Nothing to close."""


class _Lazy(Future[Answers]):
    def __init__(self, pool: SlowPool, rows: pa.RecordBatch) -> None:
        super().__init__()
        self._pool = pool
        self._rows = rows

    def result(self, timeout: float | None = None) -> Answers:
        self._pool.waiting -= 1
        self._pool.waiting_bytes -= self._rows.nbytes
        predictions = pa.RecordBatch.from_arrays([self._rows["value"]], schema=SCORES)
        return Answers(predictions, None, [], 1, 0.0)


@pytest.fixture
def pressure() -> Iterator[None]:
    """High, until the test ends."""
    PRESSURE.reset()
    PRESSURE.raise_level()
    yield
    PRESSURE.reset()


def scoring(pool: Any, **changes: Any) -> _ScoreFn:
    """The DoFn, in a bundle, around `pool`."""
    do_fn = _ScoreFn(replace(Scoring(Doubler(), ("id",), 10, 2, "reject", 0), **changes), Telemetry())
    do_fn._make_pool = lambda: pool  # type: ignore[method-assign]
    do_fn.setup()
    do_fn.start_bundle()
    return do_fn


def run(do_fn: _ScoreFn, batches: list[Batch]) -> list[ScoredSpan]:
    spans = [span for one in batches for span in do_fn.process(one)]
    return spans + [windowed.value for windowed in do_fn.finish_bundle()]


def test_spans_leave_in_the_order_in_which_they_came() -> None:
    pool = SlowPool()

    spans = run(scoring(pool), [batch(i) for i in range(50)])

    assert [span.span.start for span in spans] == list(range(0, 500, 10))
    assert [span.rows["id"][0].as_py() for span in spans] == list(range(0, 500, 10))


def test_a_few_spans_a_worker_are_in_flight_and_no_more() -> None:
    pool = SlowPool()

    run(scoring(pool), [batch(i) for i in range(50)])

    assert pool.most == 2 * pool.workers + 1


def test_what_is_in_flight_is_bounded_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = SlowPool()
    one = batch(0).rows.nbytes
    monkeypatch.setattr(score, "_IN_FLIGHT_BYTES", int(2.5 * one))

    spans = run(scoring(pool), [batch(i) for i in range(50)])

    assert len(spans) == 50
    assert pool.most_bytes == 3 * one


@pytest.mark.parametrize(
    ("share", "most"), [(1.0, 5), (0.5, 2), (0.25, 1), (0.0, 1)], ids=["all", "half", "a quarter", "none"]
)
def test_a_share_of_the_spans_is_in_flight_one_at_least(share: float, most: int) -> None:
    pool = SlowPool()

    spans = run(scoring(pool, in_flight_share=share), [batch(i) for i in range(50)])

    assert [span.span.start for span in spans] == list(range(0, 500, 10))
    assert pool.most == most


def test_a_share_of_the_bytes_is_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = SlowPool()
    one = batch(0).rows.nbytes
    monkeypatch.setattr(score, "_IN_FLIGHT_BYTES", int(2.5 * one))
    pool.workers = 100

    run(scoring(pool, in_flight_share=0.5), [batch(i) for i in range(50)])

    assert pool.most_bytes == 2 * one


@pytest.mark.usefixtures("pressure")
def test_while_memory_is_short_nothing_is_submitted_before_what_is_in_flight_is_done() -> None:
    pool = SlowPool()

    spans = run(scoring(pool), [batch(i) for i in range(50)])

    assert [span.span.start for span in spans] == list(range(0, 500, 10))
    assert pool.most == 1


@pytest.mark.usefixtures("pressure")
def test_what_is_in_flight_when_memory_becomes_short_is_waited_for_first() -> None:
    pool = SlowPool()
    do_fn = scoring(pool)
    PRESSURE.clear()
    for i in range(4):
        list(do_fn.process(batch(i)))
    PRESSURE.raise_level()
    before = pool.waiting

    left = [span.span.start for span in do_fn.process(batch(4))]

    assert before == 4
    assert left == [0, 10, 20, 30]
    assert pool.waiting == 1


def test_each_model_call_is_observed(tmp_path: Any) -> None:
    telemetry = Telemetry(str(tmp_path), 77)
    pool = _ScoreFn(Scoring(Doubler(), ("id",), 4, 1, "reject", 0), telemetry)._make_pool()
    pool.submit(batch(0).rows).result(60)
    pool.close()

    assert telemetry.counters().calls()["count"] == 3


def test_nothing_of_a_bundle_is_left_for_the_next() -> None:
    pool = SlowPool()
    do_fn = scoring(pool)
    list(do_fn.process(batch(0)))
    do_fn.start_bundle()

    assert [span.span.start for span in run(do_fn, [batch(1)])] == [10]


def test_rejected_rows_are_laid_beside_the_scored_ones_with_their_reasons() -> None:
    rows = batch(3, rows=5)
    predictions = pa.RecordBatch.from_arrays([pa.array([0.5, 2.5, 4.5])], schema=SCORES)
    bad = [BadRow(1, "ValueError", "odd"), BadRow(3, "NullFeature", "column value is null")]

    span = assemble(rows, Answers(predictions, pa.array([0, 2, 4], pa.int32()), bad, 9, 0.1), ("id",))

    assert span.rows.to_pylist() == [{"id": 30, "score": 0.5}, {"id": 32, "score": 2.5}, {"id": 34, "score": 4.5}]
    assert span.rejected is not None
    assert span.rejected.rows["id"].to_pylist() == [31, 33]
    assert span.rejected.at.to_pylist() == [1, 3]
    assert span.rejected.error_type.to_pylist() == ["ValueError", "NullFeature"]


def test_positions_are_those_of_the_span_where_rows_were_skipped() -> None:
    full = batch(0, rows=4)
    thinned = Batch(Span(SPLIT, 0, 10, last=False), full.rows, pa.array([0, 3, 7, 9], pa.int32()))
    predictions = pa.RecordBatch.from_arrays([pa.array([1.0, 2.0, 3.0])], schema=SCORES)
    bad = [BadRow(2, "ValueError", "odd")]

    span = assemble(thinned, Answers(predictions, pa.array([0, 1, 3], pa.int32()), bad, 1, 0.0), ("id",))

    assert (span.rows.num_rows, span.rejected_rows, span.skipped) == (3, 1, 6)
    assert span.rejected is not None
    assert span.rejected.at.to_pylist() == [7]


def test_a_failure_that_ends_the_job_names_the_rows() -> None:
    class Failing(SlowPool):
        def submit(self, rows: pa.RecordBatch, name: object = None) -> "Future[Answers]":
            future: Future[Answers] = Future()
            future.set_exception(ConnectionError("the service is gone"))
            return future

    with pytest.raises(ScoringFailed, match=r"data/a\.parquet rows 720 to 730: ConnectionError: the service is gone"):
        run(scoring(Failing()), [batch(2)])
