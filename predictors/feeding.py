"""From the input's columns to what the model takes: schema check, null policy, casts."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from predictors.base import Nulls
from predictors.casting import cast, digits_to_floats, feedable, holds_digits, is_list, nan_rows, plain
from predictors.errors import SchemaMismatch
from predictors.lists import Fault, fitted, gaps
from predictors.recovery import BadRow
from predictors.taking import take_rows


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
        given = columns.field(field.name)
        if not feedable(given.type, field.type) and not holds_digits(given, field.type):
            raise SchemaMismatch(
                f"the model takes column {field.name!r} as {field.type}, but the input has {given.type}; convert it, "
                f"by CAST in a query or where the file is written, or name another column in model.features"
            )


def check_names(columns: pa.Schema, names: Iterable[str]) -> None:
    """Demand that each of `names` is one column.

    Raises:
        SchemaMismatch: names the first one that is not, and the nearest column there is.
    """
    for name in names:
        found = len(columns.get_all_field_indices(name))
        if found == 0:
            raise SchemaMismatch(
                f"the model takes a column {name!r}, which the input does not have{nearest(name, columns.names)}"
            )
        if found > 1:
            raise SchemaMismatch(f"the input has {found} columns named {name!r}; give each its own name")


def feed(rows: pa.RecordBatch, wanted: pa.Schema, nulls: Nulls) -> Fed:
    """Lay out `rows` as the model wants them, and set apart those that it must not see.

    A row is set apart when a feature is null or NaN, or a list with one of them (with `nulls` "reject"), or does not
    fit the model's type, as 3.5 or 2^40 do not fit int32, 1e300 float32, or three values a list of four. Integers
    become floats of the model's precision, rounded.

    Raises:
        SchemaMismatch: a feature is null or NaN and `nulls` is "fail".
    """
    bad: dict[int, BadRow] = {}
    casted = [_fed(field.name, _numbers(rows, field, bad), field.type, nulls, bad) for field in wanted]
    fed = pa.RecordBatch.from_arrays(casted, schema=wanted)
    if not bad:
        return Fed(fed, None, [])
    kept = others(bad, rows.num_rows)
    return Fed(take_rows(fed, kept), kept, [bad[row] for row in sorted(bad)])


def others(bad: Iterable[int], rows: int) -> pa.Int32Array:
    """The indices of `rows` rows that are not `bad`, ascending."""
    keep = np.ones(rows, bool)
    keep[list(bad)] = False
    return pa.array(np.flatnonzero(keep).astype(np.int32))


def nearest(name: str, names: Iterable[str]) -> str:
    """The end of a message about a name that is not among `names`: the nearest that is, or all of them."""
    folded = {each.casefold(): each for each in names}
    near = difflib.get_close_matches(name.casefold(), folded, n=1)
    return f"; did you mean {folded[near[0]]!r}?" if near else f"; there are {', '.join(folded.values())}"


def _numbers(rows: pa.RecordBatch, wanted: pa.Field, bad: dict[int, BadRow]) -> pa.Array:
    """A column of `rows`; where it holds the digits of numbers and floats are wanted, those."""
    column = rows.column(wanted.name)
    if not holds_digits(rows.schema.field(wanted.name), wanted.type):
        return column
    floats, beyond = digits_to_floats(column)
    for row in beyond:
        bad.setdefault(row, BadRow(row, "UnfitFeature", f"column {wanted.name} holds a number beyond {wanted.type}"))
    return floats


def _fed(name: str, column: pa.Array, wanted: pa.DataType, nulls: Nulls, bad: dict[int, BadRow]) -> pa.Array:
    """One column as the model wants it; rows that are added to `bad` hold anything."""
    values = plain(column)
    if nulls != "pass":
        _note_gaps(name, values, nulls, bad)
    if column.type.equals(wanted):
        return column
    faults: list[Fault]
    if is_list(values.type):
        result, faults = fitted(values, wanted)
    else:
        result, unfit = cast(values, wanted)
        faults = [(row, f"holds {values[row].as_py()!r}, which is not {wanted}") for row in unfit]
    for row, text in faults:
        bad.setdefault(row, BadRow(row, "UnfitFeature", f"column {name} {text}"))
    return result


def _note_gaps(name: str, column: pa.Array, nulls: Nulls, bad: dict[int, BadRow]) -> None:
    """Set apart the rows in which a value is missing: null or, for a float, NaN, the same within a list."""
    # A dictionary may hold the null itself, and is then not null anywhere by its indices.
    if column.null_count:
        _note(name, "is null", pc.indices_nonzero(column.is_null()).to_pylist(), nulls, bad)
    _note(name, "is NaN", nan_rows(column), nulls, bad)
    if is_list(column.type):
        empty, nan = gaps(column)
        _note(name, "holds a null", empty, nulls, bad)
        _note(name, "holds NaN", nan, nulls, bad)


def _note(name: str, what: str, rows: list[int], nulls: Nulls, bad: dict[int, BadRow]) -> None:
    if rows and nulls == "fail":
        raise SchemaMismatch(
            f"column {name} {what} in {len(rows)} row(s) of a span, and model.nulls is 'fail'; "
            f"use 'reject' to set them apart"
        )
    for row in rows:
        bad.setdefault(row, BadRow(row, "NullFeature", f"column {name} {what}"))
