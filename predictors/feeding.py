"""From the input's columns to what the model takes: schema check, null policy, casts."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from predictors.base import Nulls
from predictors.errors import SchemaMismatch
from predictors.recovery import BadRow


@dataclass(frozen=True, eq=False)
class Fed:
    """Rows ready for the model.

    Args:
        rows: laid out as the model's input schema.
        kept: int32 indices of these rows in the batch; None when it is all of them.
        bad: the other rows, ascending.
    """

    rows: pa.RecordBatch
    kept: pa.Int32Array | None
    bad: list[BadRow]


def check_features(columns: pa.Schema, wanted: pa.Schema) -> None:
    """Demand that each column the model takes is there, once, under a type that can be cast to the model's.

    Raises:
        SchemaMismatch: names the first column that is not, and the nearest one there is.
    """
    check_names(columns, wanted.names)
    for field in wanted:
        given = columns.field(field.name).type
        if not feedable(given, field.type):
            raise SchemaMismatch(f"the model takes column {field.name!r} as {field.type}, but the input has {given}")


def check_names(columns: pa.Schema, names: Iterable[str]) -> None:
    """Demand that each of `names` is one column.

    Raises:
        SchemaMismatch: names the first one that is not, and the nearest column there is.
    """
    for name in names:
        found = len(columns.get_all_field_indices(name))
        if found == 0:
            raise SchemaMismatch(
                f"the model takes a column {name!r}, which the input does not have{_hint(name, columns)}"
            )
        if found > 1:
            raise SchemaMismatch(f"the input has {found} columns named {name!r}; give each its own name")


def feedable(given: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether values of type `given` can be fed as `wanted`. Text is never read as a number."""
    if given.equals(wanted) or pa.types.is_null(given):
        return True
    if pa.types.is_dictionary(given):
        return feedable(given.value_type, wanted)
    if _is_text(wanted):
        return _is_text(given)
    if not (pa.types.is_integer(wanted) or pa.types.is_floating(wanted)):
        return False
    return (
        pa.types.is_integer(given)
        or pa.types.is_floating(given)
        or pa.types.is_boolean(given)
        or pa.types.is_decimal(given)
    )


def feed(rows: pa.RecordBatch, wanted: pa.Schema, nulls: Nulls) -> Fed:
    """Lay out `rows` as the model wants them, and set apart those that it must not see.

    A row is set apart when a feature is null (with `nulls` "reject") or does not fit the model's type, as 3.5 or 2^40
    do not fit int32, or 1e300 float32. Integers become floats of the model's precision, rounded.

    Raises:
        SchemaMismatch: a feature is null and `nulls` is "fail".
    """
    bad: dict[int, BadRow] = {}
    casted = []
    for field in wanted:
        column = rows.column(field.name)
        # A dictionary may hold the null itself, and is then not null anywhere by its indices.
        values = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
        if nulls != "pass" and values.null_count:
            _note_nulls(field.name, values, nulls, bad)
        if column.type.equals(field.type):
            casted.append(column)
            continue
        cast, unfit = _cast(values, field.type)
        for row in unfit:
            text = f"column {field.name} holds {values[row].as_py()!r}, which is not {field.type}"
            bad.setdefault(row, BadRow(row, "UnfitFeature", text))
        casted.append(cast)
    fed = pa.RecordBatch.from_arrays(casted, schema=wanted)
    if not bad:
        return Fed(fed, None, [])
    kept = others(bad, rows.num_rows)
    return Fed(fed.take(kept), kept, [bad[row] for row in sorted(bad)])


def others(bad: Iterable[int], rows: int) -> pa.Int32Array:
    """The indices of `rows` rows that are not `bad`, ascending."""
    keep = np.ones(rows, bool)
    keep[list(bad)] = False
    return pa.array(np.flatnonzero(keep).astype(np.int32))


def _hint(name: str, columns: pa.Schema) -> str:
    folded = {column.casefold(): column for column in columns.names}
    near = difflib.get_close_matches(name.casefold(), folded, n=1)
    return f"; did you mean {folded[near[0]]!r}?" if near else f"; there are {', '.join(columns.names)}"


def _is_text(type_: pa.DataType) -> bool:
    return pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_)


def _note_nulls(name: str, column: pa.Array, nulls: Nulls, bad: dict[int, BadRow]) -> None:
    rows = pc.indices_nonzero(column.is_null()).to_pylist()
    if nulls == "fail":
        raise SchemaMismatch(
            f"column {name} is null in {len(rows)} row(s) of a span, and model.nulls is 'fail'; "
            f"use 'reject' to set them apart"
        )
    for row in rows:
        bad.setdefault(row, BadRow(row, "NullFeature", f"column {name} is null"))


def _cast(column: pa.Array, wanted: pa.DataType) -> tuple[pa.Array, list[int]]:
    """`column` as `wanted`, and the rows whose value does not survive it; those hold anything."""
    if pa.types.is_floating(wanted):
        return _cast_to_float(column, wanted)
    try:
        return column.cast(wanted), []
    except pa.ArrowInvalid:
        if not pa.types.is_integer(wanted):
            raise
    # Seldom, and then exact, whatever the type: a cast there and back takes -1 for uint64, whose bits are the same.
    bounds = np.iinfo(wanted.to_pandas_dtype())
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
    if not (pa.types.is_float64(column.type) and wanted.bit_width < column.type.bit_width):
        return values, []
    endless = pc.is_inf(values)
    if not endless.true_count:
        return values, []
    return values, pc.indices_nonzero(pc.and_(endless, pc.is_finite(column))).to_pylist()
