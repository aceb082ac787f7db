"""Columns of PostgreSQL: which Arrow types they take, by which way, and which column a new table gets for a type."""

import re
from dataclasses import dataclass, replace

import pyarrow as pa

from transforms.sinks.columns import Kind, kind_of, plain
from transforms.sinks.fitting import (
    array_literals,
    casting,
    days,
    decimals,
    decimals_as_text,
    floats,
    instants,
    integers,
    intervals,
    json_documents,
    json_values,
    lists,
    numbers_as_text,
    spans_of_time,
    texts,
    uuids_as_text,
)
from transforms.sinks.jsontext import can_be_json
from transforms.sinks.ways import Way

# PostgreSQL cuts longer names off, silently.
NAME_BYTES = 63

_INTEGERS = {"int2": pa.int16(), "int4": pa.int32(), "int8": pa.int64()}
_FLOATS = {"float4": pa.float32(), "float8": pa.float64()}
_TIMES = {"time", "timestamp", "timestamptz", "interval"}
# Types that PostgreSQL reads from the bytes of their text, in COPY as elsewhere; enumerations are such, too.
_TEXT = {"text", "varchar", "bpchar", "xml", "citext"}
# What text becomes only where it came from such a column: no text is taken for a number or a time by its looks.
# Nor for what cuts it off or rounds it.
_NOT_FROM_TEXT = {
    "bool",
    "bytea",
    "date",
    "numeric",
    "timetz",
    "name",
    "char",
    "money",
    *_INTEGERS,
    *_FLOATS,
    *_TIMES,
} - {"interval"}
# Rounded by the database to what the declaration says, (10,2) or (3), when it makes them of text.
ROUNDED = {"numeric", "timetz", *_TIMES}
# What goes into an array as it is, without a cast.
_ITEMS = {
    "bool",
    "text",
    "varchar",
    "bytea",
    "numeric",
    "date",
    "time",
    "timestamp",
    "timestamptz",
    *_INTEGERS,
    *_FLOATS,
}

_UTC = pa.timestamp("us", "UTC")
# Holds every uint64.
_LONGEST_INTEGER = pa.decimal128(20, 0)
_DIGITS_OF_128_BITS = 38
# 24 November 4714 BC, the first instant that PostgreSQL has.
_FIRST_S = -210_866_803_200
_ALL_DIGITS = 6
# Digits behind the point of most countries' money.
_CENTS = 2
# What PostgreSQL writes into the type modifier of an interval that is not cut to some of its fields.
_FULL_RANGE, _FULL_PRECISION = 0x7FFF, 0xFFFF

_MICROSECONDS = (
    "PostgreSQL keeps microseconds, and finer digits are cut off; give them as text or an integer to keep all"
)


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        type: as SQL writes it, `numeric(10,2)`.
        base: internal name of the type, of the one below where it is a domain.
        item: the same for the items of an array.
        category: what PostgreSQL calls `typcategory`.
        cast: the type without what its declaration adds, as SQL writes it: `numeric`.
        modifier: what the declaration adds, as `atttypmod` has it; -1: nothing.
        not_null, has_default: whether a row must have a value, and what happens when it is left out.
        computed: the database alone gives the value.
        of_domain: the items of the array are of a domain, and `item` is the type below it.
    """

    name: str
    type: str
    base: str
    item: str | None
    category: str
    cast: str
    modifier: int = -1
    not_null: bool = False
    has_default: bool = False
    computed: bool = False
    of_domain: bool = False


def way_into(column: Column, field: pa.Field, origin: str | None = None) -> Way | None:
    """How values of `field` get into `column`; None when they cannot.

    Narrower than PostgreSQL's own casts: no score becomes an integer by rounding, no local time an instant.

    Args:
        origin: internal name of the type that `field`, a column of text, had in the database it was read from.
    """
    kind = kind_of(field.type)
    if kind == "null":
        return Way(pa.null(), casting(pa.null()))
    if column.base in {"json", "jsonb"}:
        return _into_json(column, field.type, kind)
    if column.item is not None:
        return _into_array(column, field, kind, origin)
    if kind == "string":
        return _from_text(column, origin)
    return _into_scalar(column, plain(field.type), kind)


def _into_json(column: Column, type: pa.DataType, kind: Kind) -> Way | None:
    # How the binary form of jsonb begins: https://doxygen.postgresql.org/jsonb_8c_source.html, jsonb_recv.
    prefix = "\x01" if column.base == "jsonb" else ""
    if kind in {"string", "json"}:
        return Way(pa.string(), json_documents(prefix))
    if kind in {"struct", "map", "list"} and can_be_json(type):
        words = "JSON has no number for NaN and infinity, which are written as text"
        return Way(pa.string(), json_values(prefix), changes=words)
    return None


def _into_array(column: Column, field: pa.Field, kind: Kind, origin: str | None) -> Way | None:
    if kind == "string":
        free = column.item not in _NOT_FROM_TEXT
        return _cast(column) if free or origin == column.base else None
    if kind != "list":
        return None
    value = plain(field.type).value_type
    item = replace(column, base=column.item or "", item=None, cast="")
    nested = kind_of(value) == "list"
    while kind_of(value) == "list":
        value = plain(value).value_type
    way = _item_way(item, pa.field("item", value), origin == column.base)
    if way is None:
        return None
    if nested or column.of_domain:
        # The text of an item has all its digits, and the text of binary none that PostgreSQL reads.
        exact = way.loses is None and kind_of(value) not in {"binary", "struct", "map", "duration", "interval"}
        exact = exact and not _steps(way)
        return Way(pa.string(), array_literals, column.cast) if exact else None
    direct = way.cast is None and item.base in _ITEMS
    cast = "".join(f"{step}[]::" for step in _steps(way)) + column.cast
    return replace(way, wire=pa.list_(way.wire), fit=lists(way), cast=None if direct else cast)


def _steps(way: Way) -> list[str]:
    """Types that text becomes before it becomes the last."""
    return (way.cast or "").split("::")[:-1]


def _item_way(item: Column, field: pa.Field, is_same: bool) -> Way | None:
    """How the items of a list get into an array: as they are, or as text.

    Args:
        is_same: they are text that came from such an array.
    """
    kind = kind_of(field.type)
    if item.base == "uuid" and kind == "uuid":
        return Way(pa.string(), uuids_as_text, "uuid")
    # As text, jsonb begins like json.
    way = way_into(replace(item, base="json") if item.base == "jsonb" else item, field, item.base if is_same else None)
    return way if way is not None and (item.base in _ITEMS or way.wire == pa.string()) else None


def _from_text(column: Column, origin: str | None) -> Way | None:
    if column.base in _TEXT or column.category == "E":
        limited = column.base in {"varchar", "citext"} and column.modifier >= 4
        # The modifier counts four bytes of a header, too.
        return Way(pa.string(), texts(column.modifier - 4 if limited else None, column.type))
    if column.base not in _NOT_FROM_TEXT or origin == column.base:
        return _cast(column)
    return None


def _cast(column: Column) -> Way:
    loses = None
    if column.modifier >= 0 and (column.base in ROUNDED or column.item in ROUNDED):
        loses = f"what {column.type} has no digits for is rounded"
    return Way(pa.string(), texts(None, column.type), column.cast, loses, counted=loses is None)


def _into_scalar(column: Column, type: pa.DataType, kind: Kind) -> Way | None:
    base = column.base
    if base in _INTEGERS and (kind == "integer" or (kind == "decimal" and type.scale == 0)):
        return Way(_INTEGERS[base], integers(_INTEGERS[base], column.type))
    if base in _FLOATS and kind in {"float", "integer", "decimal"}:
        narrower = kind == "decimal" or (kind == "float" and type.bit_width > _FLOATS[base].bit_width)
        loses = f"{column.type} keeps fewer digits, and values are rounded" if narrower else None
        return Way(_FLOATS[base], floats(_FLOATS[base], column.type), loses=loses)
    if base == "numeric":
        return _into_numeric(column, type, kind)
    if base in _TIMES:
        return _into_time(column, type, kind)
    if base == "money" and kind == "decimal" and type.scale <= _CENTS:
        # Text is read by the rules of a country.
        return Way(pa.string(), decimals_as_text(exact=True), "numeric::money")
    plainly: dict[tuple[str, Kind], Way] = {
        ("oid", "integer"): Way(pa.string(), casting(pa.string()), "bigint::oid"),
        ("bool", "boolean"): Way(pa.bool_(), casting(pa.bool_())),
        ("bytea", "binary"): Way(pa.binary(), casting(pa.binary())),
        ("bytea", "uuid"): Way(pa.binary(), casting(pa.binary())),
        ("uuid", "uuid"): Way(pa.binary(16), casting(pa.binary(16))),
        ("date", "date"): Way(pa.date32(), days),
        ("text", "uuid"): Way(pa.string(), uuids_as_text),
        ("text", "json"): Way(pa.string(), json_documents("")),
    }
    if base == "uuid" and kind == "binary" and type == pa.binary(16):
        kind = "uuid"
    if base == "varchar" and column.modifier < 0:
        base = "text"
    return plainly.get((base, kind))


def _into_numeric(column: Column, type: pa.DataType, kind: Kind) -> Way | None:
    scale = None if column.modifier < 0 else _scale(column.modifier)
    rounds = f"{column.type} keeps {scale} digits behind the point, and values are rounded"
    if kind == "integer":
        loses = rounds if scale is not None and scale < 0 else None
        return Way(_LONGEST_INTEGER, decimals(_LONGEST_INTEGER, scale), loses=loses)
    if kind == "decimal":
        wide = pa.decimal256 if type.precision > _DIGITS_OF_128_BITS else pa.decimal128
        wire = wide(type.precision, type.scale)
        loses = rounds if scale is not None and scale < type.scale else None
        return Way(wire, decimals(wire, scale), loses=loses)
    if kind == "float":
        # PostgreSQL's own cast keeps 15 digits; all of them are in the text.
        return Way(pa.string(), numbers_as_text(scale), column.cast, rounds if scale is not None else None)
    return None


def _scale(modifier: int) -> int:
    """Digits behind the point, negative ones as of PostgreSQL 15: the lower 11 bits, of which the first is the sign."""
    bits = (modifier - 4) & 0x7FF
    return (bits ^ 0x400) - 0x400


def _into_time(column: Column, type: pa.DataType, kind: Kind) -> Way | None:
    takes: dict[str, set[Kind]] = {
        "time": {"time"},
        "timestamp": {"timestamp", "date"},
        "timestamptz": {"timestamptz"},
        "interval": {"duration", "interval"},
    }
    digits = _digits(column)
    if kind not in takes[column.base] or digits is None:
        return None
    unit = "ns" if kind == "interval" else getattr(type, "unit", "s")
    own = {"s": 0, "ms": 3, "us": 6, "ns": 9}[unit]
    loses = None
    if own > digits:
        loses = (
            _MICROSECONDS
            if digits == _ALL_DIGITS
            else f"{column.type} keeps {digits} digits of a second, and finer ones are rounded"
        )
    if kind == "interval":
        if type != pa.month_day_nano_interval():
            return None
        return Way(type, intervals(digits), loses=loses)
    if column.base in {"time", "interval"}:
        wire = pa.time64("us") if column.base == "time" else pa.duration("us")
        return Way(wire, spans_of_time(wire, digits, column.type), loses=loses)
    wire = pa.timestamp("us") if column.base == "timestamp" else _UTC
    return Way(wire, instants(wire, digits, _FIRST_S, column.type), loses=loses)


def _digits(column: Column) -> int | None:
    """Digits of a second that a column keeps; None of an interval that keeps only some of its fields."""
    if column.modifier < 0:
        return _ALL_DIGITS
    if column.base != "interval":
        return column.modifier
    if column.modifier >> 16 != _FULL_RANGE:
        return None
    precision = column.modifier & _FULL_PRECISION
    return _ALL_DIGITS if precision == _FULL_PRECISION else precision


def natural(field: pa.Field) -> Column | None:
    """The column that a new table gets for `field`; None where there is none.

    Examples:
        int64 is bigint, uint64 numeric(20,0), decimal(9, 2) numeric(9,2), list<float> real[], a struct jsonb.
    """
    type, kind = plain(field.type), kind_of(field.type)
    if kind == "integer":
        # An unsigned number takes the next longer type.
        bits = type.bit_width + (1 if pa.types.is_unsigned_integer(type) else 0)
        found = next((named for limit, named in _BY_BITS if bits <= limit), None)
        base, written = found or ("numeric", "numeric(20,0)")
    elif kind == "float":
        base, written = ("float8", "double precision") if type.bit_width == 64 else ("float4", "real")
    elif kind == "decimal":
        base, written = "numeric", f"numeric({type.precision},{type.scale})" if type.scale >= 0 else "numeric"
    elif kind == "list":
        return _natural_list(field)
    elif kind in {"struct", "map"}:
        base, written = ("jsonb", "jsonb") if can_be_json(field.type) else ("", "")
    elif kind == "interval":
        base, written = ("interval", "interval") if type == pa.month_day_nano_interval() else ("", "")
    else:
        base, written = _NATURAL.get(kind, ("", ""))
    return Column(field.name, written, base, None, "", re.sub(r"\(.*\)", "", written)) if base else None


def _natural_list(field: pa.Field) -> Column | None:
    value = plain(field.type).value_type
    item = None if kind_of(value) in {"list", "struct", "map", "json", "null"} else natural(pa.field("item", value))
    if item is not None:
        return Column(field.name, f"{item.type}[]", f"_{item.base}", item.base, "A", f"{item.cast}[]")
    return Column(field.name, "jsonb", "jsonb", None, "U", "jsonb") if can_be_json(field.type) else None


_BY_BITS = ((16, ("int2", "smallint")), (32, ("int4", "integer")), (64, ("int8", "bigint")))
_NATURAL: dict[Kind, tuple[str, str]] = {
    "null": ("text", "text"),
    "boolean": ("bool", "boolean"),
    "string": ("text", "text"),
    "binary": ("bytea", "bytea"),
    "date": ("date", "date"),
    "time": ("time", "time"),
    "timestamp": ("timestamp", "timestamp"),
    "timestamptz": ("timestamptz", "timestamptz"),
    "duration": ("interval", "interval"),
    "uuid": ("uuid", "uuid"),
    "json": ("json", "json"),
}
