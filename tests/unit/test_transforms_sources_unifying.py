"""One type for two: the narrowest that keeps every value, and none where a value would change."""

import pyarrow as pa
import pytest

from transforms.sources.conforming import Lossy, conform, conform_exactly
from transforms.sources.unifying import NoCommonType, common_type

DICTIONARY = pa.dictionary(pa.int32(), pa.string())
NAN = float("nan")


@pytest.mark.parametrize(
    ("one", "other", "common"),
    [
        (pa.int32(), pa.int64(), pa.int64()),
        (pa.uint32(), pa.int32(), pa.int64()),
        (pa.uint8(), pa.int64(), pa.int64()),
        (pa.float32(), pa.float64(), pa.float64()),
        (pa.int16(), pa.float32(), pa.float32()),
        (pa.int32(), pa.float32(), pa.float64()),
        (pa.decimal128(5, 2), pa.decimal128(10, 4), pa.decimal128(10, 4)),
        (pa.decimal128(38, 2), pa.decimal128(38, 4), pa.decimal256(40, 4)),
        (pa.int64(), pa.decimal128(5, 2), pa.decimal128(22, 2)),
        (pa.string(), pa.large_string(), pa.large_string()),
        (DICTIONARY, pa.string(), pa.string()),
        (DICTIONARY, DICTIONARY, DICTIONARY),
        (DICTIONARY, pa.dictionary(pa.int32(), pa.large_string()), pa.large_string()),
        (pa.binary(4), pa.binary(5), pa.binary()),
        (pa.uuid(), pa.binary(16), pa.binary(16)),
        (pa.date32(), pa.date64(), pa.date32()),
        (pa.timestamp("ms"), pa.timestamp("us"), pa.timestamp("us")),
        (pa.timestamp("us", "UTC"), pa.timestamp("us", "Europe/Berlin"), pa.timestamp("us", "UTC")),
        (pa.time32("s"), pa.time64("us"), pa.time64("us")),
        (pa.null(), pa.list_(pa.int8()), pa.list_(pa.int8())),
        (pa.list_(pa.int32()), pa.large_list(pa.int64()), pa.large_list(pa.int64())),
        (pa.list_(pa.int8(), 2), pa.list_(pa.int8(), 3), pa.list_(pa.int8())),
        (pa.map_(pa.string(), pa.int8()), pa.map_(pa.string(), pa.int16()), pa.map_(pa.string(), pa.int16())),
        (
            pa.struct([pa.field("a", pa.int8(), nullable=False)]),
            pa.struct([("b", pa.string()), ("a", pa.int16())]),
            pa.struct([("a", pa.int16()), ("b", pa.string())]),
        ),
    ],
    ids=str,
)
def test_two_types_have_the_narrowest_that_holds_both(
    one: pa.DataType, other: pa.DataType, common: pa.DataType
) -> None:
    assert common_type(one, other) == common
    assert common_type(other, one).equals(common) or pa.types.is_struct(common)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pa.int64(), pa.float64()),
        (pa.uint64(), pa.int8()),
        (pa.decimal128(5, 2), pa.float64()),
        (pa.string(), pa.int64()),
        (pa.string(), pa.binary()),
        (pa.bool_(), pa.int8()),
        (pa.date32(), pa.timestamp("us")),
        (pa.timestamp("us"), pa.timestamp("us", "UTC")),
        (pa.list_(pa.int8()), pa.int8()),
        (pa.struct([("a", pa.int64())]), pa.struct([("a", pa.float64())])),
    ],
    ids=str,
)
def test_some_have_none(one: pa.DataType, other: pa.DataType) -> None:
    with pytest.raises(NoCommonType):
        common_type(one, other)


@pytest.mark.parametrize(
    ("column", "to", "values"),
    [
        (pa.array([1.5, NAN, None]), pa.float32(), None),
        (pa.array([2**53, None]), pa.float64(), [2.0**53, None]),
        (pa.array(["7", "-1", None]), pa.int64(), [7, -1, None]),
        (pa.array(["1.50"]), pa.float64(), [1.5]),
        (pa.array([b"text"]), pa.string(), ["text"]),
        (pa.array([[0.5, NAN], None], pa.list_(pa.float64())), pa.list_(pa.float32()), None),
    ],
    ids=str,
)
def test_a_declared_type_holds_each_value_as_it_was(column: pa.Array, to: pa.DataType, values: list[object]) -> None:
    made = conform_exactly(column, to)

    assert made.type == to
    assert str(made.to_pylist()) == str(column.to_pylist() if values is None else values)


@pytest.mark.parametrize(
    ("column", "to"),
    [
        (pa.array([1.1]), pa.float32()),
        (pa.array([2**53 + 1]), pa.float64()),
        (pa.array([300]), pa.int8()),
        (pa.array([1.5]), pa.int64()),
        (pa.array(["01234"]), pa.int64()),
        (pa.array(["12345678901234567890"]), pa.float64()),
        (pa.array([0.1]), pa.decimal128(38, 30)),
        (pa.array([2]), pa.bool_()),
        (pa.array([1500], pa.timestamp("ms")), pa.timestamp("s")),
        (pa.array([b"\xff"]), pa.string()),
        (pa.array([{"a": 1, "b": 2}]), pa.struct([("a", pa.int64())])),
        (pa.array([[1]]), pa.int64()),
    ],
    ids=str,
)
def test_a_value_that_a_declared_type_would_change_is_told(column: pa.Array, to: pa.DataType) -> None:
    with pytest.raises(Lossy):
        conform_exactly(column, to)


def test_a_time_beyond_the_finer_unit_is_told() -> None:
    with pytest.raises(Lossy):
        conform(pa.array([253402214400000], pa.timestamp("ms")), pa.timestamp("ns"))
