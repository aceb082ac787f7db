"""How the values of a column become what a database takes, and which of them cannot: pure functions on Arrow."""

from collections.abc import Mapping
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from predictors.taking import take
from transforms.sinks.columns import decoded, items_of, kind_of, list_of
from transforms.sinks.jsontext import json_texts, not_finite_in, uuid_texts
from transforms.sinks.timetext import time_texts
from transforms.sinks.ways import Fit, Fitted, Way, rows_where

# Units in a second.
_PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
_DAY_S = 86_400
_MOST_DIGITS = 76
# How a month_day_nano_interval lies in memory.
_INTERVAL = np.dtype([("months", "<i4"), ("days", "<i4"), ("nanoseconds", "<i8")])


def casting(wire: pa.DataType) -> Fit:
    """Every value of the type has one of `wire`."""

    def fit(column: pa.Array) -> Fitted:
        values = decoded(column)
        return Fitted(values if values.type == wire else values.cast(wire))

    return fit


def integers(wire: pa.DataType, holder: str) -> Fit:
    """Integers, or decimals without digits behind the point, into a type that may be narrower."""
    low, high = _bounds(wire)

    def fit(column: pa.Array) -> Fitted:
        values = decoded(column)
        if values.type == wire:
            return Fitted(values)
        own_low, own_high = _bounds(values.type)
        outside = _either(
            None if own_high <= high else pc.greater(values, pa.scalar(high, values.type)),
            None if own_low >= low else pc.less(values, pa.scalar(low, values.type)),
        )
        refused = _refused(values, outside, f"is out of range for {holder}")
        return Fitted(_without(values, outside, refused).cast(wire), refused)

    return fit


def floats(wire: pa.DataType, holder: str) -> Fit:
    """Numbers into floating point: fractions may be rounded, but no integer, and nothing becomes infinite or zero."""

    def fit(column: pa.Array) -> Fitted:
        values = decoded(column)
        if values.type == wire:
            return Fitted(values)
        kind = kind_of(values.type)
        if kind == "integer":
            refused = _inexact_integers(values, wire, holder)
            return Fitted(values.cast(wire, safe=False), refused)
        made = values.cast(wire, safe=False)
        source = values.cast(pa.float64())
        lost = pc.or_(
            pc.and_(pc.is_finite(source), pc.is_inf(made)), pc.and_(pc.not_equal(source, 0.0), pc.equal(made, 0.0))
        )
        refused = _refused(values, lost, f"is out of range for {holder}")
        if kind == "decimal":
            return Fitted(made, refused, _inexact_decimals(values, made))
        differs = pc.and_(pc.not_equal(made.cast(pa.float64()), source), pc.invert(pc.is_nan(source)))
        return Fitted(made, refused, _count(differs) - len(refused))

    return fit


def decimals(wire: pa.DataType, scale: int | None) -> Fit:
    """Integers and decimals into one of `scale` digits behind the point, which the database itself rounds to."""

    def fit(column: pa.Array) -> Fitted:
        values = decoded(column).cast(wire)
        if scale is None or scale >= wire.scale:
            return Fitted(values)
        wide = values.cast(pa.decimal256(min(wire.precision + 1, _MOST_DIGITS), wire.scale))
        return Fitted(values, changed=_count(pc.not_equal(pc.round(wide, scale), wide)))

    return fit


def decimals_as_text(exact: bool) -> Fit:
    """Decimals as text, all digits of them, which a database that is not `exact` reads as floating point."""

    def fit(column: pa.Array) -> Fitted:
        values = decoded(column)
        changed = 0 if exact else _inexact_decimals(values, values.cast(pa.float64()))
        return Fitted(values.cast(pa.string()), changed=changed)

    return fit


def numbers_as_text(scale: int | None) -> Fit:
    """Floating point as text, all digits of it; rounded to `scale` digits behind the point by the database."""

    def fit(column: pa.Array) -> Fitted:
        values = decoded(column)
        if pa.types.is_float16(values.type):
            values = values.cast(pa.float32())
        changed = 0
        if scale is not None:
            differs = pc.and_(pc.is_finite(values), pc.not_equal(pc.round(values, scale), values))
            changed = _count(differs)
        return Fitted(values.cast(pa.string()), changed=changed)

    return fit


def texts(most: int | None, holder: str, checked: bool = False) -> Fit:
    """Text of at most so many characters.

    Args:
        checked: text that is not UTF-8 is refused here, as the database would take it.
    """

    def fit(column: pa.Array) -> Fitted:
        values = decoded(column).cast(pa.string())
        if checked:
            # Only this cast looks at the bytes.
            values = values.cast(pa.binary()).cast(pa.string())
        if most is None:
            return Fitted(values)
        lengths = pc.utf8_length(values)
        too_long = pc.greater(lengths, most)
        return Fitted(values, _refused(lengths, too_long, f"characters are too long for {holder}"))

    return fit


def uuids_as_text(column: pa.Array) -> Fitted:
    """UUIDs as people write them."""
    return Fitted(uuid_texts(column))


def json_values(prefix: str) -> Fit:
    """Anything as JSON text, behind `prefix`."""

    def fit(column: pa.Array) -> Fitted:
        said = json_texts(column)
        unsaid = pc.and_(said.is_null(), column.is_valid())
        refused = dict.fromkeys(
            rows_where(unsaid), "holds a map with the same key twice, or text that is not JSON, which JSON cannot keep"
        )
        made = pc.if_else(column.is_valid(), said, None)
        if prefix:
            made = pc.binary_join_element_wise(prefix, made, "")
        return Fitted(made, refused, not_finite_in(column))

    return fit


def json_documents(prefix: str) -> Fit:
    """JSON text as it is, behind `prefix`; the database looks whether it is JSON."""

    def fit(column: pa.Array) -> Fitted:
        values = decoded(column).cast(pa.string())
        return Fitted(pc.binary_join_element_wise(prefix, values, "") if prefix else values)

    return fit


def days(column: pa.Array) -> Fitted:
    """Dates; one that is not at midnight is refused."""
    values = decoded(column)
    if not pa.types.is_date64(values.type):
        return Fitted(values)
    milliseconds = values.cast(pa.int64())
    off = _not_multiple(milliseconds, _DAY_S * 1000)
    refused = _refused(milliseconds, off, "milliseconds are not a whole day")
    whole = pc.multiply(pc.divide(_without(milliseconds, off, refused), _DAY_S * 1000), 1)
    return Fitted(whole.cast(pa.int32()).cast(pa.date32()), refused)


def instants(wire: pa.DataType, digits: int, low_s: int, holder: str) -> Fit:
    """Dates and times of day and date into microseconds, of which the database keeps `digits` digits.

    Args:
        low_s: the first second, since 1970, that the database has. The last is that of 64 bits.
    """

    def fit(column: pa.Array) -> Fitted:
        dates = days(column) if kind_of(column.type) == "date" else None
        values = decoded(column) if dates is None else dates.column
        if dates is None:
            units, per_second = values.cast(pa.int64()), _PER_SECOND[values.type.unit]
            low, high = low_s * per_second, (2**63 - 1) * per_second // 1_000_000
        else:
            units, per_second = values.cast(pa.int32()).cast(pa.int64()), 0
            low, high = low_s // _DAY_S, (2**63 - 1) // (_DAY_S * 1_000_000)
        high = min(high, 2**63 - 1)
        low = max(low, -(2**63))
        outside = _either(pc.greater(units, high), pc.less(units, low))
        refused = dict.fromkeys(rows_where(outside), f"the value is out of range for {holder}")
        refused |= {} if dates is None else dict(dates.refused)
        if refused:
            values = pc.if_else(outside, pa.scalar(None, values.type), values)
        changed = _finer(units, per_second, digits)
        made = pc.cast(values, options=pc.CastOptions(target_type=wire, allow_time_truncate=True))
        return Fitted(made, refused, changed)

    return fit


def spans_of_time(wire: pa.DataType, digits: int, holder: str) -> Fit:
    """Times of day and durations into microseconds, of which the database keeps `digits` digits."""

    def fit(column: pa.Array) -> Fitted:
        values = decoded(column)
        per_second = _PER_SECOND[values.type.unit]
        units = (values.cast(pa.int32()) if pa.types.is_time32(values.type) else values).cast(pa.int64())
        bound = min((2**63 - 1) * per_second // 1_000_000, 2**63 - 1)
        outside = _either(pc.greater(units, bound), pc.less(units, -bound))
        refused = dict.fromkeys(rows_where(outside), f"the value is out of range for {holder}")
        if refused:
            values = pc.if_else(outside, pa.scalar(None, values.type), values)
        made = pc.cast(values, options=pc.CastOptions(target_type=wire, allow_time_truncate=True))
        return Fitted(made, refused, _finer(units, per_second, digits))

    return fit


def intervals(digits: int) -> Fit:
    """Months, days and nanoseconds, which the driver cuts to microseconds; the database keeps `digits` digits."""

    def fit(column: pa.Array) -> Fitted:
        values = decoded(column)
        nanoseconds = np.frombuffer(values.buffers()[1], _INTERVAL, len(values), values.offset * _INTERVAL.itemsize)
        units = pa.array(nanoseconds["nanoseconds"], mask=~values.is_valid().to_numpy(zero_copy_only=False))
        return Fitted(values, changed=_finer(units, _PER_SECOND["ns"], digits))

    return fit


def lists(item: Way) -> Fit:
    """Lists of what `item` fits."""

    def fit(column: pa.Array) -> Fitted:
        items, lengths = items_of(decoded(column))
        fitted = item.fit(items)
        refused: dict[int, str] = {}
        if fitted.refused:
            row_of = np.repeat(np.arange(len(lengths)), lengths.fill_null(0).to_numpy())
            for at, reason in fitted.refused.items():
                refused.setdefault(int(row_of[at]), reason)
        made = fitted.column if fitted.column.type == item.wire else fitted.column.cast(item.wire)
        return Fitted(list_of(made, lengths), refused, fitted.changed)

    return fit


def array_literals(column: pa.Array) -> Fitted:
    """Lists of lists as PostgreSQL writes arrays, `{{1,2},{3,4}}`; an empty list within a list has no place there."""
    rows = _literals(decoded(column), inner=False)
    refused = {row: "holds an empty or a missing list within a list" for row, text in enumerate(rows) if text == ""}
    return Fitted(pa.array([text or None for text in rows], pa.string()), refused)


def _literals(values: pa.Array, inner: bool) -> list[str | None]:
    """The text of each list; None for no list, empty where an inner one has none."""
    items, lengths = items_of(values)
    item_kind = kind_of(items.type)
    if item_kind == "list":
        texts: list[str | None] = [text or "" for text in _literals(decoded(items), inner=True)]
    else:
        plain = uuid_texts(items) if item_kind == "uuid" else _scalar_texts(decoded(items))
        texts = ["NULL" if text is None else _quoted(text) for text in plain.to_pylist()]
    found: list[str | None] = []
    at = 0
    for length in lengths.to_pylist():
        if length is None:
            found.append(None)
            continue
        own = texts[at : at + length]
        at += length
        found.append("" if "" in own or (inner and not own) else "{" + ",".join(text or "" for text in own) + "}")
    return found


def _scalar_texts(values: pa.Array) -> pa.StringArray:
    kind = kind_of(values.type)
    if kind == "timestamptz":
        return pc.binary_join_element_wise(time_texts(values), "Z", "")
    return time_texts(values) if kind in {"date", "time", "timestamp"} else values.cast(pa.string())


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _finer(units: pa.Array, per_second: int, digits: int) -> int:
    """How many of these need more than `digits` digits of a second."""
    step = per_second // 10**digits
    return _count(_not_multiple(units, step)) if step > 1 else 0


def _not_multiple(units: pa.Array, step: int) -> pa.Array:
    return pc.not_equal(pc.multiply(pc.divide(units, step), step), units)


def _inexact_integers(values: pa.Array, wire: pa.DataType, holder: str) -> dict[int, str]:
    """Integers that floating point does not have; those of up to 24 or 53 bits it has all."""
    exact = 2 ** (53 if pa.types.is_float64(wire) else 24)
    own_low, own_high = _bounds(values.type)
    large = _either(
        None if own_high <= exact else pc.greater(values, pa.scalar(exact, values.type)),
        None if own_low >= -exact else pc.less(values, pa.scalar(-exact, values.type)),
    )
    as_float = np.float64 if pa.types.is_float64(wire) else np.float32
    rows = rows_where(large)
    return {
        row: f"{value} has more digits than {holder} keeps"
        for row, value in zip(rows, values.take(pa.array(rows, pa.int64())).to_pylist(), strict=True)
        if int(as_float(value)) != value
    }


def _inexact_decimals(values: pa.Array, made: pa.Array) -> int:
    """Decimals whose digits are not those of the floating point number that was made of them."""
    try:
        again = made.cast(pa.decimal256(_MOST_DIGITS, values.type.scale))
        return _count(pc.not_equal(again, values.cast(again.type)))
    except pa.ArrowInvalid:
        pairs = zip(values.to_pylist(), made.to_pylist(), strict=True)
        return sum(value is not None and Decimal(repr(number)) != value for value, number in pairs)


def _bounds(type: pa.DataType) -> tuple[int, int]:
    if pa.types.is_decimal(type):
        return 1 - 10**type.precision, 10**type.precision - 1
    if pa.types.is_unsigned_integer(type):
        return 0, 2**type.bit_width - 1
    return -(2 ** (type.bit_width - 1)), 2 ** (type.bit_width - 1) - 1


def _either(one: pa.Array | None, other: pa.Array | None) -> pa.Array | None:
    if one is None or other is None:
        return other if one is None else one
    return pc.or_(one, other)


def _refused(values: pa.Array, mask: pa.Array | None, why: str) -> dict[int, str]:
    rows = rows_where(mask)
    if not rows:
        return {}
    said = take(values, rows).cast(pa.string()).to_pylist()
    return {row: f"{value} {why}" for row, value in zip(rows, said, strict=True)}


def _without(values: pa.Array, mask: pa.Array | None, refused: Mapping[int, str]) -> pa.Array:
    return pc.if_else(mask, pa.scalar(None, values.type), values) if refused else values


def _count(mask: pa.Array) -> int:
    return int(pc.sum(mask).as_py() or 0)
