"""A model's pace is asked of a few rows, fewer the slower it is."""

from dataclasses import dataclass, field

import pyarrow as pa
import pytest

from launcher.worker.bound import Bound
from launcher.worker.pace import seconds_a_row
from transforms.batches import Batch, Span, Split

SCHEMA = pa.schema([("x", pa.float64())])
SPLIT = Split("000000", "input", 0, 3000, 3000, "")


@dataclass
class Model:
    """Takes `call_s` for a call, and `row_s` more for each row of it; the first call takes 100 s."""

    call_s: float = 0.0
    row_s: float = 0.0
    fails_at: int | None = None
    thread_safe: bool = False
    now: float = 0.0
    calls: list[int] = field(default_factory=list)
    input_schema: pa.Schema = SCHEMA
    output_schema: pa.Schema = SCHEMA

    def predict(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        self.now += self.call_s + self.row_s * rows.num_rows if self.calls else 100.0
        self.calls.append(rows.num_rows)
        if self.fails_at is not None and rows.num_rows >= self.fails_at:
            raise ValueError("too many")
        return rows


@dataclass
class Input:
    values: list[float | None]

    def read(self, split: Split, columns: tuple[str, ...], start: int = 0):  # type: ignore[no-untyped-def]
        if self.values:
            rows = pa.RecordBatch.from_pydict({"x": self.values}, schema=SCHEMA)
            yield Batch(Span(split, 0, rows.num_rows, last=True), rows)


def pace(model: Model, values: list[float | None] | None = None, batch_size: int = 1000) -> float | None:
    given: list[float | None] = [1.0] * 3000 if values is None else values
    bound = Bound(model, Input(given), ("x",), (), SCHEMA)  # type: ignore[arg-type]
    return seconds_a_row(bound, SPLIT, batch_size, "reject", clock=lambda: model.now)


@pytest.mark.parametrize(
    ("model", "calls", "row_s"),
    [
        pytest.param(Model(row_s=1e-5), [1, 1, 8, 64, 512, 1000], 1e-5, id="fast"),
        pytest.param(Model(row_s=0.01), [1, 1, 8, 64], 0.01, id="slow"),
        pytest.param(Model(row_s=2.0), [1, 1], 2.0, id="very slow"),
        pytest.param(Model(call_s=0.06), [1, 1, 8, 64, 512, 1000], 0.06 / 1000, id="as long for one row as for many"),
    ],
)
def test_calls_grow_until_enough_was_seen(model: Model, calls: list[int], row_s: float) -> None:
    assert pace(model) == pytest.approx(row_s)
    assert model.calls == calls


def test_no_call_is_larger_than_a_batch_or_the_rows_there_are() -> None:
    small, few = Model(), Model()
    pace(small, batch_size=10)
    pace(few, values=[1.0] * 5)

    assert (small.calls, few.calls) == ([1, 1, 8, 10], [1, 1, 5])


def test_rows_that_would_be_rejected_are_not_asked_of() -> None:
    model = Model()

    assert pace(model, values=[None, 1.0, None]) is not None
    assert model.calls == [1, 1]


def test_a_model_that_fails_at_larger_calls_has_the_pace_of_smaller_ones() -> None:
    assert pace(Model(row_s=1e-3, fails_at=64)) == pytest.approx(1e-3)


@pytest.mark.parametrize(
    ("model", "values"),
    [
        pytest.param(Model(fails_at=1), None, id="fails at once"),
        pytest.param(Model(), [], id="no rows"),
        pytest.param(Model(), [None, None], id="none that can be scored"),
    ],
)
def test_what_cannot_be_told_is_left_to_the_run(model: Model, values: list[float | None] | None) -> None:
    assert pace(model, values) is None
