"""Schedules: jobs that are made again and again, when their time comes."""

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, NamedTuple

import sqlalchemy as sa

from launcher.errors import JobExists, ScheduleUnknown
from launcher.state import tables
from launcher.state.database import Database
from launcher.state.job import Job
from launcher.state.keys import Role
from launcher.state.sql import add_job, cancel_earlier_jobs

_schedules = tables.schedules


@dataclass(frozen=True)
class Schedule:
    """A schedule. Times are aware and UTC.

    Args:
        id: `sched-` and ten random hex digits.
        tenant: whose it is.
        cron, timezone: when it is due; see `launcher.cron`.
        job: what to run each time, as it was asked for, templates and all.
        role: of the key that wrote it: its jobs may do what that key may.
        created_at: when it was made.
        name: what the user calls it.
        enabled: whether it runs; a paused one is never due.
        missed: what becomes of runs that were due while no launcher ran.
        overlap: what a run does while the one before is not over.
        webhook_secret: what signs the webhooks of its jobs; never shown.
        next_at: when it is due; None when it never is again.
        last_at: the time that was due last.
        last_job_id: the job that was made last.
        last_error: why no job was made of the time that was due last; None when one was.
    """

    id: str
    tenant: str
    cron: str
    timezone: str
    job: Mapping[str, Any]
    role: Role
    created_at: datetime
    name: str | None = None
    enabled: bool = True
    missed: str = "run_once"
    overlap: str = "queue"
    webhook_secret: str | None = field(default=None, repr=False)
    next_at: datetime | None = None
    last_at: datetime | None = None
    last_job_id: str | None = None
    last_error: str | None = None


class SchedulePosition(NamedTuple):
    """A place in the list of schedules: behind this one."""

    created_at: datetime
    schedule_id: str


def new_schedule_id() -> str:
    """A fresh id."""
    return f"sched-{secrets.token_hex(5)}"


def run_id(schedule_id: str, scheduled_at: datetime) -> str:
    """The id of the job that a schedule makes for a time: the same whoever makes it, and however often."""
    name = f"{schedule_id} {scheduled_at.astimezone(UTC).isoformat()}"
    return f"batch-{hashlib.sha256(name.encode()).hexdigest()[:10]}"


class Schedules:
    """The schedules in a database. Where a tenant is given, those of others are not there."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, schedule: Schedule) -> None:
        """Record a new schedule."""
        with self._database.transaction() as connection:
            values = {each.name: getattr(schedule, each.name) for each in fields(schedule)}
            connection.execute(sa.insert(_schedules).values(_columns(values)))

    def get(self, schedule_id: str, tenant: str | None = None) -> Schedule:
        """The schedule as it stands.

        Raises:
            ScheduleUnknown: there is none.
        """
        with self._database.reading() as connection:
            return _found(connection, schedule_id, tenant)

    def page(self, tenant: str, limit: int, after: SchedulePosition | None = None) -> list[Schedule]:
        """Up to `limit` schedules of a tenant, the newest first.

        Args:
            after: the last schedule of the page before.
        """
        made, ids = _schedules.c.created_at, _schedules.c.id
        query = sa.select(_schedules).where(_schedules.c.tenant == tenant)
        if after is not None:
            older = sa.or_(made < after.created_at, sa.and_(made == after.created_at, ids < after.schedule_id))
            query = query.where(made <= after.created_at, older)
        with self._database.reading() as connection:
            return [_schedule(row) for row in connection.execute(query.order_by(made.desc(), ids.desc()).limit(limit))]

    def update(self, schedule_id: str, tenant: str | None = None, **changes: Any) -> Schedule:
        """Set fields of a schedule.

        Raises:
            ScheduleUnknown: there is none.
        """
        with self._database.transaction() as connection:
            _found(connection, schedule_id, tenant)
            if changes:
                update = sa.update(_schedules).where(_schedules.c.id == schedule_id)
                connection.execute(update.values(_columns(changes)))
            return _found(connection, schedule_id, tenant)

    def delete(self, schedule_id: str, tenant: str | None = None) -> None:
        """Forget a schedule; jobs that it made stay.

        Raises:
            ScheduleUnknown: there is none.
        """
        with self._database.transaction() as connection:
            _found(connection, schedule_id, tenant)
            connection.execute(sa.delete(_schedules).where(_schedules.c.id == schedule_id))

    def due(self, now: datetime, limit: int) -> list[Schedule]:
        """Up to `limit` schedules whose time has come, the one that waits longest first."""
        query = (
            sa.select(_schedules)
            .where(_schedules.c.enabled, _schedules.c.next_at <= now)
            .order_by(_schedules.c.next_at, _schedules.c.id)
            .limit(limit)
        )
        with self._database.reading() as connection:
            return [_schedule(row) for row in connection.execute(query)]

    def run(self, job: Job, reason: str, webhook_secret: str | None = None) -> None:
        """Make a job of a schedule beside its times.

        Args:
            job: of which the schedule is told.
            reason, webhook_secret: as for `fire`.

        Raises:
            JobExists: it is made already.
        """
        with self._database.transaction() as connection:
            add_job(connection, job, reason, webhook_secret)
            told = sa.update(_schedules).where(_schedules.c.id == job.schedule_id).values(last_job_id=job.id)
            connection.execute(told)

    def fire(
        self,
        schedule_id: str,
        expected_next_at: datetime,
        next_at: datetime | None,
        job: Job | None,
        reason: str,
        webhook_secret: str | None = None,
        skipped: str | None = None,
        *,
        last_at: datetime | None = None,
        cancel_earlier: bool = False,
    ) -> bool:
        """Make the job of a time that was due, and go on to the next time. All of it happens, or nothing.

        Of many that fire the same time one does. Should the store have a job of this id already, it is the one of this
        time (see `run_id`), and the schedule only goes on.

        Args:
            expected_next_at: the time that was due.
            next_at: the next; None when there is none.
            job: what to make; None makes nothing.
            reason: of the job's first move.
            webhook_secret: what signs the job's webhooks.
            skipped: why there is no job, or that it stands for further times that were missed; for people.
            last_at: the last of several times that were due; None: there was the one.
            cancel_earlier: tell the jobs that the schedule has made before to stop.

        Returns:
            Whether it was this call that fired it: not when another launcher was first, nor when the schedule was
            changed, paused or deleted meanwhile, nor when the job is there already.
        """
        changes: dict[str, Any] = {"next_at": next_at, "last_at": last_at or expected_next_at, "last_error": skipped}
        if job is not None:
            changes["last_job_id"] = job.id
        with self._database.transaction() as connection:
            mine = (
                sa.update(_schedules)
                .where(
                    _schedules.c.id == schedule_id,
                    _schedules.c.next_at == expected_next_at,
                    _schedules.c.enabled,
                )
                .values(**changes)
            )
            if not connection.execute(mine).rowcount:
                return False
            if job is None:
                return True
            try:
                with connection.begin_nested():
                    add_job(connection, job, reason, webhook_secret)
            except JobExists:
                return False
            if cancel_earlier:
                cancel_earlier_jobs(connection, job, self._database.now(connection))
            return True


def _found(connection: sa.Connection, schedule_id: str, tenant: str | None) -> Schedule:
    row = connection.execute(sa.select(_schedules).where(_schedules.c.id == schedule_id)).first()
    if row is None or tenant not in (None, row.tenant):
        raise ScheduleUnknown(schedule_id)
    return _schedule(row)


def _columns(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: json.dumps(value) if name == "job" else value for name, value in values.items()}


def _schedule(row: "sa.Row[Any]") -> Schedule:
    return Schedule(**{**row._mapping, "job": json.loads(row.job)})
