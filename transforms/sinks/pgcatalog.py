"""What a PostgreSQL database says of itself: schemas, tables, their columns and constraints."""

import re
from dataclasses import dataclass
from typing import Any

from adbc_driver_manager import dbapi

from transforms.sinks.names import PostgresTable
from transforms.sinks.pgcolumns import Column

_SCHEMA = """
    SELECT has_schema_privilege(oid, 'CREATE') AND has_schema_privilege(oid, 'USAGE')
    FROM pg_namespace WHERE nspname = $1::text
"""

_RELATION = """
    SELECT relation.oid::bigint, relation.relkind::text, row_security_active(relation.oid),
           has_table_privilege(relation.oid, 'INSERT'), has_table_privilege(relation.oid, 'DELETE'),
           (SELECT min(format('%s (%s)', conrelid::regclass, conname)) FROM pg_constraint
            WHERE contype = 'f' AND confrelid = relation.oid AND conrelid <> relation.oid),
           EXISTS (SELECT FROM pg_trigger WHERE tgrelid = relation.oid AND NOT tgisinternal AND tgenabled <> 'D'
                   AND tgtype & 7 = 7),
           relation.relkind = 'p' OR relation.relispartition OR relation.relhasrules
           OR EXISTS (SELECT FROM pg_index WHERE indrelid = relation.oid AND (indisunique OR indisexclusion))
           OR EXISTS (SELECT FROM pg_constraint WHERE conrelid = relation.oid AND contype IN ('c', 'f'))
           OR EXISTS (SELECT FROM pg_attribute WHERE attrelid = relation.oid AND attgenerated <> '')
           OR EXISTS (SELECT FROM pg_trigger WHERE tgrelid = relation.oid AND NOT tgisinternal AND tgenabled <> 'D'
                      AND tgtype & 4 = 4),
           EXISTS (SELECT FROM pg_rewrite WHERE ev_class = relation.oid AND ev_type = '3' AND ev_enabled <> 'D'),
           CASE relation.relkind WHEN 'r' THEN
               (SELECT min(inhrelid::regclass::text) FROM pg_inherits WHERE inhparent = relation.oid) END
    FROM pg_class AS relation JOIN pg_namespace AS schema ON schema.oid = relation.relnamespace
    WHERE schema.nspname = $1::text AND relation.relname = $2::text
"""

# A domain stands for the type at its bottom, with what the domains on the way there declare.
_BOTTOM = """
        WITH RECURSIVE below AS (
            SELECT oid, typtype, typbasetype, CASE typtype WHEN 'd' THEN typtypmod ELSE {modifier} END AS modifier,
                   typnotnull AS demands, typdefault IS NOT NULL AS gives
            FROM pg_type WHERE oid = {type}
            UNION ALL
            SELECT deeper.oid, deeper.typtype, deeper.typbasetype,
                   CASE deeper.typtype WHEN 'd' THEN deeper.typtypmod ELSE below.modifier END,
                   demands OR deeper.typnotnull, gives OR deeper.typdefault IS NOT NULL
            FROM below JOIN pg_type AS deeper ON deeper.oid = below.typbasetype WHERE below.typtype = 'd'
        )
        SELECT oid, modifier, demands, gives FROM below WHERE typtype <> 'd'
"""

_COLUMNS = f"""
    SELECT attribute.attname::text, format_type(attribute.atttypid, attribute.atttypmod), base.typname::text,
           item.typname::text, base.typcategory::text, format_type(attribute.atttypid, -1),
           coalesce(items.modifier, bottom.modifier), attribute.attnotnull OR bottom.demands,
           attribute.atthasdef OR attribute.attidentity <> '' OR bottom.gives,
           attribute.attgenerated <> '' OR attidentity = 'a', coalesce(items.oid <> base.typelem, false)
    FROM pg_class AS relation
    JOIN pg_namespace AS schema ON schema.oid = relation.relnamespace
    JOIN pg_attribute AS attribute ON attribute.attrelid = relation.oid
    JOIN LATERAL ({_BOTTOM.format(type="attribute.atttypid", modifier="attribute.atttypmod")}) AS bottom ON true
    JOIN pg_type AS base ON base.oid = bottom.oid
    LEFT JOIN LATERAL ({_BOTTOM.format(type="base.typelem", modifier="bottom.modifier")}) AS items
        ON base.typcategory = 'A'
    LEFT JOIN pg_type AS item ON item.oid = items.oid
    WHERE schema.nspname = $1::text AND relation.relname = $2::text
      AND attribute.attnum > 0 AND NOT attribute.attisdropped
    ORDER BY attribute.attnum
"""

# The columns that a constraint names must all be written by us; the others are judged when the rows are published.
_CHECKS = """
    SELECT conname::text, pg_get_expr(conbin, conrelid) FROM pg_constraint
    WHERE contype = 'c' AND conrelid = $1::bigint::oid AND conkey IS NOT NULL AND NOT EXISTS (
        SELECT FROM unnest(conkey) AS key LEFT JOIN pg_attribute ON attrelid = conrelid AND attnum = key
        WHERE attname IS NULL OR key <= 0 OR NOT attname = ANY (string_to_array($2::text, chr(1)))
    )
    ORDER BY conname
"""

# What the defaults of columns use that we do not write. The number of an identity column is anybody's.
_CLOSED_DEFAULTS = """
    SELECT attname::text, CASE WHEN sequence.oid IS NOT NULL THEN format('USAGE ON SEQUENCE %s', sequence.oid::regclass)
                               ELSE format('EXECUTE ON FUNCTION %s', function.oid::regprocedure) END
    FROM pg_attribute AS attribute
    JOIN pg_attrdef AS given ON given.adrelid = attribute.attrelid AND given.adnum = attribute.attnum
    JOIN pg_depend AS uses ON uses.classid = 'pg_attrdef'::regclass AND uses.objid = given.oid
    LEFT JOIN pg_class AS sequence
        ON uses.refclassid = 'pg_class'::regclass AND sequence.oid = uses.refobjid AND sequence.relkind = 'S'
    LEFT JOIN pg_proc AS function ON uses.refclassid = 'pg_proc'::regclass AND function.oid = uses.refobjid
    WHERE attribute.attrelid = $1::bigint::oid AND NOT attname = ANY (string_to_array($2::text, chr(1)))
      AND (NOT has_sequence_privilege(sequence.oid, 'USAGE, UPDATE')
           OR NOT has_function_privilege(function.oid, 'EXECUTE'))
    ORDER BY attribute.attnum
"""

_TYPE = """
    SELECT type.typname::text, item.typname::text, type.typcategory::text, format_type(type.oid, -1), type.typtype::text
    FROM pg_type AS type LEFT JOIN pg_type AS item ON type.typcategory = 'A' AND item.oid = type.typelem
    WHERE type.oid = to_regtype($1::text)
"""

# A type as people and `format_type` write it; anything else is not asked for, as `to_regtype` may raise.
_NAME = r'(?:[^\W\d]\w*|"(?:[^"]|"")+")'
_TYPE_NAME = re.compile(rf"{_NAME}(?:(?:\.| ){_NAME})*(?:\[\])?")
# What a declaration adds, wherever it stands: bit(3), time(2) with time zone, geometry(Point,4326).
_MODIFIER = re.compile(r"\(-?\w+(?:, ?-?\w+)*\)")


@dataclass(frozen=True)
class Relation:
    """A table, or another thing with a table's name.

    Args:
        oid: its number in the catalog.
        kind: what PostgreSQL calls `relkind`.
        row_security: whether rows may be hidden from this user.
        may_insert, may_delete: the user's rights.
        referrer: a table with a foreign key on this one.
        has_row_triggers: rows are changed, or may be, before they are judged.
        judges_late: what it demands of a row shows only when the row is inserted: unique keys, partitions and so on.
        has_rules: a row that is inserted may become something else.
        heir: a table that inherits from it, so that its rows are among those of this one.
    """

    oid: int
    kind: str
    row_security: bool
    may_insert: bool
    may_delete: bool
    referrer: str | None
    has_row_triggers: bool
    judges_late: bool
    has_rules: bool = False
    heir: str | None = None


def fetch(cursor: dbapi.Cursor, sql: str, parameters: tuple[Any, ...] | None = None) -> list[tuple[Any, ...]]:
    """The rows that one statement returns."""
    cursor.execute(sql, parameters)
    return list(cursor.fetchall())


def exists(cursor: dbapi.Cursor, table: PostgresTable) -> bool:
    """Whether there is a relation of that name."""
    ((found,),) = fetch(cursor, "SELECT to_regclass($1::text) IS NOT NULL", (str(table),))
    return bool(found)


def may_drop(cursor: dbapi.Cursor, table: PostgresTable) -> bool:
    """Whether there is a table of that name, and the user, who owns it, has given nobody rights to it."""
    owned = "SELECT pg_has_role(relowner, 'USAGE') AND relacl IS NULL FROM pg_class WHERE oid = to_regclass($1::text)"
    found = fetch(cursor, owned, (str(table),))
    return bool(found and found[0][0])


def lock(cursor: dbapi.Cursor, what: str) -> None:
    """Wait for, and hold until the end of the transaction, a lock that only other jobs of ours ask for."""
    fetch(cursor, "SELECT pg_advisory_xact_lock(hashtextextended($1::text, 0)) IS NULL", (what,))


def may_use_schema(cursor: dbapi.Cursor, schema: str) -> bool | None:
    """Whether tables may be made in a schema; None when there is no such schema."""
    found = fetch(cursor, _SCHEMA, (schema,))
    return bool(found[0][0]) if found else None


def relation(cursor: dbapi.Cursor, table: PostgresTable) -> Relation | None:
    """What has that name."""
    found = fetch(cursor, _RELATION, (table.schema, table.name))
    return Relation(*found[0]) if found else None


def columns(cursor: dbapi.Cursor, table: PostgresTable) -> list[Column]:
    """The columns of a table, in order."""
    return [Column(*row) for row in fetch(cursor, _COLUMNS, (table.schema, table.name))]


def checks(cursor: dbapi.Cursor, oid: int, names: list[str]) -> list[tuple[str, str]]:
    """Name and condition of the CHECK constraints that need no other column than `names`."""
    return [(name, condition) for name, condition in fetch(cursor, _CHECKS, (oid, "\x01".join(names)))]


def closed_defaults(cursor: dbapi.Cursor, oid: int, names: list[str]) -> list[tuple[str, str]]:
    """Columns beside `names` whose defaults the user may not use, and which right is missing."""
    return [(name, right) for name, right in fetch(cursor, _CLOSED_DEFAULTS, (oid, "\x01".join(names)))]


def column_of_type(cursor: dbapi.Cursor, name: str, written: str) -> Column | None:
    """A column of a type that the database has, or None when it has none of that name."""
    written = written.strip()
    plain = _MODIFIER.sub("", written, count=1)
    if not _TYPE_NAME.fullmatch(plain):
        return None
    cursor.execute("SAVEPOINT asks")
    try:
        found = fetch(cursor, _TYPE, (plain,))
    except dbapi.Error:
        # Words that are no type's name, or a schema that is shut.
        found = []
        cursor.execute("ROLLBACK TO SAVEPOINT asks")
    cursor.execute("RELEASE SAVEPOINT asks")
    if not found or found[0][4] == "p":
        return None
    ((base, item, category, cast, _),) = found
    return Column(name, written, base, item, category, cast)
