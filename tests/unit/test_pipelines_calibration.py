"""A model's pace is asked of a few rows, fewer the slower it is."""

from dataclasses import dataclass, field

import pyarrow as pa
import pytest

from pipelines.binding import Binding
from pipelines.calibration import seconds_per_row
from transforms.batches import Batch, Span, Split

SCHEMA = pa.schema([("x", pa.float64())])
SPLIT = Split("000000", "input", 0, 3000, 3000, "")


@dataclass
class Model:
    """Takes `call_s` for a call, `row_s` more for each row of it, and `new_s` more for the first of as many rows.

    It fails at calls with a row that is in `bad`, and at those of `fails_at` rows or more.
    """

    call_s: float = 0.0
    row_s: float = 0.0
    new_s: float = 0.0
    bad: tuple[float, ...] = ()
    fails_at: int = 10**9
    computes: bool = False
    thread_safe: bool = False
    now: float = 0.0
    cpu: float = 0.0
    calls: list[int] = field(default_factory=list)
    input_schema: pa.Schema = SCHEMA
    output_schema: pa.Schema = SCHEMA

    def predict(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        took = self.call_s + self.row_s * rows.num_rows + (0.0 if rows.num_rows in self.calls else self.new_s)
        self.now += took
        self.cpu += took if self.computes else 0.0
        self.calls.append(rows.num_rows)
        if rows.num_rows >= self.fails_at or set(self.bad) & set(rows["x"].to_pylist()):
            raise ValueError("no")
        return rows


@dataclass
class Input:
    values: list[float | None]

    def read(self, split: Split, columns: tuple[str, ...], start: int = 0):  # type: ignore[no-untyped-def]
        if self.values:
            rows = pa.RecordBatch.from_pydict({"x": self.values}, schema=SCHEMA)
            yield Batch(Span(split, 0, rows.num_rows, last=True), rows)


def pace(
    model: Model, values: list[float | None] | None = None, batch_size: int = 1000, threads: int = 4
) -> float | None:
    given: list[float | None] = [float(x) for x in range(3000)] if values is None else values
    bound = Binding(model, Input(given), ("x",), (), SCHEMA)  # type: ignore[arg-type]
    return seconds_per_row(bound, SPLIT, batch_size, "reject", threads, lambda: model.now, lambda: model.cpu)


@pytest.mark.parametrize(
    ("model", "calls", "row_s"),
    [
        pytest.param(Model(row_s=1e-5), [1, 8, 64, 512, 1000], 1e-5, id="fast"),
        pytest.param(Model(row_s=0.04), [1, 2], 0.04, id="slow"),
        pytest.param(Model(row_s=2.0), [1], 2.0, id="very slow"),
        pytest.param(Model(call_s=0.01), [1, 8, 64, 512, 1000], 0.01 / 1000, id="as long for one row as for many"),
        pytest.param(Model(row_s=1e-5, new_s=0.1), [1, 8, 64, 512, 1000], 1e-5, id="each first call is slow"),
        pytest.param(Model(row_s=1e-4, new_s=0.8), [1, 8], 1e-4, id="each first call is very slow"),
    ],
)
def test_calls_grow_until_enough_was_seen(model: Model, calls: list[int], row_s: float) -> None:
    assert pace(model) == pytest.approx(row_s)
    assert model.calls == [rows for rows in calls for _ in range(2)]


def test_threads_share_a_core_where_the_model_computes() -> None:
    assert pace(Model(row_s=1e-5, computes=True), threads=4) == pytest.approx(4e-5)


def test_no_call_is_larger_than_a_batch_or_the_rows_there_are() -> None:
    small, few = Model(), Model()
    pace(small, batch_size=10)
    pace(few, values=[1.0] * 5)

    assert (small.calls, few.calls) == ([1, 1, 8, 8, 10, 10], [1, 1, 5, 5])


def test_rows_that_would_be_rejected_are_not_asked_of() -> None:
    model = Model()

    assert pace(model, values=[None, 1.0, None]) is not None
    assert model.calls == [1, 1]


def test_a_bad_row_at_the_start_is_passed_over() -> None:
    model = Model(row_s=1e-3, bad=(0.0, 1.0))

    assert pace(model) == pytest.approx(1e-3)
    assert model.calls[:4] == [1, 1, 1, 1]


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(Model(row_s=1e-3, bad=(5.0,)), id="a bad row"),
        pytest.param(Model(row_s=1e-3, fails_at=8), id="size"),
    ],
)
def test_a_model_that_fails_at_larger_calls_has_the_pace_of_smaller_ones(model: Model) -> None:
    assert pace(model) == pytest.approx(1e-3)
    assert model.calls == [1, 1, 8]


def test_a_model_that_takes_long_to_fail_is_not_tried_again() -> None:
    model = Model(call_s=30.0, fails_at=1)

    assert pace(model) is None
    assert model.calls == [1]


@pytest.mark.parametrize(
    ("model", "values"),
    [
        pytest.param(Model(fails_at=1), None, id="fails"),
        pytest.param(Model(), [], id="no rows"),
        pytest.param(Model(), [None, None], id="none that can be scored"),
    ],
)
def test_what_cannot_be_told_is_left_to_the_run(model: Model, values: list[float | None] | None) -> None:
    assert pace(model, values) is None
    assert len(model.calls) <= 5
