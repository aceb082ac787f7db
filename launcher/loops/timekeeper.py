"""The timekeeper: makes the jobs of schedules that are due."""

import contextlib
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from launcher.admission import Admission, Caller
from launcher.cron import Cron, decide_missed
from launcher.errors import Conflict, JobExists, JobUnknown, LauncherError, NotNow, StoreUnavailable
from launcher.request.service import Defaults, job_request
from launcher.state.job import ACTIVE, AT_WORK, Job
from launcher.state.schedules import Schedule, Schedules, run_id
from launcher.state.sql import SqlJobStore
from launcher.state.store import Filter
from launcher.templates import render

# A run that is made this late is on time: a launcher looks twice a second, and restarts within a minute.
GRACE_S = 60.0
_AT_ONCE = 100

_log = logging.getLogger("launcher.loops.timekeeper")


class Timekeeper:
    """Fires schedules. Of several launchers that look at once, one makes each job."""

    def __init__(
        self,
        store: SqlJobStore,
        schedules: Schedules,
        admission: Admission,
        defaults: Defaults,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._schedules = schedules
        self._admission = admission
        self._defaults = defaults
        self._now = now

    def tick(self) -> int:
        """Fire what is due. Returns how many jobs were made."""
        made = 0
        for schedule in self._schedules.due(self._now(), _AT_ONCE):
            try:
                made += self._fire(schedule)
            except StoreUnavailable:
                raise
            except LauncherError as error:
                _log.warning("schedule %s: %s", schedule.id, error, extra={"tenant": schedule.tenant})
        return made

    def make(self, schedule: Schedule, scheduled_at: datetime, job_id: str) -> Job:
        """The job of one run, not recorded yet.

        Raises:
            LauncherError: the body, its templates filled in, makes no job; the line says why.
        """
        body: dict[str, Any] = render(dict(schedule.job), scheduled_at, schedule.timezone, job_id)
        request = job_request(body, self._defaults)
        return self._admission.make(
            Caller(schedule.tenant, schedule.role),
            request,
            job_id=job_id,
            schedule_id=schedule.id,
            scheduled_at=scheduled_at,
        )

    def run_now(self, schedule: Schedule, job_id: str) -> Job:
        """Make a job of a schedule at once, beside its times; asked again under the same id, it is the same job.

        Raises:
            NotNow: another job has this id.
            LauncherError: as `make`.
        """
        with contextlib.suppress(JobUnknown):
            # Whatever it names may be gone by now.
            return self._own(schedule, job_id)
        job = self.make(schedule, self._now(), job_id)
        with contextlib.suppress(JobExists):
            self._schedules.run(job, f"schedule {schedule.id}, run on request", schedule.webhook_secret)
        return self._own(schedule, job_id)

    def _own(self, schedule: Schedule, job_id: str) -> Job:
        job = self._store.get(job_id)
        if job.schedule_id != schedule.id:
            # Ids are short, and chance may have made the same one for another.
            raise NotNow("the id of this job is taken; send the request again, under another key")
        return job

    def _fire(self, schedule: Schedule) -> int:
        assert schedule.next_at is not None
        now = self._now()
        cron = Cron(schedule.cron, schedule.timezone)
        due = cron.missed(schedule.next_at - timedelta(microseconds=1), now)
        at = decide_missed(schedule.missed, due, now, GRACE_S)  # type: ignore[arg-type]
        following = cron.next_after(now)
        job: Job | None = None
        skipped = None
        if at is None:
            skipped = f"missed {due[-1].isoformat()}, and missed runs are skipped" if due else None
        elif schedule.overlap == "skip" and self._store.count(schedule.id):
            skipped = f"the run before {at.isoformat()} is not over"
        else:
            try:
                job = self.make(schedule, at, run_id(schedule.id, at))
            except StoreUnavailable:
                # The schedule stays due.
                raise
            except LauncherError as error:
                skipped = "; ".join(str(error).splitlines())
            except Exception as error:
                # The schedules behind it, of other tenants perhaps, must not wait for it for ever.
                _log.exception("schedule %s broke", schedule.id, extra={"tenant": schedule.tenant})
                skipped = f"no job could be made of it: {type(error).__name__}"
        reason = f"schedule {schedule.id}, due {at.isoformat() if at else 'before'}"
        fired = self._schedules.fire(
            schedule.id, schedule.next_at, following, job, reason, schedule.webhook_secret, skipped
        )
        if not fired:
            return 0
        if skipped is not None:
            _log.warning("schedule %s: %s", schedule.id, skipped, extra={"tenant": schedule.tenant})
        if job is None:
            return 0
        if schedule.overlap == "cancel_running":
            self._cancel_others(schedule, job.id)
        return 1

    def _cancel_others(self, schedule: Schedule, but: str) -> None:
        wanted = Filter(schedule.tenant, statuses=tuple(ACTIVE), schedule_id=schedule.id)
        for job in self._store.page(wanted, limit=500):
            if job.id != but and job.status in AT_WORK | {"submitted"}:
                try:
                    self._store.request_cancel(job.id, f"cancelled for {but}, the next run of its schedule")
                except (Conflict, JobUnknown):
                    continue
