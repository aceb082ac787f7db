"""Connects to databases through ADBC; a SQLite database that must lie at one very place is opened there or not at all.

Apart from `transforms.connection`, because the drivers take a second to import, which what only names a database need
not wait.
"""

import os
import re
import threading
import time
from typing import Any
from urllib.parse import quote

import pyarrow as pa
from adbc_driver_manager import dbapi

from transforms.connection import Connection, set_postgres, uri_fault
from transforms.errors import ConnectionRefused

# How long a SQLite statement waits for another writer; ADBC itself does not wait at all.
SQLITE_BUSY_MS = 30_000
# How long a look at a pinned file waits for a writer before others may open theirs; then it is repeated.
_LOOK_BUSY_MS = 50
# Files that SQLite opens beside a database, by what their names end with.
_BESIDE = ("", "-wal", "-shm", "-journal")

# How a SQLite journal begins, and how one ends that names another.
_JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")

# One pinned database is opened at a time, or what another thread opens would be taken for it.
_opening = threading.Lock()
# Connections that opened a file elsewhere. Closing one would write into that file, or let go of locks on it that this
# process holds by another copy of SQLite; they stay open until the process ends.
_abandoned: list[dbapi.Connection] = []


def opened(database: Connection, *, read_only: bool, autocommit: bool, connect_timeout_s: int) -> dbapi.Connection:
    """Connect, as `Connection.open` says.

    Raises:
        ConnectionRefused: names the database and the driver's reason, never the password.
    """
    dialect = database.dialect
    try:
        if dialect == "postgres":
            return _open_postgres(database, read_only, autocommit, connect_timeout_s)
        return _open_sqlite(database, read_only, autocommit)
    except dbapi.Error as error:
        raise ConnectionRefused(f"connection {database.describe()}: {database.reason(error)}") from error


def _open_postgres(database: Connection, read_only: bool, autocommit: bool, connect_timeout_s: int) -> dbapi.Connection:
    import adbc_driver_postgresql.dbapi

    # The driver takes what the server sends for UTF-8, so that is what the server must send.
    options = ["client_encoding=UTF8", "fallback_application_name=penstock"]
    expanded = database.expanded()
    fault = uri_fault(expanded)
    if fault is not None:
        raise ConnectionRefused(f"connection {database.describe()} {fault}")
    place = re.sub(r"^[^@/]*@", "", expanded.partition("://")[2])
    if "connect_timeout=" not in place and "PGCONNECT_TIMEOUT" not in os.environ:
        options.append(f"connect_timeout={connect_timeout_s}")
    uri = expanded + ("&" if "?" in place else "?") + "&".join(options)
    connection = adbc_driver_postgresql.dbapi.connect(uri, autocommit=autocommit)
    if not _knows_types(connection):
        connection.close()
        raise ConnectionRefused(
            f"connection {database.describe()}: its session has quote_all_identifiers = on, with which the driver does"
            " not know the server's types; ALTER ROLE … SET quote_all_identifiers = off, or append"
            " options=-cquote_all_identifiers%3Doff to the connection"
        )
    if read_only:
        _set_up(
            connection,
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY, ISOLATION LEVEL REPEATABLE READ",
            set_postgres(for_session=True),
        )
    return connection


def _knows_types(connection: dbapi.Connection) -> bool:
    """Whether the driver understood the list of types that it asks for first; else all values are bytes to it."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT true")
            found = cursor.fetch_arrow_table().schema.types
        connection.rollback()
    except BaseException:
        connection.close()
        raise
    return bool(found == [pa.bool_()])


def _open_sqlite(database: Connection, read_only: bool, autocommit: bool) -> dbapi.Connection:
    import adbc_driver_sqlite.dbapi

    path = database.sqlite_path()
    if read_only and not os.path.exists(path):
        raise ConnectionRefused(f"connection {database.describe()}: there is no file {path}")
    settings = (f"PRAGMA busy_timeout = {SQLITE_BUSY_MS}", *["PRAGMA query_only = ON"] * read_only)
    if database.pinned:
        return _open_pinned(database, path, read_only, autocommit, settings)
    connection = adbc_driver_sqlite.dbapi.connect(path, autocommit=autocommit)
    _set_up(connection, *settings)
    return connection


def _open_pinned(
    database: Connection, path: str, read_only: bool, autocommit: bool, settings: tuple[str, ...]
) -> dbapi.Connection:
    """Open the file at `path`, which holds no link; a transaction of a connection without autocommit has begun."""
    deadline = time.monotonic() + SQLITE_BUSY_MS / 1000
    while True:
        try:
            return _opened_in_place(database, path, read_only, autocommit, settings)
        except dbapi.Error as error:
            if "readonly database" in str(error):
                raise ConnectionRefused(
                    f"connection {database.describe()}: a program that wrote to it was killed, and what it left is only"
                    " undone by one that may write; open the file once, as with sqlite3"
                ) from error
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise


def _opened_in_place(
    database: Connection, path: str, read_only: bool, autocommit: bool, settings: tuple[str, ...]
) -> dbapi.Connection:
    import adbc_driver_sqlite.dbapi

    if os.path.realpath(path) != path:
        raise _led_elsewhere(database)
    if not read_only and _names_another_journal(path + "-journal"):
        raise ConnectionRefused(f"connection {database.describe()}: its journal names another file; remove the journal")
    # Who only reads does not undo what a killed program left, as a journal says.
    uri = f"file:{quote(path)}?mode=ro" if read_only else path
    with _opening:
        before = _open_files()
        connection = adbc_driver_sqlite.dbapi.connect(uri, autocommit=autocommit)
        try:
            _check_place(database, connection, path, before)
            _fetch(connection, f"PRAGMA busy_timeout = {_LOOK_BUSY_MS}")
            try:
                # Opens the log of a database in WAL mode, which then stays open.
                _fetch(connection, "SELECT count(*) FROM sqlite_schema")
            finally:
                _check_place(database, connection, path, before)
            for setting in settings:
                _fetch(connection, setting)
        except ConnectionRefused:
            _abandoned.append(connection)
            raise
        except BaseException:
            connection.close()
            raise
        return connection


def _check_place(database: Connection, connection: dbapi.Connection, path: str, before: set[tuple[str, str]]) -> None:
    """Look where the files lie that were opened since `before`. Asks SQLite for nothing that it had to read.

    Raises:
        ConnectionRefused: not where `path` says.
    """
    # By which name it was opened, links followed; from there on no link in the place of a file is.
    ((_, _, name),) = _fetch(connection, "PRAGMA database_list")
    folder, file = os.path.split(path)
    own = {file + ending for ending in _BESIDE}
    found = [os.path.split(place.removesuffix(" (deleted)")) for _, place in _open_files() - before]
    if name != path or any(its_folder != folder for its_folder, its_name in found if its_name in own):
        raise _led_elsewhere(database)


def _led_elsewhere(database: Connection) -> ConnectionRefused:
    return ConnectionRefused(
        f"connection {database.describe()}: the path leads elsewhere since it was looked at; submit the job anew"
    )


def _set_up(connection: dbapi.Connection, *statements: str) -> None:
    try:
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
        connection.commit()
    except BaseException:
        connection.close()
        raise


def _open_files() -> set[tuple[str, str]]:
    """What this process has open: descriptors, and where their files lie (Linux)."""
    folder, found = "/proc/self/fd", set()
    for fd in os.listdir(folder):
        try:
            found.add((fd, os.readlink(f"{folder}/{fd}")))
        except FileNotFoundError:  # closed by another thread, or the one of the listing itself
            continue
    return found


def _names_another_journal(journal: str) -> bool:
    """Whether a journal beside a SQLite database ends in the name of a file, which undoing it would remove.

    That is the one of a transaction over several databases, which none of ours is: https://sqlite.org/fileformat2.html.
    """
    try:
        # A pipe without a writer would be waited for.
        fd = os.open(journal, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        # SQLite does not open it either.
        return False
    with open(fd, "rb") as file:
        file.seek(max(0, os.fstat(fd).st_size - len(_JOURNAL_MAGIC)))
        return file.read() == _JOURNAL_MAGIC


def _fetch(connection: dbapi.Connection, statement: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())
