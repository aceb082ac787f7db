"""Jobs in a SQL database: a file of SQLite here, the same tables in PostgreSQL for many launchers.

A move is one transaction that locks the job's row, looks at its state, changes it and records the move. SQLite locks
the whole file instead of the row (BEGIN IMMEDIATE; a plain BEGIN could not be upgraded once another had written).
"""

import errno
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from launcher.errors import Conflict, JobExists, JobUnknown, StoreUnavailable
from launcher.state.job import Job, Move, Seconds, Status, moved
from pipelines.spec import JobSpec
from transforms.counts import Counts

# How long a statement waits for another writer; a move takes milliseconds, so this is for a machine that stands still.
BUSY_S = 30
# Counts up when the tables change; a store of another version is refused rather than misread.
VERSION = 1
# Any number that other programs on the same PostgreSQL are unlikely to lock.
_CREATION_LOCK = 0x70656E73


class _Utc(sa.types.TypeDecorator[datetime]):
    """An aware time, kept as UTC without its zone, as SQLite and PostgreSQL both can."""

    impl = sa.DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


_metadata = sa.MetaData()
_store = sa.Table("penstock_store", _metadata, sa.Column("version", sa.Integer, primary_key=True))
_jobs = sa.Table(
    "jobs",
    _metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("spec", sa.Text, nullable=False),
    sa.Column("working_dir", sa.Text, nullable=False),
    sa.Column("created_at", _Utc, nullable=False, index=True),
    sa.Column("status", sa.Text, nullable=False, index=True),
    sa.Column("outcome", sa.Text),
    sa.Column("started_at", _Utc),
    sa.Column("finished_at", _Utc),
    sa.Column("error", sa.Text),
    sa.Column("total_rows", sa.BigInteger),
    sa.Column("counts", sa.Text),
    sa.Column("already", sa.Text, nullable=False),
    sa.Column("seconds", sa.Text, nullable=False),
    sa.Column("output", sa.Text),
    sa.Column("rejects", sa.Text),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("pid", sa.BigInteger),
    sa.Column("pid_started", sa.Double),
)
_moves = sa.Table(
    "moves",
    _metadata,
    sa.Column("job_id", sa.Text, primary_key=True),
    sa.Column("n", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("source", sa.Text),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("at", _Utc, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
)


def _now() -> datetime:
    return datetime.now(UTC)


class SqlJobStore:
    """A `JobStore` in a database.

    Args:
        url: as SQLAlchemy writes it. The tables are made when they are missing.
        where: how messages call the store; never a URL, which may hold a password.
        clock: the time, aware.

    Raises:
        StoreUnavailable: it cannot be opened, or was made by another version of Penstock.
    """

    def __init__(self, url: str | sa.URL, where: str, clock: Callable[[], datetime] = _now) -> None:
        self._where = where
        self._clock = clock
        self._file: Path | None = None
        # Or SQLAlchemy's messages would show what is stored: a spec, and a password in it.
        self._engine = sa.create_engine(url, hide_parameters=True)
        if self._engine.dialect.name == "sqlite":
            self._file = Path(self._engine.url.database or "").absolute()
            sa.event.listen(self._engine, "connect", _set_up_sqlite)
            sa.event.listen(self._engine, "begin", _begin_sqlite)
        self._create()

    @classmethod
    def at(cls, path: Path, clock: Callable[[], datetime] = _now) -> "SqlJobStore":
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

    def add(self, job: Job, reason: str) -> None:
        """Record a new job and, with `reason`, its first move."""
        with self._transaction() as connection:
            if connection.execute(sa.select(_jobs.c.id).where(_jobs.c.id == job.id)).first():
                raise JobExists(job.id)
            try:
                connection.execute(sa.insert(_jobs).values(_row(job)))
            except sa.exc.IntegrityError as error:
                # Another connection of PostgreSQL was first after we had looked.
                raise JobExists(job.id) from error
            _record(connection, job.id, Move(None, job.status, job.created_at, reason, job.attempt))

    def get(self, job_id: str) -> Job:
        """The job as it stands."""
        with self._reading() as connection:
            row = connection.execute(sa.select(_jobs).where(_jobs.c.id == job_id)).first()
        if row is None:
            raise JobUnknown(job_id)
        return _job(row)

    def jobs(self) -> list[Job]:
        """All jobs, the newest first."""
        query = sa.select(_jobs).order_by(_jobs.c.created_at.desc(), _jobs.c.id)
        with self._reading() as connection:
            return [_job(row) for row in connection.execute(query)]

    def move(self, job_id: str, expected: Status | Collection[Status], to: Status, reason: str, **changes: Any) -> Job:
        """Move a job that is in an expected state, and record the move: of many that try, one does it."""
        with self._transaction() as connection:
            job = _locked(connection, job_id, (expected,) if isinstance(expected, str) else tuple(expected))
            after, move = moved(job, to, reason, self._clock(), **changes)
            connection.execute(sa.update(_jobs).where(_jobs.c.id == job_id).values(_row(after)))
            _record(connection, job_id, move)
            return after

    def moves(self, job_id: str) -> list[Move]:
        """The moves of a job, the first first."""
        query = sa.select(_moves).where(_moves.c.job_id == job_id).order_by(_moves.c.n)
        with self._reading() as connection:
            return [Move(row.source, row.target, row.at, row.reason, row.attempt) for row in connection.execute(query)]

    def delete(self, job_id: str, expected: Collection[Status]) -> None:
        """Forget a job and its moves."""
        with self._transaction() as connection:
            _locked(connection, job_id, tuple(expected))
            connection.execute(sa.delete(_moves).where(_moves.c.job_id == job_id))
            connection.execute(sa.delete(_jobs).where(_jobs.c.id == job_id))

    def close(self) -> None:
        """Let go of connections."""
        self._engine.dispose()

    def _create(self) -> None:
        with self._reading() as connection:
            exists = sa.inspect(connection).has_table(_store.name)
        if not exists:
            with self._transaction() as connection:
                if connection.dialect.name == "postgresql":
                    # CREATE TABLE IF NOT EXISTS of two at once fails there for one of them.
                    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_CREATION_LOCK)))
                if not sa.inspect(connection).has_table(_store.name):
                    _metadata.create_all(connection)
                    connection.execute(sa.insert(_store).values(version=VERSION))
        with self._reading() as connection:
            version = connection.execute(sa.select(_store.c.version)).scalar_one()
        if version != VERSION:
            self.close()
            raise StoreUnavailable(
                f"the job store {self._where} is of version {version}, this Penstock reads version {VERSION}; "
                "use the Penstock that made it, or set PENSTOCK_HOME to another folder"
            )

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        with self._available(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        with self._available(), self._engine.connect() as connection:
            yield connection.execution_options(reading=True)

    @contextmanager
    def _available(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.DBAPIError as error:
            raise StoreUnavailable(_why(self._where, str(error.orig), self._file)) from error


def _set_up_sqlite(connection: Any, _: Any) -> None:
    # Python's own transaction control begins too late and never IMMEDIATE; `_begin_sqlite` does it.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {BUSY_S * 1000}")
    # Readers and the one writer do not wait for each other. Where the file system cannot do it, SQLite stays as it is.
    connection.execute("PRAGMA journal_mode = WAL")


def _begin_sqlite(connection: sa.Connection) -> None:
    reading = connection.get_execution_options().get("reading", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _why(where: str, reason: str, file: Path | None) -> str:
    """One line on why the store does not answer, with what to do about it."""
    reason = " ".join(reason.split())
    if file is not None and (reason == os.strerror(errno.ENOSPC) or "full" in reason or _is_full(file)):
        return f"the job store {where} cannot be written: the disk is full; free some space"
    if "locked" in reason:
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


def _locked(connection: sa.Connection, job_id: str, expected: tuple[Status, ...]) -> Job:
    row = connection.execute(sa.select(_jobs).where(_jobs.c.id == job_id).with_for_update()).first()
    if row is None:
        raise JobUnknown(job_id)
    job = _job(row)
    if job.status not in expected:
        raise Conflict(job_id, job.status, expected)
    return job


def _record(connection: sa.Connection, job_id: str, move: Move) -> None:
    last = sa.select(sa.func.coalesce(sa.func.max(_moves.c.n), 0)).where(_moves.c.job_id == job_id)
    values = {"source": move.source, "target": move.to, "at": move.at, "reason": move.reason, "attempt": move.attempt}
    n = connection.execute(last).scalar_one() + 1
    connection.execute(sa.insert(_moves).values(job_id=job_id, n=n, **values))


def _row(job: Job) -> dict[str, Any]:
    row = {field.name: getattr(job, field.name) for field in fields(job)}
    row["spec"] = json.dumps(job.spec.to_json())
    row["counts"] = None if job.counts is None else json.dumps(asdict(job.counts))
    row["already"] = json.dumps(asdict(job.already))
    row["seconds"] = json.dumps(asdict(job.seconds))
    return row


def _job(row: sa.Row[Any]) -> Job:
    values = dict(row._mapping)
    values["spec"] = JobSpec.from_json(json.loads(values["spec"]))
    values["counts"] = None if values["counts"] is None else Counts(**json.loads(values["counts"]))
    values["already"] = Counts(**json.loads(values["already"]))
    values["seconds"] = Seconds(**json.loads(values["seconds"]))
    return Job(**values)
