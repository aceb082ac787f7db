"""A PostgreSQL table as a destination: whether it, or a new one, can take what a job would write."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
from adbc_driver_manager import dbapi

from predictors.notices import Notice
from transforms.errors import OutputError
from transforms.marks import POSTGRES_TYPE
from transforms.sinks.columns import kind_of
from transforms.sinks.entries import newest_publisher
from transforms.sinks.mode import Mode, other_result
from transforms.sinks.names import PostgresTable, quoted
from transforms.sinks.pgcatalog import (
    Relation,
    checks,
    closed_defaults,
    column_of_type,
    columns,
    fetch,
    lock,
    may_use_schema,
    relation,
)
from transforms.sinks.pgcolumns import NAME_BYTES, Column, natural, way_into
from transforms.sinks.pgstaging import POSITION, ROW, SPLIT
from transforms.sinks.ways import can_fit

# Every table has these: https://www.postgresql.org/docs/current/ddl-system-columns.html
_SYSTEM_COLUMNS = {"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"}
# https://www.postgresql.org/docs/current/limits.html
_MOST_COLUMNS = 1600
_SYSTEM_SCHEMAS = ("pg_", "information_schema")
# Of arrays, items may be compared, but not keys.
_REMEDIES = {
    "timestamp": "it is a local time and the column an instant, or the other way round; convert it in the input",
    "timestamptz": "it is an instant and the column a local time, or the other way round; convert it in the input",
}


@dataclass(frozen=True)
class Staged:
    """How a staging table is made: its columns as SQL declares them, and what values may lose in them."""

    columns: Sequence[str]
    notices: Sequence[Notice] = field(default=())


@dataclass(frozen=True)
class Target:
    """The destination, as one transaction sees it.

    Args:
        written: its name as the job has it.
        error: what is raised, for a message.
    """

    cursor: dbapi.Cursor
    table: PostgresTable
    written: str
    mode: Mode
    appends_to: str | None
    error: Callable[[str], OutputError]

    def check_schema(self) -> list[Notice]:
        """Demand that tables can be made in the schema, or the schema itself.

        Raises:
            OutputError: not with the rights that the user has.
        """
        schema = quoted(self.table.schema)
        if self.table.schema.startswith(_SYSTEM_SCHEMAS):
            raise self.error(f"schema {schema} is PostgreSQL's own, permission denied; name another")
        allowed = may_use_schema(self.cursor, self.table.schema)
        if allowed is None:
            self._check_may_create()
            return [Notice("schema_created", f"there is no schema {schema} yet; the job makes it")]
        if not allowed:
            user = self._user()
            raise self.error(
                f"user {user} may not make tables in schema {schema}: GRANT CREATE, USAGE ON SCHEMA {schema}"
                f" TO {quoted(user)}"
            )
        return []

    def make_schema(self) -> None:
        """Make the schema where there is none.

        Raises:
            OutputError: as `check_schema`.
        """
        if may_use_schema(self.cursor, self.table.schema) is None:
            # Of two jobs that start together, one makes it and the other finds it.
            lock(self.cursor, f"penstock makes schema {quoted(self.table.schema)}")
        if self.check_schema():
            self.cursor.execute(f"CREATE SCHEMA {quoted(self.table.schema)}")

    def _check_may_create(self) -> None:
        schema = quoted(self.table.schema)
        ((allowed, database),) = fetch(
            self.cursor,
            "SELECT has_database_privilege(current_database(), 'CREATE'), current_database()::text",
        )
        if not allowed:
            user = quoted(self._user())
            raise self.error(
                f"there is no schema {schema}, and user {user} may not make it: CREATE SCHEMA {schema} AUTHORIZATION"
                f" {user}, or GRANT CREATE ON DATABASE {quoted(database)} TO {user}"
            )

    def _user(self) -> str:
        ((user,),) = fetch(self.cursor, "SELECT current_user::text")
        return str(user)

    def check_table(self) -> list[Column] | None:
        """The columns of the table, or None when there is none.

        Raises:
            OutputError: it is there and may not, or cannot, be emptied and filled.
        """
        found = relation(self.cursor, self.table)
        if found is None:
            self._check_namesakes()
            return None
        if self.mode == "error_if_exists":
            raise self.error("the table is there already; use output.mode: overwrite, or name another table")
        if found.kind not in {"r", "p"}:
            raise self.error("this is a view or another thing without rows of its own; name a table")
        if self.mode == "append":
            if not found.may_insert:
                raise self.error(f"no right to add rows to it: GRANT INSERT ON {self.table}")
        else:
            self._check_replaceable(found)
        return columns(self.cursor, self.table)

    def _check_replaceable(self, found: Relation) -> None:
        if not (found.may_insert and found.may_delete):
            raise self.error(f"no right to replace its rows: GRANT INSERT, DELETE ON {self.table}")
        if found.row_security:
            raise self.error(
                "row security hides rows from this user, so old ones might stay; use a user with BYPASSRLS"
            )
        if found.referrer is not None:
            raise self.error(f"rows of {found.referrer} refer to it, so its own cannot be replaced; name another table")
        if found.heir is not None:
            raise self.error(
                f"table {found.heir} inherits from it, and its rows would be deleted, too; name another table, or use"
                " output.mode: append"
            )

    def check_holder(self, existing: Sequence[Column] | None, ledger: PostgresTable) -> None:
        """Demand that the table holds the result of the job that is to be added to, if one is.

        Raises:
            OutputError: says what is there instead.
        """
        if self.appends_to is None:
            return
        if existing is None:
            raise self.error(f"the table, and in it the result of {self.appends_to}, is gone; nothing was added")
        newest = newest_publisher(self.cursor, "postgres", str(ledger), str(self.table))
        if newest != self.appends_to:
            raise self.error(other_result(self.appends_to, newest))

    def _check_namesakes(self) -> None:
        """Refuse to make a table beside one that is more likely meant: "Scores" for Scores, or another schema's."""
        written = self.written.rpartition(".")[2]
        if written != self.table.name and relation(self.cursor, PostgresTable(self.table.schema, written)) is not None:
            raise self.error(
                f'there is a table "{written}", which SQL finds only in double quotes; write "{written}" in'
                " output.table_name, or another name"
            )
        if self.written == written:
            ((found,),) = fetch(self.cursor, "SELECT to_regclass($1::text)::text", (quoted(self.table.name),))
            if found is not None:
                raise self.error(f"there is a {found} in the search_path; write output.table_name as schema.table")

    def staged(self, schema: pa.Schema, existing: Sequence[Column] | None) -> Staged:
        """How the staging table declares its columns: as the target does, so that what does not fit is found early.

        Raises:
            OutputError: names the column that the target, or PostgreSQL, cannot take.
        """
        declared: list[str] = []
        notices: list[Notice] = []
        for given in schema:
            if given.name in POSITION:
                raise self.error(f"a column of a table cannot be called {given.name} here; give it another name")
            column, said = self._new(given) if existing is None else self._taker(given, existing)
            declared.append(f"{quoted(column.name)} {column.type}")
            notices += said
        for column in existing or []:
            if column.not_null and not column.has_default and column.name not in schema.names:
                raise self.error(
                    f"its column {column.name} is NOT NULL without a default, and the output has no such column; add it"
                    " to output.columns, or give it a default"
                )
        found = relation(self.cursor, self.table)
        for name, right in closed_defaults(self.cursor, found.oid, schema.names) if found is not None else []:
            raise self.error(
                f"no right to what its column {name} has by default: GRANT {right} TO {quoted(self._user())}"
            )
        self._check_number(len(declared), found)
        if found is not None and (found.has_row_triggers or found.has_rules):
            what = "triggers" if found.has_row_triggers else "rules"
            words = f"{what} of its own, which may change rows that are published, or leave them out"
            notices.append(Notice("rows_may_be_changed", f"table {self.written} has {words}"))
        return Staged(declared, notices)

    def _check_number(self, columns: int, found: Relation | None) -> None:
        own = len(POSITION) if found is not None and found.judges_late else 0
        if columns + own > _MOST_COLUMNS:
            beside = f" and {own} of the job's own" if own else ""
            raise self.error(
                f"the output has {columns:,} columns{beside}, and a table of PostgreSQL at most {_MOST_COLUMNS:,}; list"
                " fewer in output.columns, or write Parquet"
            )

    def _new(self, given: pa.Field) -> tuple[Column, list[Notice]]:
        """The column that a new table gets."""
        if len(given.name.encode()) > NAME_BYTES:
            raise self.error(f"column name {given.name} is longer than the {NAME_BYTES} bytes it may have")
        if given.name in _SYSTEM_COLUMNS:
            raise self.error(
                f'column name "{given.name}" conflicts with a system column name of PostgreSQL; leave it out of'
                " output.columns"
            )
        notices = []
        origin = (given.metadata or {}).get(POSTGRES_TYPE, b"").decode(errors="replace")
        # Money and the like are read as decimals, and stay such.
        if origin and (kind_of(given.type) in {"string", "list"} or origin.startswith("numeric")):
            column = column_of_type(self.cursor, given.name, origin)
            way = None if column is None else way_into(column, given, column.base)
            if column is not None and way is not None:
                return column, []
            if kind_of(given.type) == "string":
                words = f"column {given.name} is {origin} where it comes from; the table's database has no such type,"
                notices.append(Notice("type_kept_as_text", f"{words} and keeps it as text"))
        column = natural(given)
        way = None if column is None else way_into(column, given)
        if column is None or way is None or not can_fit(way, given.type):
            raise self.error(
                f"PostgreSQL has no type for column {given.name} ({given.type}); leave it out of output.columns"
            )
        return column, [*notices, *way.may_change(given)]

    def _taker(self, given: pa.Field, existing: Sequence[Column]) -> tuple[Column, list[Notice]]:
        """The column of the table that takes one of ours."""
        column = next((column for column in existing if column.name == given.name), None)
        if column is None:
            raise self.error(
                f"it has no column {given.name}; add one that can take {given.type}, or leave it out "
                f"(output.columns, model.outputs)"
            )
        if column.computed:
            raise self.error(f"the database computes column {given.name} by itself; leave it out of output.columns")
        written = (given.metadata or {}).get(POSTGRES_TYPE, b"").decode(errors="replace")
        known = column_of_type(self.cursor, given.name, written) if written else None
        origin = None if known is None else known.base
        way = way_into(column, given, origin)
        if way is None or not can_fit(way, given.type):
            why = _REMEDIES.get(kind_of(given.type), "") if column.base.startswith("timestamp") else ""
            raise self.error(
                f"its column {given.name} is {column.type} and cannot take {given.type}; "
                + (
                    why
                    or "change the column's type, cast it in the query or the model, or leave it out of output.columns"
                )
            )
        # What comes from a column that is declared so loses nothing.
        return column, [] if written == column.type else way.may_change(given)

    def make_staging(self, staging: PostgresTable, staged: Staged, existing: Sequence[Column] | None) -> None:
        """Make the staging table, with the constraints of the target that hold for a row by itself."""
        found = relation(self.cursor, self.table)
        declared = list(staged.columns)
        if found is not None and found.judges_late:
            declared += [f"{quoted(SPLIT)} text", f"{quoted(ROW)} bigint"]
        self.cursor.execute(f"CREATE TABLE {staging} ({', '.join(declared)})")
        # A trigger may make a row right before it is judged.
        if found is None or existing is None or found.has_row_triggers:
            return
        names = [column.name for column in columns(self.cursor, staging)]
        for column in existing:
            if column.not_null and column.name in names:
                self.cursor.execute(f"ALTER TABLE {staging} ALTER {quoted(column.name)} SET NOT NULL")
        for name, condition in checks(self.cursor, found.oid, names):
            self.cursor.execute("SAVEPOINT constrains")
            try:
                self.cursor.execute(f"ALTER TABLE {staging} ADD CONSTRAINT {quoted(name)} CHECK ({condition})")
            except dbapi.Error:
                # It needs more than these columns, or a right; the target itself judges it.
                self.cursor.execute("ROLLBACK TO SAVEPOINT constrains")
            self.cursor.execute("RELEASE SAVEPOINT constrains")
