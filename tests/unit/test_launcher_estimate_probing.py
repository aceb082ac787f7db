"""A model tried on a few rows: what a call costs and what a row, whatever the shape of its cost."""

from dataclasses import dataclass, field

import pyarrow as pa
import pytest

from launcher.estimate.probing import _Timing


@dataclass
class Model:
    """A model whose calls take time on a clock of its own."""

    call_s: float
    row_s: float
    first_s: float = 0.0
    now: float = 0.0
    calls: list[int] = field(default_factory=list)
    thread_safe: bool = True
    output_schema: pa.Schema = field(default_factory=lambda: pa.schema([("y", pa.int64())]))
    input_schema: pa.Schema = field(default_factory=lambda: pa.schema([("y", pa.int64())]))

    def load(self) -> None: ...

    def predict(self, rows: pa.RecordBatch) -> pa.RecordBatch:
        self.now += self.call_s + self.row_s * rows.num_rows + (0 if self.calls else self.first_s)
        # No machine takes the same time twice.
        self.now += (1 + len(self.calls) % 3) * min(0.002, 0.03 * self.call_s)
        self.calls.append(rows.num_rows)
        return rows


@pytest.mark.parametrize(
    "model",
    [
        Model(0.0, 1e-6),
        Model(0.001, 1e-5),
        Model(0.0, 0.01),
        Model(0.5, 0.0),
        Model(0.05, 0.001),
        Model(0.4, 0.0),
        Model(0.7, 0.0),
        Model(0.0, 0.4),
        Model(0.0, 3.0),
        Model(0.001, 1e-5, first_s=0.6),
        Model(0.5, 1e-5, first_s=0.2),
    ],
    ids=[
        "fast",
        "usual",
        "slow rows",
        "slow calls",
        "both",
        "calls of 0.4 s",
        "calls of 0.7 s",
        "very slow",
        "one row a try",
        "warms up",
        "slow, warms up",
    ],
)
def test_a_batch_is_told_within_three_times_its_time_and_takes_no_long_to_try(model: Model) -> None:
    rows = pa.record_batch({"y": pa.array(range(5000), pa.int64())})
    timing = _Timing(lambda: model.now, lambda: 0.0)
    timing.grow(model, rows, 1000)
    true_s = model.call_s + 1000 * model.row_s
    told_s = timing.call_s + 1000 * timing.row_s

    assert true_s / 3 < told_s < true_s * 3
    assert model.now < max(3, 2 * (model.call_s + model.row_s) + model.first_s)
    assert max(model.calls) <= 1000
