"""The pool of threads: how the model is called, by whom, and what becomes of failures, progress and the end."""

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np
import onnx
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from predictors.base import Nulls, Predictor
from predictors.errors import (
    ModelNotLoadable,
    NothingScored,
    OutOfMemory,
    RowsRejected,
    SchemaMismatch,
    Transient,
    WrongAnswer,
)
from predictors.notices import Notice
from predictors.onnx import OnnxPredictor
from predictors.pool.base import Answers
from predictors.pool.inline import InlinePool
from predictors.recovery import RetryPolicy

# What a test waits for at most when threads do not do as they should.
DEADLINE_S = 60
INPUT = pa.schema([("value", pa.float64())])
OUTPUT = pa.schema([("double", pa.float64())])
AT_ONCE = RetryPolicy(retry_count=5, first_wait_s=0, longest_wait_s=0)


def _nothing(rows: pa.RecordBatch) -> None:
    """What a call does before it answers."""


@dataclass
class Watched:
    """What the models of a test did. Copies of a model are made by pickling, so they find it by the name of the test.

    Args:
        before: called in the model's thread before it answers; may wait or raise.
    """

    name: str
    before: Callable[[pa.RecordBatch], object] = _nothing
    calls: list[tuple[int, int]] = field(default_factory=list)
    loads: int = 0
    used_by: dict[int, set[int]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    loading: threading.Lock = field(default_factory=threading.Lock)
    loaded_side_by_side: threading.Event = field(default_factory=threading.Event)


WATCHED: dict[str, Watched] = {}


@pytest.fixture
def watched(request: pytest.FixtureRequest) -> Iterator[Watched]:
    WATCHED[request.node.name] = Watched(request.node.name)
    yield WATCHED[request.node.name]
    del WATCHED[request.node.name]


@dataclass
class Doubler:
    """Twice the value of each row; refuses negative ones without saying which."""

    test: str = ""
    thread_safe: bool = True
    input_schema: pa.Schema = INPUT
    output_schema: pa.Schema = OUTPUT

    def load(self) -> None:
        watched = WATCHED.get(self.test)
        if watched is None:
            return
        watched.loads += 1
        if not watched.loading.acquire(blocking=False):
            watched.loaded_side_by_side.set()
            return
        # Time enough for another thread to come in, if nothing keeps it out.
        watched.loaded_side_by_side.wait(0.1)
        watched.loading.release()

    def predict(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        watched = WATCHED.get(self.test)
        if watched is not None:
            with watched.lock:
                watched.calls.append((int(rows["value"][0].as_py()), rows.num_rows))
                watched.used_by.setdefault(id(self), set()).add(threading.get_ident())
            watched.before(rows)
        values = rows["value"].to_numpy()
        if (values < 0).any():
            raise ValueError("a value is negative")
        return pa.RecordBatch.from_arrays([pa.array(values * 2)], schema=self.output_schema)


MakePool = Callable[..., InlinePool]


@pytest.fixture
def make_pool() -> Iterator[MakePool]:
    """Pools that are closed when the test ends."""
    with ExitStack() as opened:

        def make(
            predictor: Predictor,
            *,
            threads: int = 1,
            batch_size: int = 10,
            nulls: Nulls = "reject",
            policy: RetryPolicy = AT_ONCE,
            progress: Callable[[int, int], object] = lambda scored, rejected: None,
            called: Callable[[float], object] = lambda seconds: None,
        ) -> InlinePool:
            pool = InlinePool(
                predictor,
                parallelism=threads,
                batch_size=batch_size,
                nulls=nulls,
                policy=policy,
                progress=progress,
                called=called,
            )
            opened.callback(pool.close)
            return pool

        yield make


def numbered(start: int, stop: int, bad: set[int] | None = None, nulls: set[int] | None = None) -> pa.RecordBatch:
    """Values `start` to `stop`, negative where bad."""
    values = [
        None if i in (nulls or ()) else float(-i - 1) if i in (bad or ()) else float(i) for i in range(start, stop)
    ]
    return pa.record_batch([pa.array(values, pa.float64())], schema=INPUT)


def result(future: Future[Answers]) -> Answers:
    return future.result(DEADLINE_S)


def check_answers(answers: Answers, rows: pa.RecordBatch) -> None:
    """Rows and answers belong together, and none is missing."""
    bad = {row.row for row in answers.bad}
    scored = [i for i in range(rows.num_rows) if i not in bad]
    assert (answers.scored is None) == (not answers.bad)
    if answers.scored is not None:
        assert answers.scored.type == pa.int32()
        assert answers.scored.to_pylist() == scored
    assert [row.row for row in answers.bad] == sorted(bad)
    assert answers.predictions.schema == OUTPUT
    assert answers.predictions["double"].to_pylist() == [rows["value"][i].as_py() * 2 for i in scored]


class TestCalls:
    @pytest.mark.parametrize(("rows", "lengths"), [(1, [1]), (9, [9]), (10, [10]), (11, [10, 1]), (40, [10] * 4)])
    def test_every_call_but_the_last_of_a_span_has_batch_size_rows(
        self, make_pool: MakePool, watched: Watched, request: pytest.FixtureRequest, rows: int, lengths: list[int]
    ) -> None:
        pool = make_pool(Doubler(request.node.name))

        answers = result(pool.submit(numbered(0, rows)))

        assert [length for _, length in watched.calls] == lengths
        assert answers.calls == len(lengths)
        check_answers(answers, numbered(0, rows))

    def test_so_it_is_when_rows_were_withheld(
        self, make_pool: MakePool, watched: Watched, request: pytest.FixtureRequest
    ) -> None:
        pool = make_pool(Doubler(request.node.name))
        rows = numbered(0, 40, nulls={3, 17, 39})

        answers = result(pool.submit(rows))

        assert watched.calls == [(0, 10), (11, 10), (22, 10), (32, 7)]
        check_answers(answers, rows)

    @settings(deadline=None, max_examples=50)
    @given(
        batch_size=st.integers(1, 120),
        bad=st.sets(st.integers(0, 99), max_size=8),
        nulls=st.sets(st.integers(0, 99), max_size=8),
    )
    def test_answers_are_those_of_one_call_whatever_the_batch_size(
        self, batch_size: int, bad: set[int], nulls: set[int]
    ) -> None:
        rows = numbered(0, 100, bad, nulls)
        pool = InlinePool(Doubler(), parallelism=2, batch_size=batch_size, nulls="reject", policy=AT_ONCE)

        answers = result(pool.submit(rows))
        pool.close()

        assert {row.row for row in answers.bad} == bad | nulls
        assert {row.row for row in answers.bad if row.error_type == "NullFeature"} == nulls
        check_answers(answers, rows)

    def test_a_bad_row_is_named_by_its_place_in_the_span_not_in_what_the_model_saw(self, make_pool: MakePool) -> None:
        rows = numbered(0, 30, bad={20}, nulls={0, 1, 25})

        answers = result(make_pool(Doubler()).submit(rows))

        assert [(row.row, row.error_type) for row in answers.bad] == [
            (0, "NullFeature"),
            (1, "NullFeature"),
            (20, "ValueError"),
            (25, "NullFeature"),
        ]
        check_answers(answers, rows)

    def test_predictions_that_are_no_number_are_counted_and_kept(self, make_pool: MakePool) -> None:
        rows = pa.record_batch({"value": pa.array([1.0, 1e308 * 10, None, 1.7e308])})

        answers = result(make_pool(Doubler()).submit(rows))

        assert answers.predictions.num_rows == 3
        assert answers.notices == (Notice("not_finite", "column double: NaN or infinite predictions", 2),)

    def test_columns_that_the_model_does_not_take_do_not_matter(self, make_pool: MakePool) -> None:
        rows = pa.record_batch({"note": ["a", None], "value": pa.array([1, 2], pa.int8())})

        answers = result(make_pool(Doubler()).submit(rows))

        assert answers.predictions.to_pydict() == {"double": [2.0, 4.0]}

    @pytest.mark.parametrize(
        "type_",
        [pa.float32(), pa.string(), pa.list_(pa.float32(), 3), pa.dictionary(pa.int8(), pa.string()), pa.bool_()],
        ids=str,
    )
    def test_a_span_without_a_scored_row_has_the_promised_columns(
        self, make_pool: MakePool, type_: pa.DataType
    ) -> None:
        schema = pa.schema([pa.field("y", type_, nullable=False)])
        pool = make_pool(Doubler(output_schema=schema))

        for rows in (numbered(0, 3, bad={0, 1, 2}), numbered(0, 3, nulls={0, 1, 2}), numbered(0, 0)):
            answers = result(pool.submit(rows))
            assert answers.predictions.schema == schema
            assert answers.predictions.num_rows == 0
            assert len(answers.bad) == rows.num_rows

    def test_each_call_is_told_of_failed_ones_included(self, make_pool: MakePool, watched: Watched) -> None:
        told: list[float] = []
        pool = make_pool(Doubler(watched.name), policy=RetryPolicy(2, 0, 0), called=told.append)
        watched.before = raising(Transient("busy"), TimeoutError("late"), OutOfMemory("large"))

        answers = result(pool.submit(numbered(0, 40, bad={33})))

        assert len(told) == answers.calls == len(watched.calls)
        assert all(seconds > 0 for seconds in told)
        assert sum(told) <= answers.model_s

    def test_a_call_that_ends_the_job_is_told_of(self, make_pool: MakePool, watched: Watched) -> None:
        told: list[float] = []
        pool = make_pool(Doubler(watched.name), policy=RetryPolicy(0), called=told.append)
        watched.before = raising(Transient("gone"))

        with pytest.raises(Transient):
            result(pool.submit(numbered(0, 10)))
        assert len(told) == 1

    def test_seconds_are_those_of_the_model_without_the_waits(self, make_pool: MakePool, watched: Watched) -> None:
        pool = make_pool(Doubler(watched.name), policy=RetryPolicy(1, first_wait_s=1))
        watched.before = raising(Transient("busy"))

        began = time.perf_counter()
        answers = result(pool.submit(numbered(0, 10)))
        took_s = time.perf_counter() - began

        assert answers.calls == 2
        # The wait is drawn from 0.5 to 1 s.
        assert 0 < answers.model_s <= took_s - 0.5


def raising(*errors: Exception) -> Callable[[pa.RecordBatch], None]:
    """Raises each of `errors` once, then nothing more."""
    left = list(errors)

    def before(rows: pa.RecordBatch) -> None:
        if left:
            raise left.pop(0)

    return before


class TestThreads:
    @pytest.mark.parametrize("threads", [1, 2, 5])
    def test_a_model_that_bears_it_is_loaded_once_and_called_by_all_threads_at_the_same_time(
        self, make_pool: MakePool, watched: Watched, threads: int
    ) -> None:
        # Passes only when as many calls are under way together.
        together = threading.Barrier(threads, timeout=DEADLINE_S)
        watched.before = lambda rows: together.wait()
        pool = make_pool(Doubler(watched.name), threads=threads)

        futures = [pool.submit(numbered(10 * i, 10 * i + 10)) for i in range(2 * threads)]
        for i, future in enumerate(futures):
            check_answers(result(future), numbered(10 * i, 10 * i + 10))

        assert pool.workers == threads
        assert watched.loads == 1
        assert [len(users) for users in watched.used_by.values()] == [threads]

    @pytest.mark.parametrize("threads", [1, 2, 5])
    def test_any_other_is_loaded_by_each_thread_for_itself(
        self, make_pool: MakePool, watched: Watched, threads: int
    ) -> None:
        together = threading.Barrier(threads, timeout=DEADLINE_S)
        watched.before = lambda rows: together.wait()
        pool = make_pool(Doubler(watched.name, thread_safe=False), threads=threads)

        assert watched.loads == 0
        futures = [pool.submit(numbered(10 * i, 10 * i + 10)) for i in range(4 * threads)]
        for i, future in enumerate(futures):
            check_answers(result(future), numbered(10 * i, 10 * i + 10))

        assert watched.loads == threads
        assert not watched.loaded_side_by_side.is_set()
        assert [len(users) for users in watched.used_by.values()] == [1] * threads
        assert len(set.union(*watched.used_by.values())) == threads

    def test_submitting_never_waits_for_the_model(self, make_pool: MakePool, watched: Watched) -> None:
        answer = threading.Event()
        watched.before = lambda rows: answer.wait(DEADLINE_S)
        pool = make_pool(Doubler(watched.name))

        futures = [pool.submit(numbered(0, 1)) for _ in range(100)]
        done_before = any(future.done() for future in futures)
        answer.set()

        assert not done_before
        assert [result(future).predictions.num_rows for future in futures] == [1] * 100


class TestProgress:
    def test_what_was_scored_and_rejected_adds_up_to_all_rows(self, make_pool: MakePool) -> None:
        told: list[tuple[int, int]] = []
        pool = make_pool(Doubler(), progress=lambda scored, rejected: told.append((scored, rejected)))

        result(pool.submit(numbered(0, 45, bad={5, 33}, nulls={7, 8, 9})))

        assert told == [(0, 3), (9, 1), (10, 0), (10, 0), (9, 1), (2, 0)]

    def test_it_is_told_after_each_batch_and_not_at_the_end(self, make_pool: MakePool, watched: Watched) -> None:
        told: list[int] = []
        seen_by_third_call = threading.Event()

        def before(rows: pa.RecordBatch) -> None:
            if len(told) == 2:
                seen_by_third_call.set()

        watched.before = before
        pool = make_pool(Doubler(watched.name), progress=lambda scored, rejected: told.append(scored))
        result(pool.submit(numbered(0, 40)))

        assert seen_by_third_call.is_set()


class TestFailures:
    @pytest.mark.parametrize(
        ("error", "calls"),
        [
            pytest.param(WrongAnswer("w"), 1, id="wrong answer"),
            pytest.param(SchemaMismatch("s"), 1, id="schema"),
            pytest.param(Transient("t"), 3, id="transient, after two tries more"),
            pytest.param(OutOfMemory("o"), 4, id="memory, after 10, 5, 2 and 1 rows"),
        ],
    )
    def test_a_failure_that_ends_the_job_comes_out_of_the_future_and_of_no_other(
        self, make_pool: MakePool, watched: Watched, error: Exception, calls: int
    ) -> None:
        def before(rows: pa.RecordBatch) -> None:
            if rows["value"][0].as_py() >= 1000:
                raise error

        watched.before = before
        pool = make_pool(Doubler(watched.name), policy=RetryPolicy(2, 0, 0))
        good, bad, later = (pool.submit(numbered(start, start + 10)) for start in (0, 1000, 10))

        assert bad.exception(DEADLINE_S) is error
        check_answers(result(good), numbered(0, 10))
        check_answers(result(later), numbered(10, 20))
        assert len([start for start, _ in watched.calls if start >= 1000]) == calls

    def test_a_null_that_fails_the_job_comes_out_of_the_future(self, make_pool: MakePool) -> None:
        pool = make_pool(Doubler(), nulls="fail")

        with pytest.raises(SchemaMismatch, match=r"column value is null in 1 row\(s\) of a span"):
            result(pool.submit(numbered(0, 10, nulls={3})))

    @pytest.mark.parametrize(
        ("schema", "text"),
        [
            (pa.schema([("triple", pa.float64())]), "returned columns (double: double), but promised (triple: double)"),
            (pa.schema([("double", pa.float32())]), "returned columns (double: double), but promised (double: float)"),
        ],
        ids=["another name", "another type"],
    )
    def test_an_answer_of_another_schema_ends_the_job(self, make_pool: MakePool, schema: pa.Schema, text: str) -> None:
        class Liar(Doubler):
            def predict(self, rows: pa.RecordBatch) -> pa.RecordBatch:
                return pa.record_batch([rows["value"]], schema=OUTPUT)

        with pytest.raises(WrongAnswer) as caught:
            result(make_pool(Liar(output_schema=schema)).submit(numbered(0, 10)))
        assert text in str(caught.value)

    @pytest.mark.parametrize("rows", [0, 9, 11])
    def test_an_answer_of_another_length_ends_the_job(self, make_pool: MakePool, rows: int) -> None:
        class Liar(Doubler):
            def predict(self, _: pa.RecordBatch) -> pa.RecordBatch:
                return pa.record_batch([pa.array([0.0] * rows, pa.float64())], schema=OUTPUT)

        with pytest.raises(WrongAnswer, match=f"returned {rows} rows for 10"):
            result(make_pool(Liar()).submit(numbered(0, 30)))

    def test_a_model_that_only_some_threads_can_load_says_so_where_it_is_missed(self, make_pool: MakePool) -> None:
        pool = make_pool(Unloadable(thread_safe=False))

        with pytest.raises(ModelNotLoadable, match="no weights"):
            result(pool.submit(numbered(0, 10)))

    def test_a_model_for_all_threads_that_cannot_be_loaded_makes_no_pool(self, make_pool: MakePool) -> None:
        with pytest.raises(ModelNotLoadable, match="no weights"):
            make_pool(Unloadable())

    def test_what_fits_is_known_to_all_threads(self, make_pool: MakePool, watched: Watched) -> None:
        def before(rows: pa.RecordBatch) -> None:
            if rows.num_rows > 25:
                raise OutOfMemory("too large")

        watched.before = before
        pool = make_pool(Doubler(watched.name), threads=1, batch_size=100)
        result(pool.submit(numbered(0, 100)))
        before_second = len(watched.calls)

        answers = result(pool.submit(numbered(100, 200)))

        assert [length for _, length in watched.calls[before_second:]] == [25, 25, 25, 25]
        check_answers(answers, numbered(100, 200))


@dataclass
class Unloadable(Doubler):
    def load(self) -> None:
        raise ModelNotLoadable("no weights")


class TestModelsThatScoreNothing:
    TEXT = "no row of the first 10 batches could be scored: ValueError: a value is negative"

    def test_ten_batches_without_a_score_end_the_job(self, make_pool: MakePool, watched: Watched) -> None:
        pool = make_pool(Doubler(watched.name))

        with pytest.raises(NothingScored) as caught:
            result(pool.submit(numbered(0, 500, bad=set(range(500)))))
        assert str(caught.value) == self.TEXT
        assert -min(start for start, _ in watched.calls) <= 100

    def test_batches_of_several_spans_are_counted_together(self, make_pool: MakePool) -> None:
        pool = make_pool(Doubler(), threads=2)
        futures = [pool.submit(numbered(0, 30, bad=set(range(30)))) for _ in range(8)]

        errors = [future.exception(DEADLINE_S) for future in futures]

        assert Counter(map(str, errors))[self.TEXT] >= 4

    def test_nine_batches_do_not(self, make_pool: MakePool) -> None:
        answers = result(make_pool(Doubler()).submit(numbered(0, 90, bad=set(range(90)))))

        assert len(answers.bad) == 90

    @pytest.mark.parametrize("good", [0, 42, 99])
    def test_one_row_that_passes_is_enough(self, make_pool: MakePool, good: int) -> None:
        rows = numbered(0, 500, bad=set(range(500)) - {good})

        check_answers(result(make_pool(Doubler(), policy=RetryPolicy(bad_rows_per_batch=10)).submit(rows)), rows)

    def test_a_row_that_passes_too_late_is_not(self, make_pool: MakePool) -> None:
        with pytest.raises(NothingScored):
            result(make_pool(Doubler()).submit(numbered(0, 500, bad=set(range(500)) - {100})))

    def test_rows_that_never_reach_the_model_are_no_failures_of_it(self, make_pool: MakePool) -> None:
        pool = make_pool(Doubler())
        for _ in range(20):
            rows = numbered(0, 10, nulls=set(range(10)))
            check_answers(result(pool.submit(rows)), rows)

        rows = numbered(0, 500, nulls=set(range(499)))
        check_answers(result(pool.submit(rows)), rows)


class TestTheEnd:
    def test_closing_cancels_a_call_that_waits_for_its_next_try_and_spans_that_wait_for_a_thread(
        self, watched: Watched
    ) -> None:
        called = threading.Event()

        def before(rows: pa.RecordBatch) -> None:
            called.set()
            raise Transient("busy")

        watched.before = before
        pool = InlinePool(
            Doubler(watched.name),
            parallelism=1,
            batch_size=10,
            nulls="reject",
            policy=RetryPolicy(first_wait_s=3600, longest_wait_s=3600),
        )
        waiting, behind = pool.submit(numbered(0, 10)), pool.submit(numbered(10, 20))
        assert called.wait(DEADLINE_S)

        began = time.monotonic()
        pool.close()

        assert time.monotonic() - began < 5
        with pytest.raises(Transient, match="the pool was closed while a call waited for its next try"):
            waiting.result(0)
        with pytest.raises(CancelledError):
            behind.result(0)

    def test_closing_waits_for_a_span_that_has_begun(self, watched: Watched) -> None:
        called, answer = threading.Event(), threading.Event()

        def before(rows: pa.RecordBatch) -> None:
            called.set()
            answer.wait(DEADLINE_S)

        watched.before = before
        pool = InlinePool(Doubler(watched.name), parallelism=1, batch_size=10, nulls="reject", policy=AT_ONCE)
        future = pool.submit(numbered(0, 20))
        assert called.wait(DEADLINE_S)
        closing = threading.Thread(target=pool.close)
        closing.start()
        answer.set()
        closing.join(DEADLINE_S)

        assert not closing.is_alive()
        check_answers(future.result(0), numbered(0, 20))

    def test_closing_twice_is_closing(self, make_pool: MakePool) -> None:
        pool = make_pool(Doubler())

        pool.close()
        pool.close()

        with pytest.raises(RuntimeError):
            pool.submit(numbered(0, 10))

    def test_no_thread_is_left_behind(self) -> None:
        before = threading.active_count()
        pool = InlinePool(Doubler(), parallelism=4, batch_size=10, nulls="reject", policy=AT_ONCE)
        for _ in range(8):
            result(pool.submit(numbered(0, 10)))
        pool.close()

        assert threading.active_count() == before


@dataclass
class Moody(Doubler):
    """Fails at random of everything that there is, and refuses odd bad rows by name."""

    def predict(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        mood = random.random()
        if mood < 0.1:
            raise random.choice([Transient("busy"), ConnectionResetError("reset"), TimeoutError("late")])
        if (mood < 0.2 and rows.num_rows > 1) or rows.num_rows > 40:
            raise random.choice([OutOfMemory("large"), MemoryError()])
        values = rows["value"].to_numpy()
        named = np.flatnonzero((values < 0) & (values % 2 == 1))
        if len(named):
            raise RowsRejected(named, "odd")
        return super().predict(rows)


class TestUnderLoad:
    @pytest.mark.parametrize("thread_safe", [True, False], ids=["one model", "a model for each thread"])
    def test_many_spans_side_by_side_are_answered_exactly_whatever_fails(
        self, make_pool: MakePool, thread_safe: bool
    ) -> None:
        dice = random.Random(11)
        told: list[tuple[int, int]] = []
        pool = make_pool(
            Moody(thread_safe=thread_safe),
            threads=8,
            batch_size=64,
            policy=RetryPolicy(50, 0, 0),
            progress=lambda scored, rejected: told.append((scored, rejected)),
        )
        spans = []
        for start in range(0, 100_000, 500):
            rows = range(start, start + dice.randrange(1, 500))
            bad, nulls = (set(dice.choices(rows, k=dice.randrange(6))) for _ in range(2))
            spans.append((numbered(rows.start, rows.stop, bad - nulls, nulls), bad | nulls))

        futures = [pool.submit(rows) for rows, _ in spans]

        for (rows, refused), future in zip(spans, futures, strict=True):
            answers = result(future)
            check_answers(answers, rows)
            assert len(answers.bad) == len(refused)
        assert sum(scored + rejected for scored, rejected in told) == sum(rows.num_rows for rows, _ in spans)
        assert sum(rejected for _, rejected in told) == sum(len(refused) for _, refused in spans)


@pytest.fixture(scope="module")
def picky(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Looks up table[row] = 10 * row, of 1000 rows: an index beyond is an error of ONNX Runtime's own."""
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "row"], ["found"])],
        "graph",
        [helper.make_tensor_value_info("row", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("found", TensorProto.FLOAT, ["n"])],
        [numpy_helper.from_array(np.arange(1000, dtype=np.float32) * 10, "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = tmp_path_factory.mktemp("models") / "picky.onnx"
    onnx.save_model(model, path)
    return str(path)


@settings(deadline=None, max_examples=30)
@given(
    bad=st.sets(st.integers(0, 499), max_size=6),
    nulls=st.sets(st.integers(0, 499), max_size=6),
    batch_size=st.integers(1, 600),
)
def test_rows_that_onnx_runtime_refuses_are_rejected_and_their_neighbours_scored(
    picky: str, bad: set[int], nulls: set[int], batch_size: int
) -> None:
    values = [None if i in nulls else 5000 if i in bad else i for i in range(500)]
    pool = InlinePool(OnnxPredictor(picky), parallelism=2, batch_size=batch_size, nulls="reject", policy=AT_ONCE)

    answers = result(pool.submit(pa.record_batch({"row": pa.array(values, pa.int64())})))
    pool.close()

    refused = {row.row: row for row in answers.bad}
    assert set(refused) == bad | nulls
    assert all("out of data bounds" in refused[row].error for row in bad - nulls)
    assert answers.predictions["found"].to_pylist() == [10.0 * i for i in range(500) if i not in refused]


@pytest.mark.parametrize("cpu_bound", [True, False])
def test_a_model_that_only_computes_gets_no_more_threads_than_there_are_cores(cpu_bound: bool) -> None:
    cores = len(os.sched_getaffinity(0))
    predictor = Doubler()
    predictor.cpu_bound = cpu_bound  # type: ignore[attr-defined]

    pool = InlinePool(predictor, parallelism=cores + 3, batch_size=10, nulls="reject", policy=AT_ONCE)

    assert pool.workers == (cores if cpu_bound else cores + 3)
    pool.close()


def test_an_onnx_model_on_the_cpu_only_computes(picky: str) -> None:
    predictor = OnnxPredictor(picky)
    predictor.load()

    assert predictor.cpu_bound
