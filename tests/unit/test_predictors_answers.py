"""What a class may return: tables of many kinds, laid out as promised, no value changed."""

from collections import namedtuple
from datetime import date
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from predictors.answers import Unfit, read_answer

Pair = namedtuple("Pair", "a b")
A_B = {"a": [1, 2], "b": ["x", "y"]}


class Stream:
    """Says what it is as readers of batches do, such as those of DuckDB, and can be read again."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self.schema = table.schema

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(pa.record_batch(A_B), id="record batch"),
        pytest.param(pa.concat_tables([pa.table(A_B).slice(0, 1), pa.table(A_B).slice(1)]), id="table of two chunks"),
        pytest.param(pa.record_batch({**A_B, "b": pa.array(["x", "y"]).dictionary_encode()}), id="dictionary"),
        pytest.param(pa.record_batch({**A_B, "b": pa.array(["x", "y"], pa.large_string())}), id="large string"),
        pytest.param(pd.DataFrame(A_B), id="pandas"),
        pytest.param(pd.DataFrame(A_B, index=["p", "q"]), id="pandas with an index"),
        pytest.param(pd.DataFrame({**A_B, "b": pd.Categorical(["x", "y"])}), id="categories of pandas"),
        pytest.param(pl.DataFrame(A_B), id="polars"),
        pytest.param(A_B, id="dict of lists"),
        pytest.param({"a": np.array([1, 2]), "b": pd.Series(["x", "y"])}, id="dict of arrays"),
        pytest.param({"a": np.array([[1], [2]]), "b": pl.Series(["x", "y"])}, id="dict with a column of one column"),
        pytest.param({"a": pa.chunked_array([[1], [2]]), "b": ("x", "y")}, id="dict of chunks"),
        pytest.param([{"a": 1, "b": "x"}, {"b": "y", "a": 2}], id="list of dicts"),
        pytest.param([Pair(1, "x"), Pair(2, "y")], id="list of named tuples"),
        pytest.param(np.array([(1, "x"), (2, "y")], dtype=[("a", "i8"), ("b", "O")]), id="structured array"),
        pytest.param(pl.DataFrame({**A_B, "b": pl.Series(["x", "y"], dtype=pl.Categorical)}), id="polars categories"),
        pytest.param(Stream(pa.table(A_B)), id="stream"),
    ],
)
def test_a_table_of_any_kind_gives_its_columns(answer: Any) -> None:
    read = read_answer(answer, 2, None)

    assert read.to_pydict() == A_B
    assert read.schema.equals(pa.schema([("a", pa.int64()), ("b", pa.string())]), check_metadata=True)
    promised = pa.schema([pa.field("b", pa.large_string(), nullable=False), ("a", pa.float32())])
    assert read_answer(answer, 2, promised).schema.equals(promised)
    assert read_answer(answer, 2, promised).to_pydict() == {"b": ["x", "y"], "a": [1.0, 2.0]}


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(np.array([0.5, 1.5]), id="array"),
        pytest.param(np.array([[0.5], [1.5]]), id="array of one column"),
        pytest.param(np.array([0.5, 1.5], dtype=object), id="array of objects"),
        pytest.param([0.5, 1.5], id="list"),
        pytest.param([np.float64(0.5), 1.5], id="list with a NumPy value"),
        pytest.param(pa.array([0.5, 1.5]), id="arrow array"),
        pytest.param(pa.chunked_array([[0.5], [1.5]]), id="arrow chunks"),
        pytest.param(pd.Series([0.5, 1.5], name="x"), id="pandas, by whatever name"),
        pytest.param(pl.Series("x", [0.5, 1.5]), id="polars, by whatever name"),
    ],
)
def test_a_column_without_a_name_is_the_one_that_is_promised(answer: Any) -> None:
    assert read_answer(answer, 2, None).to_pydict() == {"prediction": [0.5, 1.5]}
    assert read_answer(answer, 2, pa.schema([("score", pa.float64())])).to_pydict() == {"score": [0.5, 1.5]}


@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_columns_without_names_are_taken_in_their_order() -> None:
    array = np.array([[0.25, 0.75], [0.5, 0.5]])
    promised = pa.schema([("no", pa.float64()), ("yes", pa.float64())])

    assert read_answer(array, 2, None).to_pydict() == {"prediction_0": [0.25, 0.5], "prediction_1": [0.75, 0.5]}
    assert read_answer(array, 2, promised).to_pydict() == {"no": [0.25, 0.5], "yes": [0.75, 0.5]}
    assert read_answer([(0.25, 0.75), (0.5, 0.5)], 2, promised).to_pydict() == {"no": [0.25, 0.5], "yes": [0.75, 0.5]}
    assert read_answer(np.matrix(array), 2, promised).to_pydict() == {"no": [0.25, 0.5], "yes": [0.75, 0.5]}
    assert read_answer([(0.25, "no"), (0.5, "yes")], 2, None).to_pydict() == {
        "prediction_0": [0.25, 0.5],
        "prediction_1": ["no", "yes"],
    }
    embedding = pa.schema([("e", pa.list_(pa.float64(), 2))])
    assert read_answer([[0.25, 0.75], [0.5, 0.5]], 2, None).to_pydict() == {"prediction": [[0.25, 0.75], [0.5, 0.5]]}
    assert read_answer(array, 2, embedding).to_pydict() == {"e": [[0.25, 0.75], [0.5, 0.5]]}


def test_what_is_masked_is_null_in_columns_of_any_array() -> None:
    masked = np.ma.masked_equal(np.array([[1.0, 9.0], [9.0, 2.0]]), 9.0)

    assert read_answer(masked, 2, None).to_pydict() == {"prediction_0": [1.0, None], "prediction_1": [None, 2.0]}
    assert read_answer({"y": masked[:, :1], "v": masked}, 2, None).to_pydict() == {
        "y": [1.0, None],
        "v": [[1.0, None], [None, 2.0]],
    }


def test_a_dict_that_lacks_a_key_has_a_null_there_though_the_first_has_not_the_key() -> None:
    assert read_answer([{"a": 1}, {"a": 2, "why": "old"}], 2, None).to_pydict() == {"a": [1, 2], "why": [None, "old"]}


def test_nan_of_pandas_stays_what_it_is_unless_another_type_is_promised() -> None:
    answer = pd.DataFrame({"y": [1.0, float("nan")]})

    assert np.isnan(read_answer(answer, 2, None)["y"][1].as_py())
    assert read_answer(answer, 2, pa.schema([("y", pa.int64())])).to_pydict() == {"y": [1, None]}
    assert read_answer(pd.DataFrame({"y": ["a", None]}), 2, None).to_pydict() == {"y": ["a", None]}


@pytest.mark.parametrize(
    ("given", "promised"),
    [
        pytest.param(pa.array([1, None]), pa.int8(), id="narrower integers"),
        pytest.param(pa.array([1, 2]), pa.float64(), id="integers as floats"),
        pytest.param(pa.array([1.0, float("inf")]), pa.float32(), id="floats that are short"),
        pytest.param(pa.array([1, 0]), pa.bool_(), id="zeros and ones"),
        pytest.param(pa.array([None, None]), pa.date32(), id="nulls"),
        pytest.param(pa.array([1, 2], pa.timestamp("s")), pa.timestamp("us"), id="seconds"),
        pytest.param(pa.array([1000, None], pa.timestamp("ns")), pa.timestamp("us"), id="nanoseconds without digits"),
        pytest.param(pa.array(["a", "b"]), pa.dictionary(pa.int8(), pa.string()), id="a dictionary"),
        pytest.param(pa.array([[1.0, float("nan")], None]), pa.large_list(pa.float32()), id="lists"),
        pytest.param(pa.array([{"a": 1}, {"a": None}]), pa.struct([("a", pa.int8())]), id="structs"),
        pytest.param(pa.array([Decimal("1.50"), None]), pa.decimal128(20, 1), id="decimals"),
    ],
)
def test_what_can_be_had_without_loss_is(given: pa.Array, promised: pa.DataType) -> None:
    fitted = read_answer(pa.record_batch({"y": given}), 2, pa.schema([("y", promised)]))["y"]

    assert fitted.type == promised
    assert repr(fitted.to_pylist()).replace(".0", "") in (
        repr(given.to_pylist()).replace(".0", ""),
        repr(given.cast(promised).to_pylist()).replace(".0", ""),
    )


@pytest.mark.parametrize(
    ("given", "promised", "row", "shown"),
    [
        pytest.param([1.0, 0.1], pa.float32(), 1, "holds 0.1 (double), which float cannot hold exactly", id="float"),
        pytest.param([1, 300], pa.int8(), 1, "holds 300 (int64), which int8 cannot hold", id="integer"),
        pytest.param([1, 2**60 + 1], pa.float64(), 1, "cannot hold", id="integer beyond a double"),
        pytest.param([1, 2], pa.bool_(), 1, "holds 2 (int64), which bool cannot hold exactly", id="no truth value"),
        pytest.param(["1", "2"], pa.int64(), 0, "is string ('1'), and promised is int64", id="text as a number"),
        pytest.param([1, 2], pa.string(), 0, "is int64 (1), and promised is string", id="number as a text"),
        pytest.param([date(2025, 1, 1)] * 2, pa.int32(), 0, "is date32[day]", id="date as a number"),
        pytest.param([1.0, float("nan")], pa.int64(), 1, "holds nan (double), which int64 cannot hold", id="NaN"),
        pytest.param([[0.1], [1.0]], pa.list_(pa.float32()), 0, "cannot hold exactly", id="within a list"),
        pytest.param([[1], [1, 2]], pa.list_(pa.int64(), 1), 1, "cannot hold", id="list of another length"),
    ],
)
def test_what_would_change_is_refused_with_the_row(
    given: list[Any], promised: pa.DataType, row: int, shown: str
) -> None:
    with pytest.raises(Unfit) as caught:
        read_answer({"y": given}, 2, pa.schema([("y", promised)]))
    assert caught.value.row == row
    assert shown in str(caught.value)


@pytest.mark.parametrize("frame", [pd.DataFrame({"y": [1, 2, 3]}), pd.Series([1, 2, 3])], ids=["frame", "series"])
def test_rows_of_pandas_that_were_moved_are_refused(frame: Any) -> None:
    moved = frame.sort_index(ascending=False)

    with pytest.raises(Unfit, match=r"says that rows were moved.*sort_index\(\), or reset_index"):
        read_answer(moved, 3, None)
    assert read_answer(moved.reset_index(drop=True), 3, None).column(0).to_pylist() == [3, 2, 1]
    with pytest.raises(Unfit, match="says that rows were moved"):
        read_answer({"y": pd.Series([1, 2, 3]).sort_index(ascending=False)}, 3, None)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"y": 0.5}, "column y is 0.5, and not a column of 2 values"),
        ({"y": [1, 2], "z": [1]}, "its columns differ in length: y has 2, z has 1"),
        ([1, "a"], "it cannot become columns: "),
        ({"y": [1, 2], "z": [1, "a"]}, "column z cannot be one column: "),
        ([{"y": 1, "z": 1}, {"y": 1, "z": "a"}], "column z cannot be one column: "),
        (pd.DataFrame({"y": [1, 2], "z": [1, "a"]}), "column z cannot be one column: "),
        (np.zeros((2, 2, 2)), "its array is of shape 2x2x2; one of n values, or of n rows with k columns, is taken"),
        (pa.RecordBatch.from_arrays([pa.array([1, 2])] * 2, ["y", "y"]), "it has more than one column named 'y'"),
        ({}, "it has no columns"),
        (iter([1, 2]), "it is no table; return "),
    ],
)
def test_what_is_no_table_of_n_rows_is_refused(answer: Any, reason: str) -> None:
    with pytest.raises(Unfit) as caught:
        read_answer(answer, 2, None)
    assert str(caught.value).startswith(reason)
