"""How each type of PostgreSQL is read, so that every value of it arrives as what it is.

The driver reads by COPY in binary form. Some types it carries as they are; others it passes on as numbers that mean
something else, as the bytes of that form, or not at all. Those the server is asked to turn into text, which it can do
with any type, and the name of the type travels with the column, so that whoever writes it can turn it back.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from transforms.sources.reading import BEYOND

# Types that the driver carries as they are, by their names in pg_type.
_PLAIN = {
    "bool",
    "int2",
    "int4",
    "int8",
    "float4",
    "float8",
    "text",
    "varchar",
    "bpchar",
    "name",
    "bytea",
    "date",
    "time",
    "timestamp",
    "timestamptz",
}
# How types are cast that are numbers; those cast to text come as the digits of decimal numbers. (The server writes
# these in half of the time that the driver takes, and without an error past 131,000 digits.)
_NUMBERS = {"numeric": ("text",), "money": ("numeric", "text"), "oid": ("bigint",)}
# Arrays that count from 0, and have a form of text of their own.
_VECTORS = ("int2vector", "oidvector")
# Types whose text is the same whatever a session's DateStyle, IntervalStyle and extra_float_digits are.
_SETTLED = {
    "uuid",
    "json",
    "jsonb",
    "citext",
    "xml",
    "inet",
    "cidr",
    "macaddr",
    "macaddr8",
    "bit",
    "varbit",
    "char",
    "numeric",
    "money",
    "oid",
}
# In the place of a number of dimensions.
UNKNOWN = -1
# Digits of the widest decimal of Arrow.
MAX_DIGITS = 76

# Runs no query: a join whose condition is false makes nulls of its columns, and those have types.
_ASK = """
WITH RECURSIVE asked(n, oid) AS (
    SELECT asked.n, asked.oid
    FROM (
        SELECT ARRAY[{types}] AS oids FROM (SELECT 1) AS one LEFT JOIN (
{statement}
) AS penstock_query ON false
    ) AS found, LATERAL unnest(oids) WITH ORDINALITY AS asked(oid, n)
), based(n, oid, modifier) AS (
    SELECT n, oid, -1 FROM asked
    UNION ALL
    SELECT n, typbasetype, typtypmod FROM based JOIN pg_catalog.pg_type t ON t.oid = based.oid WHERE typtype = 'd'
), item(n, oid) AS (
    SELECT n, typelem FROM based JOIN pg_catalog.pg_type t ON t.oid = based.oid
    WHERE typcategory = 'A' AND typtype <> 'd'
    UNION ALL
    SELECT n, typbasetype FROM item JOIN pg_catalog.pg_type t ON t.oid = item.oid WHERE typtype = 'd'
)
SELECT
    format_type(based.oid, based.modifier), own.typname::text, own.typtype::text = 'p',
    items.typname::text, coalesce(items.typcategory::text = 'A', false)
FROM based
JOIN pg_catalog.pg_type own ON own.oid = based.oid AND own.typtype <> 'd'
LEFT JOIN item ON item.n = based.n AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_type t WHERE t.oid = item.oid AND typtype = 'd'
)
LEFT JOIN pg_catalog.pg_type items ON items.oid = item.oid
ORDER BY based.n
"""


@dataclass(frozen=True)
class ServerType:
    """What the server says of a column's type; of a domain, what it says of the type that the domain is made of.

    Args:
        sql: its name in SQL, as `format_type` writes it.
        name: its name in pg_type.
        is_pseudo: no table can have a column of it.
        item: of an array, the name of its items' type.
        is_nested: of an array, whether its items are arrays, as those of a domain may be.
    """

    sql: str
    name: str
    is_pseudo: bool = False
    item: str | None = None
    is_nested: bool = False


@dataclass(frozen=True)
class Column:
    """How a column of a query is read.

    Args:
        name: its name.
        casts: what the server casts it to, one after the other.
        sql_type: its type in SQL, where that is not plain from the Arrow type.
        is_decimal: it comes as the digits of decimal numbers.
        declared: precision and scale of the decimals, where they are declared.
        dimensions: of an array: how many it has; 0: it is read as text. None: it is no array.
        is_sliced: of an array: its items are counted from 1, for the driver does not read all others.
        is_settled: its text does not depend on the session's settings.
        named: its type in pg_type, of one that the driver carries as it is.
        is_beyond: it is read as text as it holds times that Arrow does not have.
    """

    name: str
    casts: tuple[str, ...] = ()
    sql_type: str | None = None
    is_decimal: bool = False
    declared: tuple[int, int] | None = None
    dimensions: int | None = None
    is_sliced: bool = False
    is_settled: bool = True
    named: str | None = None
    is_beyond: bool = False

    def expression(self) -> str:
        """The column as it is selected."""
        quoted = quoted_name(self.name)
        value = f"({quoted}[:])" if self.is_sliced else quoted
        casts = "".join("::" + cast for cast in self.casts)
        return quoted if value + casts == quoted else f"{value}{casts} AS {quoted}"

    def shaped(self, dimensions: int) -> "Column":
        """The array, with so many dimensions; 0: read as text; `UNKNOWN`: with one, as far as is known.

        `BEYOND`: an array or a time, read as text.
        """
        if dimensions == 0:
            return replace(self, casts=("text",), is_decimal=False, dimensions=0, is_sliced=False, is_settled=False)
        if dimensions == BEYOND:
            depth, sql_type = None if self.dimensions is None else 0, self.sql_type or self.named
            return replace(
                self,
                casts=("text",),
                sql_type=sql_type,
                dimensions=depth,
                is_sliced=False,
                is_settled=False,
                is_beyond=True,
            )
        return replace(self, dimensions=max(dimensions, 1), is_sliced=self.is_sliced or dimensions == UNKNOWN)


def columns_of(fetch: Callable[[str], Sequence[tuple[Any, ...]]], statement: str, found: pa.Schema) -> list[Column]:
    """How the columns of `statement` are read.

    Args:
        fetch: runs a statement and returns its rows. It is asked only where there are types that the driver does not
            carry as they are.
        found: the columns as the driver gives them.
    """
    odd = [field for field in found if not (_is_plain(field) or _is_numeric(field))]
    types: dict[str, ServerType] = {}
    if odd:
        oids = [f"pg_catalog.pg_typeof(penstock_query.{quoted_name(field.name)})::oid" for field in odd]
        asked = fetch(_ASK.format(types=", ".join(oids), statement=statement))
        types = {field.name: ServerType(*row) for field, row in zip(odd, asked, strict=True)}
    return [_column(field, types.get(field.name)) for field in found]


def quoted_name(name: str) -> str:
    """`name` as it stands in SQL."""
    return '"' + name.replace('"', '""') + '"'


def declared_decimal(field: pa.Field) -> tuple[int, int] | None:
    """Precision and scale of the decimal that holds every NUMERIC(p, s), where there is one.

    The scale may be negative, or larger than the precision. The type modifier is PostgreSQL's (numeric.c): 4 more than
    the precision in the upper half and the scale, signed, in the lower 11 bits.
    """
    found = _modifier(field)
    if found is None:
        return None
    precision, scale = found
    wide = (precision - scale, 0) if scale < 0 else (max(precision, scale), scale)
    return wide if wide[0] <= MAX_DIGITS else None


def decimal_type(precision: int, scale: int) -> pa.DataType:
    """The decimal type of so many digits: 128 bits where they suffice."""
    return pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale)


def _modifier(field: pa.Field) -> tuple[int, int] | None:
    modifier = int((field.metadata or {}).get(b"POSTGRESQL:typmod", b"-1"))
    if modifier < 4:
        return None
    return (modifier - 4) >> 16 & 0xFFFF, (((modifier - 4) & 0x7FF) ^ 0x400) - 0x400


def _column(field: pa.Field, of: ServerType | None) -> Column:
    if of is None:
        if not _is_numeric(field):
            return Column(field.name, named=_named(field))
        digits = _modifier(field)
        named = "numeric" if digits is None else f"numeric({digits[0]},{digits[1]})"
        return Column(field.name, _NUMBERS["numeric"], named, is_decimal=True, declared=declared_decimal(field))
    sql_type = None if of.is_pseudo else of.sql
    if of.item is None or of.is_nested or of.name in _VECTORS:
        casts = _NUMBERS.get(of.name, ("text",))
        is_settled = of.name in _SETTLED or pa.types.is_string(field.type)
        return Column(field.name, casts, sql_type, is_decimal=_is_digits(of.name), is_settled=is_settled)
    if of.item in _PLAIN:
        return Column(field.name, (), sql_type, dimensions=1)
    casts = tuple(f"{cast}[]" for cast in _NUMBERS.get(of.item, ("text",)))
    is_settled = of.item in _SETTLED
    return Column(field.name, casts, sql_type, is_decimal=_is_digits(of.item), dimensions=1, is_settled=is_settled)


def _is_digits(name: str) -> bool:
    return _NUMBERS.get(name, ("",))[-1] == "text"


def _is_plain(field: pa.Field) -> bool:
    """Whether the driver carries the column as it is; an array may still have several dimensions."""
    extended = isinstance(field.type, pa.BaseExtensionType) or pa.types.is_nested(field.type)
    return not extended and _named(field) in _PLAIN


def _is_numeric(field: pa.Field) -> bool:
    return _named(field) == "numeric" and isinstance(field.type, pa.OpaqueType)


def _named(field: pa.Field) -> str:
    return str((field.metadata or {}).get(b"POSTGRESQL:type", b"").decode())
