"""The database under the job store: SQLite or PostgreSQL, opened, migrated, and asked in transactions.

SQLite locks the whole file for a transaction that writes (BEGIN IMMEDIATE; a plain BEGIN could not be upgraded once
another had written), PostgreSQL the rows that it touches. Where a decision rests on more than one row, PostgreSQL is
told to let one at a time decide (`exclusive`).
"""

import errno
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from launcher.errors import StoreUnavailable
from launcher.state import tables

# How long a statement waits for another writer; a move takes milliseconds, so this is for a machine that stands still.
BUSY_S = 30
# The newest of `migrations/versions`; written here, so that a store that is up to date costs no import of Alembic.
HEAD = "0004"
# Any number that other programs on the same PostgreSQL are unlikely to lock; further ones count up from it.
_LOCKS = 0x70656E73
# Connections of one process to a PostgreSQL; its own threads are all that share them.
_POOL_SIZE = 10
_POSTGRES = ("postgresql://", "postgres://")
# A process that stops in the middle of a transaction, or whose machine vanishes, keeps what it has locked from all
# others. So PostgreSQL ends such a transaction: a cancel waits no longer than it may take.
_IDLE_IN_TRANSACTION_S = 5
# The same where the connection itself is dead: seconds to connect, of silence until it is asked after, between
# questions, and until what was sent must have arrived. What the URL says comes before it.
_CONNECTING: dict[str, int] = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}


class Database:
    """One job store's database.

    Args:
        url: as SQLAlchemy writes it. The tables are made, or brought up to date, when need be.
        where: how messages call the store; never a URL, which may hold a password.
        clock: the time, aware; None is PostgreSQL's own clock there, so that launchers on many machines agree.

    Raises:
        StoreUnavailable: it cannot be opened, or is of a newer version of Penstock.
    """

    def __init__(self, url: str | sa.URL, where: str, clock: Callable[[], datetime] | None = None) -> None:
        self.where = where
        self._file: Path | None = None
        # Or SQLAlchemy's messages would show what is stored: a spec, and a password in it.
        options: dict[str, Any] = {"hide_parameters": True}
        if not str(url).startswith("sqlite"):
            given = sa.make_url(url).query
            options |= {
                "pool_pre_ping": True,
                "pool_size": _POOL_SIZE,
                "max_overflow": 2 * _POOL_SIZE,
                # Whatever the database's own default is: another's commit while a row is waited for is no failure.
                "isolation_level": "READ COMMITTED",
                "connect_args": {name: value for name, value in _CONNECTING.items() if name not in given},
            }
        self._engine = sa.create_engine(url, **options)
        # None: the server's.
        self._clock = clock or (None if self.is_postgres else lambda: datetime.now(UTC))
        if self._engine.dialect.name == "sqlite":
            self._file = Path(self._engine.url.database or "").absolute()
            sa.event.listen(self._engine, "connect", _set_up_sqlite)
            sa.event.listen(self._engine, "begin", _begin_sqlite)
        else:
            sa.event.listen(self._engine, "connect", _set_up_postgres)
        try:
            self._bring_up_to_date()
        except BaseException:
            self.close()
            raise

    @classmethod
    def at(cls, path: Path, clock: Callable[[], datetime] | None = None) -> "Database":
        """A store in a file of SQLite that only its owner may read: a spec may hold a password.

        Raises:
            StoreUnavailable: the file cannot be made or opened.
        """
        try:
            # The journals that SQLite makes take the rights of this file.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise StoreUnavailable(_why(str(path), error.strerror or str(error), path)) from error
        return cls(sa.URL.create("sqlite", database=str(path)), str(path), clock)

    @classmethod
    def named(cls, url: str | None, path: Path) -> "Database":
        """The store that `url` (postgresql://… or sqlite:///…) names; None is the SQLite file `path`.

        Raises:
            StoreUnavailable: it cannot be opened, or is no such URL.
        """
        if url is None:
            return cls.at(path)
        if url.startswith("sqlite:///"):
            return cls.at(Path(url.removeprefix("sqlite:///")))
        scheme = next((scheme for scheme in _POSTGRES if url.startswith(scheme)), None)
        if scheme is None:
            raise StoreUnavailable("PENSTOCK_STORE is no store; write postgresql://user@host/db or sqlite:///file.db")
        try:
            made = sa.make_url("postgresql+psycopg://" + url.removeprefix(scheme))
        except (sa.exc.ArgumentError, ValueError):
            raise StoreUnavailable("PENSTOCK_STORE is no URL; write postgresql://user@host/db") from None
        return cls(made, f"postgresql://{made.host or ''}/{made.database or ''}")

    @property
    def is_postgres(self) -> bool:
        """Whether it is PostgreSQL."""
        return self._engine.dialect.name == "postgresql"

    def clock(self) -> datetime:
        """The time, as everybody who shares the store sees it.

        Raises:
            StoreUnavailable: it is PostgreSQL's, and there is no answer.
        """
        if self._clock is not None:
            return self._clock()
        with self.reading() as connection:
            return self.now(connection)

    def now(self, connection: sa.Connection) -> datetime:
        """The time, as everybody who shares the store sees it. Taken anew at each call, also in one transaction."""
        if self._clock is None:
            return connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one().astimezone(UTC)
        return self._clock()

    @contextmanager
    def transaction(self, exclusive: int | None = None) -> Iterator[sa.Connection]:
        """A transaction that writes; it commits unless the block raises.

        Args:
            exclusive: a number; of all transactions with this number one runs at a time, all others wait.

        Raises:
            StoreUnavailable: nothing was changed.
        """
        with self._available(), self._engine.begin() as connection:
            if exclusive is not None and self.is_postgres:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCKS + exclusive)))
            yield connection

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that only reads, and waits for no writer. All of it sees the store at one moment.

        Raises:
            StoreUnavailable: there is no answer.
        """
        options: dict[str, Any] = {"isolation_level": "REPEATABLE READ"} if self.is_postgres else {"reading": True}
        with self._available(), self._engine.connect() as connection:
            yield connection.execution_options(**options)

    def upsert(self, table: sa.Table) -> Any:
        """An INSERT that may go on with `on_conflict_do_update`, which each of both spells in its own module."""
        return postgresql.insert(table) if self.is_postgres else sqlite.insert(table)

    def add_to_totals(self, connection: sa.Connection, amounts: Mapping[tuple[str, str], float]) -> None:
        """Add to counters of all launchers together, by (name, label)."""
        # In one order, so that two transactions never wait for each other.
        rows = [
            {"name": name, "label": label, "value": float(value)}
            for (name, label), value in sorted(amounts.items())
            if value
        ]
        if rows:
            insert = self.upsert(tables.totals)
            added = {"value": tables.totals.c.value + insert.excluded.value}
            connection.execute(insert.on_conflict_do_update(index_elements=["name", "label"], set_=added), rows)

    def settle_fact(self, name: str, value: str) -> str:
        """What is true of the store as a whole: `value`, unless another was settled before. Returns what holds.

        Raises:
            StoreUnavailable: nothing was changed.
        """
        with self.transaction() as connection:
            insert = self.upsert(tables.facts).values(name=name, value=value)
            connection.execute(insert.on_conflict_do_nothing(index_elements=["name"]))
            return str(
                connection.execute(sa.select(tables.facts.c.value).where(tables.facts.c.name == name)).scalar_one()
            )

    def close(self) -> None:
        """Let go of connections."""
        self._engine.dispose()

    def _bring_up_to_date(self) -> None:
        try:
            with self._engine.connect() as connection:
                version = self._version(connection.execution_options(reading=True))
        except sa.exc.DBAPIError:
            # There is none yet, or no database; the next question tells which.
            version = None
        if version == HEAD:
            return
        with self.reading() as connection:
            known = set(sa.inspect(connection).get_table_names())
        if version is None and "penstock_store" in known:
            raise StoreUnavailable(
                f"the job store {self.where} was made by Penstock before its first release; "
                "set PENSTOCK_HOME to another folder"
            )
        from launcher.state import migrate  # Alembic takes 0.2 s

        if version is not None and version not in migrate.versions():
            raise StoreUnavailable(
                f"the job store {self.where} is of version {version}, this Penstock reads up to {HEAD}; "
                "use the Penstock that made it, or set PENSTOCK_HOME to another folder"
            )
        with self.transaction(exclusive=0) as connection:
            migrate.upgrade(connection)

    @staticmethod
    def _version(connection: sa.Connection) -> str | None:
        found = connection.execute(sa.text("SELECT version_num FROM alembic_version")).first()
        return None if found is None else str(found[0])

    @contextmanager
    def _available(self) -> Iterator[None]:
        try:
            yield
        except (sa.exc.DBAPIError, sa.exc.TimeoutError) as error:
            said = str(error.orig) if isinstance(error, sa.exc.DBAPIError) else str(error)
            raise StoreUnavailable(_why(self.where, said, self._file)) from error


def _set_up_sqlite(connection: Any, _: Any) -> None:
    # Python's own transaction control begins too late and never IMMEDIATE; `_begin_sqlite` does it.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {BUSY_S * 1000}")
    # Readers and the one writer do not wait for each other. Where the file system cannot do it, SQLite stays as it is.
    connection.execute("PRAGMA journal_mode = WAL")


def _set_up_postgres(connection: Any, _: Any) -> None:
    connection.execute(f"SET idle_in_transaction_session_timeout = '{_IDLE_IN_TRANSACTION_S}s'")
    connection.execute(f"SET lock_timeout = '{BUSY_S}s'")
    connection.commit()


def _begin_sqlite(connection: sa.Connection) -> None:
    reading = connection.get_execution_options().get("reading", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _why(where: str, reason: str, file: Path | None) -> str:
    """One line on why the store does not answer, with what to do about it."""
    reason = " ".join(reason.split())
    if file is not None and (reason == os.strerror(errno.ENOSPC) or "full" in reason or _is_full(file)):
        return f"the job store {where} cannot be written: the disk is full; free some space"
    if "is locked" in reason or "lock timeout" in reason:
        return f"the job store {where} is locked by another process for over {BUSY_S} s; try again"
    remedy = "set PENSTOCK_HOME to a folder of your own" if file is not None else "see that the database runs"
    return f"the job store {where} cannot be used: {reason}; {remedy}"


def _is_full(file: Path) -> bool:
    """Whether there is no room: SQLite says 'disk I/O error' when its index does not fit any more."""
    try:
        # The index of the write-ahead log takes 32 KB, a page 4 KB.
        return shutil.disk_usage(file.parent).free < 64 * 1024
    except OSError:
        return False
