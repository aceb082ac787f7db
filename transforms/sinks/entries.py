"""Reading the table in which each database records its jobs: whose rows a table shows now.

An entry says which job published into which table, and whether its rows were added to those that were there
(`appended`); otherwise they took their place. Entries are never changed, and their order is that of publishing: by
`number` in PostgreSQL, by rowid in SQLite, which keeps its order also when VACUUM gives new ones.
"""

from adbc_driver_manager import dbapi

from transforms.connection import Dialect

_ORDER: dict[Dialect, str] = {"postgres": "number", "sqlite": "rowid"}
_SAME: dict[Dialect, str] = {"postgres": "table_name = $1::text", "sqlite": "table_name = ?1 COLLATE NOCASE"}


def newest_publisher(cursor: dbapi.Cursor, dialect: Dialect, ledger: str, table_name: str) -> str | None:
    """The job that published last into a table; None when none did.

    Args:
        ledger: the table of the entries, as SQL takes it.
        table_name: as it was recorded; SQLite takes names that differ in case for the same.
    """
    cursor.execute(
        f"SELECT job FROM {ledger} WHERE {_SAME[dialect]} ORDER BY {_ORDER[dialect]} DESC LIMIT 1", (table_name,)
    )
    found = cursor.fetchall()
    return found[0][0] if found else None


def publishers(cursor: dbapi.Cursor, dialect: Dialect, ledger: str, table_name: str) -> list[str]:
    """The jobs whose rows a table shows, in the order in which they published.

    These are the last that took the place of what was there, and all that were added since. What others write into the
    table, or that they made it anew, is not seen.

    Args:
        ledger, table_name: as above.
    """
    order, same = _ORDER[dialect], _SAME[dialect]
    cursor.execute(
        f"SELECT job FROM {ledger} WHERE {same} AND {order} >= coalesce("
        f"(SELECT max({order}) FROM {ledger} WHERE {same} AND NOT appended), 0) ORDER BY {order}",
        (table_name,),
    )
    return [job for (job,) in cursor.fetchall()]
