"""From the input's columns to what the model takes: schema check, null policy, casts."""

import difflib
from dataclasses import dataclass

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
        bad: the other rows.
    """

    rows: pa.RecordBatch
    kept: pa.Int32Array | None
    bad: list[BadRow]


def check_features(columns: pa.Schema, wanted: pa.Schema) -> None:
    """Demand that each column the model takes is there, once, under a type that can be cast to the model's.

    Raises:
        SchemaMismatch: names the first column that is not, and the nearest one there is.
    """
    for field in wanted:
        found = columns.get_all_field_indices(field.name)
        if not found:
            near = difflib.get_close_matches(field.name, columns.names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(columns.names)}"
            raise SchemaMismatch(f"the model takes a column {field.name!r}, which the input does not have{hint}")
        if len(found) > 1:
            raise SchemaMismatch(f"the input has {len(found)} columns named {field.name!r}; give each its own name")
        given = columns.field(found[0]).type
        if not feedable(given, field.type):
            raise SchemaMismatch(f"the model takes column {field.name!r} as {field.type}, but the input has {given}")


def feedable(given: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether values of type `given` can be fed to a tensor of type `wanted`. Text is never read as a number."""
    if pa.types.is_dictionary(given):
        given = given.value_type
    if given.equals(wanted):
        return True
    if pa.types.is_null(given):
        return True
    if _is_text(wanted):
        return _is_text(given)
    if pa.types.is_boolean(wanted):
        return pa.types.is_boolean(given)
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
    do not fit int32. Integers become floats of the model's precision, rounded.

    Raises:
        SchemaMismatch: a feature is null and `nulls` is "fail".
    """
    columns = [rows.column(field.name) for field in wanted]
    bad: dict[int, BadRow] = {}
    if nulls != "pass":
        for name, column in zip(wanted.names, columns, strict=True):
            if column.null_count:
                _note_nulls(name, column, nulls, bad)
    casted = []
    for field, column in zip(wanted, columns, strict=True):
        values, unfit = _cast(column, field.type)
        for row in unfit:
            text = f"column {field.name} holds {column[row].as_py()!r}, which is not {field.type}"
            bad.setdefault(row, BadRow(row, "UnfitFeature", text))
        casted.append(values)
    fed = pa.RecordBatch.from_arrays(casted, schema=wanted)
    if not bad:
        return Fed(fed, None, [])
    keep = pa.array([row not in bad for row in range(rows.num_rows)])
    kept = pc.indices_nonzero(keep).cast(pa.int32())
    return Fed(fed.filter(keep), kept, [bad[row] for row in sorted(bad)])


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
    if column.type.equals(wanted):
        return column, []
    if pa.types.is_floating(wanted):
        if pa.types.is_decimal(column.type):
            column = column.cast(pa.float64())
        return column.cast(wanted, safe=False), []
    try:
        return column.cast(wanted), []
    except pa.ArrowInvalid:
        values = column.cast(wanted, safe=False)
        same = pc.equal(values.cast(column.type, safe=False), column)
        return values, pc.indices_nonzero(pc.invert(pc.fill_null(same, True))).to_pylist()
