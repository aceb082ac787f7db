"""How many rows a query gives: the database counts, and no row is transferred. Apart from the source: that needs Beam.

With PostgreSQL the server itself ends a count that takes too long. The driver of SQLite cannot be stopped, so there
Python's own library counts, which can; it may be older than the driver's, so the driver has the word on what is wrong.
"""

import math
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from urllib.parse import quote

from transforms.connection import CONNECT_TIMEOUT_S, Connection, set_postgres
from transforms.errors import InputError
from transforms.sources.query import bare, check_query
from transforms.sources.reading import Session

# What PostgreSQL calls a statement that it was told to end (query_canceled).
_STATEMENT_ENDED = "57014"
# COPY, by which the driver reads, wraps what the server says of a statement; one number needs no COPY.
_PLAIN = {"adbc.postgresql.use_copy": "false"}
# Instructions of SQLite's machine between two looks at the clock: about a millisecond of them.
_STEPS = 20_000
# What SQLite calls a statement that was told to end, and one that waits for a writer (https://sqlite.org/rescode.html).
_ENDED = (sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_BUSY)


def count_rows(connection: Connection, query: str) -> int:
    """How many rows `query` gives, however long it takes to count them.

    Raises:
        ConnectionRefused: the database cannot be reached.
        InputError: the query is no single SELECT, or fails.
    """
    statement = _statement(connection, query)
    with Session(connection) as session:
        return _fetched(session, statement)


def count_rows_within(connection: Connection, query: str, timeout_s: float) -> int | None:
    """How many rows `query` gives; None when that is not known in time, connecting included.

    Nothing of it is left running in the database. What cannot be interrupted, as looking up a host, is left to a thread
    that ends by itself and then asks the database for nothing.

    Raises:
        ConnectionRefused, InputError: as `count_rows`, when it shows in time.
    """
    deadline = time.monotonic() + timeout_s
    statement = _statement(connection, query)
    count = _count_in_postgres if connection.dialect == "postgres" else _count_in_sqlite
    counting = _Counting(lambda: count(connection, statement, deadline))
    return counting.result(deadline)


def _statement(connection: Connection, query: str) -> str:
    dialect = connection.dialect
    check_query(query, dialect)
    return f"SELECT count(*) FROM (\n{bare(query, dialect)}\n) AS penstock_query"


def _fetched(session: Session, statement: str) -> int:
    ((rows,),) = session.fetch(statement, **(_PLAIN if session.connection.dialect == "postgres" else {}))
    return int(rows)


@dataclass
class _Counting:
    """A count in a thread of its own, which is not waited for longer than there is time."""

    count: Callable[[], int | None]
    _done: threading.Event = field(default_factory=threading.Event)
    _rows: int | None = None
    _error: BaseException | None = None

    def result(self, deadline: float) -> int | None:
        threading.Thread(target=self._run, name="count", daemon=True).start()
        if not self._done.wait(_left_s(deadline)):
            return None
        if self._error is not None:
            raise self._error
        return self._rows

    def _run(self) -> None:
        try:
            self._rows = self.count()
        except BaseException as error:
            self._error = error
        self._done.set()


def _count_in_postgres(connection: Connection, statement: str, deadline: float) -> int | None:
    left_s = _left_s(deadline)
    with Session(connection, min(math.ceil(left_s) or 1, CONNECT_TIMEOUT_S)) as session:
        # The server needs a moment to end the statement and to say so.
        left_ms = int((_left_s(deadline) - 0.05) * 1000)
        if left_ms <= 0:
            return None
        try:
            session.fetch(set_postgres(for_session=False, statement_timeout=f"{left_ms}ms"))
            return _fetched(session, statement)
        except InputError as error:
            if getattr(error.__cause__, "sqlstate", None) == _STATEMENT_ENDED:
                return None
            raise


def _count_in_sqlite(connection: Connection, statement: str, deadline: float) -> int | None:
    with Session(connection) as session:
        session.fetch(f"PRAGMA busy_timeout = {int(_left_s(deadline) * 1000)}")
        try:
            session.compile(statement)
        except InputError as error:
            # The driver passes on no code. To understand a statement it reads the tables' definitions.
            if "database is locked" in str(error.__cause__):
                return None
            raise
    try:
        uri = f"file:{quote(connection.sqlite_path())}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=_left_s(deadline))) as database:
            database.set_progress_handler(lambda: time.monotonic() >= deadline, _STEPS)
            # Understands the statement without running it.
            database.execute(f"EXPLAIN {statement}").close()
            return _stepped(connection, database, statement)
    except sqlite3.Error:
        # The driver understood it: its library is younger than ours, or may do what ours may not.
        return None


def _stepped(connection: Connection, database: sqlite3.Connection, statement: str) -> int | None:
    try:
        ((rows,),) = database.execute(statement)
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _ENDED:
            return None
        raise InputError(f"input.query at {connection.describe()}: {connection.reason(error)}") from error
    return int(rows)


def _left_s(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.0)
