"""Which rows of the input a PostgreSQL table refuses when they are published: those whose key is taken, and others."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from adbc_driver_manager import dbapi

from transforms.batches import Split
from transforms.refusals import Failure, refusals
from transforms.sinks.names import PostgresTable, quoted
from transforms.sinks.pgcatalog import fetch
from transforms.sinks.pgstaging import ROW, SPLIT, is_of_rows

# More would not be read; all of them would be looked for.
_MOST_NAMED = 5
# Between the parts of a key, and between keys, in what is aggregated.
_UNIT, _RECORD = "\x1f", "\x1e"

_UNIQUE = """
    SELECT index.relname::text, pg_get_expr(indpred, indrelid),
           (SELECT string_agg(pg_get_indexdef(indexrelid, key, true), chr(31) ORDER BY key)
            FROM generate_series(1, indnkeyatts) AS key)
    FROM pg_index JOIN pg_class AS index ON index.oid = indexrelid
    WHERE indrelid = to_regclass($1::text) AND indisunique ORDER BY index.relname
"""


@dataclass(frozen=True)
class Publishing:
    """The rows of a staging table on their way into the target, in a transaction that will be undone.

    Args:
        splits: of the plan, by id.
        insert: the statement that publishes all staged rows; `{where}` is put behind its FROM.
        empty: what is done before, so that the rows take the place of those that are there; None when they are added.
        reason: what the database said, on one line and without secrets.
    """

    cursor: dbapi.Cursor
    target: PostgresTable
    staging: PostgresTable
    splits: Mapping[str, Split]
    insert: Callable[[PostgresTable, str], str]
    empty: str | None
    reason: Callable[[dbapi.Error], str]

    def offenders(self) -> str | None:
        """The rows that stood in the way, for people; None when they cannot be found. The savepoint `fills` is there.

        Keys that come twice are found by one query; what else may be wrong, by publishing ever smaller numbers of rows.
        """
        try:
            return self._with_taken_keys() or self._refused()
        except dbapi.Error:
            self.cursor.execute("ROLLBACK TO SAVEPOINT fills")
            return None

    def _with_taken_keys(self) -> str | None:
        found = []
        for name, condition, keys in fetch(self.cursor, _UNIQUE, (str(self.target),)):
            try:
                found += self._taken(name, condition, keys.split(_UNIT))
            except dbapi.Error:
                # The index needs a column that is not staged.
                self.cursor.execute("ROLLBACK TO SAVEPOINT fills")
        return "; ".join(found[:_MOST_NAMED]) or None

    def _taken(self, name: str, condition: str | None, keys: Sequence[str]) -> list[str]:
        """What is wrong with the keys of one unique index."""
        named = [f"k{number}" for number in range(len(keys))]
        chosen = ", ".join(f"({key}) AS {alias}" for key, alias in zip(keys, named, strict=True))
        filled = " AND ".join([f"({key}) IS NOT NULL" for key in keys] + ([f"({condition})"] if condition else []))
        listed = ", ".join(named)
        text = f"concat_ws(', ', {', '.join(f'{alias}::text' for alias in named)})"
        place = f"{quoted(SPLIT)} || chr(31) || {quoted(ROW)}"
        there = "false"
        if self.empty is None:
            there = f"({listed}) IN (SELECT {', '.join(f'({key})' for key in keys)} FROM {self.target} WHERE {filled})"
        rows = fetch(
            self.cursor,
            f"SELECT {text}, string_agg({place}, chr(30) ORDER BY {quoted(SPLIT)}, {quoted(ROW)}), there FROM"
            f" (SELECT *, {there} AS there FROM (SELECT {quoted(SPLIT)}, {quoted(ROW)}, {chosen} FROM {self.staging}"
            f" WHERE {filled}) AS keyed) AS marked GROUP BY {listed}, there HAVING count(*) > 1 OR there"
            f" ORDER BY min({quoted(SPLIT)}), (array_agg({quoted(ROW)} ORDER BY {quoted(SPLIT)}, {quoted(ROW)}))[1]"
            f" LIMIT {_MOST_NAMED}",
        )
        return [self._said(f"({', '.join(keys)}) = ({key})", places, taken, name) for key, places, taken in rows]

    def _said(self, key: str, places: str, taken: bool, index: str) -> str:
        positions = [self._position(*place.split(_UNIT)) for place in places.split(_RECORD)]
        more = f" and {len(positions) - _MOST_NAMED} more" if len(positions) > _MOST_NAMED else ""
        rows = ", ".join(positions[:_MOST_NAMED]) + more
        return f"{rows}: {key} {'is in the table already' if taken else 'comes more than once'} (unique index {index})"

    def _refused(self) -> str | None:
        """The first rows that are refused when all are published one after the other."""
        numbered = PostgresTable(self.staging.schema, f"{self.staging.name}_by_row")
        self.cursor.execute(
            f"CREATE TABLE {numbered} AS SELECT *, row_number() OVER (ORDER BY {quoted(SPLIT)}, {quoted(ROW)}) - 1"
            f" AS _penstock_at FROM {self.staging}"
        )
        self.cursor.execute(f"CREATE INDEX ON {numbered} (_penstock_at)")
        if self.empty is not None:
            self.cursor.execute(self.empty)
        ((rows,),) = fetch(self.cursor, f"SELECT count(*) FROM {numbered}")

        def attempt(start: int, stop: int) -> Failure | None:
            self.cursor.execute("SAVEPOINT attempts")
            try:
                where = f"WHERE _penstock_at >= {start} AND _penstock_at < {stop}"
                self.cursor.execute(self.insert(numbered, where))
                self.cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            except dbapi.Error as error:
                if not is_of_rows(error):
                    raise
                self.cursor.execute("ROLLBACK TO SAVEPOINT attempts")
                return Failure(self.reason(error))
            return None

        found = []
        for at, reason in islice(refusals(attempt, rows), _MOST_NAMED):
            ((split, row),) = fetch(
                self.cursor, f"SELECT {quoted(SPLIT)}, {quoted(ROW)} FROM {numbered} WHERE _penstock_at = {at}"
            )
            found.append(f"{self._position(split, row)}: {reason}")
        return "; ".join(found) or None

    def _position(self, split: str, row: str | int) -> str:
        known = self.splits.get(split)
        return f"{known.uri if known else split}:{row}"
