"""Columns of a file under the types that the job's columns have, without changing a value."""

import pyarrow as pa
import pyarrow.compute as pc

# A double gives as many digits of a decimal number back.
_FLOAT_DIGITS = {16: 3, 32: 6, 64: 15}


class Lossy(Exception):
    """A value would not be the same under the other type; says which."""


def conform(column: pa.Array, to: pa.DataType) -> pa.Array:
    """`column` as `to`, the type that `common_type` gave, or one that holds the same values.

    Raises:
        Lossy: a time is out of the range of the finer unit.
    """
    if column.type == to:
        return column
    try:
        return column.cast(to)
    except pa.ArrowException as error:
        raise Lossy(" ".join(str(error).split())) from error


def conform_exactly(column: pa.Array, to: pa.DataType) -> pa.Array:
    """`column` as any type `to` that holds its values: each gives the same value back.

    Texts become what they say: an integer in its own digits, no other; a number with no more digits than a float keeps.

    Raises:
        Lossy: a value does not.
    """
    if column.type == to:
        return column
    made = conform(column, to)
    if _is_text(column.type) and not _is_text(to):
        if pa.types.is_floating(to):
            _check_digits(column, _FLOAT_DIGITS[to.bit_width])
            return made
        if not pa.types.is_integer(to):
            return made
    if not _same(conform(made, column.type), column):
        raise Lossy(f"a value of {column.type} is not the same as {to}")
    return made


def _is_text(type: pa.DataType) -> bool:
    return type in (pa.string(), pa.large_string(), pa.string_view())


def _check_digits(column: pa.Array, most: int) -> None:
    digits = pc.utf8_ltrim(pc.replace_substring_regex(column.cast(pa.large_string()), r"[eE].*|[^0-9]", ""), "0")
    longest = pc.max(pc.utf8_length(digits)).as_py()
    if longest is not None and longest > most:
        raise Lossy(f"a number has {longest} digits, more than a float of {most} keeps")


def _same(one: pa.Array, other: pa.Array) -> bool:
    """Whether two arrays of one type hold the same values, NaN being the same as NaN."""
    if one.equals(other):
        return True
    type = one.type
    if len(one) != len(other) or not one.is_null().equals(other.is_null()):
        return False
    if pa.types.is_floating(type):
        both = [pc.is_nan(each) for each in (one, other)]
        return both[0].equals(both[1]) and one.filter(pc.invert(both[0])).equals(other.filter(pc.invert(both[1])))
    if pa.types.is_struct(type):
        return all(_same(*pair) for pair in zip(one.flatten(), other.flatten(), strict=True))
    if pa.types.is_list(type) or pa.types.is_large_list(type) or pa.types.is_fixed_size_list(type):
        return pc.list_value_length(one).equals(pc.list_value_length(other)) and _same(one.flatten(), other.flatten())
    return False
