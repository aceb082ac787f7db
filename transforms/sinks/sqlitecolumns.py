"""Columns of SQLite: which Arrow types they take, by which way, and how a new table declares them."""

import pyarrow as pa
import pyarrow.compute as pc

from transforms.affinity import affinity
from transforms.sinks.columns import Kind, decoded, kind_of, plain
from transforms.sinks.fitting import (
    casting,
    days,
    decimals_as_text,
    floats,
    integers,
    json_documents,
    json_values,
    texts,
    uuids_as_text,
)
from transforms.sinks.jsontext import can_be_json
from transforms.sinks.timetext import time_texts
from transforms.sinks.ways import Fitted, Way

# Digits that SQLite's floating point keeps; a longer decimal is kept as text.
_EXACT_DIGITS = 15

# What a column holds -> the declared types, by their affinity, of columns that take it as it is. A declared DATE or
# TIMESTAMP is NUMERIC to SQLite; no declaration at all is BLOB, which takes everything.
_TAKEN_BY: dict[Kind, set[str]] = {
    "null": {"INTEGER", "REAL", "NUMERIC", "TEXT", "BLOB"},
    "boolean": {"INTEGER", "NUMERIC", "BLOB"},
    "integer": {"INTEGER", "REAL", "NUMERIC", "BLOB"},
    "float": {"REAL", "NUMERIC", "BLOB"},
    "decimal": {"INTEGER", "REAL", "NUMERIC", "TEXT", "BLOB"},
    "string": {"TEXT", "BLOB"},
    "binary": {"BLOB"},
    "uuid": {"TEXT", "BLOB"},
    "json": {"TEXT", "BLOB"},
    "date": {"TEXT", "NUMERIC", "BLOB"},
    "time": {"TEXT", "NUMERIC", "BLOB"},
    "timestamp": {"TEXT", "NUMERIC", "BLOB"},
    "timestamptz": {"TEXT", "NUMERIC", "BLOB"},
    "list": {"TEXT", "BLOB"},
    "struct": {"TEXT", "BLOB"},
    "map": {"TEXT", "BLOB"},
}


def declared(type: pa.DataType) -> str:
    """The declared type of a new column for values of an Arrow type."""
    kind = kind_of(type)
    if kind == "decimal" and plain(type).precision <= _EXACT_DIGITS:
        return "NUMERIC"
    return {"boolean": "INTEGER", "integer": "INTEGER", "float": "REAL", "binary": "BLOB"}.get(kind, "TEXT")


def way_into(column: str, type: pa.DataType) -> Way | None:
    """How values of an Arrow type get into a column that is declared so; None when they cannot."""
    kind, preferred = kind_of(type), affinity(column)
    if preferred not in _TAKEN_BY.get(kind, set()):
        return None
    if kind in {"list", "struct", "map"}:
        words = "JSON has no number for NaN and infinity, which are written as text"
        return Way(pa.string(), json_values(""), changes=words) if can_be_json(type) else None
    if kind == "decimal" and preferred == "INTEGER":
        return Way(pa.int64(), integers(pa.int64(), "SQLite's 64 bits")) if plain(type).scale == 0 else None
    if kind == "decimal":
        exact = preferred in {"TEXT", "BLOB"} or plain(type).precision <= _EXACT_DIGITS
        loses = None if exact else f"{column} keeps {_EXACT_DIGITS} digits, and values are rounded"
        return Way(pa.string(), decimals_as_text(exact), loses=loses)
    if kind == "integer" and preferred == "REAL":
        return Way(pa.float64(), floats(pa.float64(), column))
    if kind == "uuid" and preferred == "BLOB":
        return Way(pa.binary(), casting(pa.binary()))
    ways: dict[Kind, Way] = {
        "null": Way(pa.null(), casting(pa.null())),
        "boolean": Way(pa.bool_(), casting(pa.bool_())),
        "integer": Way(pa.int64(), integers(pa.int64(), "SQLite's 64 bits")),
        "float": Way(pa.float64(), _numbers, changes="SQLite keeps NaN as NULL", code="nan_as_null"),
        "string": Way(pa.string(), texts(None, column, checked=True)),
        "binary": Way(pa.binary(), casting(pa.binary())),
        "uuid": Way(pa.string(), uuids_as_text),
        "json": Way(pa.string(), json_documents("")),
        "date": Way(pa.string(), _dates),
    }
    return ways.get(kind, Way(pa.string(), _times))


def _numbers(column: pa.Array) -> Fitted:
    """Floating point; SQLite has no NaN."""
    values = decoded(column)
    if pa.types.is_float16(values.type):
        values = values.cast(pa.float32())
    values = values.cast(pa.float64())
    missing = pc.is_nan(values)
    count = int(pc.sum(missing).as_py() or 0)
    return Fitted(pc.if_else(missing, None, values) if count else values, changed=count)


def _dates(column: pa.Array) -> Fitted:
    found = days(column)
    return Fitted(time_texts(found.column), found.refused)


def _times(column: pa.Array) -> Fitted:
    """ISO text with the digits of the unit; UTC where there is a time zone."""
    values = decoded(column)
    text = time_texts(values)
    return Fitted(pc.binary_join_element_wise(text, "Z", "") if kind_of(values.type) == "timestamptz" else text)
