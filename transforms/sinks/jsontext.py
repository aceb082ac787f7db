"""Columns as JSON text, for databases that keep nested values as JSON: no digit is lost, and no value.

Integers and decimals keep all their digits, times are ISO 8601 with the digits of their unit, those with a time zone
in UTC. Binary is base64, a duration is ISO 8601 in seconds. What JSON has no number for is text, as in PostgreSQL's own
`to_jsonb`: "NaN", "Infinity", "-Infinity". A map is an object; one whose keys are no text is a list of its entries.
"""

import base64
import json
import uuid
from collections.abc import Callable, Iterator
from decimal import Decimal
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from transforms.sinks.columns import Kind, decoded, items_of, kind_of, plain
from transforms.sinks.timetext import time_texts

# What must be escaped in JSON text (RFC 8259, section 7).
_SPECIAL = r'["\\\x00-\x1f]'
_DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}
_NOT_FINITE = {"nan": '"NaN"', "inf": '"Infinity"', "-inf": '"-Infinity"'}


def can_be_json(type: pa.DataType) -> bool:
    """Whether values of this type have JSON text here. A struct whose fields share a name has none."""
    kind = kind_of(type)
    type = plain(type)
    if kind == "other":
        return False
    if kind == "list":
        return can_be_json(type.value_type)
    if kind == "map":
        return can_be_json(type.key_type) and can_be_json(type.item_type)
    if kind == "struct":
        names = [field.name for field in type]
        return len(set(names)) == len(names) and all(can_be_json(field.type) for field in type)
    return True


def json_texts(column: pa.Array) -> pa.StringArray:
    """Each value as JSON text, `null` for null. Null stands for what cannot be said in JSON: a map with a key twice,
    a JSON value that is none."""
    kind, values = kind_of(column.type), decoded(column)
    match kind:
        case "null":
            return pa.array(["null"] * len(values), pa.string())
        case "list":
            return _lists(values)
        case "struct":
            return _structs(values)
        case "map":
            return _maps(values)
        case "json":
            return pa.array([_checked(text) for text in values.to_pylist()], pa.string())
    return _scalars(values, kind).cast(pa.string()).fill_null("null")


def not_finite_in(column: pa.Array) -> int:
    """How many numbers in `column`, at whatever depth, are NaN or infinite."""
    values = decoded(column)
    kind = kind_of(values.type)
    if kind == "float":
        wide = values.cast(pa.float64())
        return int(pc.sum(pc.invert(pc.is_finite(wide))).as_py() or 0)
    if kind == "list":
        return not_finite_in(items_of(values)[0])
    if kind == "map":
        return not_finite_in(_entries(values).flatten())
    if kind == "struct":
        return sum(not_finite_in(child) for child in values.flatten())
    return 0


def _scalars(values: pa.Array, kind: Kind) -> pa.Array:
    if kind == "float":
        return _numbers(values)
    if kind == "string":
        return _strings(values)
    if kind in {"timestamp", "timestamptz"}:
        text = pc.replace_substring(time_texts(values), " ", "T", max_replacements=1)
        return _joined('"', text, 'Z"' if kind == "timestamptz" else '"')
    if kind in {"date", "time"}:
        return _joined('"', time_texts(values), '"')
    if kind == "binary":
        return _each(values, lambda value: base64.b64encode(value).decode())
    if kind == "uuid":
        return _each(values, lambda value: str(uuid.UUID(bytes=value)))
    if kind == "duration":
        digits = _DIGITS[values.type.unit]
        return _each(values.cast(pa.int64()), lambda value: f"PT{Decimal(value).scaleb(-digits):f}S")
    if kind == "interval":
        return _each(values, lambda value: f"P{value[0]}M{value[1]}DT{Decimal(value[2]).scaleb(-9):f}S")
    return values.cast(pa.string())


def uuid_texts(column: pa.Array) -> pa.StringArray:
    """UUIDs as people write them."""
    values = decoded(column).to_pylist()
    return pa.array([None if value is None else str(uuid.UUID(bytes=value)) for value in values], pa.string())


def _each(values: pa.Array, text: Callable[[Any], str]) -> pa.StringArray:
    return pa.array([None if value is None else f'"{text(value)}"' for value in values.to_pylist()], pa.string())


def _joined(*pieces: str | pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(*pieces, "")


def _numbers(values: pa.Array) -> pa.Array:
    if pa.types.is_float16(values.type):
        values = values.cast(pa.float32())
    text = values.cast(pa.string())
    for found, written in _NOT_FINITE.items():
        text = pc.if_else(pc.equal(text, found), written, text)
    return text


def _strings(values: pa.Array) -> pa.Array:
    values = values.cast(pa.string())
    if not pc.any(pc.match_substring_regex(values, _SPECIAL)).as_py():
        return _joined('"', values, '"')
    texts = [None if value is None else json.dumps(value, ensure_ascii=False) for value in values.to_pylist()]
    return pa.array(texts, pa.string())


def _checked(text: str | None) -> str | None:
    """JSON text as it is; None when it is not one value."""
    if text is None:
        return "null"
    try:
        json.loads(text)
    except ValueError:
        return None
    return text


def _lists(values: pa.Array) -> pa.StringArray:
    items, lengths = items_of(values)
    texts = iter(json_texts(items).to_pylist())
    return pa.array([_list(texts, length) for length in lengths.to_pylist()], pa.string())


def _list(texts: Iterator[str | None], length: int | None) -> str | None:
    if length is None:
        return "null"
    items = [text for text in islice(texts, length) if text is not None]
    return f"[{', '.join(items)}]" if len(items) == length else None


def _structs(values: pa.Array) -> pa.Array:
    pieces: list[str | pa.Array] = []
    for field, child in zip(values.type, values.flatten(), strict=True):
        pieces += [f"{', ' if pieces else '{'}{json.dumps(field.name, ensure_ascii=False)}: ", json_texts(child)]
    text = _joined(*pieces, "}") if pieces else pa.array(["{}"] * len(values), pa.string())
    return pc.if_else(values.is_null(), "null", text)


def _entries(values: pa.Array) -> pa.Array:
    pair = pa.struct([("key", values.type.key_type), ("value", values.type.item_type)])
    return values.cast(pa.list_(pair))


def _maps(values: pa.Array) -> pa.StringArray:
    entries = _entries(values)
    if kind_of(values.type.key_type) != "string":
        return _lists(entries)
    items, lengths = items_of(entries)
    keys, contents = items.flatten()
    pairs = zip(json_texts(keys).to_pylist(), json_texts(contents).to_pylist(), strict=True)
    return pa.array([_object(pairs, length) for length in lengths.to_pylist()], pa.string())


def _object(pairs: Iterator[tuple[str, str | None]], length: int | None) -> str | None:
    if length is None:
        return "null"
    found = dict(islice(pairs, length))
    if len(found) < length or None in found.values():
        return None
    return f"{{{', '.join(f'{key}: {value}' for key, value in found.items())}}}"
