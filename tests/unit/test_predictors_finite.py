"""NaN and infinite predictions are counted, wherever in a column they are."""

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from predictors.finite import not_finite
from predictors.notices import Notice

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize("type_", [pa.float16(), pa.float32(), pa.float64()], ids=str)
@pytest.mark.parametrize(
    ("values", "count"),
    [([1.0, NAN, INF, -INF], 3), ([NAN, None, 1.0], 1), ([1.0, None], 0), ([], 0)],
    ids=["all kinds", "a null beside", "nulls alone", "none"],
)
def test_floats_are_counted_and_nulls_are_not(type_: pa.DataType, values: list[Any], count: int) -> None:
    found = not_finite(pa.record_batch({"id": pa.array(range(len(values))), "y": pa.array(values, type_)}))

    assert found == ((Notice("not_finite", "column y: NaN or infinite predictions", count),) if count else ())


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[1.0, NAN], [INF, 2.0]], pa.list_(pa.float32(), 2)),
        pa.array([[NAN], None, [], [1.0, INF]], pa.list_(pa.float64())),
        pa.array([[[NAN, 1.0]], [[2.0, -INF]]], pa.list_(pa.list_(pa.float32(), 2), 1)),
        pa.array([{"a": NAN, "b": [INF]}, {"a": 1.0, "b": None}]),
        pa.array([[0.0], [NAN], [INF]], pa.list_(pa.float32(), 1)).slice(1),
        pa.array([[("a", 0.0)], [("a", NAN), ("b", INF)], None], pa.map_(pa.string(), pa.float64())).slice(1),
        pa.FixedShapeTensorArray.from_numpy_ndarray(np.array([[NAN, 1.0], [INF, 2.0]])),
    ],
    ids=["fixed lists", "lists", "nested", "structs", "a slice", "maps", "tensors"],
)
def test_values_within_lists_and_structs_are_counted(column: pa.Array) -> None:
    assert [notice.count for notice in not_finite(pa.record_batch({"y": column}))] == [2]


def test_each_column_has_its_own_notice() -> None:
    predictions = pa.record_batch({"a": pa.array([NAN]), "b": pa.array([1.0]), "c": pa.array([INF])})

    assert [notice.message.partition(":")[0] for notice in not_finite(predictions)] == ["column a", "column c"]
