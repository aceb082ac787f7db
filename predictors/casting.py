"""Values of one type as another that a model takes: which can be, and which of them survive it."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from predictors.taking import decoded
from predictors.tensors import dtype_of

# In the metadata of a field: its text is the digits of numbers, or NaN or infinity, as no number type holds them all.
DIGITS = b"penstock:digits"


def holds_digits(field: pa.Field, wanted: pa.DataType) -> bool:
    """Whether a column is text of which a float can be made, as a source has said."""
    return pa.types.is_floating(wanted) and is_text(field.type) and DIGITS in (field.metadata or {})


def digits_to_floats(column: pa.Array) -> tuple[pa.Array, list[int]]:
    """The float64 next to each number, and the rows whose number is beyond all of them."""
    floats = column.cast(pa.float64())
    beyond = pc.and_(pc.is_inf(floats), pc.invert(pc.match_substring(column, "Inf")))
    return floats, pc.indices_nonzero(beyond.fill_null(False)).to_pylist()


def feedable(given: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether values of type `given` can be fed as `wanted`. Text is never read as a number."""
    if given.equals(wanted) or pa.types.is_null(given):
        return True
    if isinstance(given, pa.BaseExtensionType):
        return feedable(given.storage_type, wanted)
    if pa.types.is_dictionary(given) or pa.types.is_run_end_encoded(given):
        return feedable(given.value_type, wanted)
    if is_list(wanted):
        fixed = pa.types.is_fixed_size_list(given) and pa.types.is_fixed_size_list(wanted)
        if not is_list(given) or (fixed and given.list_size != wanted.list_size):
            return False
        return feedable(given.value_type, wanted.value_type)
    if is_text(wanted):
        return is_text(given)
    if not (pa.types.is_integer(wanted) or pa.types.is_floating(wanted)):
        return False
    return (
        pa.types.is_integer(given)
        or pa.types.is_floating(given)
        or pa.types.is_boolean(given)
        or pa.types.is_decimal(given)
    )


def is_list(type_: pa.DataType) -> bool:
    """Whether values are lists, of whatever layout."""
    types = pa.types
    return (
        types.is_list(type_)
        or types.is_large_list(type_)
        or types.is_fixed_size_list(type_)
        or types.is_list_view(type_)
        or types.is_large_list_view(type_)
    )


def is_text(type_: pa.DataType) -> bool:
    """Whether values are text, of whatever layout."""
    return pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_)


def plain(column: pa.Array) -> pa.Array:
    """The values themselves: what a dictionary, a run-length encoding or an extension type stands for."""
    while True:
        if isinstance(column.type, pa.BaseExtensionType):
            column = column.storage
        elif pa.types.is_dictionary(column.type):
            column = decoded(column)
        elif pa.types.is_run_end_encoded(column.type):
            column = pc.run_end_decode(column)
        else:
            return column


def nan_rows(column: pa.Array) -> list[int]:
    """Where a column of floats is NaN; nowhere in any other."""
    if not pa.types.is_floating(column.type):
        return []
    if column.null_count:
        return pc.indices_nonzero(pc.is_nan(column)).to_pylist()
    nan = np.isnan(column.to_numpy(zero_copy_only=False))
    return np.flatnonzero(nan).tolist() if nan.any() else []


def cast(column: pa.Array, wanted: pa.DataType) -> tuple[pa.Array, list[int]]:
    """`column`, of a type that is `feedable` as `wanted`, and the rows whose value does not survive it.

    Those rows hold anything.
    """
    if column.type.equals(wanted):
        return column, []
    if pa.types.is_floating(wanted):
        return _cast_to_float(column, wanted)
    try:
        return column.cast(wanted), []
    except pa.ArrowInvalid:
        if not pa.types.is_integer(wanted):
            raise
    # Seldom, and then exact, whatever the type: a cast there and back takes -1 for uint64, whose bits are the same.
    bounds = np.iinfo(dtype_of(wanted))
    low, high = int(bounds.min), int(bounds.max)
    fits = [value is None or (low <= value <= high and value == int(value)) for value in column.to_pylist()]
    values = pc.if_else(pa.array(fits), column, pa.scalar(None, column.type)).cast(wanted)
    return values, [row for row, fit in enumerate(fits) if not fit]


def _cast_to_float(column: pa.Array, wanted: pa.DataType) -> tuple[pa.Array, list[int]]:
    """Rounds; what was finite and becomes infinite does not fit."""
    given = column.type
    if pa.types.is_decimal(given) or (pa.types.is_float16(wanted) and not pa.types.is_floating(given)):
        # Arrow casts neither decimals nor booleans to halves.
        column = column.cast(pa.float64(), safe=False)
    values = column.cast(wanted, safe=False)
    if not (pa.types.is_floating(column.type) and wanted.bit_width < column.type.bit_width):
        return values, []
    endless = pc.is_inf(values)
    if not endless.true_count:
        return values, []
    return values, pc.indices_nonzero(pc.and_(endless, pc.is_finite(column))).to_pylist()
