"""Predictions that are no number: counted, and said."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from predictors.casting import is_list
from predictors.notices import Notice


def not_finite(predictions: pa.RecordBatch) -> tuple[Notice, ...]:
    """A notice for each prediction column that has NaN or infinite values, within its lists, maps and structs, too."""
    notices = []
    for name, column in zip(predictions.schema.names, predictions.columns, strict=True):
        count = _endless(column)
        if count:
            notices.append(Notice("not_finite", f"column {name}: NaN or infinite predictions", count))
    return tuple(notices)


def _endless(column: pa.Array) -> int:
    """How many values are NaN or infinite. A null is neither."""
    if pa.types.is_floating(column.type):
        if column.null_count:
            return pc.sum(pc.invert(pc.is_finite(column))).as_py() or 0
        values = column.to_numpy(zero_copy_only=False)
        return len(values) - int(np.count_nonzero(np.isfinite(values)))
    if isinstance(column.type, pa.BaseExtensionType):
        return _endless(column.storage)
    if pa.types.is_map(column.type):
        column = column.cast(pa.list_(pa.struct([column.type.key_field, column.type.item_field])))
    if is_list(column.type):
        return _endless(column.flatten())
    if pa.types.is_struct(column.type):
        return sum(_endless(field) for field in column.flatten())
    return 0
