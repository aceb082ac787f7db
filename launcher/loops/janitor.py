"""The janitor: removes what the service keeps of jobs that ended long ago.

What users had written to places of their own stays.
"""

import logging
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from launcher import ATTEMPT
from launcher.errors import AsideFailed, Conflict, JobAlive, JobUnknown, LauncherError, StoreUnavailable
from launcher.forks.aside import call_aside
from launcher.forks.forking import Forks
from launcher.home import Home
from launcher.reach.tenant import Reach
from launcher.settings import Settings
from launcher.state.deliveries import Deliveries
from launcher.state.idempotency import Idempotency
from launcher.state.job import TERMINAL, Job
from launcher.state.store import JobStore

# Jobs at one go; there is a next one soon.
_AT_ONCE = 20
# Discarding what was staged asks the destination.
_DISCARD_S = 60.0
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

    def tick(self) -> int:
        """Expire some jobs. Returns how many."""
        now = datetime.now(UTC)
        before = now - timedelta(hours=self._settings.result_ttl_hours)
        expired = 0
        for job in self._store.expirable(before, _AT_ONCE):
            try:
                expired += self._expire(job)
            except (JobAlive, JobUnknown, Conflict):
                continue
            except StoreUnavailable:
                raise
            except (LauncherError, OSError) as error:
                _log.warning("%s does not expire: %s", job.id, error, extra={"job_id": job.id, "tenant": job.tenant})
        self._idempotency.sweep(now - timedelta(hours=IDEMPOTENCY_HOURS))
        self._deliveries.sweep(before)
        return expired

    def _expire(self, job: Job) -> bool:
        folder = self._home.job(job.id)
        if folder.path.is_dir():
            lock = folder.lock(job.id, job.pid)
            try:
                # Not one that somebody has asked for again just now.
                if self._store.get(job.id).status not in TERMINAL:
                    return False
                if job.status != "completed" and job.started_at is not None:
                    self._discard(job)
                for path in folder.path.iterdir():
                    if path.name not in _KEPT:
                        _remove(path)
            finally:
                lock.release()
        self._store.update(job.id, TERMINAL, expired_at=datetime.now(UTC))
        _log.info("%s has expired", job.id, extra={"job_id": job.id, "tenant": job.tenant})
        return True

    def _discard(self, job: Job) -> None:
        """Remove what a job that will not go on has staged at its destination."""
        try:
            call_aside(
                self._forks,
                "launcher.worker.discarding:discard",
                {
                    "job_id": job.id,
                    "spec": job.spec.to_json(),
                    "connections": dict(self._uris(job)),
                    "folder": str(self._home.job(job.id).path),
                    "attempt_module": self._attempt_module,
                },
                timeout_s=_DISCARD_S,
                working_dir=str(self._home.path),
                environment=self._settings.job_environment,
            )
        except AsideFailed as error:
            _log.warning("what %s staged could not be removed: %s", job.id, error, extra={"job_id": job.id})

    def _uris(self, job: Job) -> Mapping[str, Any]:
        try:
            return self._reach.uris(job)
        except StoreUnavailable:
            raise
        except LauncherError:
            return {}


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
