"""Memory pressure: raised once an episode, and heeded by the calls of the model."""

import threading
from collections.abc import Iterator

import pyarrow as pa
import pytest

from predictors.pool.inline import InlinePool
from predictors.pressure import PRESSURE, Pressure
from predictors.recovery import CallSize, RetryPolicy
from tests.scenes import Doubler

# Calls that must pass before a larger one is tried, see `predictors.recovery`.
GROWING = 64


@pytest.fixture
def pressure() -> Iterator[Pressure]:
    """That of the process; nothing of it is left to other tests."""
    PRESSURE.reset()
    yield PRESSURE
    PRESSURE.reset()


def test_an_episode_is_counted_once_however_often_it_is_told() -> None:
    level = Pressure()
    told = []
    for say in (level.clear, level.raise_level, level.raise_level, level.clear, level.clear, level.raise_level):
        say()
        told.append((level.is_high, level.episodes))

    assert told == [(False, 0), (True, 1), (True, 1), (False, 1), (False, 1), (True, 2)]
    level.reset()
    assert (level.is_high, level.episodes) == (False, 0)


def test_threads_that_raise_it_together_begin_one_episode() -> None:
    level, start = Pressure(), threading.Barrier(8)

    def say() -> None:
        start.wait()
        level.raise_level()

    threads = [threading.Thread(target=say) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert level.episodes == 1


class TestTheSizeOfCalls:
    def test_is_halved_once_at_each_rise(self) -> None:
        level = Pressure()
        size = CallSize(1000, level)
        seen = [size.rows]
        for say in (level.raise_level, level.raise_level, level.clear, level.raise_level):
            say()
            seen += [size.rows, size.rows]

        assert seen == [1000, 500, 500, 500, 500, 500, 500, 250, 250]

    def test_is_halved_for_each_rise_that_nobody_noticed(self) -> None:
        level = Pressure()
        size = CallSize(1000, level)
        for _ in range(3):
            level.raise_level()
            level.clear()

        assert size.rows == 125

    def test_is_one_row_at_least(self) -> None:
        level = Pressure()
        size = CallSize(3, level)
        for _ in range(5):
            level.raise_level()
            level.clear()

        assert size.rows == 1

    def test_does_not_suffer_for_what_was_before(self) -> None:
        level = Pressure()
        level.raise_level()

        assert CallSize(1000, level).rows == 1000

    def test_grows_back_as_after_running_out_once_there_is_room(self) -> None:
        level = Pressure()
        size = CallSize(1000, level)
        level.raise_level()
        for _ in range(2 * GROWING):
            size.passed(size.rows)
        while_high = size.rows
        level.clear()
        for _ in range(GROWING):
            size.passed(size.rows)

        assert (while_high, size.rows) == (500, 1000)

    def test_is_halved_once_by_threads_that_notice_together(self) -> None:
        level, start = Pressure(), threading.Barrier(8)
        size = CallSize(1024, level)
        level.raise_level()
        seen: list[int] = []

        def ask() -> None:
            start.wait()
            seen.append(size.rows)

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert seen == [512] * 8


class Watching(Doubler):
    """Notes the length of each call, and raises the pressure in its third one."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []

    def predict(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        self.calls.append(rows.num_rows)
        if len(self.calls) == 3:
            PRESSURE.raise_level()
        return super().predict(rows)


def test_a_pool_calls_with_half_the_rows_from_the_next_call_on(pressure: Pressure) -> None:
    predictor = Watching()
    pool = InlinePool(predictor, parallelism=1, batch_size=10, nulls="reject", policy=RetryPolicy(0))

    answers = pool.submit(pa.record_batch({"value": pa.array(range(60), pa.float64())})).result(60)
    pool.close()

    assert predictor.calls == [10, 10, 10, 5, 5, 5, 5, 5, 5]
    assert answers.predictions["score"].to_pylist() == [2.0 * i for i in range(60)]
