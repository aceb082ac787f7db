"""Elements survive their coders, and cost what their rows cost."""

import pickle

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest

from predictors.notices import Notice
from transforms.batches import Batch, Rejected, ScoredSpan, Span, Split
from transforms.coders import BatchCoder, ScoredSpanCoder, SplitCoder, register_coders

register_coders()

NOTICES = (Notice("not_finite", "column score: NaN", 3),)
SPLIT = Split("000001", "data/a.parquet", 700, 300, 100, "12:34", "2+1")
ROWS = pa.record_batch({"id": pa.array([1, 2, 3]), "id ": ["a", None, "ü"], "list": [[1.5], [], None]})


@pytest.mark.parametrize("value", [Split, Batch, ScoredSpan])
def test_each_element_has_a_coder_of_its_own(value: type) -> None:
    coder = beam.coders.registry.get_coder(value)

    assert type(coder) in (SplitCoder, BatchCoder, ScoredSpanCoder)


def test_a_split_survives_its_coder() -> None:
    coder = SplitCoder()

    assert coder.decode(coder.encode(SPLIT)) == SPLIT


@pytest.mark.parametrize(
    ("rows", "at"),
    [
        pytest.param(ROWS, None, id="all rows"),
        pytest.param(ROWS, pa.array([0, 4, 9], pa.int32()), id="rows missing"),
        pytest.param(ROWS.slice(0, 0), pa.array([], pa.int32()), id="no rows"),
    ],
)
def test_a_batch_survives_its_coder(rows: pa.RecordBatch, at: pa.Array | None) -> None:
    batch = Batch(Span(SPLIT, 100, 110, last=False), rows, at, NOTICES)
    coder = BatchCoder()

    again = coder.decode(coder.encode(batch))

    assert (again.span, again.at, again.notices) == (batch.span, batch.at, NOTICES)
    assert again.rows.schema == batch.rows.schema
    assert again.rows.to_pylist() == batch.rows.to_pylist()


@pytest.mark.parametrize("refused", [True, False], ids=["with rejects", "without"])
def test_a_scored_span_survives_its_coder(refused: bool) -> None:
    rejected = Rejected(ROWS, pa.array([1, 3, 5], pa.int32()), pa.array(["A", "B", "C"]), pa.array(["x", "", "y"]))
    span = Span(SPLIT, 200, 210, last=True)
    scored = ScoredSpan(span, ROWS.slice(1, 2), rejected if refused else None, 5, NOTICES)
    coder = ScoredSpanCoder()

    again = coder.decode(coder.encode(scored))

    assert (again.span, again.skipped, again.rejected_rows) == (span, 5, 3 if refused else 0)
    assert again.notices == NOTICES
    assert again.rows.equals(scored.rows)
    if refused:
        assert again.rejected.rows.equals(ROWS)
        assert again.rejected.at.equals(rejected.at)
        assert again.rejected.error_type.equals(rejected.error_type)
        assert again.rejected.error.equals(rejected.error)


def test_a_slice_ships_its_own_rows_and_not_those_of_its_parent() -> None:
    parent = pa.record_batch({"x": np.arange(1_000_000)})
    batch = Batch(Span(SPLIT, 0, 100, last=False), parent.slice(500, 100))

    encoded = BatchCoder().encode(batch)

    assert len(encoded) < 4_000
    assert len(pickle.dumps(batch)) > 1_000_000
    assert BatchCoder().estimate_size(batch) == 800
