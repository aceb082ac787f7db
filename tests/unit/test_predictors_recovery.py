"""The failure policy: every row ends scored or rejected, exactly once, whatever fails and however it is mixed."""

import errno
import math
import random
import socket
import threading
import urllib.error
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import aiohttp
import botocore.exceptions
import google.api_core.exceptions
import httpx
import numpy as np
import pyarrow as pa
import pytest
import requests
import urllib3
import yarl
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from predictors.errors import (
    ModelNotLoadable,
    NothingScored,
    OutOfMemory,
    RowsRejected,
    SchemaMismatch,
    Transient,
    WrongAnswer,
)
from predictors.recovery import (
    BadRow,
    CallSize,
    Kind,
    Recovery,
    RetryPolicy,
    Scores,
    kind_of,
    text_of,
)

Answered = tuple[int, int]
UNCAPPED = RetryPolicy(bad_rows_per_batch=1_000_000)


@dataclass
class Model:
    """Answers a range with itself. Fails of bad rows, of calls that do not fit, and once for each call in `mishaps`.

    Args:
        bad: rows that make every call they are in fail.
        fits: the largest call that memory bears.
        mishaps: errors by the number of the call, from 0, in which they happen.
        named: what it raises of bad rows: a `RowsRejected` that names them, all of them or the first one.
    """

    bad: frozenset[int] = frozenset()
    fits: int = 1_000_000
    mishaps: dict[int, Exception] = field(default_factory=dict)
    named: int | None = 0
    calls: list[Answered] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._sorted = sorted(self.bad)

    def __call__(self, start: int, stop: int) -> Answered:
        self.calls.append((start, stop))
        mishap = self.mishaps.get(len(self.calls) - 1)
        if mishap is not None:
            raise mishap
        if stop - start > self.fits:
            raise OutOfMemory(f"{stop - start} rows do not fit")
        first, behind = bisect_left(self._sorted, start), bisect_left(self._sorted, stop)
        bad = [row - start for row in self._sorted[first:behind]]
        if bad and self.named != 0:
            raise RowsRejected(bad[: self.named], "refused")
        if bad:
            raise ValueError(f"a row of {stop - start} is bad")
        return start, stop


@dataclass
class Scoring:
    """A recovery that waits for nothing and notes what it was told."""

    policy: RetryPolicy = UNCAPPED
    draw: Callable[[], float] = lambda: 0.5
    size: CallSize | None = None
    waits: list[float] = field(default_factory=list)
    seen: list[tuple[int, list[BadRow]]] = field(default_factory=list)

    def __call__(self, model: Callable[[int, int], Answered], rows: int, batch_size: int) -> Scores[Answered]:
        self.size = self.size or CallSize(batch_size)
        recovery = Recovery(
            self.policy,
            self.size,
            self.waits.append,
            self.draw,
            lambda scored, bad: self.seen.append((scored, list(bad))),
        )
        scores = recovery.score_rows(model, rows, batch_size)
        check_accounted(scores, rows)
        assert sum(scored for scored, _ in self.seen) == rows - len(scores.bad)
        assert [row for _, bad in self.seen for row in bad] == scores.bad
        return scores


def check_accounted(scores: Scores[Answered], rows: int) -> None:
    """Each row is scored or rejected, once; both lists ascend; each answer is that of its range."""
    scored = [row for start, stop, _ in scores.answers for row in range(start, stop)]
    rejected = [bad.row for bad in scores.bad]
    assert scored == sorted(scored)
    assert rejected == sorted(rejected)
    assert Counter(scored) + Counter(rejected) == Counter(range(rows))
    assert all(answer == (start, stop) for start, stop, answer in scores.answers)


def rejected(scores: Scores[Answered]) -> set[int]:
    return {bad.row for bad in scores.bad}


def most_calls(bad: int, rows: int) -> int:
    """The promise of the design for a batch of `rows` with `bad` bad ones."""
    return bad * (math.ceil(math.log2(rows)) + 1) + 1


def batches(rows: int, batch_size: int) -> list[range]:
    return [range(start, min(start + batch_size, rows)) for start in range(0, rows, batch_size)]


def calls_by_batch(model: Model, batch_size: int) -> dict[int, list[Answered]]:
    """The calls by the first row of the batch in which they began."""
    calls: dict[int, list[Answered]] = {}
    for start, stop in model.calls:
        calls.setdefault(start - start % batch_size, []).append((start, stop))
    return calls


@st.composite
def some_rows(draw: st.DrawFn) -> tuple[int, int, frozenset[int]]:
    """Rows, a batch size, and bad rows from none to all."""
    rows = draw(st.integers(1, 2000))
    batch_size = draw(st.one_of(st.integers(max(rows // 20, 1), 2000), st.just(rows)))
    few = draw(st.frozensets(st.integers(0, rows - 1), max_size=8))
    share, seed = draw(st.sampled_from([0.0, 0.0, 0.01, 0.1, 0.5, 1.0])), draw(st.integers(0, 2**16))
    dice = random.Random(seed)
    return rows, batch_size, few | {row for row in range(rows) if dice.random() < share}


class TestTransientFailures:
    @pytest.mark.parametrize("retry_count", [1, 2, 5])
    def test_the_same_call_is_made_again_until_it_passes(self, retry_count: int) -> None:
        model = Model(mishaps={number: Transient("busy") for number in range(retry_count)})
        scoring = Scoring(RetryPolicy(retry_count))

        scores = scoring(model, 10, 10)

        assert model.calls == [(0, 10)] * (retry_count + 1)
        assert scores.calls == retry_count + 1
        assert len(scoring.waits) == retry_count

    @pytest.mark.parametrize("retry_count", [0, 1, 3])
    def test_after_all_tries_it_is_the_error_itself(self, retry_count: int) -> None:
        errors = [Transient(f"try {number}") for number in range(10)]
        model = Model(mishaps=dict(enumerate(errors)))

        with pytest.raises(Transient) as caught:
            Scoring(RetryPolicy(retry_count))(model, 10, 10)

        assert caught.value is errors[retry_count]
        assert model.calls == [(0, 10)] * (retry_count + 1)

    def test_each_call_has_all_the_tries(self) -> None:
        mishaps: dict[int, Exception] = {number: Transient("busy") for number in (0, 1, 3, 4, 6, 7)}
        model = Model(mishaps=mishaps)

        Scoring(RetryPolicy(2))(model, 30, 10)

        assert model.calls == [(0, 10)] * 3 + [(10, 20)] * 3 + [(20, 30)] * 3

    @pytest.mark.parametrize(
        ("draw", "expected"),
        [
            pytest.param(0.0, [0.25, 0.5, 1.0, 2.0, 3.5, 3.5], id="the shortest"),
            pytest.param(0.5, [0.375, 0.75, 1.5, 3.0, 5.25, 5.25], id="in the middle"),
            pytest.param(1.0, [0.5, 1.0, 2.0, 4.0, 7.0, 7.0], id="the longest"),
        ],
    )
    def test_waits_double_up_to_the_longest(self, draw: float, expected: list[float]) -> None:
        model = Model(mishaps={number: Transient("busy") for number in range(6)})
        scoring = Scoring(RetryPolicy(6, first_wait_s=0.5, longest_wait_s=7), draw=lambda: draw)

        scoring(model, 1, 1)

        assert scoring.waits == expected

    @settings(deadline=None)
    @given(st.integers(1, 100), st.floats(0.01, 10), st.floats(0.01, 100), st.randoms(use_true_random=False))
    def test_waits_stay_within_the_upper_half_of_their_bound(
        self, retry_count: int, first_s: float, longest_s: float, dice: random.Random
    ) -> None:
        model = Model(mishaps={number: Transient("busy") for number in range(retry_count)})
        scoring = Scoring(RetryPolicy(retry_count, first_s, longest_s), draw=dice.random)

        scoring(model, 1, 1)

        for tries, wait in enumerate(scoring.waits):
            bound = min(first_s * 2**tries, longest_s)
            assert bound / 2 <= wait <= bound

    def test_waits_of_several_threads_differ(self) -> None:
        waits: list[float] = []
        for _ in range(8):
            scoring = Scoring(RetryPolicy(1), draw=random.random)
            scoring(Model(mishaps={0: Transient("busy")}), 1, 1)
            waits += scoring.waits

        assert len(set(waits)) > 1

    def test_who_is_told_to_stop_waiting_gives_up(self) -> None:
        def stop(seconds: float) -> None:
            raise Transient("closed")

        recovery = Recovery(RetryPolicy(3), CallSize(10), stop)
        model = Model(mishaps={0: Transient("busy")})

        with pytest.raises(Transient, match="closed"):
            recovery.score_rows(model, 10, 10)
        assert model.calls == [(0, 10)]


class TestOutOfMemory:
    @pytest.mark.parametrize(
        ("fits", "size"),
        [(999, 500), (500, 500), (499, 250), (100, 62), (1, 1)],
    )
    def test_calls_are_halved_until_they_fit_and_no_row_is_rejected(self, fits: int, size: int) -> None:
        model, scoring = Model(fits=fits), Scoring()

        scores = scoring(model, 1000, 1000)

        assert scores.bad == []
        assert {stop - start for start, stop, _ in scores.answers} <= {size, 1000 % size or size}

    def test_the_size_that_fits_is_remembered_for_the_next_batches(self) -> None:
        model = Model(fits=250)

        Scoring()(model, 5000, 1000)

        assert [call for call in model.calls if call[1] - call[0] > 250] == [(0, 1000), (0, 500)]

    def test_spans_scored_side_by_side_share_what_is_known_to_fit(self) -> None:
        size = CallSize(1000)
        Scoring(size=size)(Model(fits=250), 1000, 1000)
        second = Model(fits=250)

        Scoring(size=size)(second, 1000, 1000)

        assert second.calls == [(0, 250), (250, 500), (500, 750), (750, 1000)]

    def test_calls_grow_back_slowly_once_memory_is_free_again(self) -> None:
        size = CallSize(1000)
        Scoring(size=size)(Model(fits=250), 1000, 1000)
        model = Model()

        Scoring(size=size)(model, 1_000_000, 1000)

        sizes = [stop - start for start, stop in model.calls]
        # Four calls of 250 had passed before.
        assert [(rows, sizes.count(rows)) for rows in (250, 500, 1000)] == [(250, 60), (500, 64), (1000, 953)]
        assert sizes == sorted(sizes)

    def test_a_call_that_runs_out_starts_the_count_anew(self) -> None:
        size = CallSize(8)
        size.ran_out(8)
        for _ in range(63):
            size.passed(4)
        size.ran_out(4)
        for _ in range(63):
            size.passed(2)

        assert size.rows == 2
        size.passed(2)
        assert size.rows == 4

    def test_short_calls_do_not_tell_that_long_ones_fit(self) -> None:
        size = CallSize(1000)
        size.ran_out(1000)

        for _ in range(1000):
            size.passed(499)

        assert size.rows == 500

    def test_the_size_never_leaves_its_bounds(self) -> None:
        size = CallSize(3)
        for _ in range(5):
            size.ran_out(size.rows)

        assert size.rows == 1
        for _ in range(1000):
            size.passed(size.rows)
        assert size.rows == 3

    def test_a_late_failure_of_a_long_call_does_not_raise_the_size(self) -> None:
        size = CallSize(1000)
        size.ran_out(100)

        assert size.ran_out(1000) == 50

    def test_threads_that_run_out_together_agree_on_one_size(self) -> None:
        size, start = CallSize(1024), threading.Barrier(8)

        def score() -> None:
            start.wait(30)
            Scoring(size=size)(Model(fits=64), 4096, 1024)

        threads = [threading.Thread(target=score) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

        # Whoever fails at a size that another has just grown back to halves it again; none goes below a half.
        assert 32 <= size.rows <= 128

    def test_a_single_row_that_does_not_fit_is_the_error_itself(self) -> None:
        model = Model(fits=0)

        with pytest.raises(OutOfMemory, match="1 rows do not fit"):
            Scoring()(model, 100, 100)
        assert [stop - start for start, stop in model.calls] == [100, 50, 25, 12, 6, 3, 1]

    @settings(deadline=None)
    @given(st.integers(1, 2000), st.integers(1, 500), st.integers(1, 500))
    def test_whatever_fits_every_row_is_scored(self, rows: int, batch_size: int, fits: int) -> None:
        scores = Scoring()(Model(fits=fits), rows, batch_size)

        assert scores.bad == []


class TestBadData:
    @settings(max_examples=150, deadline=None)
    @given(some_rows())
    @example((1, 1, frozenset({0})))
    @example((1000, 1000, frozenset({999})))
    @example((1000, 1000, frozenset(range(1000))))
    @example((1024, 1024, frozenset(range(1, 1024, 2))))
    @example((7, 7, frozenset({6})))
    def test_exactly_the_bad_rows_are_rejected_in_no_more_calls_than_promised(
        self, given_: tuple[int, int, frozenset[int]]
    ) -> None:
        rows, batch_size, bad = given_
        model = Model(bad)
        scoring = Scoring()

        scores = scoring(model, rows, batch_size)

        assert rejected(scores) == bad
        assert scores.calls == len(model.calls)
        by_batch = calls_by_batch(model, batch_size)
        for batch in batches(rows, batch_size):
            calls = by_batch[batch.start]
            assert len(calls) <= most_calls(len(bad & set(batch)), len(batch))
            assert all(stop <= batch.stop for _, stop in calls)

    @settings(max_examples=100, deadline=None)
    @given(some_rows(), st.integers(1, 40))
    def test_up_to_the_cap_only_bad_rows_are_rejected_and_never_is_a_bad_one_scored(
        self, given_: tuple[int, int, frozenset[int]], cap: int
    ) -> None:
        rows, batch_size, bad = given_
        model = Model(bad)

        scores = Scoring(RetryPolicy(bad_rows_per_batch=cap))(model, rows, batch_size)

        assert rejected(scores) >= bad
        by_batch = calls_by_batch(model, batch_size)
        for batch in batches(rows, batch_size):
            here = bad & set(batch)
            if len(here) <= cap:
                assert rejected(scores) & set(batch) == here
            else:
                first_beyond = sorted(here)[cap - 1] + 1
                assert rejected(scores) & set(batch) == here | set(range(first_beyond, batch.stop))
            calls = by_batch[batch.start]
            assert len(calls) <= most_calls(min(len(here), cap), len(batch))

    def test_a_row_past_the_cap_says_how_many_went_with_it_and_why(self) -> None:
        scores = Scoring(RetryPolicy(bad_rows_per_batch=2))(Model(frozenset({10, 20, 30})), 100, 100)

        assert [bad.row for bad in scores.bad] == [10, 20, *range(21, 100)]
        assert scores.bad[2] == BadRow(
            21,
            "NotScored",
            "not scored, as 2 rows of its batch are bad; the last of them: a row of 79 is bad",
        )
        assert len({bad.error for bad in scores.bad[2:]}) == 1

    def test_the_cap_is_of_each_batch(self) -> None:
        bad = frozenset(range(0, 1000, 50))

        scores = Scoring(RetryPolicy(bad_rows_per_batch=2))(Model(bad), 1000, 100)

        assert rejected(scores) == bad

    def test_a_reject_holds_the_class_and_the_text_of_its_own_failure(self) -> None:
        class NegativeCharge(Exception):
            pass

        def model(start: int, stop: int) -> Answered:
            for row in range(start, stop):
                if row in (3, 7):
                    raise NegativeCharge(f"row {row}\n  is  negative")
            return start, stop

        scores = Scoring()(model, 10, 10)

        assert scores.bad == [
            BadRow(3, "NegativeCharge", "row 3 is negative"),
            BadRow(7, "NegativeCharge", "row 7 is negative"),
        ]

    @settings(deadline=None)
    @given(st.integers(1, 2000), st.integers(1, 700), st.integers(1, 700), st.integers(0, 40))
    @example(rows=1000, batch_size=1000, fits=100, number=0)
    @example(rows=1000, batch_size=1000, fits=1000, number=0)
    def test_a_failure_that_does_not_come_again_rejects_nobody(
        self, rows: int, batch_size: int, fits: int, number: int
    ) -> None:
        size = CallSize(batch_size)
        size.ran_out(min(2 * fits, batch_size))
        model = Model(mishaps={number: RuntimeError("a cosmic ray")})

        scores = Scoring(size=size)(model, rows, batch_size)

        # A row that was called alone, and failed, is not asked twice.
        assume(all(stop - start > 1 for start, stop in model.calls[number : number + 1]))
        assert scores.bad == []

    def test_a_model_that_fails_each_call_once_rejects_nobody_however_often(self) -> None:
        asked: set[Answered] = set()

        def model(start: int, stop: int) -> Answered:
            if stop - start > 1 and (start, stop) not in asked and stop - start in (20, 1000):
                asked.add((start, stop))
                raise RuntimeError("a cosmic ray")
            return start, stop

        size = CallSize(1000)
        for rows in (1000, 500, 250, 125, 62, 40):
            size.ran_out(rows)

        scores = Scoring(RetryPolicy(bad_rows_per_batch=2), size=size)(model, 1000, 1000)

        assert len(asked) > 10
        assert scores.bad == []

    def test_what_lies_before_a_bad_row_is_not_scored_again(self) -> None:
        model = Model(frozenset({700}))

        scores = Scoring()(model, 1000, 1000)

        ranges = [(start, stop) for start, stop, _ in scores.answers]
        assert len([call for call in model.calls if call in ranges]) == len(ranges)


class TestRowsThatTheModelNames:
    @settings(max_examples=100, deadline=None)
    @given(some_rows(), st.sampled_from([None, 1, 3]))
    @example((2000, 2000, frozenset(range(2000))), 1)
    def test_they_are_rejected_and_the_others_scored(
        self, given_: tuple[int, int, frozenset[int]], named: int | None
    ) -> None:
        rows, batch_size, bad = given_
        model = Model(bad, named=named)

        scores = Scoring()(model, rows, batch_size)

        assert rejected(scores) == bad
        assert {(row.error_type, row.error) for row in scores.bad} <= {("RowsRejected", "refused")}
        by_batch = calls_by_batch(model, batch_size)
        for batch in batches(rows, batch_size):
            calls = by_batch[batch.start]
            assert len(calls) <= most_calls(len(bad & set(batch)), len(batch))

    def test_rows_named_together_cost_one_call_and_one_for_each_run_between_them(self) -> None:
        model = Model(frozenset({0, 40, 41, 99}), named=None)

        Scoring()(model, 100, 100)

        assert model.calls == [(0, 100), (1, 40), (42, 99)]

    def test_rows_named_together_count_as_one_against_the_cap(self) -> None:
        def model(start: int, stop: int) -> Answered:
            named = [row - start for row in range(start, stop) if row < 100 and row % 3 == 0]
            if named:
                raise RowsRejected(named, "refused")
            if start <= 500 < stop:
                raise ValueError("bad")
            return start, stop

        scores = Scoring(RetryPolicy(bad_rows_per_batch=2))(model, 1000, 1000)

        assert rejected(scores) == {*range(0, 100, 3), 500}

    def test_a_model_that_names_one_row_a_call_meets_the_cap(self) -> None:
        scores = Scoring(RetryPolicy(bad_rows_per_batch=3))(Model(frozenset(range(50, 100)), named=1), 100, 100)

        assert [row.error for row in scores.bad] == ["refused"] * 3 + [
            "not scored, as 3 rows of its batch are bad; the last of them: refused"
        ] * 47

    def test_past_the_cap_the_runs_between_named_rows_are_rejected_as_well(self) -> None:
        def model(start: int, stop: int) -> Answered:
            if stop - start == 100:
                raise RowsRejected([50], "refused")
            if stop > 10:
                raise ValueError("bad")
            return start, stop

        scores = Scoring(RetryPolicy(bad_rows_per_batch=2))(model, 100, 100)

        assert [row.row for row in scores.bad] == list(range(10, 100))
        assert {row.row for row in scores.bad if row.error_type == "NotScored"} == {
            *range(11, 50),
            *range(51, 100),
        }

    def test_bad_rows_between_named_ones_are_found_by_halving(self) -> None:
        def model(start: int, stop: int) -> Answered:
            named = [row - start for row in (10, 60) if start <= row < stop]
            if named:
                raise RowsRejected(named, "refused")
            if start <= 30 < stop:
                raise ValueError("bad")
            return start, stop

        scores = Scoring()(model, 100, 100)

        assert [(row.row, row.error_type) for row in scores.bad] == [
            (10, "RowsRejected"),
            (30, "ValueError"),
            (60, "RowsRejected"),
        ]

    @pytest.mark.parametrize("named", [[], [10], [-1], [3, 10]], ids=["none", "behind", "before", "one of two"])
    def test_a_row_that_was_not_in_the_call_breaks_the_contract(self, named: list[int]) -> None:
        def model(start: int, stop: int) -> Answered:
            raise RowsRejected(named, "refused")

        with pytest.raises(WrongAnswer, match=r"refused rows \[.*\] of a call of 10"):
            Scoring()(model, 10, 10)

    def test_indices_may_come_from_numpy_and_in_any_order(self) -> None:
        def model(start: int, stop: int) -> Answered:
            if start == 0 and stop == 10:
                raise RowsRejected(np.array([7, 2, 7]), "refused")  # type: ignore[arg-type]
            return start, stop

        assert [row.row for row in Scoring()(model, 10, 10).bad] == [2, 7]


class TestMixtures:
    @settings(max_examples=150, deadline=None)
    @given(some_rows(), st.integers(1, 1000), st.integers(0, 2**16), st.sampled_from([0, None, 1]))
    def test_no_row_is_lost_or_wrongly_rejected(
        self, given_: tuple[int, int, frozenset[int]], fits: int, seed: int, named: int | None
    ) -> None:
        rows, batch_size, bad = given_
        dice = random.Random(seed)
        model = Model(bad, fits, named=named)
        failed_in_passing: Counter[Answered] = Counter()

        def call(start: int, stop: int) -> Answered:
            if dice.random() < 0.2 and failed_in_passing[start, stop] < 3:
                failed_in_passing[start, stop] += 1
                raise dice.choice([Transient("busy"), ConnectionResetError("reset"), TimeoutError("late")])
            return model(start, stop)

        scores = Scoring(RetryPolicy(3, bad_rows_per_batch=1_000_000))(call, rows, batch_size)

        assert rejected(scores) == bad
        assert scores.calls == len(model.calls) + failed_in_passing.total()

    def test_memory_that_runs_out_while_halving_is_no_bad_row(self) -> None:
        def model(start: int, stop: int) -> Answered:
            if start <= 70 < stop:
                # As of a row whose text makes the call large.
                raise OutOfMemory("too large") if stop - start in (50, 25) else ValueError("bad")
            return start, stop

        scores = Scoring()(model, 100, 100)

        assert rejected(scores) == {70}

    def test_a_failure_in_passing_while_halving_is_waited_out(self) -> None:
        model = Model(frozenset({3}), mishaps={1: Transient("busy"), 2: Transient("busy")})
        scoring = Scoring()

        scores = scoring(model, 8, 8)

        assert rejected(scores) == {3}
        assert model.calls[:4] == [(0, 8), (0, 4), (0, 4), (0, 4)]
        assert len(scoring.waits) == 2

    def test_a_failure_that_stays_while_halving_ends_the_job(self) -> None:
        def model(start: int, stop: int) -> Answered:
            if stop - start == 8:
                raise ValueError("bad")
            raise Transient("gone")

        with pytest.raises(Transient, match="gone"):
            Scoring()(model, 8, 8)

    @pytest.mark.parametrize(
        "error", [WrongAnswer("w"), SchemaMismatch("s"), ModelNotLoadable("m"), NothingScored("n")]
    )
    def test_a_broken_contract_ends_the_job_at_once(self, error: Exception) -> None:
        model = Model(frozenset({2}), mishaps={3: error})

        with pytest.raises(type(error)) as caught:
            Scoring()(model, 8, 8)
        assert caught.value is error
        assert len(model.calls) == 4

    def test_who_watches_may_give_up_after_any_batch(self) -> None:
        def give_up(scored: int, bad: Sequence[BadRow]) -> None:
            raise NothingScored("enough")

        model = Model()

        with pytest.raises(NothingScored, match="enough"):
            Recovery(UNCAPPED, CallSize(10), lambda s: None, saw=give_up).score_rows(model, 100, 10)
        assert model.calls == [(0, 10)]

    @pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
    def test_what_is_no_failure_is_never_caught(self, stop: type[BaseException]) -> None:
        def model(start: int, end: int) -> Answered:
            raise stop

        with pytest.raises(stop):
            Scoring()(model, 10, 10)


def onnxruntime(text: str) -> Exception:
    """As ONNX Runtime raises: a class of its own below Exception."""
    return type("RuntimeException", (Exception,), {"__module__": "onnxruntime.capi.onnxruntime_pybind11_state"})(text)


def from_library(name: str, text: str, base: type[Exception] = Exception) -> Exception:
    return type(name, (base,), {"__module__": "library"})(text)


def answered(status: int) -> requests.Response:
    response = requests.Response()
    response.status_code = status
    return response


def with_status(status: int) -> Iterable[tuple[str, Exception]]:
    """The ways in which client libraries tell of an HTTP status."""
    request = httpx.Request("POST", "http://model/score")
    yield "requests", requests.HTTPError(str(status), response=answered(status))
    yield "httpx", httpx.HTTPStatusError("", request=request, response=httpx.Response(status, request=request))
    yield "urllib", urllib.error.HTTPError("http://model/score", status, "", None, None)  # type: ignore[arg-type]
    info = aiohttp.RequestInfo(yarl.URL("http://model/score"), "POST", CIMultiDictProxy(CIMultiDict()))
    yield "aiohttp", aiohttp.ClientResponseError(info, (), status=status)
    yield "google", google.api_core.exceptions.from_http_status(HTTPStatus(status), "")


def table(kind: Kind, errors: dict[str, Exception]) -> list[Any]:
    return [pytest.param(error, kind, id=f"{kind}: {name}") for name, error in errors.items()]


ARENA = (
    "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running MatMul node. Name:'' Status Message: "
    "/onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:360 void* onnxruntime::BFCArena::AllocateRawInternal("
    "size_t, bool, onnxruntime::Stream*) Failed to allocate memory for requested buffer of size 8000000000\n"
)
KINDS = [
    *table(
        "transient",
        {
            "by name": Transient("busy"),
            "refused": ConnectionRefusedError("refused"),
            "reset": ConnectionResetError("reset"),
            "broken pipe": BrokenPipeError("pipe"),
            "timeout": TimeoutError("late"),
            "no route": OSError(errno.EHOSTUNREACH, "No route to host"),
            "network unreachable": OSError(errno.ENETUNREACH, "Network is unreachable"),
            "name not resolved": socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"),
            "urllib refused": urllib.error.URLError(ConnectionRefusedError("refused")),
            "urllib timeout": urllib.error.URLError(TimeoutError("timed out")),
            "urllib name": urllib.error.URLError(socket.gaierror(-3, "Temporary failure in name resolution")),
            "requests connection": requests.ConnectionError("refused"),
            "requests timeout": requests.ReadTimeout("late"),
            "httpx connection": httpx.ConnectError("refused"),
            "httpx timeout": httpx.ReadTimeout("late"),
            "aiohttp connection": aiohttp.ServerDisconnectedError(),
            "aiohttp timeout": aiohttp.ServerTimeoutError(),
            "urllib3 retries": urllib3.exceptions.MaxRetryError(None, "/score"),  # type: ignore[arg-type]
            "botocore": botocore.exceptions.EndpointConnectionError(endpoint_url="http://model"),
            **{f"{name} {s}": error for s in (408, 429, 500, 502, 503, 504) for name, error in with_status(s)},
        },
    ),
    *table(
        "out_of_memory",
        {
            "by name": OutOfMemory("large"),
            "python": MemoryError(),
            "numpy": np._core._exceptions._ArrayMemoryError((10**10,), np.dtype("float32")),  # type: ignore[attr-defined]
            "arrow": pa.ArrowMemoryError("malloc of size 10000000000 failed"),
            "errno": OSError(errno.ENOMEM, "Cannot allocate memory"),
            "onnxruntime arena": onnxruntime(ARENA),
            "onnxruntime malloc": onnxruntime(
                "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running MatMul node. "
                "Name:'' Status Message: std::bad_alloc"
            ),
            "onnxruntime tile": onnxruntime(
                "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Non-zero status code returned while running Tile node. "
                "Name:'' Status Message: Tile output tensor would require more than 4294967296 bytes, "
                "which exceeds the supported maximum of 4294967296 bytes."
            ),
            "onnxruntime one hot": onnxruntime(
                "OneHot: failed to allocate output tensor. Output shape may be too large."
            ),
            "onnxruntime arena limit": onnxruntime("Available memory of 1024 is smaller than requested bytes of 4096"),
            "onnxruntime cuda": onnxruntime(
                "CUDA failure 2: out of memory ; GPU=0 ; hostname=h ; expr=cudaMalloc(p, n)"
            ),
            "onnxruntime cublas": onnxruntime("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0 ; hostname=h"),
            "onnxruntime cudnn": onnxruntime("CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED ; GPU=0 ; hostname=h"),
            "torch cuda": from_library(
                "OutOfMemoryError", "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has …", RuntimeError
            ),
            "torch cuda of old": RuntimeError("CUDA error: out of memory"),
            "torch cpu": RuntimeError(
                "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: "
                "you tried to allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)"
            ),
            "tensorflow": from_library("ResourceExhaustedError", "OOM when allocating tensor with shape[8,8] on GPU:0"),
            "jax": from_library(
                "XlaRuntimeError", "RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.", RuntimeError
            ),
            "xgboost": from_library("XGBoostError", "std::bad_alloc", ValueError),
            "lightgbm": from_library("LightGBMError", "bad allocation"),
        },
    ),
    *table("rows", {"by name": RowsRejected([0], "refused")}),
    *table(
        "fatal",
        {
            "wrong answer": WrongAnswer("w"),
            "schema": SchemaMismatch("s"),
            "not loadable": ModelNotLoadable("m"),
            "nothing scored": NothingScored("n"),
        },
    ),
    *table(
        "bad_data",
        {
            "value": ValueError("negative"),
            "key": KeyError("unknown category"),
            "division": ZeroDivisionError("division by zero"),
            "assertion": AssertionError(),
            "recursion": RecursionError("too deep"),
            "no such file": FileNotFoundError(errno.ENOENT, "No such file", "image-7.png"),
            "no permission": PermissionError(errno.EACCES, "Permission denied", "image-7.png"),
            "onnxruntime": onnxruntime(
                "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : indices element out of data bounds"
            ),
            "row that quotes memory": ValueError("unknown category 'out of memory'"),
            "row that quotes a key": KeyError("bad_alloc"),
            "404": requests.HTTPError("404", response=answered(404)),
            **{f"{name} {s}": error for s in (400, 404, 422) for name, error in with_status(s)},
            "status that is no number": from_library("Refused", "no"),
        },
    ),
]


@pytest.mark.parametrize(("error", "kind"), KINDS)
def test_a_failure_is_told_by_its_class_its_status_or_its_words(error: Exception, kind: Kind) -> None:
    assert kind_of(error) == kind


@pytest.mark.parametrize(
    ("error", "text"),
    [
        pytest.param(ValueError("one\n  two\tthree"), "one two three", id="one line"),
        pytest.param(ValueError(), "ValueError", id="no text"),
        pytest.param(ValueError(" \n "), "ValueError", id="blank"),
        pytest.param(ValueError("x" * 500), "x" * 500, id="as long as may be"),
        pytest.param(ValueError("x" * 501), "x" * 499 + "…", id="too long"),
        pytest.param(ValueError("caf\udce9"), "caf?", id="bytes that are no text"),
    ],
)
def test_an_errors_text_is_one_line_that_a_column_can_hold(error: Exception, text: str) -> None:
    assert text_of(error) == text
    assert pa.array([text_of(error)], pa.string()).to_pylist() == [text]
