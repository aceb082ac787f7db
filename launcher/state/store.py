"""Where jobs are kept, whatever keeps them."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from launcher.state.job import ACTIVE, Job, Move, Status


@dataclass(frozen=True)
class Filter:
    """Which jobs of a tenant are wanted; None and empty want all.

    Args:
        tenant: whose.
        statuses: in one of these states.
        model_id, schedule_id: of this model, made by this schedule.
        since, until: created at or after, and before.
    """

    tenant: str
    statuses: tuple[Status, ...] = ()
    model_id: str | None = None
    schedule_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class Position(NamedTuple):
    """A place in the list of jobs: behind this one."""

    created_at: datetime
    job_id: str


@dataclass(frozen=True)
class Past:
    """What a job has cost that ended well at its first attempt.

    Args:
        rows: of its input.
        seconds: from its start to its end.
        score_s: of that the model's, of all threads together.
        batch_size, parallelism: of its spec.
    """

    rows: int
    seconds: float
    score_s: float
    batch_size: int = 1000
    parallelism: int = 4


class Ended(NamedTuple):
    """That an attempt of a job was its last, whose it was, and when it ended."""

    job_id: str
    attempt: int
    owner: str | None
    finished_at: datetime


class JobStore(Protocol):
    """Jobs by id: values in, values out. Any number of threads and processes may use one store at once.

    Every method may raise `StoreUnavailable`: nothing was changed then.
    """

    def add(self, job: Job, reason: str, webhook_secret: str | None = None) -> None:
        """Record a new job and, with `reason`, its first move.

        Args:
            webhook_secret: what signs the job's webhooks; it never comes back with the job.

        Raises:
            JobExists: the id is taken.
        """

    def get(self, job_id: str) -> Job:
        """The job as it stands.

        Raises:
            JobUnknown: there is none.
        """

    def jobs(self) -> list[Job]:
        """All jobs, the newest first."""

    def page(self, wanted: Filter, limit: int, after: Position | None = None) -> list[Job]:
        """Up to `limit` jobs of one tenant, the newest first. Jobs that are added meanwhile do not shift the next page.

        Args:
            after: the last job of the page before.
        """

    def at_work(self) -> list[Job]:
        """Managed jobs that a process works on, or should."""

    def overdue(self) -> list[Job]:
        """Managed jobs that wait, and whose time is over, or who were told to stop."""

    def expirable(self, before: datetime, limit: int) -> list[Job]:
        """Managed jobs that ended before a time and of which something is still kept, the oldest first."""

    def expire(self, job_id: str) -> Job:
        """Say that what the service kept of a job goes: from now on no attempt goes on from it. Said again, it is so.

        Raises:
            JobUnknown: there is none.
            Conflict: it is not over.
        """

    def untidied(self, limit: int, after: datetime | None = None) -> list[Job]:
        """Up to `limit` jobs that have expired, and of which something may be left to delete, the first first.

        Args:
            after: only those that expired after this.
        """

    def tidied(self, job_id: str) -> None:
        """Say that nothing is left of an expired job, or nothing that can be deleted."""

    def clock(self) -> datetime:
        """The time, as everybody who shares the store sees it: what times in it are to be compared with."""

    def ended(self, since: datetime) -> list[Ended]:
        """Managed jobs that ended at or after a time and have not been asked for again, the first first.

        One may come to be seen some moments after others that ended after it.
        """

    def count_by_status(self) -> dict[tuple[str, Status], int]:
        """How many jobs there are, by tenant and state."""

    def count(self, schedule_id: str, statuses: Collection[Status] = ACTIVE) -> int:
        """How many jobs of a schedule are in some states."""

    def past(self, tenant: str, model_id: str, model_version: int | None) -> list[Past]:
        """The last completed jobs of a model, the newest first: a few, of those that needed one attempt."""

    def past_of_all(self, tenant: str) -> list[Past]:
        """The last completed jobs of a tenant, likewise."""

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
        """Move a job that is in an expected state, and record the move: of many that try, one does it.

        Args:
            attempt: the fencing token; None does not ask. A move of an attempt that is no longer the job's is refused.
            changes: further fields of the job, set together with the move.

        Returns:
            The job after it.

        Raises:
            JobUnknown: there is none.
            Conflict: it is in another state, or in another attempt; it was told to stop, and nothing of it is published
                yet; it has expired.
            MoveForbidden: the table of moves does not have it.
        """

    def claim(self, owner: str, most: int, per_tenant: int, lease_s: float) -> list[Job]:
        """Take jobs from the queues: each is moved to `preparing`, and its process has to be started by the caller.

        Tenants with fewer jobs at work come first; of one tenant, the job that waits longest. A job is claimed by one
        caller, and a tenant never has more than `per_tenant` jobs at work, however many callers there are.

        Args:
            owner: the launcher that claims.
            most: jobs to take at once.
            lease_s: by when its process has to be heard of.
        """

    def beat(self, job_id: str, attempt: int, lease_s: float, **changes: Any) -> bool:
        """Tell that an attempt lives, and how far it is (`changes`). Returns whether it has been told to stop.

        Raises:
            JobUnknown: there is none.
            Conflict: another attempt is under way, or the job is over: stop at once, and touch nothing.
        """

    def update(self, job_id: str, expected: Collection[Status], **changes: Any) -> Job:
        """Set fields of a job that is in an expected state, without a move.

        Raises:
            JobUnknown: there is none.
            Conflict: it is in another state.
        """

    def request_cancel(self, job_id: str, reason: str) -> Job:
        """Cancel a job that waits at once; tell the process of one at work to stop. Asked again, it does nothing.

        Raises:
            JobUnknown: there is none.
            Conflict: it is over.
        """

    def moves(self, job_id: str) -> list[Move]:
        """The moves of a job, the first first. Empty when there is no such job."""

    def totals(self) -> dict[tuple[str, str], float]:
        """Counters of all launchers together, by name and label: what has ended, and what is at work."""

    def delete(self, job_id: str, expected: Collection[Status]) -> None:
        """Forget a job, its moves, what was still to be told of it, and that it was the last one of a schedule.

        Raises:
            JobUnknown: there is none.
            Conflict: it is in another state than expected.
        """

    def close(self) -> None:
        """Let go of connections. The store is not used after."""
