"""From input columns to the model's: what is cast, what is set apart, what is said of a column that does not do."""

import math
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from predictors.base import Nulls
from predictors.casting import feedable
from predictors.errors import SchemaMismatch
from predictors.feeding import Fed, check_features, check_names, feed

INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
FLOATS = [pa.float16(), pa.float32(), pa.float64()]
DECIMALS = [pa.decimal128(5, 2), pa.decimal128(38, -2), pa.decimal256(60, 1)]
TEXTS = [pa.string(), pa.large_string(), pa.string_view()]


def fed(column: pa.Array, wanted: pa.DataType, nulls: Nulls = "reject") -> Fed:
    return feed(pa.record_batch({"x": column}), pa.schema([("x", wanted)]), nulls)


def kept(fed: Fed, rows: int) -> list[int]:
    return list(range(rows)) if fed.kept is None else fed.kept.to_pylist()


def unfit(fed: Fed) -> list[tuple[int, str]]:
    return [(bad.row, bad.error) for bad in fed.bad]


class TestNulls:
    COLUMNS = pa.record_batch({"x": pa.array([1.0, None, 3.0, None]), "y": pa.array(["a", "b", None, None])})
    WANTED = COLUMNS.schema

    def test_rejected_rows_never_reach_the_model_and_name_the_first_column_that_is_null(self) -> None:
        fed = feed(self.COLUMNS, self.WANTED, "reject")

        assert fed.rows.to_pylist() == [{"x": 1.0, "y": "a"}]
        assert fed.kept is not None
        assert fed.kept.type == pa.int32()
        assert fed.kept.to_pylist() == [0]
        assert [(bad.row, bad.error_type, bad.error) for bad in fed.bad] == [
            (1, "NullFeature", "column x is null"),
            (2, "NullFeature", "column y is null"),
            (3, "NullFeature", "column x is null"),
        ]

    def test_passed_rows_all_go_to_the_model(self) -> None:
        fed = feed(self.COLUMNS, self.WANTED, "pass")

        assert fed.rows.equals(self.COLUMNS)
        assert fed.kept is None
        assert fed.bad == []

    def test_a_null_can_fail_the_job(self) -> None:
        with pytest.raises(SchemaMismatch) as caught:
            feed(self.COLUMNS, self.WANTED, "fail")
        assert str(caught.value) == (
            "column x is null in 2 row(s) of a span, and model.nulls is 'fail'; use 'reject' to set them apart"
        )

    def test_without_nulls_none_of_the_policies_matters(self) -> None:
        rows = self.COLUMNS.slice(0, 1)

        for nulls in ("reject", "pass", "fail"):
            assert feed(rows, self.WANTED, nulls).rows.equals(rows)

    def test_a_null_of_a_column_that_the_model_does_not_take_matters_to_nobody(self) -> None:
        fed = feed(self.COLUMNS, pa.schema([("x", pa.float64())]), "reject")

        assert fed.kept is not None
        assert fed.kept.to_pylist() == [0, 2]

    @pytest.mark.parametrize("wanted", [pa.float32(), pa.float64(), pa.int32()], ids=str)
    @pytest.mark.parametrize("given", [*FLOATS, pa.dictionary(pa.int8(), pa.float64())], ids=str)
    def test_a_nan_is_missing_as_a_null_is(self, given: pa.DataType, wanted: pa.DataType) -> None:
        values = pa.array([1.0, math.nan, None, 2.0], pa.float64())
        column = values.dictionary_encode() if pa.types.is_dictionary(given) else values.cast(given)

        result = fed(column, wanted)

        assert result.rows["x"].to_pylist() == [1, 2]
        assert [(bad.row, bad.error_type, bad.error) for bad in result.bad] == [
            (1, "NullFeature", "column x is NaN"),
            (2, "NullFeature", "column x is null"),
        ]
        with pytest.raises(SchemaMismatch, match=r"column x is NaN in 1 row\(s\) of a span, and model.nulls is 'fail'"):
            fed(column.slice(0, 2), wanted, "fail")

    def test_a_nan_passes_where_nulls_do(self) -> None:
        result = fed(pa.array([1.0, math.nan]), pa.float32(), "pass")

        assert result.bad == []
        assert math.isnan(result.rows["x"][1].as_py())

    def test_a_nan_of_a_column_that_the_model_does_not_take_matters_to_nobody(self) -> None:
        rows = pa.record_batch({"x": pa.array([1.0]), "y": pa.array([math.nan])})

        assert feed(rows, pa.schema([("x", pa.float32())]), "fail").bad == []

    @pytest.mark.parametrize("wanted", [pa.string(), pa.dictionary(pa.int8(), pa.string())], ids=str)
    def test_a_null_inside_of_a_dictionary_is_one_as_well(self, wanted: pa.DataType) -> None:
        column = pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 0], pa.int8()), pa.array(["a", None]))

        assert kept(fed(column, wanted), 4) == [0, 3]
        with pytest.raises(SchemaMismatch, match=r"null in 2 row\(s\)"):
            fed(column, wanted, "fail")

    def test_a_column_of_nulls_alone_is_refused_row_by_row_or_passed(self) -> None:
        column = pa.nulls(3)

        assert kept(fed(column, pa.float32()), 3) == []
        assert fed(column, pa.float32()).rows.schema == pa.schema([("x", pa.float32())])
        assert fed(column, pa.float32(), "pass").rows["x"].to_pylist() == [None] * 3

    def test_a_slice_of_a_batch_is_counted_from_its_own_first_row(self) -> None:
        rows = self.COLUMNS.slice(1, 2)

        assert [bad.row for bad in feed(rows, self.WANTED, "reject").bad] == [0, 1]

    def test_no_row_at_all_is_fed_as_no_row(self) -> None:
        assert feed(self.COLUMNS.slice(0, 0), self.WANTED, "reject").rows.num_rows == 0


class TestCasts:
    def test_columns_come_in_the_models_order_and_under_its_types(self) -> None:
        rows = pa.record_batch({"a": pa.array([1]), "b": pa.array([True]), "c": pa.array(["x"])})
        wanted = pa.schema([("c", pa.large_string()), ("b", pa.float32()), ("a", pa.float64())])

        fed = feed(rows, wanted, "reject")

        assert fed.rows.schema == wanted
        assert fed.rows.to_pylist() == [{"c": "x", "b": 1.0, "a": 1.0}]

    def test_a_column_of_the_right_type_is_not_copied(self) -> None:
        column = pa.array([1.0, 2.0])

        assert fed(column, pa.float64()).rows["x"].buffers()[1].address == column.buffers()[1].address

    @pytest.mark.parametrize(
        ("column", "wanted", "expected"),
        [
            pytest.param(pa.array([2**24 + 1]), pa.float32(), [2.0**24], id="int64 is rounded to float32"),
            pytest.param(pa.array([2**53 + 1]), pa.float64(), [2.0**53], id="int64 is rounded to float64"),
            pytest.param(
                pa.array([2**64 - 1], pa.uint64()), pa.float32(), [2.0**64], id="the largest uint64 to float32"
            ),
            pytest.param(pa.array([2049]), pa.float16(), [2048.0], id="int64 is rounded to float16"),
            pytest.param(pa.array([0.1]), pa.float32(), [float(np.float32(0.1))], id="float64 is rounded to float32"),
            pytest.param(pa.array([math.inf, -math.inf]), pa.float32(), [math.inf, -math.inf], id="infinite stays so"),
            pytest.param(pa.array([Decimal("3.25")]), pa.float32(), [3.25], id="decimal to float32"),
            pytest.param(pa.array([Decimal("3.25")]), pa.float16(), [3.25], id="decimal to float16"),
            pytest.param(pa.array([Decimal("3.00")]), pa.int8(), [3], id="whole decimal to int8"),
            pytest.param(pa.array([Decimal(10) ** 40]), pa.float64(), [1e40], id="large decimal to float64"),
            pytest.param(pa.array([True, False]), pa.float32(), [1.0, 0.0], id="bool to float32"),
            pytest.param(pa.array([True, False]), pa.float16(), [1.0, 0.0], id="bool to float16"),
            pytest.param(pa.array([True, False]), pa.int64(), [1, 0], id="bool to int64"),
            pytest.param(pa.array([3.0, -0.0]), pa.int32(), [3, 0], id="whole float to int32"),
            pytest.param(pa.array([3, 255]), pa.uint8(), [3, 255], id="int64 to uint8"),
            pytest.param(pa.array(["a", "b", "a"]).dictionary_encode(), pa.string(), ["a", "b", "a"], id="dictionary"),
            pytest.param(pa.array([1, 2, 1]).dictionary_encode(), pa.float32(), [1.0, 2.0, 1.0], id="of integers"),
            pytest.param(pa.array(["é😀", ""], pa.large_string()), pa.string(), ["é😀", ""], id="large strings"),
            pytest.param(pa.array(["é😀"], pa.string_view()), pa.string(), ["é😀"], id="string views"),
        ],
    )
    def test_values_that_fit_are_cast(self, column: pa.Array, wanted: pa.DataType, expected: list[Any]) -> None:
        result = fed(column, wanted)

        assert result.bad == []
        assert result.rows["x"].type == wanted
        assert result.rows["x"].to_pylist() == expected

    @pytest.mark.parametrize(
        ("column", "wanted", "expected"),
        [
            pytest.param(pa.array([1, 2**40, -(2**40), 2]), pa.int32(), [1, 2], id="int64 beyond int32"),
            pytest.param(pa.array([1, -1, 2]), pa.uint8(), [1, 2], id="negative for uint8"),
            pytest.param(pa.array([1, -1, 2]), pa.uint64(), [1, 2], id="negative for uint64, of the same bits"),
            pytest.param(pa.array([1, 2**63, 2], pa.uint64()), pa.int64(), [1, 2], id="uint64 beyond int64"),
            pytest.param(pa.array([1.0, 3.5, 2.0]), pa.int64(), [1, 2], id="float with a fraction"),
            pytest.param(pa.array([1.0, -math.inf, math.inf, 2.0]), pa.int32(), [1, 2], id="infinity for an integer"),
            pytest.param(pa.array([1.0, 2.0**63, 1e300, 2.0]), pa.int64(), [1, 2], id="float beyond int64"),
            pytest.param(pa.array([1.0, 2.0**64, -0.5]), pa.uint64(), [1], id="float beyond uint64"),
            pytest.param(pa.array([1.5, 2.0], pa.float16()), pa.int8(), [2], id="half with a fraction"),
            pytest.param(pa.array([Decimal("1.00"), Decimal("3.50"), Decimal("300.00")]), pa.int8(), [1], id="decimal"),
            pytest.param(
                pa.array([Decimal("1.0"), Decimal("3.5"), Decimal(10) ** 50], pa.decimal256(60, 1)),
                pa.int64(),
                [1],
                id="large decimal",
            ),
            pytest.param(pa.array([1.0, 1e300, -1e300]), pa.float32(), [1.0], id="float64 beyond float32"),
            pytest.param(pa.array([1, 70_000]), pa.float16(), [1.0], id="int64 beyond float16"),
            pytest.param(pa.array([1.0, 7e4], pa.float32()), pa.float16(), [1.0], id="float32 beyond float16"),
            pytest.param(pa.array([Decimal(10) ** 40, Decimal(1)]), pa.float32(), [1.0], id="decimal beyond float32"),
            pytest.param(pa.array([1, 300, 1]).dictionary_encode(), pa.int8(), [1, 1], id="in a dictionary"),
        ],
    )
    def test_a_value_that_does_not_fit_sets_its_own_row_apart(
        self, column: pa.Array, wanted: pa.DataType, expected: list[Any]
    ) -> None:
        result = fed(column, wanted)

        assert result.rows["x"].to_pylist() == expected
        assert {bad.error_type for bad in result.bad} == {"UnfitFeature"}
        assert sorted([*kept(result, len(column)), *(bad.row for bad in result.bad)]) == list(range(len(column)))

    def test_an_unfit_value_is_shown_with_its_column_and_the_models_type(self) -> None:
        rows = pa.record_batch({"age": pa.array([3.5, 4.0]), "visits": pa.array([2**40, 2])})

        fed = feed(rows, pa.schema([("age", pa.int64()), ("visits", pa.int32())]), "reject")

        assert unfit(fed) == [(0, "column age holds 3.5, which is not int64")]

    def test_an_unfit_value_is_set_apart_beside_nulls_that_pass(self) -> None:
        result = fed(pa.array([1.0, None, 3.5]), pa.int64(), "pass")

        assert result.rows["x"].to_pylist() == [1, None]
        assert unfit(result) == [(2, "column x holds 3.5, which is not int64")]

    def test_a_row_that_is_null_and_unfit_is_set_apart_once(self) -> None:
        rows = pa.record_batch({"x": pa.array([None, 1.0]), "y": pa.array([2**40, 1])})

        fed = feed(rows, pa.schema([("x", pa.float32()), ("y", pa.int32())]), "reject")

        assert [(bad.row, bad.error_type) for bad in fed.bad] == [(0, "NullFeature")]

    @settings(deadline=None)
    @given(st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1))), st.sampled_from(INTEGERS))
    def test_of_integers_those_within_the_models_bounds_are_fed_exactly(
        self, values: list[int | None], wanted: pa.DataType
    ) -> None:
        bounds = np.iinfo(str(wanted))
        fits = [value is not None and bounds.min <= value <= bounds.max for value in values]

        result = fed(pa.array(values, pa.int64()), wanted)

        assert kept(result, len(values)) == [row for row, fit in enumerate(fits) if fit]
        assert result.rows["x"].to_pylist() == [value for value, fit in zip(values, fits, strict=True) if fit]

    @settings(deadline=None)
    @given(st.lists(st.floats(width=64, allow_nan=False)), st.sampled_from(INTEGERS))
    def test_of_floats_those_that_are_whole_and_within_bounds_are_fed_exactly(
        self, values: list[float], wanted: pa.DataType
    ) -> None:
        bounds = np.iinfo(str(wanted))
        fits = [math.isfinite(v) and v == int(v) and bounds.min <= int(v) <= bounds.max for v in values]

        result = fed(pa.array(values, pa.float64()), wanted)

        assert kept(result, len(values)) == [row for row, fit in enumerate(fits) if fit]
        assert result.rows["x"].to_pylist() == [int(value) for value, fit in zip(values, fits, strict=True) if fit]

    @pytest.mark.parametrize("wanted", [*INTEGERS, *FLOATS], ids=str)
    @pytest.mark.parametrize("given", [*INTEGERS, *FLOATS, *DECIMALS, pa.bool_(), pa.null()], ids=str)
    def test_what_may_be_fed_is_fed(self, given: pa.DataType, wanted: pa.DataType) -> None:
        value = {pa.null(): None, pa.bool_(): True}.get(given, Decimal(100) if given in DECIMALS else 100)
        columns = [pa.array([value, None], given)]
        if given not in (pa.float16(), pa.null()):
            columns.append(columns[0].dictionary_encode())

        for column in columns:
            assert feedable(column.type, wanted)
            assert fed(column, wanted, "pass").rows.schema == pa.schema([("x", wanted)])


PAIRS, MATRICES = pa.list_(pa.float32(), 2), pa.list_(pa.list_(pa.float32(), 2), 2)


class TestLists:
    @pytest.mark.parametrize(
        "layout",
        [pa.list_, pa.large_list, pa.list_view, pa.large_list_view, lambda type_: pa.list_(type_, 2)],
        ids=["list", "large", "view", "large view", "fixed"],
    )
    @pytest.mark.parametrize("element", [pa.float32(), pa.float64(), pa.int16(), pa.bool_()], ids=str)
    def test_lists_of_any_layout_become_those_of_the_model(self, layout: Any, element: pa.DataType) -> None:
        values = pa.array([9, 0, 1, 1, 0], pa.int64()).cast(element).to_pylist()
        column = pa.array([[values[0]] * 2, values[1:3], values[3:]], layout(element))

        result = fed(column.slice(1), PAIRS)

        assert result.bad == []
        assert result.rows.schema.types == [PAIRS]
        assert result.rows["x"].to_pylist() == [[0, 1], [1, 0]]

    def test_lists_that_fit_already_are_not_copied(self) -> None:
        column = pa.array([[1, 2], [3, 4]], PAIRS)

        assert fed(column, PAIRS).rows["x"].flatten().buffers()[1].address == column.flatten().buffers()[1].address

    def test_a_row_of_another_length_is_set_apart_with_both_lengths(self) -> None:
        result = fed(pa.array([[1, 2], [3], [], [4, 5], [6, 7, 8]], pa.list_(pa.float64())), PAIRS)

        assert result.rows["x"].to_pylist() == [[1, 2], [4, 5]]
        assert {bad.error_type for bad in result.bad} == {"UnfitFeature"}
        assert unfit(result) == [
            (1, "column x holds 1 value(s), and the model takes 2"),
            (2, "column x holds 0 value(s), and the model takes 2"),
            (4, "column x holds 3 value(s), and the model takes 2"),
        ]

    @pytest.mark.parametrize("given", [pa.list_(pa.float64()), pa.list_view(pa.float16()), PAIRS], ids=str)
    def test_what_is_missing_within_a_list_is_missing(self, given: pa.DataType) -> None:
        values = [[1.0, 2.0], [None, 1.0], [1.0, math.nan], None, [3.0, 4.0]]

        result = fed(pa.array(values, given), PAIRS)

        assert result.rows["x"].to_pylist() == [[1, 2], [3, 4]]
        assert [(bad.row, bad.error_type, bad.error) for bad in result.bad] == [
            (1, "NullFeature", "column x holds a null"),
            (2, "NullFeature", "column x holds NaN"),
            (3, "NullFeature", "column x is null"),
        ]

    def test_it_passes_where_nulls_do_but_lengths_must_fit_all_the_same(self) -> None:
        column = pa.array([[1.0, None], None, [1.0, 2.0, 3.0]], pa.list_(pa.float64()))

        result = fed(column, PAIRS, "pass")

        assert result.rows["x"].to_pylist() == [[1.0, None], None]
        assert [bad.row for bad in result.bad] == [2]

    @pytest.mark.parametrize(
        "given",
        [pa.list_(pa.list_(pa.float64())), pa.list_(pa.large_list(pa.int8()), 2), MATRICES],
        ids=str,
    )
    def test_lists_of_lists_are_fitted_at_every_depth(self, given: pa.DataType) -> None:
        values: list[Any] = [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]
        bad = [] if given.equals(MATRICES) else [[[1, 2], [3]]]

        result = fed(pa.array(values[:1] + bad + values[1:], given), MATRICES)

        assert result.rows["x"].to_pylist() == values
        assert unfit(result) == [(1, "column x holds a list of 1 value(s), and the model takes 2") for _ in bad]

    def test_an_element_that_does_not_fit_sets_its_row_apart(self) -> None:
        result = fed(pa.array([[1, 2], [2**40, 3], [4, 5]]), pa.list_(pa.int32()))

        assert result.rows["x"].to_pylist() == [[1, 2], [4, 5]]
        assert unfit(result) == [(1, f"column x holds {2**40}, which is not int32")]

    @pytest.mark.parametrize("layout", [pa.list_, pa.large_list, pa.list_view, pa.large_list_view])
    def test_lists_of_any_length_keep_theirs(self, layout: Any) -> None:
        result = fed(pa.array([[1, 2], [], [3]], pa.list_view(pa.int32())), layout(pa.int64()))

        assert result.rows.schema.types == [layout(pa.int64())]
        assert result.rows["x"].to_pylist() == [[1, 2], [], [3]]

    @pytest.mark.parametrize(
        ("given", "wanted"),
        [
            (pa.float32(), PAIRS),
            (pa.list_(pa.float32(), 3), PAIRS),
            (pa.list_(pa.string()), PAIRS),
            (PAIRS, MATRICES),
            (MATRICES, PAIRS),
        ],
        ids=str,
    )
    def test_what_can_never_fit_is_refused_before_any_row_is_read(
        self, given: pa.DataType, wanted: pa.DataType
    ) -> None:
        with pytest.raises(SchemaMismatch, match="the model takes column 'x' as"):
            check_features(pa.schema([("x", given)]), pa.schema([("x", wanted)]))

    @settings(deadline=None)
    @given(
        st.lists(st.one_of(st.none(), st.lists(st.one_of(st.none(), st.integers(-200, 200)), min_size=1, max_size=3)))
    )
    def test_exactly_the_rows_that_fit_are_fed(self, values: list[list[int | None] | None]) -> None:
        fits = [
            row
            for row in values
            if row is not None and len(row) == 2 and all(v is not None and -128 <= v <= 127 for v in row)
        ]

        result = fed(pa.array(values, pa.list_(pa.int64())), pa.list_(pa.int8(), 2))

        assert result.rows["x"].to_pylist() == fits
        assert len(result.bad) == len(values) - len(fits)


class TestCheck:
    @pytest.mark.parametrize(
        ("given", "wanted"),
        [
            pytest.param(pa.string(), pa.float32(), id="text as a number"),
            pytest.param(pa.float64(), pa.string(), id="a number as text"),
            pytest.param(pa.int64(), pa.bool_(), id="a number as a truth"),
            pytest.param(pa.timestamp("us"), pa.int64(), id="a time as a number"),
            pytest.param(pa.list_(pa.float32()), pa.float32(), id="a list as a number"),
            pytest.param(pa.binary(), pa.string(), id="bytes as text"),
            pytest.param(pa.dictionary(pa.int8(), pa.string()), pa.float32(), id="a dictionary of text as a number"),
            pytest.param(pa.timestamp("ms"), pa.timestamp("us"), id="a time of another unit"),
        ],
    )
    def test_a_column_of_another_kind_is_refused(self, given: pa.DataType, wanted: pa.DataType) -> None:
        with pytest.raises(SchemaMismatch) as caught:
            check_features(pa.schema([("x", given)]), pa.schema([("x", wanted)]))
        assert str(caught.value) == (
            f"the model takes column 'x' as {wanted}, but the input has {given}; convert it, by CAST in a query or "
            "where the file is written, or name another column in model.features"
        )

    @pytest.mark.parametrize(
        "type_",
        [pa.dictionary(pa.int8(), pa.string()), pa.list_(pa.int8()), pa.timestamp("us"), pa.binary(), pa.date32()],
        ids=str,
    )
    def test_a_column_of_the_very_type_is_always_fed(self, type_: pa.DataType) -> None:
        column = pa.nulls(2, type_)
        schema = pa.schema([("x", type_)])

        check_features(schema, schema)
        assert fed(column, type_, "pass").rows["x"].equals(column)

    @pytest.mark.parametrize("given", TEXTS, ids=str)
    @pytest.mark.parametrize("wanted", TEXTS, ids=str)
    def test_text_of_any_layout_is_text(self, given: pa.DataType, wanted: pa.DataType) -> None:
        check_features(pa.schema([("x", given)]), pa.schema([("x", wanted)]))

        assert fed(pa.array(["a"], given), wanted).rows["x"].to_pylist() == ["a"]

    @pytest.mark.parametrize(
        ("columns", "name", "hint"),
        [
            pytest.param(["tenure", "total_charges"], "total_charge", "did you mean 'total_charges'?", id="a letter"),
            pytest.param(["Tenure", "id"], "tenure", "did you mean 'Tenure'?", id="case"),
            pytest.param(
                ["TOTAL_CHARGES", "id"], "total_charge", "did you mean 'TOTAL_CHARGES'?", id="case and letter"
            ),
            pytest.param(["id", "note"], "tenure", "there are id, note", id="nothing near"),
        ],
    )
    def test_a_missing_column_is_named_with_the_nearest_there_is(
        self, columns: list[str], name: str, hint: str
    ) -> None:
        schema = pa.schema([(column, pa.float32()) for column in columns])

        with pytest.raises(SchemaMismatch) as caught:
            check_features(schema, pa.schema([(name, pa.float32())]))
        assert str(caught.value) == f"the model takes a column {name!r}, which the input does not have; {hint}"

    def test_a_name_that_two_columns_have_is_refused(self) -> None:
        columns = pa.schema([("x", pa.float32()), ("y", pa.float32()), ("x", pa.float32())])

        check_names(columns, ["y"])
        for check in (lambda: check_names(columns, ["x"]), lambda: check_features(columns, columns)):
            with pytest.raises(SchemaMismatch) as caught:
                check()
            assert str(caught.value) == "the input has 2 columns named 'x'; give each its own name"

    def test_columns_that_the_model_does_not_take_may_be_of_any_type_and_number(self) -> None:
        columns = pa.schema([("x", pa.int64()), ("y", pa.binary()), ("y", pa.binary())])

        check_features(columns, pa.schema([("x", pa.float32())]))

    def test_a_column_may_be_fed_twice(self) -> None:
        wanted = pa.schema([("x", pa.float32()), ("x", pa.int64())])
        rows = pa.record_batch({"x": pa.array([1, 2])})

        check_features(rows.schema, wanted)
        assert [column.to_pylist() for column in feed(rows, wanted, "reject").rows.columns] == [[1.0, 2.0], [1, 2]]
