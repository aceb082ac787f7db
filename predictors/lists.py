"""List columns as a model takes them: lists of a fixed length or of any, their elements under the model's type."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from predictors.casting import cast, is_list, nan_rows, plain
from predictors.taking import take

# A row, and what is wrong with it, as it follows the name of its column.
Fault = tuple[int, str]
_Indices = np.ndarray[Any, np.dtype[np.int64]]


def gaps(column: pa.Array) -> tuple[list[int], list[int]]:
    """The rows of a list column that hold a null, and those that hold NaN, at any depth. A null row holds nothing."""
    empty: list[int] = []
    rows: _Indices = np.arange(len(column))
    values = column
    while is_list(values.type):
        rows = np.repeat(rows, _lengths(values))
        values = plain(values.flatten())
        if values.null_count:
            empty += rows[pc.is_null(values).to_numpy(zero_copy_only=False)].tolist()
    return sorted(set(empty)), sorted(set(rows[nan_rows(values)].tolist()))


def fitted(column: pa.Array, wanted: pa.DataType) -> tuple[pa.Array, list[Fault]]:
    """A list column as lists of type `wanted`, and the rows that do not fit; those hold anything.

    A null row stays null. Nulls among the elements stay, too.

    Args:
        column: of a list type that is `feedable` as `wanted`.
    """
    faults = _unfit_lengths(column, wanted)
    missing = {row for row, _ in faults}
    if column.null_count:
        missing |= set(pc.indices_nonzero(column.is_null()).to_pylist())
    kept = None
    if missing:
        keep = np.ones(len(column), bool)
        keep[list(missing)] = False
        kept = np.flatnonzero(keep)
        column = take(column, pa.array(kept))
    result, unfit = _recast(column, wanted)
    faults += [(int(row) if kept is None else int(kept[row]), text) for row, text in unfit]
    if kept is not None:
        places = np.full(len(keep), -1)
        places[kept] = np.arange(len(kept))
        result = result.take(pa.array(places, mask=places < 0))
    return result, faults


def _unfit_lengths(column: pa.Array, wanted: pa.DataType) -> list[Fault]:
    """The rows whose lists are of another length than the model takes, or have no list where one is wanted."""
    faults: dict[int, str] = {}
    rows: _Indices = np.arange(len(column))
    values, is_outermost = column, True
    while is_list(wanted):
        lengths = _lengths(values)
        if not is_outermost and values.null_count:
            for row in rows[pc.is_null(values).to_numpy(zero_copy_only=False)]:
                faults.setdefault(int(row), "holds a null in place of a list")
        if pa.types.is_fixed_size_list(wanted):
            wrong = lengths != wanted.list_size
            if values.null_count:
                wrong &= values.is_valid().to_numpy(zero_copy_only=False)
            if wrong.any():
                what = "holds" if is_outermost else "holds a list of"
                for row, length in zip(rows[wrong].tolist(), lengths[wrong].tolist(), strict=True):
                    faults.setdefault(row, f"{what} {length} value(s), and the model takes {wanted.list_size}")
        wanted, is_outermost = wanted.value_type, False
        if is_list(wanted):
            rows, values = np.repeat(rows, lengths), plain(values.flatten())
    return list(faults.items())


def _recast(column: pa.Array, wanted: pa.DataType) -> tuple[pa.Array, list[Fault]]:
    """Lists that are all there and of the lengths that are wanted."""
    sizes: list[_Indices] = []
    inner, values = wanted, column
    while is_list(inner):
        sizes.append(_lengths(values))
        inner, values = inner.value_type, plain(values.flatten())
    leaves, unfit = cast(values, inner)
    faults = []
    if unfit:
        rows: _Indices = np.arange(len(column))
        for lengths in sizes:
            rows = np.repeat(rows, lengths)
        faults = [(int(rows[leaf]), f"holds {values[leaf].as_py()!r}, which is not {inner}") for leaf in unfit]
    return _nested(leaves, wanted, sizes), faults


def _nested(leaves: pa.Array, wanted: pa.DataType, sizes: Sequence[_Indices]) -> pa.Array:
    """Leaves as lists of lists, given the lengths of the lists of each level, the outermost first."""
    if not sizes:
        return leaves
    inner = _nested(leaves, wanted.value_type, sizes[1:])
    if pa.types.is_fixed_size_list(wanted):
        return pa.FixedSizeListArray.from_arrays(inner, type=wanted)
    offsets = np.concatenate([[0], np.cumsum(sizes[0])])
    types = pa.types
    index = pa.int64() if types.is_large_list(wanted) or types.is_large_list_view(wanted) else pa.int32()
    if types.is_list_view(wanted) or types.is_large_list_view(wanted):
        starts, lengths = pa.array(offsets[:-1], index), pa.array(sizes[0], index)
        made = pa.ListViewArray if types.is_list_view(wanted) else pa.LargeListViewArray
        return made.from_arrays(starts, lengths, inner, type=wanted)
    made = pa.ListArray if types.is_list(wanted) else pa.LargeListArray
    return made.from_arrays(pa.array(offsets, index), inner, type=wanted)


def _lengths(lists: pa.Array) -> _Indices:
    """How many elements each list has; a null has none."""
    lengths = pc.list_value_length(lists)
    if lengths.null_count:
        lengths = lengths.fill_null(0)
    return lengths.to_numpy(zero_copy_only=False).astype(np.int64)
