"""One type for a column that several files hold under different types: the narrowest that keeps every value.

Pure functions of types. Whether values of a coarser unit of time fit a finer one depends on the values; the source
looks at these.
"""

import pyarrow as pa

_UNITS = ("s", "ms", "us", "ns")
# Digits that integers have, and bits of a whole number that a float holds exactly.
_INT_DIGITS = {8: 3, 16: 5, 32: 10, 64: 20}
_FLOAT_BITS = {16: 11, 32: 24, 64: 53}
_FLOATS = {16: pa.float16(), 32: pa.float32(), 64: pa.float64()}
_DECIMAL_DIGITS = 76


class NoCommonType(Exception):
    """No type holds the values of both exactly."""


def common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """The narrowest type that holds every value of both; in lists, structs and maps, too.

    Times take the finer unit, though a date of the year 9999 in milliseconds has no nanoseconds.

    Raises:
        NoCommonType: there is none, as of int64 and double, or of text and numbers.
    """
    types = pa.types
    if one == other:
        # Also where a nested field may be null in one of them only, which equality heeds.
        return one
    if types.is_null(one) or types.is_null(other):
        return other if types.is_null(one) else one
    if types.is_dictionary(one) or types.is_dictionary(other):
        return common_type(_decoded(one), _decoded(other))
    if isinstance(one, pa.BaseExtensionType) or isinstance(other, pa.BaseExtensionType):
        return common_type(_stored(one), _stored(other))
    for is_kind, unify in _KINDS:
        if is_kind(one) and is_kind(other):
            return unify(one, other)
    raise NoCommonType


def units_of(type: pa.DataType) -> set[str]:
    """The units of the timestamps and durations in a type, at any depth."""
    if pa.types.is_timestamp(type) or pa.types.is_duration(type):
        return {type.unit}
    return {unit for number in range(type.num_fields) for unit in units_of(type.field(number).type)}


def in_micros(type: pa.DataType) -> pa.DataType:
    """`type` with microseconds in place of nanoseconds in its timestamps and durations."""
    types = pa.types
    if types.is_timestamp(type):
        return pa.timestamp("us", type.tz) if type.unit == "ns" else type
    if types.is_duration(type):
        return pa.duration("us") if type.unit == "ns" else type
    if types.is_struct(type):
        return pa.struct([field.with_type(in_micros(field.type)) for field in type])
    if types.is_map(type):
        return pa.map_(in_micros(type.key_type), type.item_field.with_type(in_micros(type.item_type)))
    if types.is_fixed_size_list(type):
        return pa.list_(_in_micros(type.value_field), type.list_size)
    if types.is_large_list(type):
        return pa.large_list(_in_micros(type.value_field))
    if types.is_list(type):
        return pa.list_(_in_micros(type.value_field))
    return type


def _in_micros(field: pa.Field) -> pa.Field:
    return field.with_type(in_micros(field.type))


def _decoded(type: pa.DataType) -> pa.DataType:
    return type.value_type if pa.types.is_dictionary(type) or pa.types.is_run_end_encoded(type) else type


def _stored(type: pa.DataType) -> pa.DataType:
    return type.storage_type if isinstance(type, pa.BaseExtensionType) else type


# --- numbers -------------------------------------------------------------------------------------------------------


def _is_number(type: pa.DataType) -> bool:
    return bool(pa.types.is_integer(type) or pa.types.is_floating(type) or pa.types.is_decimal(type))


def _numbers(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    types = pa.types
    if types.is_decimal(one) or types.is_decimal(other):
        return _decimals(one, other)
    if types.is_floating(one) and types.is_floating(other):
        return _FLOATS[max(one.bit_width, other.bit_width)]
    if types.is_floating(one) or types.is_floating(other):
        whole, fraction = (one, other) if types.is_floating(other) else (other, one)
        bits = whole.bit_width - types.is_signed_integer(whole)
        fitting = [each for each, held in _FLOAT_BITS.items() if held >= bits and each >= fraction.bit_width]
        if not fitting:
            raise NoCommonType
        return _FLOATS[fitting[0]]
    return _integers(one, other)


def _integers(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    signed = [type for type in (one, other) if pa.types.is_signed_integer(type)]
    widths = [type.bit_width if type in signed or not signed else 2 * type.bit_width for type in (one, other)]
    width = max(widths)
    if width > 64:
        raise NoCommonType
    return getattr(pa, f"{'' if signed else 'u'}int{width}")()


def _decimals(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    if pa.types.is_floating(one) or pa.types.is_floating(other):
        raise NoCommonType
    wholes, scales = zip(_digits(one), _digits(other), strict=True)
    precision, scale = max(wholes) + max(scales), max(scales)
    if precision > _DECIMAL_DIGITS:
        raise NoCommonType
    width = max(type.bit_width if pa.types.is_decimal(type) else 0 for type in (one, other))
    for digits, bits, made in ((9, 32, pa.decimal32), (18, 64, pa.decimal64), (38, 128, pa.decimal128)):
        if precision <= digits and width <= bits:
            return made(precision, scale)
    return pa.decimal256(precision, scale)


def _digits(type: pa.DataType) -> tuple[int, int]:
    """Digits before and behind the point."""
    if pa.types.is_decimal(type):
        return type.precision - type.scale, type.scale
    return _INT_DIGITS[type.bit_width], 0


# --- text, bytes, times --------------------------------------------------------------------------------------------


def _is_text(type: pa.DataType) -> bool:
    return type in (pa.string(), pa.large_string(), pa.string_view())


def _texts(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    return pa.large_string() if pa.large_string() in (one, other) else pa.string()


def _is_bytes(type: pa.DataType) -> bool:
    return type in (pa.binary(), pa.large_binary(), pa.binary_view()) or bool(pa.types.is_fixed_size_binary(type))


def _bytes(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    return pa.large_binary() if pa.large_binary() in (one, other) else pa.binary()


def _finer(one: pa.DataType, other: pa.DataType) -> str:
    return max(one.unit, other.unit, key=_UNITS.index)


def _timestamps(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    if (one.tz is None) != (other.tz is None):
        # The one is a moment, the other what a clock shows somewhere.
        raise NoCommonType
    return pa.timestamp(_finer(one, other), one.tz if one.tz == other.tz else "UTC")


def _times(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    unit = _finer(one, other)
    return pa.time32(unit) if unit in ("s", "ms") else pa.time64(unit)


# --- nested --------------------------------------------------------------------------------------------------------


def _is_list(type: pa.DataType) -> bool:
    types = pa.types
    return bool(
        types.is_list(type)
        or types.is_large_list(type)
        or types.is_fixed_size_list(type)
        or types.is_list_view(type)
        or types.is_large_list_view(type)
    )


def _lists(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    types = pa.types
    item = _common_field(one.value_field, other.value_field)
    if types.is_fixed_size_list(one) and types.is_fixed_size_list(other) and one.list_size == other.list_size:
        return pa.list_(item, one.list_size)
    if any(types.is_large_list(type) or types.is_large_list_view(type) for type in (one, other)):
        return pa.large_list(item)
    return pa.list_(item)


def _structs(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """All fields of both, those of the first first; one that the other lacks is null there."""
    for type in (one, other):
        if len({field.name for field in type}) < type.num_fields:
            raise NoCommonType
    fields = []
    for field in one:
        more = other.field(field.name) if other.get_field_index(field.name) >= 0 else None
        fields.append(_common_field(field, more) if more is not None else field.with_nullable(True))
    known = {field.name for field in one}
    return pa.struct([*fields, *(field.with_nullable(True) for field in other if field.name not in known)])


def _maps(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    return pa.map_(common_type(one.key_type, other.key_type), _common_field(one.item_field, other.item_field))


def _common_field(one: pa.Field, other: pa.Field) -> pa.Field:
    return pa.field(one.name, common_type(one.type, other.type), one.nullable or other.nullable)


_KINDS = (
    (_is_number, _numbers),
    (_is_text, _texts),
    (_is_bytes, _bytes),
    (lambda type: type in (pa.date32(), pa.date64()), lambda one, other: pa.date32()),
    (pa.types.is_timestamp, _timestamps),
    (pa.types.is_time, _times),
    (pa.types.is_duration, lambda one, other: pa.duration(_finer(one, other))),
    (_is_list, _lists),
    (pa.types.is_struct, _structs),
    (pa.types.is_map, _maps),
)
