"""Arrow types by the names under which Arrow prints them: `int64`, `timestamp[us, tz=UTC]`, `list<item: string>`."""

import re
from collections.abc import Callable
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pyarrow as pa

# Deeper than any data is nested, and far from what Python's stack holds.
_DEPTH = 32
_PLAIN: dict[str, Callable[[], pa.DataType]] = {
    "null": pa.null,
    "bool": pa.bool_,
    **{f"{sign}int{bits}": getattr(pa, f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "halffloat": pa.float16,
    "float16": pa.float16,
    "float": pa.float32,
    "float32": pa.float32,
    "double": pa.float64,
    "float64": pa.float64,
    "string": pa.string,
    "utf8": pa.string,
    "large_string": pa.large_string,
    "large_utf8": pa.large_string,
    "string_view": pa.string_view,
    "binary": pa.binary,
    "large_binary": pa.large_binary,
    "binary_view": pa.binary_view,
    "date32": pa.date32,
    "date32[day]": pa.date32,
    "date64": pa.date64,
    "date64[ms]": pa.date64,
    "time32[s]": lambda: pa.time32("s"),
    "time32[ms]": lambda: pa.time32("ms"),
    "time64[us]": lambda: pa.time64("us"),
    "time64[ns]": lambda: pa.time64("ns"),
    "month_day_nano_interval": pa.month_day_nano_interval,
    "extension<arrow.uuid>": pa.uuid,
    "extension<arrow.json>": pa.json_,
    "extension<arrow.bool8>": pa.bool8,
}
_LISTS: dict[str, Callable[[pa.Field], pa.DataType]] = {
    "list": pa.list_,
    "large_list": pa.large_list,
    "list_view": pa.list_view,
    "large_list_view": pa.large_list_view,
}
_DECIMALS = {"32": pa.decimal32, "64": pa.decimal64, "128": pa.decimal128, "256": pa.decimal256, "": pa.decimal128}
_TIMESTAMP = re.compile(r"timestamp\[(s|ms|us|ns)(?:, ?tz=([^\]]+))?\]")
_OFFSET = re.compile(r"[+-]\d\d:\d\d")
_DURATION = re.compile(r"duration\[(s|ms|us|ns)\]")
_DECIMAL = re.compile(r"decimal(32|64|128|256)?\((\d{1,3}), ?(-?\d{1,3})\)")
_FIXED_BINARY = re.compile(r"fixed_size_binary\[(\d{1,9})\]")
_NESTED = re.compile(r"(\w+)<(.*)>(?:\[(\d{1,9})\])?", re.DOTALL)
_DICTIONARY = re.compile(r"values=(.*), indices=(\w+)(?:, ordered=([01]))?", re.DOTALL)
_NOT_NULL = " not null"


def type_named(name: str) -> pa.DataType:
    """The type of that name; `type_named(str(type)) == type` for those that a column of a file can have.

    Names of a struct's fields may hold anything but `: `, `, ` and brackets.

    Raises:
        ValueError: there is none.
    """
    try:
        return _read(name.strip(), 0)
    except (pa.ArrowException, OverflowError, TypeError) as error:
        raise ValueError(f"{name!r} is no type: {error}") from error


def _read(name: str, depth: int) -> pa.DataType:
    if depth > _DEPTH:
        raise ValueError("a type is nested too deep")
    if name in _PLAIN:
        return _PLAIN[name]()
    if found := _TIMESTAMP.fullmatch(name):
        return pa.timestamp(found[1], _zone(found[2]))
    if found := _DURATION.fullmatch(name):
        return pa.duration(found[1])
    if found := _DECIMAL.fullmatch(name):
        return _DECIMALS[found[1] or ""](int(found[2]), int(found[3]))
    if found := _FIXED_BINARY.fullmatch(name):
        return pa.binary(int(found[1]))
    if found := _NESTED.fullmatch(name):
        return _read_nested(found[1], found[2], found[3], depth + 1)
    raise ValueError(f"{name!r} is no type")


def _zone(name: str | None) -> str | None:
    if name is not None and not _OFFSET.fullmatch(name):
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(f"{name!r} is no time zone") from error
    return name


def _read_nested(kind: str, inner: str, size: str | None, depth: int) -> pa.DataType:
    if kind == "fixed_size_list" and size is not None:
        return pa.list_(_field(inner, depth), int(size))
    if size is None and kind in _LISTS:
        return _LISTS[kind](_field(inner, depth))
    if size is None and kind == "struct":
        return pa.struct([_field(part, depth, named=True) for part in _parts(inner)])
    if size is None and kind == "map":
        parts = _parts(inner)
        keys_sorted = len(parts) == 3 and parts[2] == "keys_sorted"
        if len(parts) == 2 or keys_sorted:
            item = _field(parts[1], depth, named=False).with_name("value")
            return pa.map_(_read(parts[0], depth), item, keys_sorted=keys_sorted)
    if size is None and kind == "dictionary" and (found := _DICTIONARY.fullmatch(inner)):
        return pa.dictionary(_read(found[2], depth), _read(found[1], depth), ordered=found[3] == "1")
    raise ValueError(f"{kind}<{inner}> is no type")


def _field(text: str, depth: int, named: bool | None = None) -> pa.Field:
    """What stands in a nested type: `name: type`, or a type alone where it needs no name."""
    name, colon, rest = text.partition(": ")
    is_named = bool(colon) and not re.search(r"[<\[(]", name) if named is None else named
    if not is_named:
        name, rest = "item", text
    elif not colon:
        raise ValueError(f"{text!r} has no type; write name: type")
    nullable = not rest.endswith(_NOT_NULL)
    return pa.field(name.strip(), _read(rest.removesuffix(_NOT_NULL).strip(), depth), nullable)


def _parts(text: str) -> list[str]:
    """What stands between the commas that lie in no bracket."""
    parts, depth, start = [], 0, 0
    for at, char in enumerate(text):
        depth += (char in "<[(") - (char in ">])")
        if char == "," and depth == 0:
            parts.append(text[start:at].strip())
            start = at + 1
    return [*parts, text[start:].strip()] if text.strip() else []
