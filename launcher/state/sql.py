"""Jobs in a SQL database: a file of SQLite, or PostgreSQL for many launchers.

A move is one transaction that locks the job's row, looks at its state, changes it and records the move; what follows
from it (a webhook to send, counters) is part of the same transaction.
"""

import json
import uuid
from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa

from launcher.errors import Conflict, JobExists, JobUnknown
from launcher.state import tables
from launcher.state.database import Database
from launcher.state.job import (
    ACTIVE,
    AT_WORK,
    STATUSES,
    TERMINAL,
    Job,
    Live,
    Move,
    Seconds,
    Status,
    Webhook,
    moved,
    stopped_as,
)
from launcher.state.speed import Speed
from launcher.state.store import Ended, Filter, Past, Position
from pipelines.spec import JobSpec
from predictors.notices import Notice
from transforms.counts import Counts

_jobs, _moves = tables.jobs, tables.moves
# Of the transactions that decide by more than one row, see `Database.transaction`.
_CLAIMING = 1
# Upper bounds, in seconds, of the histogram of how long jobs wait in line: a fork, a busy minute, a night's backlog.
QUEUE_WAIT_BUCKETS_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14400)
# Among how many of a model's completed jobs those of one version are looked for: reading 1,000 rows takes 2 ms.
_PAST_AMONG = 1000
# How many jobs tell of the next.
_PAST_OF_MODEL, _PAST_OF_ALL = 5, 20
_PAST = (_jobs.c.total_rows, _jobs.c.seconds, _jobs.c.spec)
# Jobs that are kept read: reading one takes 0.1 ms, and whoever looks at a page looks at it again. About 5 MB, and, as
# those of longer texts are not kept, 50 MB at most.
_KEPT_READ, _KEPT_CHARS = 1024, 8192
# Queries for pages, by what is filtered.
_KEPT_QUERIES = 256


class SqlJobStore:
    """A `JobStore` in a database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    @classmethod
    def at(cls, path: Path, clock: Callable[[], datetime] | None = None) -> "SqlJobStore":
        """A store in a file of SQLite that only its owner may read: a spec may hold a password.

        Raises:
            StoreUnavailable: the file cannot be made or opened.
        """
        return cls(Database.at(path, clock))

    @classmethod
    def named(cls, url: str | None, path: Path) -> "SqlJobStore":
        """The store that `url` names; None is the SQLite file `path`. See `Database.named`.

        Raises:
            StoreUnavailable: it cannot be opened, or is no such URL.
        """
        return cls(Database.named(url, path))

    def add(self, job: Job, reason: str, webhook_secret: str | None = None) -> None:
        """Record a new job and, with `reason`, its first move."""
        with self.database.transaction() as connection:
            add_job(connection, job, reason, webhook_secret)

    def get(self, job_id: str) -> Job:
        """The job as it stands."""
        with self.database.reading() as connection:
            row = connection.execute(_BY_ID, {"job_id": job_id}).first()
        if row is None:
            raise JobUnknown(job_id)
        return _job(row)

    def jobs(self) -> list[Job]:
        """All jobs, the newest first."""
        return self._select(_JOBS.order_by(_jobs.c.created_at.desc(), _jobs.c.id))

    def page(self, wanted: Filter, limit: int, after: Position | None = None) -> list[Job]:
        """Some jobs of one tenant, the newest first."""
        given: dict[str, Any] = {
            "tenant": wanted.tenant,
            "model_id": wanted.model_id,
            "schedule_id": wanted.schedule_id,
            "since": wanted.since,
            "until": wanted.until,
            "after_at": after and after.created_at,
            "after_id": after and after.job_id,
        }
        values = {name: value for name, value in given.items() if value is not None}
        statuses = tuple(dict.fromkeys(wanted.statuses))
        if not statuses and (wanted.model_id is not None or wanted.schedule_id is not None):
            statuses = STATUSES
        return self._select(_page(frozenset(values), statuses), {**values, "most": limit})

    def at_work(self) -> list[Job]:
        """Managed jobs that a process works on, or should."""
        return self._select(_JOBS.where(_jobs.c.managed, _jobs.c.status.in_(AT_WORK)))

    def overdue(self) -> list[Job]:
        """Managed jobs that wait, and whose time is over, or who were told to stop."""
        with self.database.reading() as connection:
            now = self.database.now(connection)
            ends = sa.or_(_jobs.c.deadline_at < now, _jobs.c.cancel_requested_at.is_not(None))
            query = _JOBS.where(_jobs.c.managed, _jobs.c.status == "submitted", ends)
            return [_job(row) for row in connection.execute(query)]

    def expirable(self, before: datetime, limit: int) -> list[Job]:
        """Managed jobs that ended before a time and of which something is still kept, the oldest first."""
        query = _JOBS.where(
            _jobs.c.managed,
            # None while it has not ended.
            _jobs.c.finished_at < before,
            _jobs.c.expired_at.is_(None),
        )
        return self._select(query.order_by(_jobs.c.finished_at).limit(limit))

    def expire(self, job_id: str) -> Job:
        """Say that what the service kept of a job goes: from now on no attempt goes on from it."""
        with self.database.transaction() as connection:
            job = _locked(connection, job_id, tuple(TERMINAL))
            if job.expired_at is not None:
                return job
            now = self.database.now(connection)
            connection.execute(sa.update(_jobs).where(_jobs.c.id == job_id).values(expired_at=now))
            return replace(job, expired_at=now)

    def untidied(self, limit: int, after: datetime | None = None) -> list[Job]:
        """Jobs that have expired, and of which something may be left to delete, the first first."""
        query = _JOBS.where(_jobs.c.expired_at.is_not(None), _jobs.c.tidied_at.is_(None))
        if after is not None:
            query = query.where(_jobs.c.expired_at > after)
        return self._select(query.order_by(_jobs.c.expired_at).limit(limit))

    def tidied(self, job_id: str) -> None:
        """Say that nothing is left of an expired job, or nothing that can be deleted."""
        with self.database.transaction() as connection:
            tidied = sa.update(_jobs).where(_jobs.c.id == job_id, _jobs.c.expired_at.is_not(None))
            connection.execute(tidied.values(tidied_at=self.database.now(connection)))

    def clock(self) -> datetime:
        """The time, as everybody who shares the store sees it."""
        return self.database.clock()

    def ended(self, since: datetime) -> list[Ended]:
        """Managed jobs that ended at or after a time and have not been asked for again, the first first."""
        jobs = _jobs.c
        ended = sa.select(jobs.id, jobs.attempt, jobs.owner, jobs.finished_at).where(
            jobs.managed, jobs.finished_at >= since
        )
        # Two, so that the index of what has outlived its time leads to each: nothing expires before it has ended.
        both = ended.where(jobs.expired_at.is_(None)).union_all(ended.where(jobs.expired_at >= since)).subquery()
        with self.database.reading() as connection:
            return [Ended(*row) for row in connection.execute(sa.select(both).order_by(both.c.finished_at, both.c.id))]

    def count_by_status(self) -> dict[tuple[str, Status], int]:
        """How many jobs there are, by tenant and state."""
        query = sa.select(_jobs.c.tenant, _jobs.c.status, sa.func.count()).group_by(_jobs.c.tenant, _jobs.c.status)
        with self.database.reading() as connection:
            return {(tenant, status): count for tenant, status, count in connection.execute(query)}

    def count(self, schedule_id: str, statuses: Collection[Status] = ACTIVE) -> int:
        """How many jobs of a schedule are in some states."""
        query = sa.select(sa.func.count()).where(_jobs.c.schedule_id == schedule_id, _jobs.c.status.in_(statuses))
        with self.database.reading() as connection:
            return int(connection.execute(query).scalar_one())

    def past(self, tenant: str, model_id: str, model_version: int | None) -> list[Past]:
        """The last completed jobs of a model."""
        last = (
            sa.select(*_PAST, _jobs.c.model_version, _jobs.c.attempt, _jobs.c.created_at)
            .where(_jobs.c.tenant == tenant, _jobs.c.model_id == model_id, _jobs.c.status == "completed")
            .order_by(_jobs.c.created_at.desc())
            .limit(_PAST_AMONG)
            .subquery()
        )
        query = (
            sa.select(last.c.total_rows, last.c.seconds, last.c.spec)
            .where(
                last.c.model_version == model_version,
                last.c.total_rows > 0,
                # What an earlier attempt had staged was not scored in these seconds.
                last.c.attempt == 1,
            )
            .order_by(last.c.created_at.desc())
            .limit(_PAST_OF_MODEL)
        )
        return self._past(query)

    def past_of_all(self, tenant: str) -> list[Past]:
        """The last completed jobs of a tenant."""
        query = (
            sa.select(*_PAST)
            .where(_jobs.c.tenant == tenant, _jobs.c.status == "completed", _jobs.c.attempt == 1)
            .order_by(_jobs.c.created_at.desc())
            .limit(_PAST_OF_ALL)
        )
        return self._past(query)

    def _past(self, query: "sa.Select[Any]") -> list[Past]:
        with self.database.reading() as connection:
            found = connection.execute(query).all()
        ended = [(rows, Seconds(**json.loads(seconds)), json.loads(spec)["config"]) for rows, seconds, spec in found]
        return [
            Past(
                rows or 0,
                seconds.prepare + seconds.run + seconds.complete,
                seconds.score,
                config["batch_size"],
                config["parallelism"],
            )
            for rows, seconds, config in ended
        ]

    def move(
        self,
        job_id: str,
        expected: Status | Collection[Status],
        to: Status,
        reason: str,
        *,
        attempt: int | None = None,
        **changes: Any,
    ) -> Job:
        """Move a job that is in an expected state, and record the move: of many that try, one does it."""
        states: tuple[Status, ...] = (expected,) if isinstance(expected, str) else tuple(expected)
        with self.database.transaction() as connection:
            job = _locked(connection, job_id, states, attempt)
            return self._move(connection, job, to, reason, **changes)

    def claim(self, owner: str, most: int, per_tenant: int, lease_s: float) -> list[Job]:
        """Take jobs from the queues, to be started: fairly among the tenants, the first submitted first."""
        claimed: list[Job] = []
        with self.database.transaction(exclusive=_CLAIMING) as connection:
            now = self.database.now(connection)
            turns = self._turns(connection, now)
            while len(claimed) < most:
                # The fewest at work first; among equals, whoever was served longest ago.
                waiting = [tenant for tenant, turn in turns.items() if turn[0] < per_tenant]
                if not waiting:
                    break
                tenant = min(waiting, key=lambda each: (*turns[each], each))
                query = (
                    _JOBS.where(_jobs.c.managed, _jobs.c.status == "submitted", _jobs.c.tenant == tenant, _is_due(now))
                    .where(_jobs.c.cancel_requested_at.is_(None), ~_has_sibling_at_work())
                    .order_by(_jobs.c.queued_at, _jobs.c.id)
                    .limit(1)
                )
                row = connection.execute(query.with_for_update()).first()
                if row is None:
                    del turns[tenant]
                    continue
                claimed.append(self._claim(connection, _job(row), owner, lease_s))
                turns[tenant] = (turns[tenant][0] + 1, now.isoformat())
                served = self.database.upsert(tables.tenants).values(tenant=tenant, served_at=now)
                connection.execute(
                    served.on_conflict_do_update(
                        index_elements=["tenant"], set_={"served_at": served.excluded.served_at}
                    )
                )
        return claimed

    def beat(self, job_id: str, attempt: int, lease_s: float, **changes: Any) -> bool:
        """Tell that an attempt lives, and how far it is. Returns whether it is to stop."""
        with self.database.transaction() as connection:
            now = self.database.now(connection)
            lease = now + timedelta(seconds=lease_s)
            update = (
                sa.update(_jobs)
                .where(_jobs.c.id == job_id, _jobs.c.attempt == attempt, _jobs.c.status.in_(AT_WORK))
                .values(lease_until=lease, live_at=now, **_columns(changes))
                .returning(_jobs.c.cancel_requested_at)
            )
            row = connection.execute(update).first()
            if row is None:
                # Says why.
                _locked(connection, job_id, tuple(AT_WORK), attempt)
                raise JobUnknown(job_id)
            return row[0] is not None

    def update(self, job_id: str, expected: Collection[Status], **changes: Any) -> Job:
        """Set fields of a job that is in an expected state, without a move."""
        with self.database.transaction() as connection:
            job = replace(_locked(connection, job_id, tuple(expected)), **changes)
            connection.execute(sa.update(_jobs).where(_jobs.c.id == job_id).values(**_columns(changes)))
            return job

    def request_cancel(self, job_id: str, reason: str) -> Job:
        """Cancel a job that waits, and tell the process of one at work to stop."""
        with self.database.transaction() as connection:
            job = _locked(connection, job_id, tuple(ACTIVE))
            if job.status == "submitted":
                return self._cancel_waiting(connection, job, reason)
            if job.cancel_requested_at is not None:
                return job
            now = self.database.now(connection)
            connection.execute(sa.update(_jobs).where(_jobs.c.id == job_id).values(cancel_requested_at=now))
            return replace(job, cancel_requested_at=now)

    def moves(self, job_id: str) -> list[Move]:
        """The moves of a job, the first first."""
        query = sa.select(_moves).where(_moves.c.job_id == job_id).order_by(_moves.c.n)
        with self.database.reading() as connection:
            return [Move(row.source, row.target, row.at, row.reason, row.attempt) for row in connection.execute(query)]

    def webhook_secret(self, job_id: str) -> str | None:
        """What signs the webhooks of a job."""
        with self.database.reading() as connection:
            query = sa.select(_jobs.c.webhook_secret).where(_jobs.c.id == job_id)
            return connection.execute(query).scalar_one_or_none()

    def totals(self) -> dict[tuple[str, str], float]:
        """Counters of all launchers together, by name and label: what has ended, and what is at work."""
        live: dict[tuple[str, str], float] = {}
        with self.database.reading() as connection:
            for row in connection.execute(sa.select(tables.totals)):
                live[row.name, row.label] = row.value
            at_work = sa.select(_jobs.c.live).where(_jobs.c.managed, _jobs.c.status.in_(AT_WORK))
            for (text,) in connection.execute(at_work):
                for key, value in _amounts_of(_live(text)).items():
                    live[key] = live.get(key, 0.0) + value
        return live

    def delete(self, job_id: str, expected: Collection[Status]) -> None:
        """Forget a job, its moves, what was still to be told of it, and that it was the last one of a schedule."""
        with self.database.transaction() as connection:
            _locked(connection, job_id, tuple(expected))
            connection.execute(sa.delete(_moves).where(_moves.c.job_id == job_id))
            # What signs them goes with the job.
            connection.execute(sa.delete(tables.deliveries).where(tables.deliveries.c.job_id == job_id))
            last = sa.update(tables.schedules).where(tables.schedules.c.last_job_id == job_id)
            connection.execute(last.values(last_job_id=None))
            connection.execute(sa.delete(_jobs).where(_jobs.c.id == job_id))

    def close(self) -> None:
        """Let go of connections."""
        self.database.close()

    def _select(self, query: "sa.Select[Any]", values: Mapping[str, Any] | None = None) -> list[Job]:
        with self.database.reading() as connection:
            return [_job(row) for row in connection.execute(query, values).all()]

    def _move(
        self,
        connection: sa.Connection,
        job: Job,
        to: Status,
        reason: str,
        *,
        amounts: Mapping[tuple[str, str], float] = MappingProxyType({}),
        **changes: Any,
    ) -> Job:
        """Move a job whose row is locked.

        Args:
            amounts: further amounts for the totals, which are added to once in a transaction and in one order: so no
                two wait for each other.
        """
        if to == "submitted" and job.expired_at is not None:
            # What it would go on from is deleted, or is about to be.
            raise Conflict(job.id, job.status, (to,))
        if to == "completing" and job.cancel_requested_at is not None and not _has_begun(connection, job.id):
            # Its process has not heard of it yet.
            raise Conflict(job.id, "told to stop", (job.status,))
        # The counters that come with the move are the last of this attempt, whatever the next begins with.
        before = replace(job, live=changes.pop("live", job.live))
        after, move = moved(before, to, reason, self.database.now(connection), **changes)
        connection.execute(sa.update(_jobs).where(_jobs.c.id == job.id).values(_row(after)))
        _record(connection, after, move)
        added = dict(amounts)
        if move.source in AT_WORK and to not in AT_WORK and job.managed:
            added |= _amounts_of(before.live)
        if to in TERMINAL and job.managed:
            added["jobs_ended", after.outcome or to] = 1
        if to == "submitted" and after.cancel_requested_at is not None:
            # It was told to stop, and another attempt was about to be made: there would be nobody to hear it.
            return self._cancel_waiting(connection, after, "cancelled on request", added)
        if added:
            self.database.add_to_totals(connection, added)
        return after

    def _cancel_waiting(
        self,
        connection: sa.Connection,
        job: Job,
        why: str,
        amounts: Mapping[tuple[str, str], float] = MappingProxyType({}),
    ) -> Job:
        """End a job that waits. What an earlier attempt had begun to publish may be visible: that is not called so."""
        if not _has_begun(connection, job.id):
            return self._move(connection, job, "cancelled", why, amounts=amounts)
        to, text = stopped_as(job, "cancelled", why, may_be_visible=True, kept_rows=0)
        return self._move(
            connection, job, to, text, amounts=amounts, error=text, outcome="error", cancel_requested_at=None
        )

    def _claim(self, connection: sa.Connection, job: Job, owner: str, lease_s: float) -> Job:
        now = self.database.now(connection)
        # A retry waits out its backoff first; that is not the queue's doing.
        waited_s = max(0.0, (now - (job.not_before or job.queued_at or now)).total_seconds())
        bucket = bisect_left(QUEUE_WAIT_BUCKETS_S, waited_s)
        lease = now + timedelta(seconds=lease_s)
        return self._move(
            connection,
            job,
            "preparing",
            f"attempt {job.attempt}",
            amounts={("queue_wait", str(bucket)): 1, ("queue_wait_s", ""): waited_s},
            owner=owner,
            lease_until=lease,
            not_before=None,
        )

    def _turns(self, connection: sa.Connection, now: datetime) -> dict[str, tuple[int, str]]:
        """Tenants with jobs that wait: how many they have at work, and when they were served last."""
        waiting = sa.select(_jobs.c.tenant).where(_jobs.c.managed, _jobs.c.status == "submitted", _is_due(now))
        tenants = [tenant for (tenant,) in connection.execute(waiting.distinct())]
        if not tenants:
            return {}
        busy = (
            sa.select(_jobs.c.tenant, sa.func.count())
            .where(_jobs.c.managed, _jobs.c.status.in_(AT_WORK))
            .group_by(_jobs.c.tenant)
        )
        at_work: dict[str, int] = {row[0]: row[1] for row in connection.execute(busy)}
        served = {row.tenant: row.served_at for row in connection.execute(sa.select(tables.tenants))}
        return {
            tenant: (at_work.get(tenant, 0), served[tenant].isoformat() if tenant in served else "")
            for tenant in tenants
        }


def add_job(connection: sa.Connection, job: Job, reason: str, webhook_secret: str | None = None) -> None:
    """Record a new job and, with `reason`, its first move, as part of a transaction; see `JobStore.add`.

    Raises:
        JobExists: the id is taken. Nothing was added; on PostgreSQL the transaction may be good for nothing else.
    """
    if connection.execute(sa.select(_jobs.c.id).where(_jobs.c.id == job.id)).first():
        raise JobExists(job.id)
    job = replace(job, queued_at=job.queued_at or job.created_at, times={job.status: job.created_at, **job.times})
    try:
        connection.execute(sa.insert(_jobs).values(**_row(job), webhook_secret=webhook_secret))
    except sa.exc.IntegrityError as error:
        # Another connection of PostgreSQL was first after we had looked.
        raise JobExists(job.id) from error
    _record(connection, job, Move(None, job.status, job.created_at, reason, job.attempt))


def cancel_earlier_jobs(connection: sa.Connection, job: Job, now: datetime) -> None:
    """Tell the jobs of the same schedule that are for times before that of `job` to stop, as part of a transaction.

    Those that wait are not moved, which needs their rows one after the other; whoever looks after `overdue` does.
    """
    mark = sa.update(_jobs).where(
        _jobs.c.schedule_id == job.schedule_id,
        _jobs.c.tenant == job.tenant,
        _jobs.c.status.in_(ACTIVE),
        _jobs.c.scheduled_at < job.scheduled_at,
        _jobs.c.cancel_requested_at.is_(None),
    )
    connection.execute(mark.values(cancel_requested_at=now))


def _has_begun(connection: sa.Connection, job_id: str) -> bool:
    """Whether some attempt has begun to publish, so that the result may be visible."""
    begun = sa.select(_moves.c.n).where(_moves.c.job_id == job_id, _moves.c.target == "completing").limit(1)
    return connection.execute(begun).first() is not None


def _record(connection: sa.Connection, job: Job, move: Move) -> None:
    last = sa.select(sa.func.coalesce(sa.func.max(_moves.c.n), 0)).where(_moves.c.job_id == job.id)
    values = {"source": move.source, "target": move.to, "at": move.at, "reason": move.reason}
    n = connection.execute(last).scalar_one() + 1
    connection.execute(sa.insert(_moves).values(job_id=job.id, n=n, attempt=move.attempt, **values))
    if job.webhook is not None and move.to in job.webhook.events:
        event = {
            "job_id": job.id,
            "status": move.to,
            "previous_status": move.source,
            "reason": move.reason,
            "outcome": job.outcome,
            "attempt": move.attempt,
            "at": move.at.isoformat().replace("+00:00", "Z"),
        }
        connection.execute(
            sa.insert(tables.deliveries).values(
                id=f"evt-{uuid.uuid4().hex}",
                job_id=job.id,
                tenant=job.tenant,
                url=job.webhook.url,
                event=json.dumps(event),
                created_at=move.at,
                tries=0,
                next_at=move.at,
            )
        )


@lru_cache(maxsize=_KEPT_QUERIES)
def _page(given: frozenset[str], statuses: tuple[Status, ...]) -> "sa.Select[Any]":
    """The query for a page, given which values it will have. Making one takes longer than SQLite to answer it."""
    jobs, value = _jobs.c, sa.bindparam
    conditions: Mapping[str, sa.ColumnElement[bool]] = {
        "tenant": jobs.tenant == value("tenant"),
        "model_id": jobs.model_id == value("model_id"),
        "schedule_id": jobs.schedule_id == value("schedule_id"),
        "since": jobs.created_at >= value("since"),
        "until": jobs.created_at < value("until"),
        # Spelled out: SQLite uses no index for a comparison of pairs that descends.
        "after_at": sa.and_(
            jobs.created_at <= value("after_at"),
            sa.or_(
                jobs.created_at < value("after_at"),
                sa.and_(jobs.created_at == value("after_at"), jobs.id < value("after_id")),
            ),
        ),
    }
    which = [condition for name, condition in conditions.items() if name in given]
    if len(statuses) == 1:
        which.append(jobs.status == statuses[0])
    elif statuses:
        which = [jobs.id.in_(_newest_ids(which, statuses))]
    return _JOBS.where(*which).order_by(jobs.created_at.desc(), jobs.id.desc()).limit(value("most", type_=sa.Integer))


def _newest_ids(which: "Sequence[sa.ColumnElement[bool]]", statuses: Sequence[Status]) -> "sa.Select[tuple[str]]":
    """Ids of the newest jobs in some states; an index has each state's in order, but not those of many together."""
    jobs, most = _jobs.c, sa.bindparam("most", type_=sa.Integer)
    of_each = []
    for status in statuses:
        newest = sa.select(jobs.id, jobs.created_at).where(*which, jobs.status == status)
        some = newest.order_by(jobs.created_at.desc(), jobs.id.desc()).limit(most).subquery()
        of_each.append(sa.select(some.c.id, some.c.created_at))
    of_all = sa.union_all(*of_each).subquery()
    return sa.select(of_all.c.id).order_by(of_all.c.created_at.desc(), of_all.c.id.desc()).limit(most)


def _is_due(now: datetime) -> "sa.ColumnElement[bool]":
    return sa.or_(_jobs.c.not_before.is_(None), _jobs.c.not_before <= now)


def _has_sibling_at_work() -> "sa.ColumnElement[bool]":
    """Whether another job of the same schedule is at work: runs of one schedule come one after the other."""
    sibling = _jobs.alias("sibling")
    return (
        sa.exists()
        .where(sibling.c.schedule_id == _jobs.c.schedule_id, sibling.c.tenant == _jobs.c.tenant)
        .where(sibling.c.status.in_(AT_WORK))
        .correlate(_jobs)
    )


def _locked(connection: sa.Connection, job_id: str, expected: tuple[Status, ...], attempt: int | None = None) -> Job:
    row = connection.execute(_JOBS.where(_jobs.c.id == job_id).with_for_update()).first()
    if row is None:
        raise JobUnknown(job_id)
    job = _job(row)
    if job.status not in expected or (attempt is not None and job.attempt != attempt):
        raise Conflict(job_id, job.status, expected, job.attempt, attempt)
    return job


def _amounts_of(live: Live) -> dict[tuple[str, str], float]:
    """What one attempt adds to the totals."""
    amounts: dict[tuple[str, str], float] = {
        ("rows", "scored"): live.scored,
        ("rows", "rejected"): live.rejected,
        ("rows", "skipped"): live.skipped,
        ("model_call_s", ""): live.call_s,
    }
    return amounts | {("model_call", str(at)): count for at, count in enumerate(live.call_buckets)}


_JOB_COLUMNS = [column for column in _jobs.c if column.name not in ("webhook_secret", "tidied_at")]
_JOB_NAMES = [column.name for column in _JOB_COLUMNS]
# Values as the driver gives them: reading them costs more than fetching them, and most rows were read a moment ago.
_JOB_VALUES: list[sa.ColumnElement[Any]] = [
    sa.type_coerce(column, sa.types.NullType()).label(column.name) for column in _JOB_COLUMNS
]
_JOBS = sa.select(*_JOB_VALUES)
# The same object each time: what SQLAlchemy finds out about it, it keeps.
_BY_ID = _JOBS.where(_jobs.c.id == sa.bindparam("job_id"))


def _columns(values: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a job as its row holds them."""
    return {name: _TO_TEXT[name](value) if name in _TO_TEXT else value for name, value in values.items()}


def _row(job: Job) -> dict[str, Any]:
    return _columns({field.name: getattr(job, field.name) for field in fields(job)})


def _dumped(value: Any) -> str | None:
    return None if value is None else json.dumps(asdict(value))


_TO_TEXT: dict[str, Callable[[Any], str | None]] = {
    "spec": lambda spec: json.dumps(spec.to_json()),
    "counts": _dumped,
    "already": _dumped,
    "shown": _dumped,
    "seconds": _dumped,
    "live": _dumped,
    "webhook": _dumped,
    "speed": lambda speed: None if speed is None else json.dumps({**asdict(speed), "at": speed.at.isoformat()}),
    "notices": lambda notices: json.dumps([notice.to_json() for notice in notices]),
    "labels": lambda labels: json.dumps(dict(labels)),
    "times": lambda times: json.dumps({status: at.isoformat() for status, at in times.items()}),
}


def _counts(text: str | None) -> Counts | None:
    return None if text is None else Counts(**json.loads(text))


def _live(text: str) -> Live:
    values = json.loads(text)
    return Live(**{**values, "call_buckets": tuple(values["call_buckets"])})


def _webhook(text: str | None) -> Webhook | None:
    if text is None:
        return None
    values = json.loads(text)
    return Webhook(values["url"], tuple(values["events"]))


def _speed(text: str | None) -> Speed | None:
    if text is None:
        return None
    values = json.loads(text)
    return Speed(**{**values, "at": datetime.fromisoformat(values["at"])})


_FROM_TEXT: dict[str, Callable[[Any], Any]] = {
    "spec": lambda text: JobSpec.from_json(json.loads(text)),
    "counts": _counts,
    "already": _counts,
    "shown": _counts,
    "seconds": lambda text: Seconds(**json.loads(text)),
    "live": _live,
    "webhook": _webhook,
    "speed": _speed,
    "notices": lambda text: tuple(map(Notice.from_json, json.loads(text or "[]"))),
    "labels": json.loads,
    "times": lambda text: {status: datetime.fromisoformat(at) for status, at in json.loads(text).items()},
}


def _time(value: Any) -> datetime | None:
    """A time as SQLite, which keeps text, or PostgreSQL gives it."""
    if value is None:
        return None
    at = datetime.fromisoformat(value) if isinstance(value, str) else value
    return at.replace(tzinfo=UTC)


def _job(row: "sa.Row[Any]") -> Job:
    values = tuple(row)
    is_small = sum(len(value) for value in values if isinstance(value, str)) <= _KEPT_CHARS
    return _kept(values) if is_small else _read(values)


@lru_cache(maxsize=_KEPT_READ)
def _kept(row: tuple[Any, ...]) -> Job:
    return _read(row)


def _read(row: tuple[Any, ...]) -> Job:
    values = dict(zip(_JOB_NAMES, row, strict=True))
    for column in _JOB_COLUMNS:
        if isinstance(column.type, tables.Utc):
            values[column.name] = _time(values[column.name])
        elif isinstance(column.type, sa.Boolean):
            values[column.name] = bool(values[column.name])
    for name, read in _FROM_TEXT.items():
        values[name] = read(values[name])
    return Job(**values)


__all__ = ["QUEUE_WAIT_BUCKETS_S", "SqlJobStore", "add_job", "cancel_earlier_jobs"]
