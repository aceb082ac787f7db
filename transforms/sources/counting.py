"""How many rows a query gives: the database counts, and no row is transferred.

Neither a driver that waits for a server nor SQLite at work can be stopped from outside. Whoever cannot wait counts in a
process that can be killed (`launcher.estimate.counting`).
"""

import math
import time

from transforms.connection import CONNECT_TIMEOUT_S, Connection, set_postgres
from transforms.errors import InputError
from transforms.sources.query import bare, check_query
from transforms.sources.reading import Session

# What PostgreSQL calls a statement that it was told to end (query_canceled).
_STATEMENT_ENDED = "57014"
# COPY, by which the driver reads, wraps what the server says of a statement; one number needs no COPY.
_PLAIN = {"adbc.postgresql.use_copy": "false"}


def count_rows(database: Connection, query: str) -> int:
    """How many rows `query` gives, however long it takes to count them.

    Raises:
        ConnectionRefused: the database cannot be reached.
        InputError: the query is no single SELECT, or fails.
    """
    statement = _statement(database, query)
    with Session(database) as session:
        return _fetched(session, statement)


def count_soon(database: Connection, query: str, timeout_s: float) -> int | None:
    """How many rows `query` gives; None when that is not known in time. To be called in a process of its own, which
    whoever waits kills then: SQLite ends with it.

    PostgreSQL is told to end the count by itself, and one that does not notices that nobody waits for it any more.

    Raises:
        ConnectionRefused, InputError: as `count_rows`.
    """
    deadline = time.monotonic() + timeout_s
    statement = _statement(database, query)
    is_postgres = database.dialect == "postgres"
    with Session(database, min(math.ceil(timeout_s) or 1, CONNECT_TIMEOUT_S)) as session:
        # The server needs a moment to end the statement and to say so.
        left_ms = int((deadline - time.monotonic() - 0.05) * 1000)
        if left_ms <= 0:
            return None
        try:
            if is_postgres:
                session.fetch(set_postgres(for_session=False, statement_timeout=f"{left_ms}ms"))
            return _fetched(session, statement)
        except InputError as error:
            if getattr(error.__cause__, "sqlstate", None) == _STATEMENT_ENDED or _is_for_now(error):
                return None
            raise


def _statement(connection: Connection, query: str) -> str:
    dialect = connection.dialect
    check_query(query, dialect)
    return f"SELECT count(*) FROM (\n{bare(query, dialect)}\n) AS penstock_query"


def _fetched(session: Session, statement: str) -> int:
    ((rows,),) = session.fetch(statement, **(_PLAIN if session.connection.dialect == "postgres" else {}))
    return int(rows)


def _is_for_now(error: InputError) -> bool:
    """Whether the job may fare better: the driver of SQLite passes on no code, and a count has little memory."""
    reason = str(error.__cause__)
    return any(words in reason for words in ("database is locked", "out of memory", "allocate memory"))
