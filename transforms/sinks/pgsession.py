"""Transactions in PostgreSQL, on connections that are closed between them."""

import atexit
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from adbc_driver_manager import dbapi

from transforms.connection import Connection, set_postgres
from transforms.errors import ConnectionRefused
from transforms.sinks.pgcatalog import fetch

# Long statements are the job's own to bound (`timeout_minutes`). All of it ends with the transaction.
_SETTINGS = set_postgres(
    for_session=False,
    client_min_messages="warning",
    statement_timeout="0",
    lock_timeout="0",
    idle_in_transaction_session_timeout="0",
)

# By URI: connections that are closed, but know the server's types; see `_connected`.
_acquainted: dict[str, dbapi.Connection] = {}
_acquainted_lock = threading.Lock()


@contextmanager
def transaction(connection: Connection, *, read_only: bool = False) -> Iterator[dbapi.Cursor]:
    """A cursor in a transaction that is undone at the end of the block, unless the block says COMMIT.

    READ COMMITTED, so that what is read after waiting for a lock is what the holder left.
    """
    with _connected(connection) as connected, connected.cursor() as cursor:
        cursor.execute(f"BEGIN ISOLATION LEVEL READ COMMITTED, READ {'ONLY' if read_only else 'WRITE'}")
        fetch(cursor, _SETTINGS)
        yield cursor


@contextmanager
def _connected(connection: Connection) -> Iterator[dbapi.Connection]:
    """Connect as `connection.open(autocommit=True)` does, without learning the server's types each time.

    The driver asks for all of them at first (54 ms, most of it spent on our side, and more in a large database); a
    further connection of the same ADBC database takes 3 ms. What is kept between calls is what was learnt: no socket.
    """
    uri = connection.expanded()
    # ADBC's database counts its connections without a lock of its own.
    with _acquainted_lock:
        if uri not in _acquainted:
            first = connection.open(autocommit=True)
            first.adbc_connection.close()
            atexit.register(first.close)
            _acquainted[uri] = first
        try:
            further = _acquainted[uri].adbc_clone()
        except dbapi.Error as error:
            raise ConnectionRefused(f"connection {connection.describe()}: {connection.reason(error)}") from error
    try:
        further.adbc_connection.set_autocommit(True)
        yield further
    finally:
        with _acquainted_lock:
            further.close()
