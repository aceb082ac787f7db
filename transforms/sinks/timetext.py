"""Dates, times of day and timestamps as text, also those of which Arrow says but that they are out of range."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from predictors.taking import take

# How Arrow begins what it says of a value beyond the years -32767 to 32767, or of 24:00.
_UNSAID = "<"
_DAY_MS = 86_400_000
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def time_texts(column: pa.Array) -> pa.StringArray:
    """Each value as `2024-05-01`, `12:00:00.000` or `2024-05-01 12:00:00.000`, with as many digits as its unit has.

    Years are those of ISO 8601: 0000 is 1 BC, and later ones than 9999 have more digits.

    Args:
        column: of dates, times of day, or timestamps; of one with a time zone, the time in UTC, without a word of it.
    """
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp(column.type.unit))
    text = column.cast(pa.string())
    unsaid = pc.starts_with(text, _UNSAID).fill_null(False)
    if not pc.any(unsaid).as_py():
        return text
    rows = pc.indices_nonzero(unsaid)
    width = pa.int64() if column.type.bit_width == 64 else pa.int32()
    said = pa.array([_said(value, column.type) for value in take(column, rows).view(width).to_pylist()], pa.string())
    return pc.replace_with_mask(text, unsaid, said)


def _said(value: int, type: pa.DataType) -> str:
    if pa.types.is_date(type):
        return str(np.datetime64(value // _DAY_MS if pa.types.is_date64(type) else value, "D"))
    if pa.types.is_timestamp(type):
        return str(np.datetime64(value, type.unit)).replace("T", " ")
    whole, fraction = divmod(abs(value), _PER_SECOND[type.unit])
    digits = len(str(_PER_SECOND[type.unit])) - 1
    clock = f"{'-' * (value < 0)}{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}"
    return f"{clock}.{fraction:0{digits}}" if digits else clock
