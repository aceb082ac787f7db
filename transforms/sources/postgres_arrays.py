"""Arrays of PostgreSQL, which have as many dimensions as each value likes, as lists of Arrow, which have one.

The driver passes the items of all dimensions on as one list. So the server is asked for the dimensions, too, of each
array that is anything else than one list that counts from 1, and the lists are put together by these.
"""

import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from transforms.sources.postgres_types import quoted_name

# A dimension as `array_dims` writes it.
_DIMENSION = re.compile(r"\[(-?\d+):(-?\d+)\]")


def dimensions_of(name: str) -> str:
    """SQL for the dimensions of a column's array; null where it is empty, or one list that counts from 1."""
    array = quoted_name(name)
    return f"CASE WHEN array_ndims({array}) > 1 OR array_lower({array}, 1) <> 1 THEN array_dims({array}) END"


def sizes_of(dimensions: str) -> tuple[int, ...] | None:
    """The length of each dimension; None where one does not count from 1."""
    found = [(int(low), int(high)) for low, high in _DIMENSION.findall(dimensions)]
    return None if any(low != 1 for low, _ in found) else tuple(high for _, high in found)


def fitting(array: pa.ListArray, dimensions: pa.StringArray, expected: int) -> int:
    """How many dimensions all arrays of a column have: `expected`, another number, or 0 where they differ.

    Args:
        dimensions: as `dimensions_of` asks for them.
        expected: what those read before have; 1 where none was read.
    """
    if expected == 1 and dimensions.null_count == len(dimensions):
        return 1
    depths = set()
    for text in dimensions.unique().drop_null().to_pylist():
        sizes = sizes_of(text)
        depths.add(0 if sizes is None else len(sizes))
    lengths = array.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    is_one = dimensions.is_null().to_numpy(zero_copy_only=False) & (lengths > 0)
    if is_one.any():
        depths.add(1)
    if not depths:
        return expected
    return depths.pop() if len(depths) == 1 else 0


def nested(array: pa.ListArray, dimensions: pa.StringArray, depth: int) -> pa.ListArray:
    """The lists that a column's arrays are, given the items of each in one list.

    Args:
        dimensions: of each array; null where it is null or empty.
        depth: how many dimensions all of them have, at least 2.
    """
    sizes = np.zeros((len(array), depth), np.int64)
    encoded = dimensions.dictionary_encode()
    known = [sizes_of(text) or (0,) * depth for text in encoded.dictionary.to_pylist()]
    rows = np.flatnonzero(dimensions.is_valid().to_numpy(zero_copy_only=False))
    if len(rows):
        indices = encoded.indices.drop_null().to_numpy()
        sizes[rows] = np.array(known, np.int64)[indices]
    # From the items outwards: each dimension but the first is as many lists as there are items of those before it.
    values: pa.Array = array.flatten()
    for level in range(depth - 1, 0, -1):
        lists = np.prod(sizes[:, :level], axis=1)
        values = pa.ListArray.from_arrays(_offsets(np.repeat(sizes[:, level], lists)), values)
    return pa.ListArray.from_arrays(_offsets(sizes[:, 0]), values, mask=array.is_null())


def list_type(items: pa.DataType, depth: int) -> pa.DataType:
    """Lists of lists of `items`, `depth` deep."""
    for _ in range(depth):
        items = pa.list_(items)
    return items


def items_of(array: pa.Array) -> pa.Array:
    """The items of lists of any depth; of anything else, itself."""
    while pa.types.is_list(array.type):
        array = array.flatten()
    return array


def _offsets(lengths: Sequence[int] | np.ndarray) -> pa.Int32Array:
    return pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
