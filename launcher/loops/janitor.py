"""The janitor: removes what the service keeps of jobs that ended long ago, and, when asked to, all of one at once.

What users had written to places of their own stays.
"""

import contextlib
import logging
import shutil
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from launcher import ATTEMPT
from launcher.errors import (
    AsideFailed,
    Conflict,
    ConnectionUnknown,
    JobAlive,
    JobUnknown,
    LauncherError,
    StoreUnavailable,
)
from launcher.forks.aside import call_aside
from launcher.forks.forking import Forks
from launcher.home import Home
from launcher.logs import fields_of
from launcher.reach.tenant import Reach
from launcher.settings import Settings
from launcher.state.deliveries import Deliveries
from launcher.state.idempotency import Idempotency
from launcher.state.job import TERMINAL, Job
from launcher.state.store import JobStore

# Jobs at one go; there is a next one soon.
_AT_ONCE = 20
# Discarding what was staged asks the destination; one that is away is asked again, for a week.
_DISCARD_S = 60.0
_TRIED_AGAIN_EVERY = timedelta(hours=1)
_TRIED_FOR = timedelta(days=7)
# How long a request may be repeated under its key: longer than any client keeps on trying.
IDEMPOTENCY_HOURS = 24.0
# What tells how a job went is small, and kept.
_KEPT = ("log", "lock")

_log = logging.getLogger("launcher.loops.janitor")


class Janitor:
    """Expires jobs, and forgets old keys and deliveries."""

    def __init__(
        self,
        home: Home,
        store: JobStore,
        idempotency: Idempotency,
        deliveries: Deliveries,
        reach: Reach,
        settings: Settings,
        forks: Forks,
        attempt_module: str = ATTEMPT,
    ) -> None:
        self._home = home
        self._store = store
        self._idempotency = idempotency
        self._deliveries = deliveries
        self._reach = reach
        self._settings = settings
        self._forks = forks
        self._attempt_module = attempt_module
        self._look_again_at = datetime.min.replace(tzinfo=UTC)
        self._tidied_to: datetime | None = None

    def tick(self) -> int:
        """Expire some jobs, and tidy some away. Returns how many have expired."""
        now = self._store.clock()
        before = now - timedelta(hours=self._settings.result_ttl_hours)
        if now >= self._look_again_at:
            self._tidy_more(now)
        expired = 0
        for job in self._store.expirable(before, _AT_ONCE):
            with self._troubles(job):
                self._tidy(job)
                expired += 1
        self._idempotency.sweep(now - timedelta(hours=IDEMPOTENCY_HOURS))
        self._deliveries.sweep(before)
        return expired

    def purge(self, job: Job) -> None:
        """Remove a job that is over, at once: what it staged and what the service kept, in the end its record.

        What it published where its user wanted it stays. Cut off at any moment, it can be called again; until then the
        job shows as expired. Where the service does not know the destination any more, what was staged there stays; so
        do staging tables without a row of a job that failed before its first one, where the destination is away.

        Raises:
            JobUnknown: there is none.
            JobAlive: its process is still there.
            Conflict: it is not over.
            AsideFailed: the destination was not reached, so what was staged there is still to be removed.
            HomeUnusable, StoreUnavailable: something could not be removed.
        """
        folder = self._home.job(job.id)
        lock = folder.lock(job.id, job.pid) if folder.path.is_dir() else None
        try:
            # First, so that from now on nobody asks for it again.
            job = self._store.expire(job.id)
            if lock is not None:
                if job.status != "completed" and job.started_at is not None:
                    self._discard_known(job)
                folder.delete()
            self._store.delete(job.id, TERMINAL)
        finally:
            if lock is not None:
                lock.release()
        _log.info("%s is purged", job.id, extra=fields_of(job))

    def _tidy_more(self, now: datetime) -> None:
        """Try again where a launcher died over it, or the destination was away."""
        some = self._store.untidied(_AT_ONCE, self._tidied_to)
        for job in some:
            self._tidied_to = job.expired_at
            with self._troubles(job):
                self._tidy(job, is_last=job.expired_at is not None and now - job.expired_at > _TRIED_FOR)
        if len(some) < _AT_ONCE:
            # All were looked at once.
            self._tidied_to = None
            self._look_again_at = now + _TRIED_AGAIN_EVERY

    @contextlib.contextmanager
    def _troubles(self, job: Job) -> Iterator[None]:
        try:
            yield
        except (JobAlive, JobUnknown, Conflict):
            # Its process is still there, or somebody has asked for it again just now.
            pass
        except StoreUnavailable:
            raise
        except (LauncherError, OSError) as error:
            _log.warning("%s is not tidied away: %s", job.id, error, extra=fields_of(job))

    def _tidy(self, job: Job, is_last: bool = False) -> None:
        """Delete what the service kept of a job.

        Args:
            is_last: give up on what cannot be removed.
        """
        folder = self._home.job(job.id)
        lock = folder.lock(job.id, job.pid) if folder.path.is_dir() else None
        try:
            # First, so that from now on nobody asks for it again.
            job = self._store.expire(job.id)
            if lock is not None:
                if job.status != "completed" and job.started_at is not None:
                    self._discard_in_time(job, is_last)
                for path in folder.path.iterdir():
                    if path.name not in _KEPT:
                        _remove(path)
        finally:
            if lock is not None:
                lock.release()
        self._store.tidied(job.id)
        _log.info("%s has expired", job.id, extra=fields_of(job))

    def _discard_in_time(self, job: Job, is_last: bool) -> None:
        try:
            self._discard(job, self._uris(job))
        except AsideFailed as error:
            if not is_last:
                raise
            _log.error("what %s staged stays where it is: %s", job.id, error, extra=fields_of(job))

    def _discard(self, job: Job, connections: Mapping[str, str] | None) -> None:
        """Remove what a job that will not go on has staged at its destination."""
        call_aside(
            self._forks,
            "launcher.worker.discarding:discard",
            {
                "job_id": job.id,
                "spec": job.spec.to_json(),
                "connections": None if connections is None else dict(connections),
                "folder": str(self._home.job(job.id).path),
                "attempt_module": self._attempt_module,
            },
            timeout_s=_DISCARD_S,
            working_dir=str(self._home.path),
            environment=self._settings.job_environment,
        )

    def _uris(self, job: Job) -> Mapping[str, str]:
        try:
            return self._reach.destination(job)
        except StoreUnavailable:
            raise
        except LauncherError:
            return {}

    def _discard_known(self, job: Job) -> None:
        """The same, where the destination is still known and, unless it holds no row of the job, reached."""
        connections: Mapping[str, str] | None = None
        try:
            connections = self._reach.destination(job)
        except ConnectionUnknown as error:
            _log.warning("what %s staged stays where it is: %s", job.id, error, extra=fields_of(job))
        try:
            self._discard(job, connections)
        except AsideFailed as error:
            if "running" in job.times:
                raise
            _log.warning("what %s made while preparing stays where it is: %s", job.id, error, extra=fields_of(job))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
